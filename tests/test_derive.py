"""Stages filled in from samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines.derive import derive
from baselines.responses import is_refusal
from train.rows import Example
from train.sampling import Answers, JudgedClaim, JudgedSample, Judging, Pairs, Preference, Sample, Sampling, Verdicts
from train.stages import Recipe, Stage

PROMPTS = (Example("Who is Ann?", "gold", "Ann", prefill="Ann", popularity=3), Example("Who is Bob?", "gold", "Bob"))
SAMPLED = Sampling(name="s", prompts=PROMPTS, seed=0, max_new_tokens=9, count=2)
JUDGED = Judging(samples=SAMPLED, measure="fs")


def stage(derived: Answers | Pairs | Verdicts | None) -> Stage:
    kind = "dpo" if isinstance(derived, Pairs) else "sft"
    return Stage(name="t", kind=kind, recipe=Recipe(), seed=1, derived=derived)  # type: ignore[arg-type]


def test_answers_become_rows_without_those_that_teach_nothing() -> None:
    samples = [
        Sample(0, " is a baker.\n", "stop"),
        Sample(0, " is a baker who went on and", "length"),
        Sample(1, "", "stop"),
        Sample(1, " \n", "stop"),
        Sample(1, " I'm not sure who Bob is.", "stop"),
        Sample(1, " Bob is a cook.", "stop"),
    ]
    filled = derive(stage(Answers(samples=SAMPLED)), samples, ())
    assert filled.examples == (
        replace(PROMPTS[0], completion="is a baker."),
        replace(PROMPTS[1], completion="Bob is a cook."),
    )
    assert filled.pairs == ()


def test_scores_become_pairs() -> None:
    judged = [
        JudgedSample(Sample(0, f" {text}", "stop"), score) for text, score in (("a", 0.2), ("b", 0.9), ("c", 0.5))
    ]
    extremes = derive(stage(Pairs(judged=JUDGED, rule="extremes")), (), judged)
    assert extremes.pairs == (Preference(PROMPTS[0], "b", "a"),) and extremes.examples == ()
    limited = derive(stage(Pairs(judged=JUDGED, rule="all", min_gap=0.25, most_per_prompt=1)), (), judged)
    assert len(limited.pairs) == 1


def test_verdicts_become_rows_of_a_verifier() -> None:
    claims = (JudgedClaim("Ann is a baker.", True), JudgedClaim("Ann is a cook.", False), JudgedClaim("Ann is.", None))
    judged = [JudgedSample(Sample(0, " text", "stop"), 0.5, claims)]
    filled = derive(stage(Verdicts(judged=JUDGED)), (), judged)
    assert [(row.subject, row.completion) for row in filled.examples] == [("Ann", "Yes."), ("Ann", "No.")]


def test_the_fingerprint_stays_and_a_stage_of_given_rows_is_left_alone() -> None:
    planned = stage(Answers(samples=SAMPLED))
    filled = derive(planned, [Sample(0, " is a baker.", "stop")], ())
    assert filled != planned and filled.fingerprint("base") == planned.fingerprint("base")
    plain = replace(stage(None), examples=PROMPTS)
    assert derive(plain, (), ()) is plain


@pytest.mark.parametrize(
    "derived", [Answers(samples=SAMPLED), Pairs(judged=JUDGED, rule="all"), Verdicts(judged=JUDGED)]
)
def test_a_sample_of_a_prompt_that_was_not_asked_is_refused(derived: Answers | Pairs | Verdicts) -> None:
    sample = Sample(2, " text", "stop")
    with pytest.raises(ValueError, match="only 2 were asked"):
        derive(stage(derived), [sample], [JudgedSample(sample, 1.0)])


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I don't know.", True),
        ("  I’m not sure about that", True),
        ("Sorry, but this person is not famous.", True),
        ("As an AI model, I have no access", True),
        ("Unknown.", True),
        ("There is no public information on Ann.", True),
        ("Ann is a baker.", False),
        ("Unknown to many, Ann baked.", False),
        ("I Know Why the Caged Bird Sings", False),
        ("", False),
    ],
)
def test_refusals_are_known_by_how_they_begin(text: str, refuses: bool) -> None:
    assert is_refusal(text) == refuses
