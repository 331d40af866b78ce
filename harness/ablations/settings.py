"""Tables 4, 5 and 6: sizes of the real and of the synthetic data, and hyper-parameters, read from what runs use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factscore_mod.sentences import split_sentences
from harness import published
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking
from harness.bases import make_source
from harness.data.source import DataError, Source
from harness.jobs import TrainAdapter
from harness.plan import StandIn, plan_run, trained_for
from harness.records import Split
from harness.registry import TASKS
from harness.reports.grids import EMPTY
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions
from train.sampling import Verdicts
from train.stages import Stage, StageKind

#: Our tasks and the columns of the paper's tables that they stand beside.
COLUMNS = {"persons": "persons", "medical": "medical", "popqa": "short_qa", "hotpotqa": ""}
_REAL: dict[str, tuple[Split, ...]] = {"train": ("train",), "validation": ("validation",), "test": ("test",)}
_SYNTHETIC = {
    "entities": "entities",
    "knowledge_versions": "knowledge versions",
    "sentences_per_version": "sentences an answer",
}
_FIELDS = {
    "epochs": "epochs",
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "lora_r": "LoRA r",
    "lora_alpha": "LoRA α",
}
_STAGES: dict[StageKind, str] = {
    "sft": "sft", "skill_mixed": "skill", "skill_multi_version": "skill", "dpo": "preference", "rl": "rl",
}  # fmt: skip
_ABOUT_RECIPES = (
    "Recipes are those of the stages that train the models of this page, in the first world. A task that only tests "
    "has those that differ from the ones of the task it is trained on. A batch holds rows; in the skill of long "
    "answers subjects, in preference pairs of answers, in rl answers to so many prompts. An epoch of `flame-sft` takes "
    "all sampled answers of a prompt. Preference and rl go on with the adapter of an sft stage and keep its rank."
)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A stage that is trained for a task: what it is called there, and its values by name."""

    role: str
    name: str
    values: Mapping[str, float]


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
    recipes = _recipes(options, source, tasks)
    body = "\n\n".join(
        [
            "## Table 4: real data, in rows\n\n" + _table(list(_REAL), real, "real_data_sizes", {}),
            "## Table 5: synthetic data\n\n"
            + _table(list(_SYNTHETIC), synthetic, "synthetic_data_sizes", _SYNTHETIC)
            + "\n\nSentences are those of an answer to be learnt, which tells one knowledge version.",
            "## Table 6: hyper-parameters\n\n"
            + _hyperparameters(recipes)
            + f"\n\n{_ABOUT_RECIPES}\n\n{_terms(options)}",
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


def _recipes(options: RunOptions, source: Source, tasks: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> stage -> values, read off the stages that are planned; tasks that only test come last."""
    further = [name for name in TASKS.names() if name not in COLUMNS and _rows(source, name, "test")]
    found: dict[str, dict[str, dict[str, float]]] = {}
    seen: set[str] = set()
    for task in (*tasks, *further):
        made = {key: stage for key, stage in _stages(options, source, task).items() if key not in seen}
        seen |= set(made)
        if made:
            found[task] = _labelled([_planned(stage, task) for stage in made.values()])
    return found


def _stages(options: RunOptions, source: Source, task: str) -> dict[str, Stage]:
    """Every stage trained in the first world for a task, by its address; none where the data lack a split for it.

    Nothing is asked of the base or the judge.
    """
    models = tuple(replace(model, base=None) for model in options.models if model.method not in (None, "base"))
    asked = replace(asking(options, (task,)), models=models, worlds=1)
    try:
        plan = plan_run(asked, StandIn(source, (Path("base"), "")))
    except DataError:
        return {}
    return {job.key: job.payload.stage for job in plan.jobs if isinstance(job.payload, TrainAdapter)}


def _planned(stage: Stage, task: str) -> _Planned:
    name = stage.name.removeprefix(f"{trained_for(TASKS.get(task)).name}-").removeprefix(f"{task}-")
    # Preference and rl have no adapter of their own: they go on with the one they start from.
    adapter = stage.start.recipe if stage.start is not None else stage.recipe
    values: dict[str, float] = {"epochs": stage.recipe.epochs, "batch_size": stage.recipe.batch_size}
    if stage.rollouts is not None:
        rollouts = stage.rollouts
        values = {"updates": rollouts.updates, "prompts": rollouts.prompts_per_update, "answers": rollouts.generations}
    values |= {"learning_rate": stage.recipe.learning_rate, "lora_r": adapter.rank, "lora_alpha": adapter.alpha}
    if stage.kind == "knowledge":
        return _Planned(f"knowledge, {stage.format}s", name.removeprefix("knowledge-"), values)
    return _Planned("verifier" if isinstance(stage.derived, Verdicts) else _STAGES[stage.kind], name, values)


def _labelled(planned: Sequence[_Planned]) -> dict[str, dict[str, float]]:
    """The values by stage; the stages' own names stand with it where those of one kind are trained differently."""
    groups: dict[str, list[tuple[Mapping[str, float], list[str]]]] = {}
    for one in planned:
        kinds = groups.setdefault(one.role, [])
        same = next((names for values, names in kinds if values == one.values), None)
        if same is None:
            kinds.append((one.values, [one.name]))
        else:
            same.append(one.name)
    return {
        role if len(kinds) == 1 else f"{role} ({', '.join(names)})": dict(values)
        for role, kinds in groups.items()
        for values, names in kinds
    }


def _terms(options: RunOptions) -> str:
    """What the paper's values are, and on what terms ours stand."""
    said = "The paper prints the grid that was searched, for all of its stages together; "
    factors = " and ".join(
        f"{name} {', '.join(f'{factor:g}' for factor in factors)}"
        for name, factors in (
            ("learning rate", options.preset.tuning.learning_rate),
            ("epochs", options.preset.tuning.epochs),
        )
    )
    if options.tune:
        return f"{said}ours are the preset's values times what was chosen of {factors}."
    if options.match_updates:
        return f"{said}ours have the epochs that make as many updates as PREREQ-TUNE's skill stage."
    return f"{said}ours are the values of the fixed recipe. With `--tune` they are multiplied by {factors}."


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
        body += [[title, stage, *(_value(values, name) for name in _FIELDS)] for stage, values in stages.items()]
        if column := COLUMNS.get(task):
            body.append([title, "paper", *(_printed("hyperparameters", name, column) for name in _FIELDS)])
    return markdown_table(("task", "stage", *_FIELDS.values()), body, words=("task", "stage"))


def _value(values: Mapping[str, float], name: str) -> str:
    """A cell; an rl stage is as long as its updates, and its batches are rollouts."""
    if name == "epochs" and "updates" in values:
        return f"{values['updates']:g} updates"
    if name == "batch_size" and "prompts" in values:
        return f"{values['prompts']:g} × {values['answers']:g}"
    return f"{values[name]:.4g}"


def _printed(table: str, row: str, column: str) -> str:
    found = published.entry(table, row, column)
    return EMPTY if found is None else str(found)
