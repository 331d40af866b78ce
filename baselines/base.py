"""The untouched base: no data, no stage, no loss. Always a row: fine-tuning may only harm."""

from __future__ import annotations

from baselines.method import Recipes, method
from train.rows import TaskData
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "base",
    title="Base (no fine-tuning)",
    reference="The pre-trained model as it is, zero-shot or few-shot.",
    tunes=(),
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage | None:
    """Nothing to train."""
    return None
