"""SFT-fictitious. Data, stage and loss: PREREQ-TUNE's skill stage, with no knowledge adapters under it.

It sees the rows of PREREQ-TUNE in the same order, version by version, at the same hyper-parameters. So the
only difference is whether the facts in the answers are known before the answers are learnt. (Whether the
published control draws versions, and keeps the real rows of the QA tasks and their weight, is not known; this
is ours.)
"""

from __future__ import annotations

from baselines.method import Recipes, method
from baselines.skill import skill_stage
from train.rows import TaskData
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "sft_fictitious",
    title="SFT-fictitious",
    reference="The control of arXiv 2410.19290: its skill stage without prerequisite learning.",
    tunes=("skill",),
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """One skill stage without needs."""
    return skill_stage("sft-fictitious", task, recipes, seed, template, needs=())
