"""The straightforward way to train a stage, which `benchmarks.training` measures ours against.

transformers' stock `Trainer` over rows in random order, as the paper's public code uses it: every batch is padded to
its longest row (of all versions, where a subject has several), logits are made at every position, adapters are plain
peft ones that `set_adapter` switches, and the skill losses are a `compute_loss` with one backward pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback
from transformers.training_args import TrainingArguments

from train.encode import Encoded, encode_examples, encode_texts
from train.hardware import uses_bf16
from train.seeds import derive_seed
from train.stages import Stage

SKILL = "skill"
IGNORED = -100


class PlainTrainer(Trainer):  # type: ignore[misc]
    """The stock Trainer with the two skill losses; `sft` and `knowledge` stages use the model's own loss.

    `draws` are the names of the frozen adapters of each micro-batch, fictitious rows' first; without them they are
    drawn at random. `used` counts the tokens that each micro-batch learnt from.
    """

    def __init__(self, stage: Stage, names: Mapping[str, Sequence[str]], draws: Sequence[Any] | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.stage, self.names, self.draws = stage, names, list(draws or ())
        self.random = random.Random(stage.seed)
        self.used: list[int] = []
        self.losses: list[float] = []
        self.active: tuple[str, ...] | None = None
        # The skill losses below are means over a micro-batch.
        if stage.kind.startswith("skill"):
            self.model_accepts_loss_kwargs = False

    def activate(self, *names: str | None) -> None:
        """Make the skill adapter active beside these frozen ones."""
        wanted = (SKILL, *(name for name in names if name))
        if wanted != self.active:
            self.model.base_model.set_adapter(list(wanted))
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad = f".{SKILL}." in name
            self.active = wanted

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        kinds = inputs.pop("kinds")
        if self.stage.kind == "skill_mixed":
            loss = self.mixed(model, inputs, kinds)
        elif self.stage.kind == "skill_multi_version":
            loss = self.multi_version(model, inputs, kinds)
        else:
            self.used.append(int(inputs["attention_mask"].sum()))
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.losses.append(loss.item())
        return loss

    def mixed(self, model: Any, inputs: Any, kinds: torch.Tensor) -> torch.Tensor:
        """CE(F and R), each under its knowledge, + lambda CE(R) under none."""
        self.used.append(int(inputs["attention_mask"].sum()))
        fake_name, real_name = self.draws.pop(0) if self.draws else self.drawn("fake", "real")
        made_up, real = select(inputs, kinds >= 0), select(inputs, kinds < 0)
        total, tokens = torch.zeros((), device=kinds.device), 0
        for rows, name in ((made_up, fake_name), (real, real_name)):
            if len(rows["input_ids"]):
                self.activate(name)
                loss, count = summed(model, rows)
                total, tokens = total + loss, tokens + count
        total = total / tokens
        if len(real["input_ids"]):
            self.activate()
            loss, count = summed(model, real)
            total = total + self.stage.real_weight * loss / count
        return total

    def multi_version(self, model: Any, inputs: Any, kinds: torch.Tensor) -> torch.Tensor:
        """CE(rows of v) under the knowledge of v, for one version v a micro-batch."""
        (name,) = self.draws.pop(0) if self.draws else self.drawn("fake")
        rows = select(inputs, kinds == int(name.rpartition("v")[2]))
        self.used.append(int(rows["attention_mask"].sum()))
        self.activate(name)
        loss, count = summed(model, rows)
        return loss / count

    def drawn(self, *kinds: str) -> list[str]:
        return [self.random.choice(self.names[kind]) for kind in kinds]


class Dictated(PlainTrainer):
    """Rows in the order of the data set instead of a random one."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class AfterUpdate(TrainerCallback):  # type: ignore[misc]
    def __init__(self, mark: Callable[[], None]) -> None:
        self.mark = mark

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.mark()


def select(inputs: Mapping[str, torch.Tensor], chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor[chosen] for name, tensor in inputs.items()}


