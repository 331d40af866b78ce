"""RL: reward the claims of a model's own answers by the verdict of a verifier that says "No" where it does not know.

1. SFT, exactly as the method `sft` trains it.
2. Verifier. Data: the claims of answers sampled from the SFT model, each with the verdict of a reference text.
   Stage: one plain stage on the same base. Loss: CE(Yes or No | claim). A base that does not know a subject has
   mostly been judged wrong about it, so its verifier is conservative there.
3. RL. Data: the training prompts. Stage: RLOO, which goes on from the SFT adapter, its reference. A response earns 2
   for every claim that the verifier believes, -3 for every other, -15 if it is malformed, less 0.5 times its
   log-ratio to the reference. Short answers need no verifier: 2 if right, -3 if wrong, 0 for declining.

Deviations: RLOO in place of PPO, which TRL no longer has: whole responses are credited, not tokens, and there is no
value head. LoRA. Claims are found by the judge's decomposition and not by a fine-tuned one. SFT rows are whole
answers and not first sentences, which is why the reward as published would shrink answers to nothing where fewer
than three claims in five are true; `Rollouts.min_claims` is the guard against that, and ours. Rates and numbers of
updates are those of the recipes.
"""

from __future__ import annotations

from dataclasses import replace

from baselines import sft
from baselines.method import Recipes, method
from train.rows import TaskData
from train.sampling import Judging, Sampling, Verdicts
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "rl",
    title="RL",
    reference="Kang, Wallace, Tomlin, Kumar, Levine: Unfamiliar Finetuning Examples Control How Language Models "
    "Hallucinate, arXiv 2403.05612.",
    tunes=("rl",),
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """The RL stage, which goes on from the SFT stage and, unless answers are short, asks the verifier's."""
    start = sft.plan.function(task, recipes, seed, template)
    rollouts = replace(recipes.rollouts, max_new_tokens=task.max_new_tokens, short_answers=task.short_answers)
    return Stage(
        name=f"{task.task}-rl",
        kind="rl",
        recipe=recipes.rl,
        seed=seed,
        template=template,
        examples=task.real,
        start=start,
        verifier=None if task.short_answers else _verifier(task, recipes, seed, template, start),
        rollouts=rollouts,
    )


def _verifier(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate, start: Stage | None) -> Stage:
    sampled = Sampling(
        name=f"{task.task}-rl-verifier",
        prompts=task.real,
        seed=seed,
        max_new_tokens=task.max_new_tokens,
        model=start,
        count=recipes.verifier_samples,
        temperature=recipes.rollouts.temperature,
        template=template,
    )
    return Stage(
        name=f"{task.task}-rl-verifier",
        kind="sft",
        recipe=recipes.verifier,
        seed=seed,
        template=template,
        derived=Verdicts(judged=Judging(samples=sampled, measure="fs")),
    )
