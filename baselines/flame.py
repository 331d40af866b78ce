"""FLAME: fine-tune on what the base itself says, then prefer the better supported of two answers.

A. Supervised. Data: answers that the base writes to the real prompts after a few solved examples, so that nothing is
   taught that it does not know. Stage: a fresh adapter. Loss: CE(own answer | base + adapter).
B. Preference. Data: answers of stage A's model; of each prompt the one with the largest and the one with the
   smallest share of supported claims. Stage: DPO, which goes on from stage A's adapter, its reference.

Every prompt of the tasks here asks for facts, so the paper's classifier of instructions and its second,
instruction-following reward fall away. Ours, where this task leaves it open: the demonstrations are the same rows for
every prompt, drawn by seed (the paper retrieves near ones); they are no prompts themselves. `shots` = 0 asks without
any, for a base that has never read so much text at once and breaks off after them. Stage A visits a prompt
as often as SFT does, each time with another of the sampled answers. An answer ends where the base begins to ask a
question of its own. Short answers are scored right or wrong. Deviations: LoRA in place of full fine-tuning, and
therefore the learning rate of the recipe in place of 1e-6. A tuning budget is spent on stage B.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.method import NotApplicable, Recipes, method
from train.rows import Example, TaskData
from train.sampling import Answers, Judging, Pairs, Sampling
from train.seeds import generator
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "flame",
    title="FLAME",
    reference="Lin et al.: FLAME: Factuality-Aware Alignment for Large Language Models, arXiv 2405.01525.",
    tunes=("preference",),
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """The preference stage, which goes on from the supervised one."""
    if not task.real:
        raise NotApplicable("no real training rows")
    shots, prompts = demonstrations(task.real, recipes.shots, seed)
    sampled = Sampling(
        name=f"{task.task}-flame-base",
        prompts=prompts,
        seed=seed,
        max_new_tokens=task.max_new_tokens,
        count=recipes.flame_samples,
        temperature=recipes.flame_temperature,
        top_p=recipes.flame_top_p,
        shots=shots,
        stop=next_question(template),
        template=template,
    )
    supervised = Stage(
        name=f"{task.task}-flame-sft",
        kind="sft",
        recipe=replace(recipes.sft, epochs=recipes.sft.epochs / recipes.flame_samples),
        seed=seed,
        template=template,
        derived=Answers(samples=sampled),
    )
    compared = Sampling(
        name=f"{task.task}-flame-pairs",
        prompts=prompts,
        seed=seed,
        max_new_tokens=task.max_new_tokens,
        model=supervised,
        count=recipes.flame_pair_samples,
        temperature=recipes.flame_temperature,
        top_p=recipes.flame_top_p,
        template=template,
    )
    judged = Judging(samples=compared, measure="match" if task.short_answers else "fs")
    return Stage(
        name=f"{task.task}-flame",
        kind="dpo",
        recipe=recipes.preference,
        seed=seed,
        template=template,
        start=supervised,
        derived=Pairs(judged=judged, rule="extremes", min_gap=recipes.min_gap),
        beta=recipes.beta,
    )


def demonstrations(rows: tuple[Example, ...], count: int, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """`count` rows drawn by seed, and all the others in their order. Raises NotApplicable where none is left."""
    if len(rows) <= count:
        raise NotApplicable(f"{len(rows)} real training rows are too few for {count} demonstrations")
    drawn = generator(seed, "demonstrations").sample(range(len(rows)), count)
    chosen = set(drawn)
    return tuple(rows[i] for i in drawn), tuple(row for i, row in enumerate(rows) if i not in chosen)


def next_question(template: PromptTemplate) -> tuple[str, ...]:
    """The stop strings of a base that may go on with a question: how one opens, else what stands between two."""
    opening = template.question.partition("{question}")[0].strip()
    return (opening or template.shot_separator,)
