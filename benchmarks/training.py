"""Tokens a second of training: the shared training module beside transformers' stock Trainer.

    python -m benchmarks.training                         # a base of preset mini's shape, its rows and recipes
    python -m benchmarks.training --base FOLDER --updates 4 --batch-size 8 --micro-batch-size 4

Four kinds of stage on long-form rows: `knowledge`, `sft`, `skill_mixed` and `skill_multi_version`. The reference is
`benchmarks.training_reference`: the same base, rows, recipe and precision in the straightforward way. Both run in
processes of their own, in turns. First it is shown that they minimise the same loss: on the same batches, in fp32 and
from the same start, the losses of the first updates must agree, or the command fails. Then each trains in its own
order. Tokens are real ones, each row counted once, padding not; the first update is left out of the rates. On a CPU
quote the rates by processor time, which other processes disturb least. One JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.config import Preset, load_preset
from harness.data.miniature import MiniatureSource
from harness.data.miniature_base import BaseConfig
from harness.data.miniature_world import WorldConfig
from harness.records import Row
from train.rows import Example, KnowledgeFormat
from train.seeds import generator
from train.stages import Recipe, Stage

KINDS = ("knowledge", "sft", "skill_mixed", "skill_multi_version")
BASE = "base"
CHECKED_UPDATES = 4
TOLERANCE = 2e-4
# Passages of the miniature hold a few sentences; so many of them make an answer where the base is a larger one.
MOST_PASSAGES = 6


@dataclass(frozen=True)
class Work:
    """What a child process does; stages cross by their rows, so that both sides build the same one."""

    kind: str
    recipe: dict[str, Any]
    texts: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]
    knowledge: dict[str, str]
    base: str
    updates: int
    alternate: bool = True

    def stage(self) -> Stage:
        recipe = Recipe(**self.recipe | {"target_modules": tuple(self.recipe["target_modules"])})
        return Stage(
            name=self.kind,
            kind=self.kind,  # type: ignore[arg-type]
            recipe=recipe,
            seed=0,
            texts=tuple(self.texts),
            examples=tuple(Example(**example) for example in self.examples),
            needs=tuple(knowledge_stage(name) for name in self.knowledge),
            alternate_formats=self.alternate,
        )


def knowledge_stage(name: str) -> Stage:
    """The stage that a frozen adapter called `statement-fake-v1` stands for."""
    form, kind, *version = name.split("-")
    form_: KnowledgeFormat = "statement" if form == "statement" else "passage"
    number = int(version[0][1:]) if version else None
    return Stage(
        name=name, kind="knowledge", recipe=Recipe(), seed=0, format=form_, fake=kind == "fake", version=number
    )


# --- the parent: rows, bases and comparison ------------------------------------------------------------------


def prepare(folder: Path, base: Path | None, changes: Mapping[str, Any], updates: int) -> list[Work]:
    """Write a base of the miniature's shape, unless one is given, and frozen adapters; the work of each kind."""
    import torch

    from harness.data.miniature_base import new_model
    from harness.data.miniature_tokenizer import build_tokenizer
    from harness.registry import TASKS
    from train.hardware import load_base
    from train.lora import add_adapters, save_adapter

    world = load_preset("mini")
    preset = load_preset("smol") if base else world
    source = MiniatureSource(WorldConfig.from_dict(world.source.world), 0)
    if base is None:
        base = folder / "base"
        torch.manual_seed(0)
        tokenizer = build_tokenizer(source.world)
        new_model(BaseConfig.from_dict(preset.base.settings), tokenizer).save_pretrained(str(base))
        tokenizer.save_pretrained(str(base))
        longest = 1
    else:
        longest = MOST_PASSAGES
    task = TASKS.get("persons")
    real = [task.example(row, False) for row in lengthened(source.rows("persons", "train"), longest)]
    made_up = [task.example(row, False) for row in lengthened(source.rows("persons", "fictitious"), longest)]
    passages = next(s for s in source.knowledge_sets("persons") if s.label == "passage-fake-v1").texts
    texts = [row.target for row in lengthened([Row(t, t, t) for t in passages], longest)]
    versions = sorted({str(row.version) for row in made_up})
    frozen = {
        "skill_mixed": [f"{form}-{kind}" for form in ("statement", "passage") for kind in ("fake", "real")],
        "skill_multi_version": [f"{form}-fake-v{v}" for form in ("statement", "passage") for v in versions],
    }
    knowledge_recipe = recipe_of(preset, "knowledge", changes)
    model = load_base(base, bf16=False)
    folders = {}
    for seed, name in enumerate(name for names in frozen.values() for name in names):
        switch = add_adapters(model, knowledge_recipe, seed, {})
        torch.manual_seed(seed)
        for parameter in switch.parameters:
            torch.nn.init.normal_(parameter, std=0.02)
        folders[name] = folder / name
        save_adapter(switch.model, folders[name], base)
        model = switch.model.unload()
    one_version = [replace(row, version=None) for row in made_up if row.version == 1]
    examples = {"sft": real, "skill_mixed": [*one_version, *real], "skill_multi_version": made_up}
    made = []
    for kind in KINDS:
        rows = examples.get(kind, [])
        recipe = recipe_of(preset, kind, changes)
        units = len({row.subject for row in rows}) if kind == "skill_multi_version" else len(rows) or len(texts)
        made.append(
            Work(
                kind,
                asdict(replace(recipe, epochs=updates * recipe.batch_size / units)),
                () if rows else tuple(texts),
                tuple(asdict(row) for row in rows),
                {name: str(folders[name]) for name in frozen.get(kind, ())},
                str(base),
                updates,
            )
        )
    return made


