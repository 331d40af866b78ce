"""SFT-GPT. Data: a teacher's answers to the real prompts. Stages and loss: as SFT.

It tells the style of a teacher's answers from what prerequisite learning does, whose fictitious data are a teacher's
text as well. Its exact definition was never published. Ours: the teacher answers each prompt once, greedily; answers
that are empty, cut off or decline are left out; the recipe is that of SFT.
"""

from __future__ import annotations

from baselines.method import NotApplicable, Recipes, method
from train.rows import TaskData
from train.sampling import Answers, Sampling
from train.stages import Stage
from train.template import PromptTemplate


@method(
    "sft_gpt",
    title="SFT-GPT",
    reference="A control of arXiv 2410.19290: supervised fine-tuning on the answers of a stronger model.",
)
def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """One plain stage on the teacher's answers."""
    if not task.real:
        raise NotApplicable("no real training rows")
    if not task.teacher:
        raise NotApplicable("no teacher to ask")
    asked = Sampling(
        name=f"{task.task}-teacher",
        prompts=task.real,
        # A greedy answer depends on no seed: every seed shares the teacher's answers.
        seed=0,
        max_new_tokens=task.max_new_tokens,
        teacher=task.teacher,
        temperature=0.0,
        template=template,
    )
    return Stage(
        name=f"{task.task}-sft-gpt",
        kind="sft",
        recipe=recipes.sft,
        seed=seed,
        template=template,
        derived=Answers(samples=asked),
    )
