"""What a run would train and ask, before it starts: rows, updates, tokens, hours, memory, disk and money.

Updates and tokens of a stage come from the plan that training itself follows, wherever data and tokenizer are at
hand; long plans and stand-ins are counted in expectation, and said to be. Hours are the operations of
`harness.shape` over what a device does in a second, or tokens over a throughput that was measured on this base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bases import make_source
from harness.errors import UserError
from harness.jobs import TrainAdapter
from harness.options import has_gpu
from harness.paths import home
from harness.plan import Plan, StandIn, plan_run
from harness.registry import TASKS
from harness.run_options import RunOptions
from harness.shape import BF16, FP32, Shape
from harness.standin import AboutTokens, PublishedSizes, RealTokens
from harness.workload import Assumptions, Base, Calls, Line, Workload, task_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The whole of it. `disk` is in bytes by purpose; `left_out` are the cells that no job fills, with the reason."""

    preset: str
    suite: str
    lines: tuple[Line, ...]
    calls: tuple[Calls, ...]
    disk: Mapping[str, int]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    assumptions: Assumptions

    @property
    def hours(self) -> float:
        """Device hours of everything that has no result yet."""
        return sum(line.seconds for line in self.lines) / 3600

    @property
    def memory_bytes(self) -> int:
        """What the largest job needs."""
        return max((line.memory_bytes for line in self.lines), default=0)

    @property
    def dollars(self) -> float | None:
        """What judge and teacher cost; None where a price is not known."""
        costs = [one.dollars for one in self.calls]
        return None if None in costs else sum(cost or 0.0 for cost in costs)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        totals = {"device_hours": self.hours, "memory_bytes": self.memory_bytes, "dollars": self.dollars}
        return {**asdict(self), "totals": totals | {"disk_bytes": sum(self.disk.values())}}


def assumed(options: RunOptions, device: str | None = None, mfu: float = 0.35) -> Assumptions:
    """The assumptions for a device: where none is named, a CPU core for bases that are made or small and no GPU."""
    small = options.preset.base.kind == "miniature" or "shape" not in options.preset.base.settings
    return Assumptions(device=device or ("cpu" if small and not has_gpu() else "h100"), mfu=mfu)


def estimate(options: RunOptions, assumptions: Assumptions | None = None, *, download: bool = False) -> Estimate:
    """What the run would take. Trains, asks and fetches nothing; with `download` data come from the hub if need be."""
    assumptions = assumptions or assumed(options)
    plan, bases, notes, nominal = _planned(options, assumptions, download)
    work = Workload(options, assumptions, bases, nominal, _throughputs(), _answer_tokens(plan, bases, options))
    lines: dict[str, Line] = {}
    calls: dict[str, Calls] = {}
    for job in plan.jobs:
        line = work.line(job)
        if line is not None:
            lines[line.label] = lines[line.label] + line if line.label in lines else line
        if (asked := work.calls(job)) is not None:
            calls[asked.label] = calls[asked.label] + asked if asked.label in calls else asked
    reasons: dict[str, str] = {}
    for (task, model), reason in plan.exclusions.items():
        reasons[f"{task}, {model}"] = reason
    return Estimate(
        preset=options.preset.preset.name,
        suite=options.suite.name,
        lines=tuple(lines.values()),
        calls=tuple(calls.values()),
        disk=work.disk,
        left_out=reasons,
        notes=tuple(notes),
        assumptions=assumptions,
    )


# --- what is at hand -----------------------------------------------------------------------------------------


def _planned(
    options: RunOptions, assumptions: Assumptions, download: bool
) -> tuple[Plan, dict[str, Base], list[str], bool]:
    """The plan, the bases by folder, remarks, and whether rows are stand-ins."""
    notes: list[str] = []
    if options.preset.base.kind == "miniature" and options.base is None:
        plan = plan_run(options)
        return plan, {name: _miniature(options, world, name) for world, name in enumerate(plan.bases)}, notes, False
    if options.preset.source.kind == "real" and options.data is None and not download:
        raise UserError(
            f"preset {options.preset.preset.name} reads its data from the hub: add --download to fetch and count "
            "them, or give --data"
        )
    base, place = _ready_made(options, notes)
    source = None
    nominal = False
    if options.preset.source.kind == "prereq_tune" and options.data is None and not download:
        source, nominal = PublishedSizes(assumptions.lengths), True
        notes.append(
            "Rows are the published numbers, their lengths and the number of paraphrases are assumptions; give the "
            "data with --data, or let them be fetched with --download, to count them."
        )
    plan = plan_run(options, StandIn(source, (place, base.fingerprint)))
    if source is None:
        notes.append(f"Rows are those of {make_source(options, 0).name}.")
    return plan, {str(place): base}, notes, nominal


