"""What a run would train and ask, before it starts: rows, updates, tokens, hours, memory, disk and money.

Updates and tokens of a stage come from the plan that training itself follows, wherever data and tokenizer are at
hand; long plans and stand-ins are counted in expectation, and said to be. Hours are the operations of
`harness.shape` over what a device does in a second, or tokens over a throughput that was measured on this base and an
equal device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.bases import make_source
from harness.data.source import DataError, Source
from harness.errors import UserError
from harness.jobs import Generate, TrainAdapter
from harness.options import has_gpu
from harness.parts import TUNING, Part, parts_of
from harness.paths import home
from harness.plan import StandIn, trained_for
from harness.records import Split
from harness.registry import TASKS, Task
from harness.run_options import RunOptions
from harness.shape import BF16, FP32, Shape
from harness.standin import AboutTokens, PublishedSizes, RealTokens
from harness.workload import GPU_NAMES, Assumptions, Base, Calls, Line, Workload


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
    """What the run would take. Trains, asks and fetches nothing; with `download` data come from the hub if need be.

    What the trials of `--tune` and the ablations take beyond what comes before them has lines of its own, which name
    them in parentheses.
    """
    assumptions = assumptions or assumed(options)
    hand = _at_hand(options, assumptions, download)
    work = Workload(
        hand.options, assumptions, hand.bases, hand.nominal, _throughputs(assumptions.device), _answer_tokens(hand)
    )
    lines: dict[str, Line] = {}
    calls: dict[tuple[str, str], Calls] = {}
    seen: set[str] = set()
    for part in hand.parts:
        within = f" ({part.within})" if part.within else ""
        for job in part.jobs:
            if job.key in seen:
                continue
            seen.add(job.key)
            if (line := work.line(job)) is not None:
                line = replace(line, label=line.label + within)
                lines[line.label] = lines[line.label] + line if line.label in lines else line
            if (asked := work.calls(job)) is not None:
                asked = replace(asked, label=asked.label + within)
                row = (asked.label, asked.model)
                calls[row] = calls[row] + asked if row in calls else asked
    return Estimate(
        preset=options.preset.preset.name,
        suite=options.suite.name,
        lines=tuple(lines.values()),
        calls=tuple(calls.values()),
        disk=work.disk,
        left_out=hand.left_out,
        notes=hand.notes,
        assumptions=assumptions,
    )


# --- what is at hand -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AtHand:
    """What an estimate counts with. `bases` are by folder; with `nominal` the rows of `source` are stand-ins."""

    options: RunOptions
    parts: tuple[Part, ...]
    bases: Mapping[str, Base]
    source: Source
    nominal: bool
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def _at_hand(options: RunOptions, assumptions: Assumptions, download: bool) -> _AtHand:
    notes: list[str] = []
    options, left_out = _on_bases_here(options, download)
    made_here = options.preset.base.kind == "miniature" and options.base is None
    if not made_here and options.preset.source.kind == "real" and options.data is None and not download:
        raise UserError(
            f"preset {options.preset.preset.name} reads its data from the hub: add --download to fetch and count "
            "them, or give --data"
        )
    nominal = options.preset.source.kind == "prereq_tune" and options.data is None and not download
    source = PublishedSizes(assumptions.lengths) if nominal else make_source(options, 0)
    bases: dict[str, Base] = {}
    stand_in = None
    if not made_here:
        place = None
        if options.suite.ablations or not all(model.served for model in options.models):
            base, folder = _ready_made(options, notes)
            bases[str(folder)] = base
            place = (folder, base.fingerprint)
        stand_in = StandIn(source if nominal else None, place)
        notes.append(_about_rows(source, nominal, options))
    parts, missing = parts_of(options, stand_in)
    for part in parts:
        if made_here:
            bases |= {
                name: _miniature(part.options, world, name)
                for world, name in enumerate(part.plan.bases)
                if name not in bases
            }
        bases |= {str(folder): _from_folder(folder) for folder in _own_bases(part) if str(folder) not in bases}
    if options.tune:
        notes.append(
            f"Lines with ({TUNING}) are the trials of --tune. Which setting is best is known after them; the other "
            "lines are counted for the setting nearest to the preset's own."
        )
    if not bases:
        notes.append(f"All models are served: tokens are counted from words, {AboutTokens.tokens_per_word} each.")
    return _AtHand(options, parts, bases, source, nominal, left_out | _left_out(parts, missing), tuple(notes))


def _left_out(parts: tuple[Part, ...], missing: Mapping[str, str]) -> dict[str, str]:
    """The cells that no job fills and the ablations that are not made, with the reason; tables come first."""
    found: dict[str, str] = {}
    for part in sorted(parts, key=lambda part: bool(part.within)):
        for (task, model), reason in part.plan.exclusions.items():
            cell = f"{task}, {model}"
            if found.get(cell) != reason:
                found[f"{cell} ({part.within})" if part.within else cell] = reason
    return found | {f"ablation {name}": reason for name, reason in missing.items()}


def _about_rows(source: Source, nominal: bool, options: RunOptions) -> str:
    if not nominal:
        return f"Rows are those of {source.name}."
    told = (
        "Rows are the published numbers, their lengths and the number of paraphrases are assumptions; give the "
        "data with --data, or let them be fetched with --download, to count them."
    )
    same = " Arms of an ablation that differ in their data alone are the same here, and counted once."
    return told + same * bool(options.suite.ablations)


def _on_bases_here(options: RunOptions, download: bool) -> tuple[RunOptions, dict[str, str]]:
    """The options without models whose own base is not a folder here: looking for it elsewhere would fetch it."""
    absent = [m for m in options.models if m.base is not None and not Path(m.base).is_dir() and not download]
    left_out = {
        model.name: f"its base {model.base} is not a folder here; add --download to fetch it" for model in absent
    }
    return replace(options, models=tuple(m for m in options.models if m not in absent)), left_out


def _own_bases(part: Part) -> list[Path]:
    """Folders of bases that models of this part have for themselves, and that are there."""
    if not any(model.base for model in part.options.models):
        return []
    named = dict.fromkeys(
        Path(payload.base_dir if isinstance(payload, TrainAdapter) else payload.base)
        for payload in (job.payload for job in part.plan.jobs)
        if isinstance(payload, (TrainAdapter, Generate))
    )
    return [folder for folder in named if (folder / "config.json").is_file()]


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
    place = Path(options.base) if options.base else home() / "bases" / str(settings.get("local", "-"))
    if (place / "config.json").is_file():
        return _from_folder(place), place
    if options.base or "shape" not in settings:
        get = "" if options.base or "local" not in settings else ", or get it with `python -m harness.data.smollm2`"
        raise UserError(
            f"the base {options.base or settings.get('hub', '')} is not here and its shape is not in the preset; give "
            f"a folder with --base{get}"
        )
    notes.append(
        f"The base {settings.get('hub')} is not here: its shape is that of the preset, and tokens are counted from "
        f"words, {AboutTokens.tokens_per_word} each."
    )
    return Base(Shape.from_config(settings["shape"]), AboutTokens(), None, "stand-in", BF16), Path("base")


def _from_folder(folder: Path) -> Base:
    from transformers import AutoTokenizer

    from harness.backends.weights import base_fingerprint

    shape = Shape.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return Base(shape, RealTokens(tokenizer), tokenizer, base_fingerprint(folder), BF16)


def _throughputs(device: str) -> dict[tuple[str, str], float]:
    """Tokens a second by (beginning of the base's fingerprint, kind of stage), from the adapters trained so far.

    Only those count that say they were trained on an equal device, alone on it: one GPU of that very name, or for
    `cpu` one core of a processor like this machine's. A stage that was resumed does not count, because its seconds may
    be of several devices, and one from before devices were recorded does not either.
    """
    read: dict[tuple[str, str], tuple[int, float]] = {}
    for path in sorted((home() / "adapters").glob("*/stage.json")):
        try:
            stage = json.loads(path.read_text(encoding="utf-8"))
            where = (stage["base_fingerprint"][:32], stage["kind"])
            report = stage["report"]
            tokens, seconds = int(report["tokens"]), float(report["seconds"])
            trained_on, resumed = report.get("device", ""), report.get("resumed_at", 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # an adapter that cannot be read says nothing about speed
        if trained_on != _name_of(device) or resumed:
            continue
        before = read.get(where, (0, 0.0))
        read[where] = (before[0] + tokens, before[1] + seconds)
    return {where: tokens / seconds for where, (tokens, seconds) in read.items() if tokens and seconds > 0}


def _name_of(device: str) -> str:
    """What a stage report calls the device."""
    from train.hardware import cpu_name

    return GPU_NAMES[device] if device in GPU_NAMES else cpu_name(threads=1)


# --- how long answers are ------------------------------------------------------------------------------------


def _answer_tokens(hand: _AtHand) -> dict[str, float]:
    """Mean tokens of an answer by task: those of the rows to train on, whichever models learn from them.

    That is, of the first world's real rows, else of its fictitious ones; half of the limit where it has neither.
    """
    options = hand.options
    tokens = next((base.tokens for base in hand.bases.values()), None) or AboutTokens()
    means: dict[str, float] = {}
    for name in dict.fromkeys(name for part in hand.parts for name in part.options.suite.tasks):
        task, trained = TASKS.get(name), trained_for(TASKS.get(name))
        limit = float(options.preset.generation.max_new_tokens.get(name, task.max_new_tokens))
        texts = _learnt(hand.source, trained, options.preset.source.prefill_subject)
        sizes = [tokens.count(text) + 1 for text in texts[:: max(1, len(texts) // 500)]]
        mean = min(limit, sum(sizes) / len(sizes)) if sizes else limit / 2
        means |= {name: mean} | ({} if trained.name in means else {trained.name: mean})
    return means


def _learnt(source: Source, task: Task, prefill_subject: bool) -> list[str]:
    """The answers to be learnt for a task."""
    splits: tuple[Split, ...] = ("train", "fictitious")
    for split in splits:
        try:
            rows = source.rows(task.name, split)
        except DataError:
            continue
        if rows:
            return [task.example(row, prefill_subject).completion for row in rows]
    return []