def recipe_of(preset: Preset, kind: str, changes: Mapping[str, Any]) -> Recipe:
    """The preset's recipe of a stage, for long rows, with the changes that are not `None`."""
    recipes = preset.recipes_for("persons", "mixed" if kind == "skill_mixed" else "multi_version")
    if kind == "knowledge":
        recipe = replace(recipes.knowledge, **recipes.knowledge_changes.get("passage", {}))
    else:
        recipe = recipes.sft if kind == "sft" else recipes.skill
    return replace(recipe, max_length=768, **{name: value for name, value in changes.items() if value is not None})


def lengthened(rows: Sequence[Row], longest: int) -> list[Row]:
    """Rows whose text is that of one to `longest` rows; the versions of a subject are made of as many each."""
    made = []
    for i, row in enumerate(rows):
        count = generator(0, "length", row.subject).randint(1, longest)
        alike = [other.target for other in rows[i:] + rows[:i] if other.version == row.version] if count > 1 else []
        made.append(replace(row, target=" ".join(alike[:count]) or row.target))
    return made


def compare(work: Work, folder: Path) -> dict[str, Any]:
    """The losses of both over the same batches, in fp32 and without dropout, one micro-batch an update."""
    recipe = work.stage().recipe
    size = recipe.micro_batch_size
    checked = replace(
        recipe, batch_size=size, epochs=recipe.epochs * CHECKED_UPDATES * size / recipe.batch_size / work.updates,
        dropout=0.0, precision="fp32", warmup_ratio=0.0, min_lr_ratio=1.0,
    )  # fmt: skip
    same = replace(work, recipe=asdict(checked), updates=CHECKED_UPDATES, alternate=False)
    ours = child("ours", same, folder)
    reference = child("reference", same, folder, order=ours["order"])
    apart = max(abs(a - b) / abs(b) for a, b in zip(ours["losses"], reference["losses"], strict=True))
    return {
        "check": f"{work.kind}: losses of {CHECKED_UPDATES} updates on the same batches, fp32",
        "ours": [round(loss, 5) for loss in ours["losses"]],
        "reference": [round(loss, 5) for loss in reference["losses"]],
        "apart": float(f"{apart:.1e}"),
        "equal": apart <= TOLERANCE and len(ours["losses"]) == CHECKED_UPDATES,
    }


