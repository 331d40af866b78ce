"""Scored responses to preference pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.preferences import preference_pairs
from train.rows import Example
from train.sampling import JudgedSample, Preference, Sample
from train.template import PromptTemplate

PROMPTS = tuple(Example(f"q{i}", "", f"s{i}", prefill=f"s{i} is") for i in range(4))
TEMPLATE = PromptTemplate()


def judged(prompt: int, *scores: float | None, finish: str = "stop") -> list[JudgedSample]:
    """Responses r0, r1, ... with these scores."""
    return [
        JudgedSample(Sample(prompt, f" r{i}.\n", finish), score)  # type: ignore[arg-type]
        for i, score in enumerate(scores)
    ]


def names(pairs: tuple[Preference, ...]) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


def test_every_two_responses_whose_scores_differ_make_a_pair() -> None:
    pairs = preference_pairs(judged(1, 0.5, 1.0, 0.5, 0.0), PROMPTS, TEMPLATE, rule="all")
    assert names(pairs) == [("r1.", "r0."), ("r0.", "r3."), ("r1.", "r2."), ("r1.", "r3."), ("r2.", "r3.")]
    assert all(pair.example == PROMPTS[1] for pair in pairs)


def test_the_extremes_are_the_first_best_against_the_first_worst() -> None:
    scored = judged(0, 0.5, 1.0, 0.0, 1.0, 0.0)
    assert names(preference_pairs(scored, PROMPTS, TEMPLATE, rule="extremes")) == [("r1.", "r2.")]
    assert preference_pairs(judged(0, 0.5, 0.5), PROMPTS, TEMPLATE, rule="extremes") == ()
    assert preference_pairs(judged(0, 0.5), PROMPTS, TEMPLATE, rule="extremes") == ()


def test_the_gap_must_be_exceeded() -> None:
    scored = judged(0, 0.0, 0.25, 0.75)
    assert names(preference_pairs(scored, PROMPTS, TEMPLATE, rule="all", min_gap=0.25)) == [
        ("r2.", "r0."),
        ("r2.", "r1."),
    ]
    assert preference_pairs(scored, PROMPTS, TEMPLATE, rule="extremes", min_gap=0.75) == ()


def test_responses_without_a_score_empty_or_cut_off_take_no_part() -> None:
    scored = [
        *judged(0, None, 0.5),
        JudgedSample(Sample(0, " \n", "stop"), 1.0),
        *judged(0, 1.0, finish="length"),
    ]
    assert preference_pairs(scored, PROMPTS, TEMPLATE, rule="all") == ()
    same_words = [JudgedSample(Sample(0, text, "stop"), score) for text, score in ((" a.", 1.0), ("a. ", 0.0))]
    assert preference_pairs(same_words, PROMPTS, TEMPLATE, rule="all") == ()


def test_a_limit_draws_from_the_pairs_of_each_prompt_alone() -> None:
    whole = {i: judged(i, *(j / 10 for j in range(6))) for i in range(3)}

    def drawn(prompts: list[int], seed: int) -> list[tuple[str, str]]:
        scored = [one for i in prompts for one in whole[i]]
        pairs = preference_pairs(scored, PROMPTS, TEMPLATE, rule="all", most_per_prompt=4, seed=seed)
        return names(tuple(pair for pair in pairs if pair.example == PROMPTS[2]))

    assert len(drawn([0, 1, 2], 0)) == 4
    assert drawn([0, 1, 2], 0) == drawn([2], 0) == drawn([2, 1], 0)
    assert drawn([2], 0) != drawn([2], 1)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.sampled_from((0.0, 0.25, 0.5, 1.0)))), max_size=14),
    st.sampled_from(("all", "extremes")),
    st.sampled_from((0.0, 0.3)),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_pairs_are_what_they_say(
    drawn: list[tuple[int, float | None]], rule: str, min_gap: float, most: int | None
) -> None:
    scored = [JudgedSample(Sample(prompt, f" t{i}", "stop"), score) for i, (prompt, score) in enumerate(drawn)]
    scores = {one.sample.text.strip(): one.score for one in scored}
    prompt_of = {one.sample.text.strip(): PROMPTS[one.sample.prompt] for one in scored}
    pairs = preference_pairs(
        scored, PROMPTS, TEMPLATE, rule=rule, min_gap=min_gap, most_per_prompt=most, seed=3  # type: ignore[arg-type]
    )  # fmt: skip
    for pair in pairs:
        better, worse = scores[pair.chosen], scores[pair.rejected]
        assert better is not None and worse is not None and better - worse > min_gap
        assert pair.example == prompt_of[pair.chosen] == prompt_of[pair.rejected]
    for prompt in range(4):
        values = [score for p, score in drawn if p == prompt and score is not None]
        wanted = sum(abs(a - b) > min_gap for i, a in enumerate(values) for b in values[:i])
        if rule == "extremes":
            wanted = min(wanted, 1)
        found = sum(pair.example == PROMPTS[prompt] for pair in pairs)
        assert found == (wanted if most is None else min(wanted, most))


@pytest.mark.parametrize("text", [" born in Oslo.", "born in Oslo.", " born in Oslo. \n\n"])
def test_what_is_learnt_is_the_text_between_separator_and_eos(text: str) -> None:
    scored = [JudgedSample(Sample(0, text, "stop"), 1.0), JudgedSample(Sample(0, " never.", "stop"), 0.0)]
    (pair,) = preference_pairs(scored, PROMPTS, TEMPLATE, rule="all")
    assert pair == Preference(PROMPTS[0], "born in Oslo.", "never.")
