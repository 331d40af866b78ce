"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) from an SFT adapter, through TRL.

TRL brings the loss, -log sigmoid(beta * (chosen log-ratio - rejected log-ratio)), and the frozen copy of the start
adapter that is the reference. What is ours:

- prompts and responses are encoded as every other stage encodes them (one BOS, a trained EOS, the same template);
- the data is a `Plan`: pairs of similar length share a micro-batch, and the loss of an update is an exact mean over
  its pairs however it is cut;
- the reference log-probabilities are computed once, before the first update;
- the first loss must be ln 2, which it is only when policy and reference are the same model.

`batch_size` and `micro_batch_size` of the recipe count pairs. Rank, alpha and target modules are those of the start
adapter, and there is no dropout: the log-ratios would be noise.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from train.collate import IGNORED
from train.encode import Encoded, encode_examples
from train.hardware import load_base, uses_bf16
from train.lora import CONTINUED, open_adapter, save_adapter, scale_narrowly
from train.plan import Branch, Plan, StageError, micro_batches_per_update, split, visits
from train.run import StageReport
from train.stages import Recipe, Stage
from train.trainer import learning_rate_factor, only_training

FIRST_LOSS_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Two responses to one prompt, each a whole training sequence."""

    chosen: Encoded
    rejected: Encoded

    @property
    def length(self) -> int:
        """Tokens of the longer sequence."""
        return max(len(self.chosen.ids), len(self.rejected.ids))


def train_dpo(
    stage: Stage,
    base_dir: Path,
    folders: Mapping[str, Path],
    staging: Path,
    checkpoint_dir: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> StageReport:
    """Train the adapter of `stage.start` further on `stage.pairs` and write it to `staging` as a peft folder.

    `folders` holds the adapter of `stage.start`. A killed run starts again from the beginning, so
    `checkpoint_dir` stays unused: on a CPU the weights depend on nothing but the stage. Responses longer than
    `max_length` lose their end and their EOS, as in SFT, and are counted in the report. Raises StageError when
    there is no pair or the first loss is not ln 2, EncodingError and AdapterError as their modules say.
    """
    from transformers import AutoTokenizer

    started = time.monotonic()
    recipe = stage.recipe
    tokenizer = AutoTokenizer.from_pretrained(str(base_dir))
    pairs, truncated = encode_pairs(stage, tokenizer)
    plan = plan_pairs(pairs, recipe, stage.seed)
    bf16 = uses_bf16(recipe.precision)
    model = open_adapter(load_base(base_dir, bf16=bf16), _start_folder(stage, folders))
    losses: list[float] = []

    def after_update(loss: float) -> None:
        if not losses and abs(loss - math.log(2)) > FIRST_LOSS_TOLERANCE:
            raise StageError(
                f"stage {stage.name!r} (dpo): the first loss is {loss:.4f} instead of ln 2 = 0.6931, so the model does "
                "not start as its own reference; train the adapter of `start` again"
            )
        losses.append(loss)
        if progress and trainer.is_world_process_zero():
            progress(len(losses), plan.updates, loss)

    gc.freeze()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trainer = PairTrainer(
                model, plan, pairs, stage=stage, tokenizer=tokenizer, bf16=bf16, scratch=scratch, on_update=after_update
            )
            trainer.train()
    finally:
        gc.unfreeze()
    save_adapter(model, staging, base_dir, CONTINUED)
    return StageReport(
        updates=plan.updates,
        tokens=sum(
            len(pairs[i].chosen.ids) + len(pairs[i].rejected.ids)
            for batch in plan.micro_batches
            for branch in batch
            for i in branch.rows
        ),
        seconds=time.monotonic() - started,
        loss=losses[-1],
        losses=tuple(losses),
        truncated=truncated,
        precision="bf16" if bf16 else "fp32",
    )


def encode_pairs(stage: Stage, tokenizer: Any) -> tuple[list[EncodedPair], int]:
    """The pairs of a stage as SFT would encode each response, and how many responses were cut at `max_length`.

    Raises StageError where there is no pair and EncodingError as `encode_examples` does.
    """
    if not stage.pairs:
        raise StageError(
            f"pairs: stage {stage.name!r} (dpo) has no pair, since no two responses to a prompt differ in score; "
            "sample more responses, at a higher temperature, or lower min_gap"
        )
    chosen = [replace(pair.example, completion=pair.chosen) for pair in stage.pairs]
    rejected = [replace(pair.example, completion=pair.rejected) for pair in stage.pairs]
    encoded = encode_examples([*chosen, *rejected], tokenizer, stage.template, stage.recipe.max_length)
    better, worse = encoded.rows[: len(chosen)], encoded.rows[len(chosen) :]
    return [EncodedPair(c, r) for c, r in zip(better, worse, strict=True)], encoded.truncated


def plan_pairs(pairs: Sequence[EncodedPair], recipe: Recipe, seed: int) -> Plan:
    """Shuffled epochs of pairs, one after another; pairs of similar length share a micro-batch."""
    parts = micro_batches_per_update(recipe)
    planned = []
    for update in visits(len(pairs), recipe, seed):
        by_length = sorted(update, key=lambda i: (pairs[i].length, i))
        planned += [(Branch(tuple(piece), 1 / len(update)),) for piece in split(by_length, parts)]
    return Plan(tuple(planned), parts)


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPO trainer over planned micro-batches of encoded pairs.

    An item of the dataset is the number of a micro-batch, so accelerate deals out whole micro-batches to
    processes. `on_update` is called on every process after each update, with its loss.
    """

    def __init__(
        self,
        model: Any,
        plan: Plan,
        pairs: Sequence[EncodedPair],
        *,
        stage: Stage,
        tokenizer: Any,
        bf16: bool,
        scratch: str,
        on_update: Callable[[float], None],
    ) -> None:
        from datasets import Dataset

        self._plan = plan
        self._pairs = pairs
        self._recipe = stage.recipe
        self._bf16 = bf16
        self._pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._reference: dict[int, tuple[float, float]] = {}
        self._optimiser: torch.optim.Optimizer | None = None
        args = _arguments(stage, plan.updates, scratch)
        # TRL gathers figures of every pair, for which each process must hold as many.
        if args.world_size > 1 and (plan.per_update % args.world_size or stage.recipe.batch_size % plan.per_update):
            raise StageError(
                f"recipe: {stage.recipe.batch_size} pairs an update, {stage.recipe.micro_batch_size} at a time, cannot "
                f"be dealt out evenly to {args.world_size} processes; choose a batch_size that micro_batch_size "
                f"times {args.world_size} divides"
            )
        args.gradient_accumulation_steps = plan.per_update // args.world_size
        super().__init__(
            model=model,
            args=args,
            data_collator=self._batch,
            train_dataset=Dataset.from_dict({"micro_batch": list(range(len(plan.micro_batches)))}),
            processing_class=tokenizer,
            callbacks=[_AfterUpdate(self, on_update)],
        )
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)
        self._update_loss = torch.zeros((), device=self.args.device)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the adapter in training alone."""
        if self._optimiser is None:
            recipe = self._recipe
            self._optimiser = self.optimizer = torch.optim.AdamW(
                [p for p in self.model.parameters() if p.requires_grad],
                lr=recipe.learning_rate,
                betas=(recipe.beta1, recipe.beta2),
                weight_decay=recipe.weight_decay,
                fused=True,
            )
        return self._optimiser

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of every other stage."""
        recipe, total = self._recipe, self._plan.updates
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.create_optimizer(), lambda step: learning_rate_factor(step, total, recipe)
        )
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The micro-batch's share of the update's mean over pairs, times the number of micro-batches an update.

        The Trainer divides by its accumulation steps, and DDP by the processes: together, that number.
        """
        share = inputs.pop("share")
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bf16):
            loss: torch.Tensor = super().compute_loss(self._head(model), inputs) * share * self._plan.per_update
        self._update_loss += loss.detach() / self.args.gradient_accumulation_steps
        return loss

    def take_update_loss(self) -> float:
        """The loss of the update just made, over all processes; starts the next sum."""
        loss = self.accelerator.reduce(self._update_loss, "mean").item()
        self._update_loss = torch.zeros_like(self._update_loss)
        return float(loss)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer would walk over all parameters on every step."""
        return 0

    def _batch(self, items: list[dict[str, int]]) -> dict[str, Any]:
        (item,) = items
        (branch,) = self._plan.micro_batches[item["micro_batch"]]
        scores = [self._reference[i] for i in branch.rows]
        return _pad([self._pairs[i] for i in branch.rows], self._pad_id) | {
            "ref_chosen_logps": torch.tensor([chosen for chosen, _ in scores]),
            "ref_rejected_logps": torch.tensor([rejected for _, rejected in scores]),
            "share": len(branch.rows) * branch.weight,
        }

    def _head(self, model: Any) -> Any:
        return PlainHead(model) if self.args.device.type == "cpu" else model

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        # TRL has just added its reference adapter, which must compute in the way of the one in training.
        scale_narrowly(self.model)
        # In the micro-batches of training: in bf16 a sequence's figures depend a little on what it is batched with.
        for (branch,) in self._plan.micro_batches:
            if all(i in self._reference for i in branch.rows):
                continue
            inputs = self._prepare_inputs(_pad([self._pairs[i] for i in branch.rows], self._pad_id))
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bf16):
                chosen, rejected = self.compute_ref_log_probs(self._head(self.model), inputs)
            for i, better, worse in zip(branch.rows, chosen.tolist(), rejected.tolist(), strict=True):
                self._reference.setdefault(i, (better, worse))
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def _send_telemetry(self) -> None:
        """Nobody is told."""


