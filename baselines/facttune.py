"""FactTune: prefer those of a model's own answers that are more factual.

1. SFT, exactly as the method `sft` trains it.
2. Preference. Data: answers sampled from the SFT model, each with a score: the share of claims that a reference text
   supports (`measure` fs), or how sure the base is of the claims on average (mc, ec; see `baselines.confidence`).
   Every two answers of a prompt whose scores differ are a pair. Stage: DPO, which goes on from the SFT adapter, its
   reference.

Ours, where the paper or its code leaves it open: beta, the share of the probability that is sampled from, that the
SFT rows are the task's reference answers, and that short answers are scored right or wrong. Deviations: LoRA in place
of full fine-tuning, AdamW and a cosine in place of RMSprop and a constant rate, and therefore the learning rate of
the recipe in place of 5e-7. A tuning budget is spent on the preference stage.
"""

from __future__ import annotations

from baselines import sft
from baselines.method import Recipes, method
from train.rows import TaskData
from train.sampling import Judging, Pairs, Sampling
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "facttune",
    title="FactTune",
    reference="Tian, Mitchell, Yao, Manning, Finn: Fine-tuning Language Models for Factuality, arXiv 2311.08401.",
    tunes=("preference",),
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """The preference stage, which goes on from the SFT stage."""
    start = sft.plan.function(task, recipes, seed, template)
    sampled = Sampling(
        name=f"{task.task}-facttune",
        prompts=task.real,
        seed=seed,
        max_new_tokens=task.max_new_tokens,
        model=start,
        count=recipes.facttune_samples,
        temperature=recipes.facttune_temperature,
        top_p=recipes.facttune_top_p,
        template=template,
    )
    judged = Judging(samples=sampled, measure="match" if task.short_answers else recipes.measure)
    return Stage(
        name=f"{task.task}-facttune",
        kind="dpo",
        recipe=recipes.preference,
        seed=seed,
        template=template,
        start=start,
        derived=Pairs(judged=judged, rule="all", min_gap=recipes.min_gap, most_per_prompt=recipes.pairs_per_prompt),
        beta=recipes.beta,
    )
