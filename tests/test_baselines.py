"""The methods as graphs of stages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

import baselines
from baselines.method import METHODS, NotApplicable, Recipes
from train.rows import Example, KnowledgeSet, TaskData
from train.stages import Recipe, Stage
from train.template import PromptTemplate

TEMPLATE = PromptTemplate()
REAL = tuple(Example("q", "a", f"r{i}", popularity=p, kind="ab"[i % 2]) for i, p in enumerate((5, 1, 9, 7, 3, 9)))
FAKE = tuple(Example("q", "a", f"f{i}", fake=True, version=v) for i in range(3) for v in (0, 1))
KNOWLEDGE = tuple(
    KnowledgeSet(format_, fake, version, (f"{format_} {fake} {version}",))  # type: ignore[arg-type]
    for format_ in ("statement", "passage")
    for fake, version in ((True, 0), (True, 1), (False, None))
)
LONG = TaskData("persons", "multi_version", REAL, FAKE, knowledge=KNOWLEDGE)
SHORT = TaskData("popqa", "mixed", REAL, FAKE, knowledge=KNOWLEDGE)
RECIPES = Recipes(knowledge=Recipe(rank=2), sft=Recipe(rank=3), skill=Recipe(rank=4))


def plan(name: str, task: TaskData, recipes: Recipes = RECIPES) -> Stage | None:
    baselines.methods()
    return METHODS[name].plan(task, recipes, 7, TEMPLATE)


def stage(name: str, task: TaskData, recipes: Recipes = RECIPES) -> Stage:
    planned = plan(name, task, recipes)
    assert planned is not None
    return planned


def test_the_built_in_methods_come_in_the_order_of_the_tables_and_without_torch() -> None:
    assert [m.name for m in baselines.methods()][:5] == ["base", "sft", "popular", "sft_fictitious", "prereq_tune"]
    code = "import sys, baselines; baselines.methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_base_trains_nothing_and_sft_trains_on_the_real_rows() -> None:
    assert plan("base", LONG) is None
    sft = stage("sft", LONG)
    assert (sft.kind, sft.examples, sft.recipe, sft.needs, sft.seed) == ("sft", REAL, RECIPES.sft, (), 7)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [2, 3, 5]),
        ({"side": "bottom"}, [0, 1, 4]),
        ({"fraction": 1 / 6}, [2]),  # a tie with row 5 goes to the earlier row
        ({"stratify": "relation"}, [0, 2, 3, 5]),
    ],
)
def test_popular_keeps_the_most_popular_rows_in_order(options: dict[str, object], kept: list[int]) -> None:
    trained = stage("popular", SHORT, replace(RECIPES, **options)).examples  # type: ignore[arg-type]
    assert trained == tuple(REAL[i] for i in kept)


def test_popular_random_is_seeded_and_updates_can_be_matched() -> None:
    random = replace(RECIPES, side="random")
    assert stage("popular", SHORT, random).examples == stage("popular", SHORT, random).examples
    assert len(stage("popular", SHORT, random).examples) == 3
    matched = stage("popular", SHORT, replace(RECIPES, match_updates=True))
    assert matched.recipe.epochs == 2 * RECIPES.sft.epochs


def test_prereq_tune_needs_one_knowledge_stage_a_set_of_texts() -> None:
    long, short = stage("prereq_tune", LONG), stage("prereq_tune", SHORT)
    assert (long.kind, short.kind) == ("skill_multi_version", "skill_mixed")
    assert [need.texts for need in long.needs] == [k.texts for k in KNOWLEDGE if k.fake]
    assert [need.texts for need in short.needs] == [k.texts for k in KNOWLEDGE]
    assert all(need.kind == "knowledge" and need.recipe == RECIPES.knowledge for need in short.needs)
    assert long.examples == FAKE and short.examples == FAKE + REAL
    assert short.alternate_formats


def test_the_options_of_prereq_tune() -> None:
    statements = stage("prereq_tune", LONG, replace(RECIPES, formats="statement"))
    assert {need.format for need in statements.needs} == {"statement"} and not statements.alternate_formats
    fictitious = stage("prereq_tune", SHORT, replace(RECIPES, include_real=False))
    assert fictitious.examples == FAKE and all(need.fake for need in fictitious.needs)
    changes = {"passage": {"epochs": 5.0}, "passage-real": {"epochs": 9.0}}
    changed = stage("prereq_tune", SHORT, replace(RECIPES, knowledge_changes=changes, real_weight=1.0))
    epochs = {(need.format, need.fake): need.recipe.epochs for need in changed.needs}
    assert epochs[("statement", True)] == 1 and epochs[("passage", True)] == 5 and epochs[("passage", False)] == 9
    assert changed.real_weight == 1.0


@pytest.mark.parametrize("task", [LONG, SHORT])
def test_sft_fictitious_is_the_skill_stage_without_its_needs(task: TaskData) -> None:
    control, treated = stage("sft_fictitious", task), stage("prereq_tune", task)
    assert control == replace(treated, name=control.name, needs=())


def test_where_a_method_is_not_defined_it_says_why() -> None:
    unpopular = replace(SHORT, real=(replace(REAL[0], popularity=None),))
    for name, task, reason in (
        ("sft", replace(LONG, real=()), "no real training rows"),
        ("popular", unpopular, "no popularity"),
        ("sft_fictitious", replace(LONG, fictitious=()), "no fictitious training rows"),
        ("prereq_tune", replace(LONG, knowledge=()), "no texts"),
        ("sft", replace(LONG, exclusions={"sft": "not in the paper"}), "not in the paper"),
    ):
        with pytest.raises(NotApplicable, match=reason):
            plan(name, task)


@pytest.mark.parametrize(
    "options", [{"fraction": 0}, {"side": "left"}, {"formats": "tables"}, {"real_weight": -1}, {"stratify": "x"}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        replace(RECIPES, **options)  # type: ignore[arg-type]
