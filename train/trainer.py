"""The trainer that every stage shares: transformers' Trainer with our data order, loss and optimiser.

The Trainer brings devices, accumulation, distributed training (`train.distributed`) and clipping. What is overridden:

- the data is a `Plan`; an item is a whole micro-batch, so accelerate deals out micro-batches to processes;
- each branch of a micro-batch is back-propagated before the next one switches adapters;
- dropout masks are keyed by (seed, micro-batch): a resumed run draws the same ones without any saved state.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers.trainer import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.training_args import TrainingArguments

from train import distributed
from train.collate import IGNORED, Padded, pad
from train.encode import Encoded
from train.lora import AdapterSwitch
from train.plan import Plan, StageError
from train.seeds import derive_seed
from train.stages import Recipe

Batch = dict[str, Any]


class PlannedBatches(Dataset[Batch]):
    """The micro-batches of a plan from `start` on, padded when they are asked for.

    Those that `processes` processes train at the same time have equally many branches.
    """

    def __init__(self, plan: Plan, rows: Sequence[Encoded], pad_id: int, start: int = 0) -> None:
        self._plan = plan
        self._rows = rows
        self._pad_id = pad_id
        self._start = start
        self.processes = 1

    def __len__(self) -> int:
        return len(self._plan.micro_batches) - self._start

    def __getitem__(self, item: int) -> Batch:
        index = item + self._start
        branches = distributed.evened(self._plan, index, self.processes)
        padded: dict[tuple[int, ...], Padded] = {}
        for branch in branches:
            if branch.rows not in padded:
                padded[branch.rows] = pad([self._rows[i] for i in branch.rows], self._pad_id)
        batches = [padded[branch.rows] for branch in branches]
        return {
            "index": index,
            "knowledge": [branch.knowledge for branch in branches],
            "weight": [branch.weight for branch in branches],
            "input_ids": [batch.input_ids for batch in batches],
            "targets": [batch.targets for batch in batches],
            "keep": [batch.keep for batch in batches],
        }


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trains the adapter of one stage over a plan.

    `done` updates have been trained before (a resumed run). `on_update` is called on every process after each
    update, with the number of updates done and the loss of this one.
    """

    def __init__(
        self,
        switch: AdapterSwitch,
        plan: Plan,
        rows: Sequence[Encoded],
        *,
        recipe: Recipe,
        seed: int,
        pad_id: int,
        bf16: bool,
        scratch_dir: Path,
        on_update: Callable[[int, float], None],
        done: int = 0,
        kernels: str = "torch",
    ) -> None:
        self._switch = switch
        self._plan = plan
        self._recipe = recipe
        self._seed = seed
        self._bf16 = bf16
        self._done = done
        self._scheduled = plan.updates
        self._optimiser: torch.optim.Optimizer | None = None
        args = _arguments(recipe, plan.updates - done, scratch_dir, kernels)
        if plan.per_update % args.world_size:
            raise StageError(
                f"recipe: {plan.per_update} micro-batches an update cannot be dealt out to {args.world_size} "
                f"processes; lower micro_batch_size to at most {recipe.batch_size // args.world_size}"
            )
        args.gradient_accumulation_steps = plan.per_update // args.world_size
        batches = PlannedBatches(plan, rows, pad_id, start=done * plan.per_update)
        super().__init__(
            model=switch.model,
            args=args,
            train_dataset=batches,
            data_collator=_only_item,
            callbacks=[_AfterUpdate(self, on_update)],
        )
        self._sharded = distributed.shards_base(self.accelerator, switch.model)
        if self._sharded:
            batches.processes = args.world_size
        # The plan's weights already are 1 / (target tokens of the whole update).
        self.model_accepts_loss_kwargs = False
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)
        self._update_loss = torch.zeros((), device=self.args.device)
        # Once: nothing here evaluates, and a DDP wrapper's own flag says nothing of the model inside.
        switch.model.train()
        # The Trainer clears gradients through the model, which walks over all of its modules on every update.
        switch.model.zero_grad = self._zero_grad

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the trained adapter alone."""
        if self._optimiser is None:
            recipe = self._recipe
            self._optimiser = self.optimizer = torch.optim.AdamW(
                self._switch.parameters,
                lr=recipe.learning_rate,
                betas=(recipe.beta1, recipe.beta2),
                weight_decay=recipe.weight_decay,
                fused=True,
            )
        return self._optimiser

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Linear warm-up, then a cosine down to `min_lr_ratio`, as a closed form of the number of updates."""
        recipe, total, done = self._recipe, self._scheduled, self._done
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.create_optimizer(), lambda step: learning_rate_factor(step + done, total, recipe)
        )
        return self.lr_scheduler

    def training_step(self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every branch of one micro-batch; returns its weighted loss."""
        inputs = self._prepare_inputs(inputs)
        torch.manual_seed(derive_seed(self._seed, "dropout", inputs["index"]))
        total = torch.zeros((), device=self.args.device)
        last = len(inputs["weight"]) - 1
        for i, weight in enumerate(inputs["weight"]):
            self._switch.activate(inputs["knowledge"][i])
            # Processes may hold different numbers of branches, but each holds a last one: gradients are
            # exchanged there.
            with self.accelerator.no_sync(model) if i < last else contextlib.nullcontext():
                with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bf16):
                    summed = summed_cross_entropy(
                        model, inputs["input_ids"][i], inputs["targets"][i], inputs["keep"][i]
                    )
                loss = summed * weight
                # Gradients are averaged over processes; the plan's weights ask for their sum.
                self.accelerator.backward(loss * self.args.world_size)
            total += loss.detach()
        if self._sharded and self.accelerator.sync_gradients:
            distributed.average_gradients(self._switch.parameters)
        self._update_loss += total
        return total

    def take_update_loss(self) -> float:
        """The loss of the update just made, over all processes; starts the next sum."""
        loss = self.accelerator.reduce(self._update_loss, "sum").item()
        self._update_loss = torch.zeros_like(self._update_loss)
        return float(loss)

    def floating_point_ops(self, inputs: Batch) -> int:
        """Not counted: the Trainer would walk over all parameters on every step."""
        return 0

    def _zero_grad(self, set_to_none: bool = True) -> None:
        self.create_optimizer().zero_grad(set_to_none)

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        return self.accelerator.clip_grad_norm_(self._switch.parameters, self._recipe.max_grad_norm)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        return grad_norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


def summed_cross_entropy(
    model: torch.nn.Module, input_ids: torch.Tensor, targets: torch.Tensor, keep: torch.Tensor | None
) -> torch.Tensor:
    """The summed negative log-likelihood of the targets in nats; logits are made where they are kept."""
    at = {} if keep is None else {"logits_to_keep": keep}
    logits = model(input_ids=input_ids, use_cache=False, **at).logits
    return torch.nn.functional.cross_entropy(
        logits.float().reshape(-1, logits.shape[-1]),
        targets.reshape(-1),
        ignore_index=IGNORED,
        reduction="sum",
    )


def learning_rate_factor(step: int, total: int, recipe: Recipe) -> float:
    """The share of the peak learning rate used by update number `step` (from 0) of `total`."""
    warmup = math.ceil(recipe.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return recipe.min_lr_ratio + (1 - recipe.min_lr_ratio) * cosine


class _AfterUpdate(TrainerCallback):  # type: ignore[misc]
    """Hands each finished update to the caller."""

    def __init__(self, trainer: StageTrainer, on_update: Callable[[int, float], None]) -> None:
        self._trainer = trainer
        self._on_update = on_update

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self._trainer
        self._on_update(trainer._done + state.global_step, trainer.take_update_loss())


def _only_item(items: list[Batch]) -> Batch:
    (item,) = items
    return item


def _arguments(recipe: Recipe, updates: int, scratch_dir: Path, kernels: str) -> TrainingArguments:
    args = TrainingArguments(
        **only_training(recipe, updates, scratch_dir),
        use_liger_kernel=kernels == "liger",
        # Logits stay: the loss takes the few that carry a target, Liger's would make all of them.
        liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},
    )
    # Several visible GPUs in one process would mean nn.DataParallel, which scatters and knows nothing of
    # branches.
    args._n_gpu = min(args.n_gpu, 1)
    return args


def only_training(recipe: Recipe, updates: int, scratch_dir: Path) -> dict[str, Any]:
    """Arguments of transformers' Trainer, and of those built on it, that switch off all it does besides training.

    An item of the data set is a whole micro-batch.
    """
    on_cpu = not torch.accelerator.is_available()
    return {
        "output_dir": str(scratch_dir),
        "use_cpu": on_cpu,
        # Without the backend's name, accelerate lets each of several CPU processes train alone.
        "ddp_backend": "gloo" if on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        "per_device_train_batch_size": 1,
        "max_steps": updates,
        "max_grad_norm": recipe.max_grad_norm,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": False,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
    }
