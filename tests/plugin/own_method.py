"""A method of somebody else's: the shorter half of the answers, from a package that the harness knows nothing of."""

from __future__ import annotations

from baselines.method import NotApplicable, Recipes, method
from train.rows import TaskData
from train.stages import Stage
from train.template import PromptTemplate


@method("brief", title="Brief", reference="An example of a method from another package.")
def brief(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """SFT on the shorter half of the real rows."""
    if not task.real:
        raise NotApplicable("no real training rows")
    rows = sorted(task.real, key=lambda row: len(row.completion))[: max(1, len(task.real) // 2)]
    return Stage(
        name=f"{task.task}-brief", kind="sft", recipe=recipes.sft, seed=seed, template=template, examples=tuple(rows)
    )
