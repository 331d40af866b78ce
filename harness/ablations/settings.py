"""Tables 4, 5 and 6: sizes of the real and of the synthetic data, and hyper-parameters, read from what runs use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from factscore_mod.sentences import split_sentences
from harness import published
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation
from harness.bases import make_source
from harness.config import Preset, StageName
from harness.data.source import DataError, Source
from harness.records import Split
from harness.registry import TASKS
from harness.reports.grids import EMPTY
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

#: Our tasks and the columns of the paper's tables that they stand beside.
COLUMNS = {"persons": "persons", "medical": "medical", "popqa": "short_qa", "hotpotqa": ""}
_REAL: dict[str, tuple[Split, ...]] = {"train": ("train",), "validation": ("validation",), "test": ("test",)}
_SYNTHETIC = {
    "entities": "entities",
    "knowledge_versions": "knowledge versions",
    "sentences_per_version": "sentences an answer",
}
_STAGES: tuple[StageName, ...] = get_args(StageName)
_FIELDS = {
    "epochs": "epochs",
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "lora_r": "LoRA r",
    "lora_alpha": "LoRA α",
}
_OURS = {"lora_r": "rank", "lora_alpha": "alpha"}


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """The three tables, each with the paper's figures beside ours."""
    del results
    source = make_source(options, 0)
    tasks = [task for task in COLUMNS if _rows(source, task, "test")]
    real = {task: {name: len(_rows(source, task, split)) for name, (split,) in _REAL.items()} for task in tasks}
    most = options.preset.source.train_rows
    for task in tasks:
        real[task]["train"] = min(real[task]["train"], most.get(task, real[task]["train"]))
    synthetic = {task: _synthetic(source, task) for task in tasks}
    recipes = {task: _recipes(options.preset, task) for task in tasks}
    body = "\n\n".join(
        [
            "## Table 4: real data, in rows\n\n" + _table(list(_REAL), real, "real_data_sizes", {}),
            "## Table 5: synthetic data\n\n"
            + _table(list(_SYNTHETIC), synthetic, "synthetic_data_sizes", _SYNTHETIC)
            + "\n\nSentences are those of an answer to be learnt, which tells one knowledge version.",
            "## Table 6: hyper-parameters\n\n"
            + _hyperparameters(recipes)
            + "\n\nThe paper prints the grid that was searched, for all of its stages together; ours are the values of "
            "the fixed recipe. With `--tune` they are multiplied by "
            + " and ".join(
                f"{name} {', '.join(f'{factor:g}' for factor in factors)}"
                for name, factors in (
                    ("learning rate", options.preset.tuning.learning_rate),
                    ("epochs", options.preset.tuning.epochs),
                )
            )
            + ".",
            f"Columns with “paper” are as printed: {published.source()}",
        ]
    )
    sizes = ", ".join(f"{task} {real[task]['train']} / {real[task]['test']}" for task in tasks)
    return Findings(
        f"rows to train / to test: {sizes}.", body, {"real": real, "synthetic": synthetic, "recipes": recipes}
    )


@ablation(
    "settings",
    title="Data and hyper-parameters",
    paper="tables 4, 5 and 6",
    about="Sizes of the first world's data and the recipes of this preset; nothing is trained for them.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """No arms: everything is read from the preset and its data."""
    del options
    return ()


def _rows(source: Source, task: str, split: Split) -> Sequence[Any]:
    try:
        return source.rows(task, split)
    except DataError:
        return ()


def _synthetic(source: Source, task: str) -> dict[str, Any]:
    rows = _rows(source, task, "fictitious")
    if not rows:
        return {}
    sentences = [len(split_sentences(row.target)) for row in rows]
    return {
        "entities": len({row.subject for row in rows}),
        "knowledge_versions": len({row.version for row in rows}),
        "sentences_per_version": round(sum(sentences) / len(sentences), 1),
    }


def _recipes(preset: Preset, task: str) -> dict[str, dict[str, float]]:
    made = preset.recipes_for(task, TASKS.get(task).skill_mode)
    return {
        stage: {name: getattr(getattr(made, stage), _OURS.get(name, name)) for name in _FIELDS} for stage in _STAGES
    }


def _table(rows: Sequence[str], sizes: dict[str, dict[str, Any]], table: str, names: dict[str, str]) -> str:
    head = ["what"]
    for task in sizes:
        head += [TASKS.get(task).title, *(["paper"] if COLUMNS[task] else [])]
    body = []
    for row in rows:
        cells = [names.get(row, row)]
        for task, found in sizes.items():
            cells.append(f"{found[row]:g}" if row in found else EMPTY)
            cells += [_printed(table, row, COLUMNS[task])] if COLUMNS[task] else []
        body.append(cells)
    return markdown_table(head, body, words=("what",))


def _hyperparameters(recipes: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row a task and stage, with a row of the paper's under each task that it has."""
    body = []
    for task, stages in recipes.items():
        title = TASKS.get(task).title
        body += [[title, stage, *(f"{recipe[name]:g}" for name in _FIELDS)] for stage, recipe in stages.items()]
        if column := COLUMNS[task]:
            body.append([title, "paper", *(_printed("hyperparameters", name, column) for name in _FIELDS)])
    return markdown_table(("task", "stage", *_FIELDS.values()), body, words=("task", "stage"))


def _printed(table: str, row: str, column: str) -> str:
    found = published.entry(table, row, column)
    return EMPTY if found is None else str(found)
