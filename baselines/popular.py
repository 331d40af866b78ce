"""POPULAR. Data: the most popular half of the real rows. Stages and loss: as SFT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from baselines.method import NotApplicable, Recipes, method
from train.rows import Example, TaskData
from train.seeds import generator
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "popular",
    title="POPULAR",
    reference="Ghosal, Hashimoto, Raghunathan: Understanding Finetuning for Factual Knowledge Extraction, "
    "arXiv 2406.14785.",
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """One plain stage on the kept rows. `side` bottom and random are controls of the same size."""
    if not task.real:
        raise NotApplicable("no real training rows")
    if unknown := sum(row.popularity is None for row in task.real):
        which = "the" if unknown == len(task.real) else f"{unknown} of {len(task.real)}"
        raise NotApplicable(f"{which} training rows carry no popularity")
    kept = keep(task.real, recipes, seed)
    recipe = recipes.sft
    if recipes.match_updates:
        recipe = replace(recipe, epochs=recipe.epochs * len(task.real) / len(kept))
    return Stage(name=f"{task.task}-popular", kind="sft", recipe=recipe, seed=seed, template=template, examples=kept)


def keep(rows: Sequence[Example], recipes: Recipes, seed: int) -> tuple[Example, ...]:
    """A `fraction` of all rows, or of each relation, in their old order; ties go to the earlier row."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.kind if recipes.stratify == "relation" else "", []).append(index)
    chosen: set[int] = set()
    for name, group in groups.items():
        if recipes.side == "random":
            generator(seed, "popular", name).shuffle(group)
        else:
            sign = -1 if recipes.side == "top" else 1
            group.sort(key=lambda index: sign * cast(int, rows[index].popularity))
        chosen.update(group[: max(1, round(recipes.fraction * len(group)))])
    return tuple(rows[index] for index in sorted(chosen))
