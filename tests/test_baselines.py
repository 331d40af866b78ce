"""The methods as graphs of stages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

import baselines
from baselines.method import METHODS, NotApplicable, Recipes
from train.rows import Example, KnowledgeSet, TaskData
from train.sampling import Answers, Pairs, Verdicts
from train.stages import Recipe, Rollouts, Stage
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
QA = replace(SHORT, short_answers=True)
RECIPES = Recipes(knowledge=Recipe(rank=2), sft=Recipe(rank=3), skill=Recipe(rank=4))


def plan(name: str, task: TaskData, recipes: Recipes = RECIPES) -> Stage | None:
    baselines.methods()
    return METHODS[name].plan(task, recipes, 7, TEMPLATE)


def stage(name: str, task: TaskData, recipes: Recipes = RECIPES) -> Stage:
    planned = plan(name, task, recipes)
    assert planned is not None
    return planned


def test_the_built_in_methods_come_in_the_order_of_the_tables_and_without_torch() -> None:
    order = ["base", "sft", "popular", "flame", "facttune", "rl", "sft_gpt", "sft_fictitious", "prereq_tune"]
    assert [m.name for m in baselines.methods()][: len(order)] == [name for name in order if name in METHODS]
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


def derived(planned: Stage, kind: type) -> Any:
    """The record of what a stage is derived from, which must be of this kind."""
    assert isinstance(planned.derived, kind)
    return planned.derived


def test_facttune_goes_on_from_the_stage_of_sft_and_ranks_its_answers() -> None:
    options = replace(RECIPES, measure="mc", min_gap=0.1, pairs_per_prompt=5, beta=0.3)
    tuned = stage("facttune", LONG, options)
    assert (tuned.kind, tuned.recipe, tuned.beta) == ("dpo", options.preference, 0.3)
    assert tuned.start is not None
    assert tuned.start.fingerprint("base") == stage("sft", LONG, options).fingerprint("base")
    pairs = derived(tuned, Pairs)
    assert (pairs.rule, pairs.min_gap, pairs.most_per_prompt) == ("all", 0.1, 5)
    sampling = pairs.judged.samples
    assert pairs.judged.measure == "mc" and sampling.model == tuned.start and sampling.prompts == REAL
    assert (sampling.count, sampling.temperature, sampling.shots) == (options.facttune_samples, 1.0, ())
    assert derived(stage("facttune", QA, options), Pairs).judged.measure == "match"


def test_flame_first_learns_what_the_base_says_and_then_prefers_the_better_supported() -> None:
    options = replace(RECIPES, shots=2)
    tuned = stage("flame", LONG, options)
    supervised = tuned.start
    assert supervised is not None and supervised.kind == "sft" and tuned.kind == "dpo"
    assert supervised.recipe == replace(options.sft, epochs=options.sft.epochs / options.flame_samples)
    asked = derived(supervised, Answers).samples
    assert asked.model is None and (asked.count, asked.temperature, asked.top_p) == (10, 0.7, 0.9)
    assert asked.stop == ("Question:",)
    assert len(asked.shots) == 2 and {*asked.shots} | {*asked.prompts} == {*REAL}
    assert len(asked.prompts) == len(REAL) - 2
    pairs = derived(tuned, Pairs)
    assert (pairs.rule, pairs.judged.measure) == ("extremes", "fs")
    compared = pairs.judged.samples
    assert (compared.model, compared.count, compared.shots) == (supervised, 4, ())
    assert compared.prompts == asked.prompts
    assert derived(stage("flame", QA, options), Pairs).judged.measure == "match"
    assert stage("flame", LONG, options) == tuned
    alone = stage("flame", LONG, replace(options, shots=0)).start
    assert alone is not None and derived(alone, Answers).samples.prompts == REAL
    baselines.methods()
    other = METHODS["flame"].plan(LONG, options, 8, TEMPLATE)
    assert other is not None and other.start is not None and derived(other.start, Answers).samples.shots != asked.shots


def test_rl_goes_on_from_sft_and_asks_a_verifier_trained_on_the_same_base() -> None:
    rollouts = Rollouts(updates=3, temperature=0.9)
    recipes = replace(RECIPES, verifier=Recipe(rank=5), rl=Recipe(rank=6), verifier_samples=2, rollouts=rollouts)
    tuned = stage("rl", replace(LONG, max_new_tokens=33), recipes)
    assert tuned.start == stage("sft", LONG) and tuned.examples == REAL and tuned.recipe.rank == 6
    assert tuned.rollouts == replace(rollouts, max_new_tokens=33) and tuned.derived is None
    verifier = tuned.verifier
    assert verifier is not None and (verifier.kind, verifier.start, verifier.recipe.rank) == ("sft", None, 5)
    judged = derived(verifier, Verdicts).judged
    assert judged.measure == "fs" and judged.samples.model == tuned.start and judged.samples.prompts == REAL
    assert (judged.samples.count, judged.samples.temperature, judged.samples.max_new_tokens) == (2, 0.9, 33)
    short = stage("rl", QA, recipes)
    assert short.verifier is None and short.rollouts is not None and short.rollouts.short_answers
    with pytest.raises(NotApplicable, match="no real training rows"):
        plan("rl", replace(LONG, real=()))


def test_a_template_without_an_opening_ends_answers_where_the_next_example_would_begin() -> None:
    from baselines.flame import next_question

    assert next_question(PromptTemplate(question="{question} =>", shot_separator="\n###\n")) == ("\n###\n",)


def test_sft_gpt_learns_the_answers_of_a_teacher_which_every_seed_shares() -> None:
    baselines.methods()
    taught = [METHODS["sft_gpt"].plan(replace(LONG, teacher="big"), RECIPES, seed, TEMPLATE) for seed in (1, 2)]
    one, other = (derived(planned, Answers).samples for planned in taught if planned is not None)
    assert one == other and (one.teacher, one.count, one.temperature, one.prompts) == ("big", 1, 0.0, REAL)
    assert taught[0] is not None and (taught[0].kind, taught[0].recipe) == ("sft", RECIPES.sft)


def test_where_a_method_is_not_defined_it_says_why() -> None:
    unpopular = replace(SHORT, real=(replace(REAL[0], popularity=None),))
    half_known = replace(SHORT, real=(replace(REAL[0], popularity=None), *REAL[1:]))
    for name, task, reason in (
        ("sft", replace(LONG, real=()), "no real training rows"),
        ("popular", unpopular, "the training rows carry no popularity"),
        ("popular", half_known, "1 of 6 training rows carry no popularity"),
        ("sft_fictitious", replace(LONG, fictitious=()), "no fictitious training rows"),
        ("prereq_tune", replace(LONG, knowledge=()), "no texts"),
        ("flame", replace(LONG, real=()), "no real training rows"),
        ("flame", replace(LONG, real=REAL[:5]), "too few for 5 demonstrations"),
        ("facttune", replace(LONG, real=()), "no real training rows"),
        ("sft_gpt", replace(LONG, real=(), teacher="big"), "no real training rows"),
        ("sft_gpt", LONG, "no teacher"),
        ("sft", replace(LONG, exclusions={"sft": "not in the paper"}), "not in the paper"),
    ):
        with pytest.raises(NotApplicable, match=reason):
            plan(name, task)


@pytest.mark.parametrize(
    "options",
    [
        {"fraction": 0},
        {"side": "left"},
        {"formats": "tables"},
        {"real_weight": -1},
        {"stratify": "x"},
        {"shots": -1},
        {"min_gap": -0.1},
        {"flame_samples": 0},
        {"pairs_per_prompt": 0},
        {"beta": 0},
        {"facttune_temperature": 0},
        {"flame_top_p": 1.5},
        {"measure": "bleu"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        replace(RECIPES, **options)  # type: ignore[arg-type]
