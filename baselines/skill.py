"""The skill stage that PREREQ-TUNE and its control SFT-fictitious share, but for the knowledge under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from baselines.method import NotApplicable, Recipes
from train.rows import KnowledgeSet, TaskData
from train.stages import Stage
from train.template import PromptTemplate


def knowledge_sets(task: TaskData, recipes: Recipes) -> tuple[KnowledgeSet, ...]:
    """The sets whose adapters the task's skill rows can meet, of the formats asked for."""
    versions = {row.version for row in task.fictitious}
    with_real = task.skill_mode == "mixed" and recipes.include_real and bool(task.real)
    return tuple(
        texts
        for texts in task.knowledge
        if recipes.formats in ("both", texts.format) and (texts.version in versions if texts.fake else with_real)
    )


def knowledge_stages(task: str, texts: KnowledgeSet, recipes: Recipes, seed: int) -> tuple[Stage, ...]:
    """The stages that teach one set of texts: one, or one for each strength that the facts are to be known with.

    The adapters of several strengths hold the same facts, so the skill stage draws among them (the PopQA recipe of
    UCSB-NLP-Chang/Prereq_tune has three).
    """
    strengths = recipes.strengths_for(texts)
    stage = knowledge_stage(task, texts, recipes, seed)
    if len(strengths) == 1:
        return (replace(stage, recipe=strengths[0]),)
    return tuple(replace(stage, name=f"{stage.name}-{recipe.epochs:g}-epochs", recipe=recipe) for recipe in strengths)


def knowledge_stage(task: str, texts: KnowledgeSet, recipes: Recipes, seed: int) -> Stage:
    """The stage that teaches one set of texts, at the strength of the knowledge recipe."""
    return Stage(
        name=f"{task}-knowledge-{texts.label}",
        kind="knowledge",
        recipe=recipes.knowledge_for(texts),
        seed=seed,
        texts=texts.texts,
        format=texts.format,
        fake=texts.fake,
        version=texts.version,
    )


def skill_stage(
    name: str, task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate, needs: Sequence[Stage]
) -> Stage:
    """Fictitious rows, and real ones in the mixed stage, with the same draws whatever the stage needs."""
    if not task.fictitious:
        raise NotApplicable("no fictitious training rows")
    mixed = task.skill_mode == "mixed"
    return Stage(
        name=f"{task.task}-{name}",
        kind="skill_mixed" if mixed else "skill_multi_version",
        recipe=recipes.skill,
        seed=seed,
        template=template,
        examples=task.fictitious + (task.real if mixed and recipes.include_real else ()),
        needs=tuple(needs),
        real_weight=recipes.real_weight,
        alternate_formats=len({texts.format for texts in knowledge_sets(task, recipes)}) > 1,
        frozen_dropout=recipes.frozen_dropout,
    )