def _miniature(options: RunOptions, world: int, folder: str) -> Base:
    from harness.data.miniature_base import BaseConfig
    from harness.data.miniature_tokenizer import build_tokenizer
    from harness.data.miniature_world import WorldConfig, build_world

    config = BaseConfig.from_dict(options.preset.base.settings)
    tokenizer = build_tokenizer(build_world(WorldConfig.from_dict(options.preset.source.world), options.seed + world))
    shape = Shape.from_config(
        {
            "vocab_size": len(tokenizer),
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "tie_word_embeddings": True,
        }
    )
    # The base's fingerprint is its job's key, of which the folder's name is the beginning.
    return Base(shape, RealTokens(tokenizer), tokenizer, Path(folder).name, FP32)


def _ready_made(options: RunOptions, notes: list[str]) -> tuple[Base, Path]:
    """The base from its folder, else from the shape in the preset."""
    settings = options.preset.base.settings
    places = [Path(options.base)] if options.base else [home() / "bases" / str(settings.get("local", "-"))]
    for place in places:
        if (place / "config.json").is_file():
            from transformers import AutoTokenizer

            from harness.backends.weights import base_fingerprint

            shape = Shape.from_config(json.loads((place / "config.json").read_text(encoding="utf-8")))
            tokenizer = AutoTokenizer.from_pretrained(str(place))
            return Base(shape, RealTokens(tokenizer), tokenizer, base_fingerprint(place), BF16), place
    if options.base or "shape" not in settings:
        raise UserError(
            f"the base {options.base or settings.get('hub', '')} is not here and its shape is not in the preset; give "
            "a folder with --base"
        )
    notes.append(
        f"The base {settings.get('hub')} is not here: its shape is that of the preset, and tokens are counted from "
        f"words, {AboutTokens.tokens_per_word} each."
    )
    return Base(Shape.from_config(settings["shape"]), AboutTokens(), None, "stand-in", BF16), Path("base")


def _throughputs() -> dict[tuple[str, str], float]:
    """Tokens a second by (beginning of the base's fingerprint, kind of stage), from the adapters trained so far."""
    read: dict[tuple[str, str], tuple[int, float]] = {}
    for path in sorted((home() / "adapters").glob("*/stage.json")):
        try:
            stage = json.loads(path.read_text(encoding="utf-8"))
            where = (stage["base_fingerprint"][:32], stage["kind"])
            tokens, seconds = int(stage["report"]["tokens"]), float(stage["report"]["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an adapter that cannot be read says nothing about speed
        before = read.get(where, (0, 0.0))
        read[where] = (before[0] + tokens, before[1] + seconds)
    return {where: tokens / seconds for where, (tokens, seconds) in read.items() if tokens and seconds > 0}


def _answer_tokens(plan: Plan, bases: Mapping[str, Base], options: RunOptions) -> dict[str, float]:
    """Mean tokens of an answer by task: of the real rows that SFT learns, else of any that are learnt."""
    found: dict[str, tuple[bool, float]] = {}
    for job in plan.jobs:
        if not isinstance(job.payload, TrainAdapter) or not job.payload.stage.examples:
            continue
        stage, base = job.payload.stage, bases[str(job.payload.base_dir)]
        task = task_of(job.label)
        if task and (task not in found or (stage.kind == "sft" and not found[task][0])):
            step = max(1, len(stage.examples) // 500)
            sizes = [base.tokens.count(example.completion) + 1 for example in stage.examples[::step]]
            found[task] = (stage.kind == "sft", sum(sizes) / len(sizes))
    limits = options.preset.generation.max_new_tokens
    means = {}
    for each in TASKS:
        limit = float(limits.get(each.name, each.max_new_tokens))
        mean = found.get(each.name, found.get(each.trained_on, (False, limit / 2)))[1]
        means[each.name] = min(limit, mean)
    return means
