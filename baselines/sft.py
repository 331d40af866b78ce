"""SFT. Data: the real rows. Stages: one fresh adapter on the base. Loss: CE(answer | base + adapter)."""

from __future__ import annotations

from baselines.method import NotApplicable, Recipes, method
from train.rows import TaskData
from train.stages import Stage
from train.template import PromptTemplate


@method("sft", title="SFT", reference="Supervised fine-tuning on the task's reference answers.")
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """One plain stage on every real row."""
    if not task.real:
        raise NotApplicable("no real training rows")
    return Stage(
        name=f"{task.task}-sft",
        kind="sft",
        recipe=recipes.sft,
        seed=seed,
        template=template,
        examples=task.real,
    )