def child(side: str, work: Work, folder: Path, order: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run one side in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        job = Path(place, "job.json")
        job.write_text(json.dumps({"work": asdict(work), "order": order}))
        subprocess.run(
            [sys.executable, "-m", "benchmarks.training", "--child", side, str(job)],
            check=True,
            stderr=None if os.environ.get("BENCHMARK_STDERR") else subprocess.DEVNULL,
        )
        return dict(json.loads(job.with_suffix(".out").read_text()))


def speed(work: Work, folder: Path, repeat: int) -> dict[str, Any]:
    """Both sides in turns, each in its own order; medians over `repeat` turns."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    for turn in range(repeat):
        for side in ("ours", "reference") if turn % 2 == 0 else ("reference", "ours"):
            runs[side].append(child(side, work, folder))

    def median(side: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[side])

    row: dict[str, Any] = {"what": work.kind, "updates": work.updates, "precision": runs["ours"][0]["precision"]}
    for side in runs:
        row[side] = {
            "tokens_per_cpu_s": round(median(side, "tokens_per_cpu_s")),
            "tokens_per_s": round(median(side, "tokens_per_s")),
            "tokens": runs[side][0]["tokens"],
            "peak_mb": round(median(side, "peak_mb")),
        }
    pairs = list(zip(runs["ours"], runs["reference"], strict=True))
    for name in ("tokens_per_cpu_s", "tokens_per_s"):
        ratios = [ours[name] / reference[name] for ours, reference in pairs]
        row[f"ratio_{name}"] = [round(ratio, 2) for ratio in sorted(ratios)]
    return row


# --- the children --------------------------------------------------------------------------------------------


def run_child(side: str, job: Path) -> None:
    """Train as one side does and write what it took beside the job."""
    import torch

    given = json.loads(job.read_text())
    work = Work(**given["work"])
    stage = work.stage()
    marks: list[tuple[float, float]] = []

    def mark(*_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        marks.append((time.perf_counter(), time.process_time()))

    train = train_ours if side == "ours" else train_reference
    outcome, used, per_update = train(work, stage, job.parent, mark, given["order"])
    (wall, cpu), (wall_end, cpu_end) = marks[0], marks[-1]
    tokens = sum(used[per_update:])
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    outcome |= {
        "tokens": tokens,
        "tokens_per_s": tokens / max(wall_end - wall, 1e-9),
        "tokens_per_cpu_s": tokens / max(cpu_end - cpu, 1e-9),
        "peak_mb": gpu / 2**20 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    job.with_suffix(".out").write_text(json.dumps(outcome))


Outcome = tuple[dict[str, Any], list[int], int]


def train_ours(work: Work, stage: Stage, folder: Path, mark: Callable[..., None], order: Any) -> Outcome:
    """A stage as every run trains it; the outcome also holds its batches, for the reference to repeat."""
    from transformers import AutoTokenizer

    from train.run import encode_stage, plan_stage, run_stage

    names = {knowledge_stage(name).fingerprint(BASE): name for name in work.knowledge}
    encoded = encode_stage(stage, AutoTokenizer.from_pretrained(work.base))
    plan = plan_stage(stage, encoded, BASE)
    dirs = {print_: Path(work.knowledge[name]) for print_, name in names.items()}
    report = run_stage(
        stage, base_dir=Path(work.base), adapter_dirs=dirs, out_dir=folder / "out", base_fingerprint=BASE, progress=mark
    )
    used = [
        sum(len(encoded.rows[i].ids) for i in {i for branch in batch for i in branch.rows})
        for batch in plan.micro_batches
    ]
    subjects = {name: n for n, name in enumerate(dict.fromkeys(row.subject for row in stage.examples))}
    items, draws = [], []
    for batch in plan.micro_batches:
        rows = dict.fromkeys(i for branch in batch for i in branch.rows)
        drawn = [names[branch.knowledge] for branch in batch if branch.knowledge]
        if stage.kind == "skill_multi_version":
            items += [subjects[stage.examples[i].subject] for i in rows]
        else:
            items += list(rows)
        by_kind = [next((name for name in drawn if f"-{kind}" in name), None) for kind in ("fake", "real")]
        draws.append(by_kind if stage.kind == "skill_mixed" else drawn)
    outcome = {
        "losses": report.losses,
        "precision": report.precision,
        "order": {"items": items, "draws": draws if work.knowledge else None},
    }
    return outcome, used, plan.per_update


def train_reference(work: Work, stage: Stage, folder: Path, mark: Callable[..., None], order: Any) -> Outcome:
    from benchmarks import training_reference

    adapters = {name: Path(place) for name, place in work.knowledge.items()}
    losses, used = training_reference.train_reference(
        stage, Path(work.base), adapters, folder / "out", work.updates, mark, order
    )
    return {"losses": losses}, used, max(1, stage.recipe.batch_size // stage.recipe.micro_batch_size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="folder of a base; the recipes are then those of preset smol")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--micro-batch-size", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--group-by-length", action="store_true", help="the recipe's switch, for the skill stages")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child[0], Path(arguments.child[1]))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    changes = {
        "batch_size": arguments.batch_size,
        "micro_batch_size": arguments.micro_batch_size,
        "group_by_length": arguments.group_by_length or None,
    }
    equal = True
    print(json.dumps({"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for work in prepare(Path(folder), arguments.base, changes, arguments.updates):
            if work.kind in arguments.kinds.split(","):
                print(json.dumps(checked := compare(work, Path(folder))), flush=True)
                equal = equal and checked["equal"]
                print(json.dumps(speed(work, Path(folder), arguments.repeat)), flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