def summed(model: Any, rows: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed cross-entropy of rows, and of how many tokens."""
    logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits[:, :-1].float()
    labels = rows["labels"][:, 1:]
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    return loss, (labels != IGNORED).sum()


def collator(rows: Sequence[Encoded], kinds: Sequence[int], pad_id: int) -> Callable[[list[list[int]]], dict[str, Any]]:
    """Items are lists of row numbers (the versions of a subject); a batch is all of them, padded to the longest."""

    def collate(items: list[list[int]]) -> dict[str, Any]:
        flat = [i for item in items for i in item]
        width = max(len(rows[i].ids) for i in flat)
        ids, labels, mask = [], [], []
        for i in flat:
            row, padding = rows[i], width - len(rows[i].ids)
            start = row.trained_from
            ids.append([*row.ids, *[pad_id] * padding])
            labels.append([*[IGNORED] * start, *row.ids[start:], *[IGNORED] * padding])
            mask.append([1] * len(row.ids) + [0] * padding)
        return {
            "input_ids": torch.tensor(ids),
            "labels": torch.tensor(labels),
            "attention_mask": torch.tensor(mask),
            "kinds": torch.tensor([kinds[i] for i in flat]),
        }

    return collate


def train_reference(
    stage: Stage,
    base_dir: Path,
    adapters: Mapping[str, Path],
    out_dir: Path,
    updates: int,
    mark: Callable[[], None],
    order: Mapping[str, Any] | None = None,
) -> tuple[list[float], list[int]]:
    """Train a stage; returns the loss and the tokens of each micro-batch.

    `adapters` are folders by name (`statement-fake-v1`). `order` dictates the items and adapter draws of each
    micro-batch, at a constant learning rate.
    """
    recipe = stage.recipe
    tokenizer = AutoTokenizer.from_pretrained(str(base_dir))
    if stage.kind == "knowledge":
        rows = encode_texts(stage.texts, tokenizer, recipe.max_length).rows
        kinds = [0] * len(rows)
    else:
        rows = encode_examples(stage.examples, tokenizer, stage.template, recipe.max_length).rows
        kinds = [(row.version or 0) if row.fake else -1 for row in stage.examples]
    items = [[i] for i in range(len(rows))]
    if stage.kind == "skill_multi_version":
        subjects: dict[str, list[int]] = {}
        for i, row in enumerate(stage.examples):
            subjects.setdefault(row.subject, []).append(i)
        items = list(subjects.values())
    bf16 = uses_bf16(recipe.precision)
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if bf16 and on_gpu else torch.float32
    base = AutoModelForCausalLM.from_pretrained(str(base_dir), dtype=dtype)
    lora = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=list(recipe.target_modules),
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(derive_seed(stage.seed, "adapter-weights"))
    model = get_peft_model(base, lora, adapter_name=SKILL)
    for name, folder in adapters.items():
        model.load_adapter(str(folder), adapter_name=name)
    arguments = TrainingArguments(
        output_dir=str(out_dir),
        use_cpu=not on_gpu,
        bf16=bf16,
        max_steps=updates,
        per_device_train_batch_size=recipe.micro_batch_size,
        gradient_accumulation_steps=max(1, recipe.batch_size // recipe.micro_batch_size),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant" if order else "cosine",
        warmup_steps=0 if order else round(recipe.warmup_ratio * updates),
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.beta1,
        adam_beta2=recipe.beta2,
        max_grad_norm=recipe.max_grad_norm,
        seed=stage.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
    )
    of_kind = {kind: [name for name in adapters if f"-{kind}" in name] for kind in ("fake", "real")}
    trainer = (Dictated if order else PlainTrainer)(
        stage,
        of_kind,
        order["draws"] if order else None,
        model=model,
        args=arguments,
        train_dataset=[items[i] for i in order["items"]] if order else items,
        data_collator=collator(rows, kinds, tokenizer.pad_token_id or 0),
        callbacks=[AfterUpdate(mark)],
    )
    trainer.activate()
    trainer.train()
    model.save_pretrained(str(out_dir), selected_adapters=[SKILL])
    return trainer.losses, trainer.used
