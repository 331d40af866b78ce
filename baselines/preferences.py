"""Preference pairs out of scored responses, shared by FLAME and FactTune.

Two responses to one prompt make a pair when their scores differ; the higher score is chosen. FactTune (Tian et al.
2023, arXiv 2311.08401) takes every such pair, FLAME (Lin et al. 2024, arXiv 2405.01525) the best and the worst
response of a prompt. Ours: responses without a score, empty ones and ones cut off by the length limit take no part,
two responses of the same words make no pair, and a pair sampled several times counts as often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

from baselines.responses import completion, is_whole
from train.rows import Example
from train.sampling import JudgedSample, Preference
from train.seeds import generator
from train.template import PromptTemplate

Scored = tuple[float, str]


def preference_pairs(
    judged: Sequence[JudgedSample],
    prompts: Sequence[Example],
    template: PromptTemplate,
    *,
    rule: Literal["all", "extremes"],
    min_gap: float = 0.0,
    most_per_prompt: int | None = None,
    seed: int = 0,
) -> tuple[Preference, ...]:
    """The pairs of all prompts, in the order of the prompts and of the responses to each.

    Scores must differ by more than `min_gap`. Of a prompt with more than `most_per_prompt` pairs so many are drawn,
    keyed by (seed, prompt). Of equal extremes the response sampled first counts.
    """
    responses: dict[int, list[Scored]] = {}
    for one in judged:
        if one.score is not None and is_whole(one.sample):
            responses.setdefault(one.sample.prompt, []).append((one.score, completion(one.sample, template)))
    pairs: list[Preference] = []
    for prompt in sorted(responses):
        found = [
            Preference(prompts[prompt], chosen=better[1], rejected=worse[1])
            for better, worse in _ordered(responses[prompt], rule)
            if better[0] - worse[0] > min_gap and better[1] != worse[1]
        ]
        if most_per_prompt is not None and len(found) > most_per_prompt:
            kept = generator(seed, "preference-pairs", prompt).sample(range(len(found)), most_per_prompt)
            found = [found[index] for index in sorted(kept)]
        pairs += found
    return tuple(pairs)


def _ordered(responses: Sequence[Scored], rule: Literal["all", "extremes"]) -> Iterator[tuple[Scored, Scored]]:
    """The candidate pairs of one prompt, each with the higher score first."""
    if rule == "extremes":
        # max and min take the first of equals.
        yield max(responses, key=lambda one: one[0]), min(responses, key=lambda one: one[0])
        return
    for one, other in combinations(responses, 2):
        yield (one, other) if one[0] >= other[0] else (other, one)
