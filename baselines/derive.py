"""Fill a stage with the rows or pairs that its samples make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from baselines.preferences import preference_pairs
from baselines.responses import completion, is_refusal, is_whole
from train.rows import Example
from train.sampling import Answers, JudgedSample, Pairs, Sample, Verdicts
from train.stages import Stage
from train.template import PromptTemplate


def derive(stage: Stage, samples: Sequence[Sample], judged: Sequence[JudgedSample]) -> Stage:
    """The stage with `examples` or `pairs` made of the responses that its `derived` record asks for.

    `samples` are those of the record's sampling, `judged` the same with scores where it has a judging. The
    fingerprint of the stage stays the same. Raises ValueError for a sample of a prompt that was not asked.
    """
    match stage.derived:
        case None:
            return stage
        case Answers(samples=asked):
            _check(samples, asked.prompts)
            return replace(stage, examples=answers(samples, asked.prompts, asked.template))
        case Pairs(judged=judging) as wanted:
            prompts = judging.samples.prompts
            _check([one.sample for one in judged], prompts)
            pairs = preference_pairs(
                judged,
                prompts,
                judging.samples.template,
                rule=wanted.rule,
                min_gap=wanted.min_gap,
                most_per_prompt=wanted.most_per_prompt,
                seed=stage.seed,
            )
            return replace(stage, pairs=pairs)
        case Verdicts(judged=judging):
            from train.verifier import verifier_examples

            _check([one.sample for one in judged], judging.samples.prompts)
            return replace(stage, examples=verifier_examples(judged, judging.samples.prompts))


def answers(samples: Sequence[Sample], prompts: Sequence[Example], template: PromptTemplate) -> tuple[Example, ...]:
    """A supervised row for every sampled response that is whole and no refusal, in the order of the samples."""
    return tuple(
        replace(prompts[sample.prompt], completion=completion(sample, template))
        for sample in samples
        if is_whole(sample) and not is_refusal(sample.text)
    )


def _check(samples: Sequence[Sample], prompts: Sequence[Example]) -> None:
    for sample in samples:
        if not 0 <= sample.prompt < len(prompts):
            raise ValueError(
                f"samples: one answers prompt {sample.prompt}, but only {len(prompts)} were asked; sample again"
            )
