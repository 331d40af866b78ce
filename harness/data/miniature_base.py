"""The miniature's base model: pre-train it on a world's corpus, probe what it knows, and judge whether it will do."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from harness.data import miniature_text as text
from harness.data.miniature_corpus import corpus
from harness.data.miniature_schema import DOMAINS
from harness.data.miniature_tokenizer import build_tokenizer
from harness.data.miniature_world import (
    Entity,
    MiniatureConfigError,
    World,
    WorldConfig,
    build_world,
    checked_fields,
)
from train.seeds import derive_seed

REPORT_FILE = "base_report.json"
Progress = Callable[[str, int, int], None]


class BaseRejected(RuntimeError):
    """A pre-trained base fails the gate: what it recalls does not grow with popularity as it has to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """Size and training of the base, and the gate that it must pass.

    Training goes on until statement recall of non-test entities reaches `recall_target`, in continuations of
    `chunk_tokens` after `planned_tokens`, at most to `max_tokens`. Then mean recall must be at most
    `tail_at_most` in the three lowest popularity deciles, at least `head_at_least` in the three highest, and
    at least `recall_at_least` overall. `probe_entities` bounds how many entities the probe asks about.
    """

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 512
    learning_rate: float = 3e-3
    warmup_updates: int = 60
    weight_decay: float = 0.05
    rows: int = 8
    row_length: int = 128
    planned_tokens: int = 1_200_000
    chunk_tokens: int = 200_000
    max_tokens: int = 2_400_000
    recall_target: float = 0.48
    probe_entities: int = 400
    tail_at_most: float = 0.35
    head_at_least: float = 0.6
    recall_at_least: float = 0.35
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and value < 0:
                raise MiniatureConfigError(f"base.settings: {f.name} must not be negative, but is {value}")
        if self.hidden_size % (2 * self.heads):
            raise MiniatureConfigError("base.settings: hidden_size must be a multiple of twice heads")
        if self.max_tokens < self.planned_tokens:
            raise MiniatureConfigError("base.settings: max_tokens must be at least planned_tokens")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise MiniatureConfigError(f"base.settings: precision must be auto, fp32 or bf16, not {self.precision!r}")

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> BaseConfig:
        """From the TOML table `[base.settings]`. Raises MiniatureConfigError naming the setting at fault."""
        return cls(**checked_fields(cls, table, "base.settings"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for hashing and records."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BaseReport:
    """What pre-training came to. Recall is the share of statements whose value the base completes.

    `history` holds (tokens, recall of non-test entities). `recall_by_decile` runs from the least to the most
    popular non-test entities and counts all facts; `covered_recall` counts those that the corpus gives.
    """

    updates: int
    tokens: int
    ended: str
    seconds: float
    history: tuple[tuple[int, float], ...]
    recall: float
    covered_recall: float
    test_recall: float
    recall_by_decile: tuple[float, ...]
    verdict: str


def pretrain_base(
    world_config: WorldConfig,
    base_config: BaseConfig,
    world_seed: int,
    base_seed: int,
    out_dir: Path,
    progress: Progress | None = None,
) -> BaseReport:
    """Pre-train a base on the corpus of a world and write it, with its report, as a transformers model folder.

    The folder appears under its name only when it is whole. `progress` gets a stage's name, what is done and
    the total, in tokens. Raises BaseRejected, leaving nothing behind, when the base fails the gate.
    """
    import torch

    from train.pretrain import PretrainRecipe, pretrain

    started = time.perf_counter()
    world = build_world(world_config, world_seed)
    tokenizer = build_tokenizer(world)
    torch.manual_seed(derive_seed(base_seed, "base weights"))
    model = new_model(base_config, tokenizer)
    shared = {f.name for f in fields(PretrainRecipe)} & {f.name for f in fields(BaseConfig)}
    recipe = PretrainRecipe(**{name: getattr(base_config, name) for name in sorted(shared)})
    learners = [e for e in world.entities if e.split != "test"]
    step = max(1, len(learners) // max(1, base_config.probe_entities))

    def documents(epoch: int) -> Iterable[Sequence[int]]:
        return encode_corpus(world, tokenizer, derive_seed(base_seed, "corpus", world_seed), epoch)

    def probe(trained: Any) -> float:
        return _mean(statement_recall(trained, tokenizer, world, learners[::step]).values())

    result = pretrain(
        model, documents, recipe, pad_id=tokenizer.pad_token_id, probe=probe, target=base_config.recall_target,
        progress=None if progress is None else lambda done, total: progress("pre-training", done, total),
    )  # fmt: skip
    recalls = statement_recall(model, tokenizer, world, world.entities)
    deciles = _by_decile([e for e in world.entities if e.split != "test"], recalls)
    verdict = judge(deciles, base_config)
    report = BaseReport(
        updates=result.updates, tokens=result.tokens, ended=result.ended,
        seconds=round(time.perf_counter() - started, 1),
        history=tuple((point.tokens, round(point.value, 4)) for point in result.history),
        recall=_mean(recalls[e.name] for e in learners),
        covered_recall=_mean(statement_recall(model, tokenizer, world, learners, covered=True).values()),
        test_recall=_mean(recalls[e.name] for e in world.entities if e.split == "test"),
        recall_by_decile=deciles, verdict=verdict or "graded",
    )  # fmt: skip
    if verdict:
        raise BaseRejected(
            f"the base of world {world_seed} (base seed {base_seed}) was rejected after {result.tokens} tokens: "
            f"{verdict}. Recall by popularity decile, lowest first: {' '.join(f'{r:.2f}' for r in deciles)}. "
            "Raise base.settings.max_tokens or planned_tokens, or take another base seed."
        )
    _write(model, tokenizer, report, out_dir)
    return report


def new_model(config: BaseConfig, tokenizer: Any) -> Any:
    """A Llama with fresh weights, drawn from torch's global generator.

    Initialisation: normal with deviation 0.8 / sqrt(inputs), projections back into the residual stream divided by
    sqrt(2 layers), embeddings 0.05: smaller weights keep a model of this size from learning any fact in time.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=config.hidden_size, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, num_key_value_heads=config.heads,
            intermediate_size=config.intermediate_size, max_position_embeddings=1024, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, attn_implementation="eager",
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            if "embed_tokens" in name:
                parameter.normal_(0.0, 0.05)
                continue
            deviation = 0.8 / parameter.shape[1] ** 0.5
            if "o_proj" in name or "down_proj" in name:
                deviation /= (2 * config.layers) ** 0.5
            parameter.normal_(0.0, deviation)
    return model


def encode_corpus(world: World, tokenizer: Any, seed: int, epoch: int) -> list[list[int]]:
    """One epoch as token ids: BOS, the text and, where a document's end is to be learnt, EOS."""
    documents = corpus(world, seed, epoch)
    encoded = tokenizer([d.text for d in documents], add_special_tokens=False, return_attention_mask=False)
    return [
        [tokenizer.bos_token_id, *ids, *((tokenizer.eos_token_id,) if document.ends else ())]
        for document, ids in zip(documents, encoded["input_ids"], strict=True)
    ]


def statement_recall(
    model: Any, tokenizer: Any, world: World, entities: Sequence[Entity], *, covered: bool = False
) -> dict[str, float]:
    """Entity name -> share of its facts whose value is the most likely next token after the first wording.

    All facts are asked for, or with `covered` only those that the corpus gives.
    """
    import torch

    attributes = {(d, a.name): a for d in DOMAINS for a in world.schema.attributes[d]}
    asked: list[tuple[str, list[int], int]] = []
    for entity in entities:
        for fact in entity.covered if covered else entity.facts:
            beginning = text.cloze(attributes[entity.domain, fact.attribute], entity.kind, 0, entity.name)
            ids = tokenizer(beginning)["input_ids"]
            (value,) = tokenizer(fact.value, add_special_tokens=False)["input_ids"]
            asked.append((entity.name, ids, value))
    right: dict[str, list[bool]] = {entity.name: [] for entity in entities}
    # Equal lengths share a batch, so that nothing is padded.
    asked.sort(key=lambda question: len(question[1]))
    device = next(model.parameters()).device
    model.eval()
    start = 0
    while start < len(asked):
        length = len(asked[start][1])
        batch = [q for q in asked[start : start + 512] if len(q[1]) == length]
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor([ids for _, ids, _ in batch], device=device), use_cache=False, logits_to_keep=1
            ).logits
        for (name, _, value), guess in zip(batch, logits[:, -1].argmax(-1).tolist(), strict=True):
            right[name].append(guess == value)
        start += len(batch)
    return {name: sum(answers) / len(answers) for name, answers in right.items()}


def judge(deciles: Sequence[float], config: BaseConfig) -> str:
    """Why a base with this recall by popularity decile will not do; empty when it will."""
    tail, head, overall = _mean(deciles[:3]), _mean(deciles[-3:]), _mean(deciles)
    if overall < config.recall_at_least:
        return f"it recalls {overall:.2f} of the facts, and {config.recall_at_least:.2f} are asked for"
    if tail > config.tail_at_most:
        return f"it recalls {tail:.2f} of the facts of unpopular entities, more than {config.tail_at_most:.2f}"
    if head < config.head_at_least:
        return f"it recalls {head:.2f} of the facts of popular entities, less than {config.head_at_least:.2f}"
    return ""


def _by_decile(entities: Sequence[Entity], recalls: Mapping[str, float]) -> tuple[float, ...]:
    """Mean recall in ten groups of equal size, the least popular first."""
    ordered = sorted(entities, key=lambda e: (e.popularity, e.name))
    bounds = [round(i * len(ordered) / 10) for i in range(11)]
    return tuple(
        round(_mean(recalls[e.name] for e in ordered[low:high]), 4) for low, high in itertools.pairwise(bounds)
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _write(model: Any, tokenizer: Any, report: BaseReport, out_dir: Path) -> None:
    partial = out_dir.with_name(f"{out_dir.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    with (partial / REPORT_FILE).open("w", encoding="utf-8") as file:
        json.dump(asdict(report), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    if out_dir.exists():
        shutil.rmtree(out_dir)
    partial.rename(out_dir)
