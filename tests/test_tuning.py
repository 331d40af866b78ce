"""Equal tuning and equal updates: the same budget for every method, the choice on validation scores alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines.method import Recipes
from harness.registry import METHODS
from harness.tuning import Setting, Trial, best, grid, matched, tuned, updates
from train.rows import Example, KnowledgeSet, TaskData
from train.sampling import Answers, Judging, Pairs, Sampling, Verdicts
from train.stages import Recipe, Stage
from train.template import PromptTemplate

REAL = tuple(Example("q", "a", f"r{i}", popularity=i) for i in range(40))
FAKE = tuple(Example("q", "a", f"f{i}", fake=True, version=v) for i in range(10) for v in (1, 2))
TEXTS = tuple(KnowledgeSet("passage", True, version, ("text",)) for version in (1, 2))
TASK = TaskData("persons", "multi_version", REAL, FAKE, knowledge=TEXTS)
RECIPES = Recipes(sft=Recipe(epochs=3, batch_size=8), skill=Recipe(epochs=12, batch_size=4), formats="passage")
TEMPLATE = PromptTemplate()


def stage(method: str, task: TaskData = TASK) -> Stage:
    planned = METHODS.get(method).plan(task, RECIPES, 3, TEMPLATE)
    assert planned is not None
    return planned


def test_the_grid_is_every_combination_once() -> None:
    assert grid((0.5, 1.0), (1.0, 2.0)) == (Setting(0.5, 1), Setting(0.5, 2), Setting(1, 1), Setting(1, 2))


def test_a_setting_scales_what_the_method_tunes_and_nothing_else() -> None:
    changed = tuned(RECIPES, METHODS.get("prereq_tune").tunes, Setting(0.5, 2.0))
    assert changed.skill == replace(RECIPES.skill, learning_rate=RECIPES.skill.learning_rate / 2, epochs=24)
    assert replace(changed, skill=RECIPES.skill) == RECIPES


def test_every_method_but_the_base_has_something_to_tune() -> None:
    for method in METHODS:
        assert bool(method.tunes) == (method.name != "base"), method.name
        assert all(isinstance(getattr(RECIPES, name), Recipe) for name in method.tunes)


def test_the_best_setting_wins_by_score_then_claims_then_nearness_to_the_preset() -> None:
    def trial(setting: Setting, score: float, claims: float) -> Trial:
        return Trial("persons", "sft", setting, score, claims, 40)

    low, long, far, near = Setting(0.25, 1), Setting(0.5, 1), Setting(0.5, 0.5), Setting(1.0, 0.5)
    trials = [trial(low, 0.4, 9), trial(far, 0.5, 4), trial(near, 0.5, 4), trial(long, 0.5, 3)]
    assert best(trials) == {("persons", "sft"): near}
    assert best(trials[:1]) == {("persons", "sft"): low}


@pytest.mark.parametrize("method", ["sft", "popular", "sft_fictitious", "prereq_tune"])
def test_matched_methods_make_the_updates_of_the_skill_stage(method: str) -> None:
    wanted = updates(stage("prereq_tune"))
    assert wanted == 30
    assert updates(matched(stage(method), TASK, RECIPES, 3, TEMPLATE)) == wanted


def test_without_a_skill_stage_sft_sets_the_number_of_updates() -> None:
    bare = replace(TASK, fictitious=(), knowledge=())
    assert updates(matched(stage("popular", bare), bare, RECIPES, 3, TEMPLATE)) == updates(stage("sft", bare)) == 15


def test_matching_reaches_the_stages_that_samples_and_preferences_rest_on() -> None:
    sft = stage("sft")
    sampling = Sampling(name="s", prompts=REAL, seed=1, max_new_tokens=8, model=sft, count=2)
    judging = Judging(samples=sampling, measure="fs")
    own = replace(sft, examples=(), derived=Answers(samples=sampling))
    verifier = replace(sft, examples=(), derived=Verdicts(judged=judging))
    last = Stage(
        name="dpo", kind="dpo", recipe=Recipe(epochs=1), seed=1, start=own, verifier=verifier,
        derived=Pairs(judged=judging, rule="all"),
    )  # fmt: skip
    made = matched(last, TASK, RECIPES, 3, TEMPLATE)
    assert made.recipe == last.recipe
    assert made.start is not None
    assert updates(made.start) == 30
    assert isinstance(made.derived, Pairs)
    assert made.derived.judged.samples.model is not None
    assert updates(made.derived.judged.samples.model) == 30
    assert made.verifier is not None
    assert made.verifier.recipe == verifier.recipe
    assert made.fingerprint("base") != last.fingerprint("base")