class PlainHead:
    """Answers TRL's question for log-probabilities with one matrix product, where completions stand and nowhere else.

    TRL's own head works in tiles made for GPUs, scores prompts as well, and gathers figures for its log: on a CPU
    that took half of the time. Those figures are zero here; nothing is logged. Padding needs no mask: it stands on
    the right, where no real token looks under causal attention.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, input_ids: torch.Tensor, labels: torch.Tensor, **options: Any) -> SimpleNamespace:
        """Per-token log-probabilities (rows, length - 1) of `labels`, zero where a label is ignored."""
        targets = labels[:, 1:]
        first = int((targets != IGNORED).any(dim=0).nonzero()[0])
        keep = torch.arange(first, targets.shape[1])
        logits = self._model(input_ids=input_ids[:, :-1], use_cache=False, logits_to_keep=keep).logits
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, first:].flatten(), ignore_index=IGNORED, reduction="none"
        )
        log_probs = torch.nn.functional.pad(-losses.view(len(targets), -1), (first, 0))
        unknown = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=unknown, mean_logits=unknown, is_top1=unknown.bool())


class _AfterUpdate(TrainerCallback):  # type: ignore[misc]
    """Hands the loss of each finished update to the caller."""

    def __init__(self, trainer: PairTrainer, on_update: Callable[[float], None]) -> None:
        self._trainer = trainer
        self._on_update = on_update

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_update(self._trainer.take_update_loss())


def _pad(pairs: Sequence[EncodedPair], pad_id: int) -> dict[str, Any]:
    """Tensors (2 * pairs, length) padded on the right: first every chosen sequence, then every rejected one."""
    rows = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    length = max(len(row.ids) for row in rows)
    kept = [len(row.ids) for row in rows]
    return {
        "input_ids": torch.tensor([[*row.ids, *(pad_id,) * (length - len(row.ids))] for row in rows]),
        "attention_mask": torch.tensor([[1] * n + [0] * (length - n) for n in kept]),
        "completion_mask": torch.tensor(
            [
                [0] * row.trained_from + [1] * (n - row.trained_from) + [0] * (length - n)
                for row, n in zip(rows, kept, strict=True)
            ]
        ),
    }


def _start_folder(stage: Stage, folders: Mapping[str, Path]) -> Path:
    if stage.start is None:
        raise StageError(f"start: stage {stage.name!r} (dpo) starts from no adapter; give it an SFT stage")
    if len(folders) != 1:
        raise StageError(f"start: stage {stage.name!r} (dpo) takes one adapter to start from, not {len(folders)}")
    return next(iter(folders.values()))


def _arguments(stage: Stage, updates: int, scratch: str) -> DPOConfig:
    """TRL's own defaults (rate, bf16, checkpointing, logging, lengths) are all replaced by the recipe's."""
    recipe = stage.recipe
    args = DPOConfig(
        **only_training(recipe, updates, Path(scratch)),
        seed=stage.seed % 2**32,
        beta=stage.beta,
        loss_type=["sigmoid"],
        label_smoothing=0.0,
        disable_dropout=True,
        precompute_ref_log_probs=True,
        max_length=None,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    args._n_gpu = min(args.n_gpu, 1)
    return args
