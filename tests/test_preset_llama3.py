"""Preset `llama3-8b` beside the published values, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

import baselines
from baselines.method import METHODS, Recipes
from harness.config import load_preset
from harness.registry import TASKS
from train.rows import Example, KnowledgeFormat, KnowledgeSet, TaskData
from train.stages import Recipe, Stage
from train.template import PromptTemplate

PRESET = load_preset("llama3-8b")
MODES = {"persons": "multi_version", "medical": "multi_version", "popqa": "mixed", "hotpotqa": "mixed"}

# Source of the next two tables: the recipes of UCSB-NLP-Chang/Prereq_tune @ 4aabda8, recipes/llama3/*/cpt_*.yaml and
# bash_scripts/popqa.sh. Columns: epochs of each adapter, maximal length, rows a device and step, accumulation;
# eight devices.
KNOWLEDGE = {
    ("persons", "passage", True): ((15,), 768, 8, 2),
    ("persons", "statement", True): ((15,), 128, 64, 1),
    ("medical", "passage", True): ((15,), 512, 8, 2),
    ("medical", "statement", True): ((15,), 128, 64, 1),
    ("popqa", "passage", False): ((5,), 768, 8, 2),
    ("popqa", "passage", True): ((10, 12, 14), 256, 16, 1),
    ("popqa", "statement", False): ((3,), 64, 64, 1),
    ("popqa", "statement", True): ((6, 7, 8), 64, 64, 1),
    ("hotpotqa", "passage", False): ((15,), 512, 8, 2),
    ("hotpotqa", "passage", True): ((15,), 320, 16, 1),
    ("hotpotqa", "statement", False): ((1,), 64, 64, 1),
    ("hotpotqa", "statement", True): ((5,), 64, 64, 1),
}
# The same in every knowledge recipe: rank, alpha, dropout, rate, warm-up, weight decay, beta2.
KNOWLEDGE_SHARED = (32, 64, 0.05, 3e-5, 0.03, 0.1, 0.95)
# Source: recipes/llama3/*/sft.yaml. Columns: rank, alpha, rate, epochs, maximal length, subjects or rows a device and
# step, accumulation, lambda.
SKILL = {
    "persons": (64, 128, 3e-5, 50, 768, 8, 2, None),
    "medical": (64, 128, 5e-5, 80, 512, 8, 2, None),
    "popqa": (32, 64, 5e-5, 3, 64, 32, 2, 0.5),
    "hotpotqa": (64, 128, 3e-5, 4, 128, 16, 4, 1.0),
}
# The same in every skill recipe: dropout, warm-up, weight decay, beta2, gradient clip.
SKILL_SHARED = (0.05, 0.1, 0.01, 0.999, 1.0)
TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
# Source: arXiv 2410.19290, the table of hyper-parameters searched. Columns: ranks, rates, epochs, batch.
GRID = {
    "multi_version": ({32, 64, 128}, {3e-5, 5e-5}, {5, *range(10, 81, 10)}, 128),
    "mixed": ({16, 32, 64}, {3e-5, 5e-5}, {3, 4, 5}, 512),
}
# Source: arXiv 2405.01525 (FLAME), 2311.08401 and kttian/factual_dpo (FactTune), 2406.14785 (POPULAR).
BASELINES = {
    "fraction": 0.5,
    "side": "top",
    "shots": 5,
    "flame_samples": 10,
    "flame_temperature": 0.7,
    "flame_top_p": 0.9,
    "flame_pair_samples": 4,
    "facttune_samples": 10,
    "facttune_temperature": 1.0,
    "measure": "fs",
    "min_gap": 0.0,
    "pairs_per_prompt": None,
    "beta": 0.1,
}
# Source: arXiv 2403.05612 (RL), appendix E and katiekang1998/llm_hallucinations.
ROLLOUTS = {
    "temperature": 1.0, "true_reward": 2.0, "false_reward": -3.0, "malformed_reward": -15.0, "kl": 0.5,
}  # fmt: skip
VERIFIER = {
    "rank": 16, "alpha": 16, "dropout": 0.0, "learning_rate": 2e-5, "batch_size": 32, "weight_decay": 1e-6,
    "beta1": 0.9, "beta2": 0.95,
}  # fmt: skip


def recipes(task: str) -> Recipes:
    return PRESET.recipes_for(task, cast(Any, MODES[task]))


def shared(recipe: Recipe, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(recipe, name) for name in names)


@pytest.mark.parametrize(("where", "published"), KNOWLEDGE.items(), ids=["-".join(map(str, key)) for key in KNOWLEDGE])
def test_knowledge_recipes(where: tuple[str, KnowledgeFormat, bool], published: tuple[Any, ...]) -> None:
    task, format_, fake = where
    strengths, length, rows, accumulation = published
    made = recipes(task).strengths_for(KnowledgeSet(format_, fake, 0 if fake else None, ("text",)))
    assert tuple(recipe.epochs for recipe in made) == strengths
    for recipe in made:
        assert (recipe.max_length, recipe.micro_batch_size) == (length, rows)
        assert recipe.batch_size == rows * accumulation * 8
        names = ("rank", "alpha", "dropout", "learning_rate", "warmup_ratio", "weight_decay", "beta2")
        assert shared(recipe, *names) == KNOWLEDGE_SHARED
        assert recipe.min_lr_ratio == 0 and set(recipe.target_modules) == TARGETS and recipe.precision == "bf16"


@pytest.mark.parametrize(("task", "published"), SKILL.items())
def test_skill_recipes(task: str, published: tuple[Any, ...]) -> None:
    rank, alpha, rate, epochs, length, rows, accumulation, weight = published
    recipe = recipes(task).skill
    names = ("rank", "alpha", "learning_rate", "epochs", "max_length", "micro_batch_size")
    assert shared(recipe, *names) == (rank, alpha, rate, epochs, length, rows)
    assert recipe.batch_size == rows * accumulation * 8
    assert shared(recipe, "dropout", "warmup_ratio", "weight_decay", "beta2", "max_grad_norm") == SKILL_SHARED
    assert alpha == 2 * rank and set(recipe.target_modules) == TARGETS
    if weight is not None:
        assert recipes(task).real_weight == weight
    assert recipes(task).formats == "both" and recipes(task).frozen_dropout


@pytest.mark.parametrize("task", MODES)
def test_plain_fine_tuning_is_a_point_of_the_published_grid(task: str) -> None:
    ranks, rates, epochs, batch = GRID[MODES[task]]
    for recipe in (recipes(task).sft, recipes(task).skill):
        assert recipe.rank in ranks and recipe.alpha == 2 * recipe.rank
        assert recipe.learning_rate in rates and recipe.epochs in epochs and recipe.batch_size == batch


@pytest.mark.parametrize("task", MODES)
def test_the_baselines(task: str) -> None:
    made = recipes(task)
    assert {name: getattr(made, name) for name in BASELINES} == BASELINES
    assert made.preference.batch_size == 64 and made.preference.epochs == 1 and made.preference.max_grad_norm == 10
    assert made.rollouts.prompts_per_update * made.rollouts.generations == 128
    assert (made.rl.learning_rate, made.rl.min_lr_ratio, made.rl.beta2, made.rl.weight_decay) == (1e-5, 1, 0.95, 1e-6)


@pytest.mark.parametrize(("task", "rows", "claims"), [("persons", 397, 20.8), ("medical", 449, 9.2)])
def test_the_conservative_reward(task: str, rows: int, claims: float) -> None:
    made = recipes(task)
    assert {name: getattr(made.rollouts, name) for name in ROLLOUTS} == ROLLOUTS
    assert {name: getattr(made.verifier, name) for name in VERIFIER} == VERIFIER
    # 10,000 labelled responses; 10,000 updates of 32 claims.
    assert rows * made.verifier_samples == pytest.approx(10_000, rel=0.02)
    updates = made.verifier.epochs * rows * made.verifier_samples * claims / 32
    assert updates == pytest.approx(10_000, rel=0.05)


def test_short_answers_are_rewarded_as_published() -> None:
    made = recipes("popqa").rollouts
    assert (made.true_reward, made.false_reward, made.kl, made.temperature) == (2, -3, 0.1, 1)


def test_decoding() -> None:
    assert PRESET.generation.batch_size == 64 and PRESET.generation.dtype == "bfloat16"
    limits = {task: PRESET.generation.max_new_tokens.get(task, TASKS.get(task).max_new_tokens) for task in MODES}
    assert limits == {"persons": 1024, "medical": 1024, "popqa": 128, "hotpotqa": 128}
    assert PRESET.prompt_template() == PromptTemplate()  # "Question: ...\nAnswer:", a space before the answer


# --- several adapters of the same facts ----------------------------------------------------------------------

FAKE = (Example("q", "a", "f", fake=True),)
REAL = (Example("q", "a", "r"),)
TEXTS = tuple(
    KnowledgeSet(form, fake, None, (f"{form} {fake}",))  # type: ignore[arg-type]
    for form in ("statement", "passage")
    for fake in (True, False)
)


def planned(**options: Any) -> Stage:
    baselines.methods()
    task = TaskData("popqa", "mixed", REAL, FAKE, knowledge=TEXTS)
    stage = METHODS["prereq_tune"].plan(task, replace(recipes("popqa"), **options), 7, PromptTemplate())
    assert stage is not None
    return stage


def test_popqa_has_eight_knowledge_adapters_and_the_skill_stage_draws_among_all_that_fit() -> None:
    from collections import Counter

    from train.skill import AdapterSampler

    stage = planned()
    assert len(stage.needs) == 8 and len({need.name for need in stage.needs}) == 8
    names = {need.fingerprint("base"): (need.format, need.fake, need.recipe.epochs) for need in stage.needs}
    assert len(names) == 8
    sampler = AdapterSampler(stage, "base")
    drawn = [names[str(sampler.draw(step, fake=True, version=None))] for step in range(3000)]
    assert {format_ for format_, _, _ in drawn[::2]} == {"passage"}
    assert {format_ for format_, _, _ in drawn[1::2]} == {"statement"}
    counts = Counter(drawn)
    assert {epochs for _, _, epochs in counts} == {6, 7, 8, 10, 12, 14}
    # Uniform: five standard deviations of a binomial count of 1,500 draws at a third.
    assert all(abs(count - 500) < 5 * (1500 * 2 / 9) ** 0.5 for count in counts.values())


def test_without_strengths_nothing_changes() -> None:
    stage = planned(knowledge_strengths={})
    assert [need.name for need in stage.needs] == [f"popqa-knowledge-{texts.label}" for texts in TEXTS]


@pytest.mark.parametrize("strengths", [{"tables": [1]}, {"passage": []}, {"passage": [0]}, {"passage": [2, 2]}])
def test_wrong_strengths_are_refused(strengths: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="knowledge_strengths"):
        replace(recipes("popqa"), knowledge_strengths=strengths)
