"""PREREQ-TUNE: first the knowledge, then the skill, and only the skill is kept.

1. Knowledge. Data: raw texts about fictitious (and, in short QA, real) subjects. Stages: one adapter a set of
   texts. Loss: CE(all tokens | base + knowledge).
2. Skill. Data: answers about the same subjects. Stage: a fresh adapter, with the knowledge adapter of the
   rows at hand active and frozen. Loss: CE(answer | base + knowledge + skill); in short QA also
   real_weight * CE(answer | base + skill) over real rows.

The skill adapter never has to learn a fact, so it learns to state what the model knows. At inference the
knowledge adapters are left out: base + skill.
"""

from __future__ import annotations

from baselines.method import NotApplicable, Recipes, method
from baselines.skill import knowledge_sets, knowledge_stages, skill_stage
from train.rows import TaskData
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "prereq_tune",
    title="PREREQ-TUNE",
    reference="Fictitious Synthetic Data Can Improve LLM Factuality via Prerequisite Learning, arXiv 2410.19290.",
    tunes=("skill",),
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """The skill stage, which needs a knowledge stage (or one a strength) of each set of texts."""
    sets = knowledge_sets(task, recipes)
    if not any(texts.fake for texts in sets):
        raise NotApplicable("no texts about the fictitious subjects")
    knowledge = [stage for texts in sets for stage in knowledge_stages(task.task, texts, recipes, seed)]
    return skill_stage("prereq-tune", task, recipes, seed, template, needs=knowledge)
