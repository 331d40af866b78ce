"""Long answers: what each number counts, and the curve over the first k claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod import aggregate
from factscore_mod.records import Claim, Evidence, Judgement, ScoredClaim, ScoredResponse, Verdict
from harness import stats
from harness.metrics import longform
from harness.metrics.comparison import compare
from harness.metrics.longform import LongformScore
from harness.metrics.summary import longform_metrics, summarise_longform
from harness.records import Item, Response

LETTERS: dict[str, Verdict] = {"s": "supported", "n": "not_supported", "u": "unparsed", "e": "error"}


def answer(
    pattern: str, subject: str = "a", world: int = 0, abstained: bool = False, cut: bool = False
) -> LongformScore:
    """A response whose claims have these verdicts: s(upported), n(ot), u(nparsed), e(rror)."""
    return LongformScore(subject, subject, world, 10, abstained, tuple(LETTERS[c] for c in pattern), cut)


def several(*patterns: str, world: int = 0) -> list[LongformScore]:
    return [answer(p, subject=f"{world}-{i}", world=world) for i, p in enumerate(patterns)]


def test_numbers_by_hand() -> None:
    scores = [*several("ssn", "sn", "nu", "ue"), answer("", "x", abstained=True), answer("", "y", cut=True)]
    numbers = summarise_longform(scores, [2])
    value = {name: estimate.value for name, estimate in numbers.items()}
    n = {name: estimate.n for name, estimate in numbers.items()}
    assert value["accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3) and n["accuracy"] == 3
    assert value["accuracy_micro"] == pytest.approx(3 / 6) and n["accuracy_micro"] == 6
    # The abstention and the empty answer count 0; the answer with no judged claim is left out.
    assert value["accuracy_abstention_zero"] == pytest.approx((2 / 3 + 1 / 2) / 5)
    assert n["accuracy_abstention_zero"] == 5
    assert value["claims"] == pytest.approx(9 / 4) and value["supported_claims"] == pytest.approx(3 / 4)
    assert value["response_rate"] == pytest.approx(4 / 6) and n["response_rate"] == 6
    assert value["unparsed_rate"] == pytest.approx(2 / 9) and value["error_rate"] == pytest.approx(1 / 9)
    assert value["cut_off_rate"] == pytest.approx(1 / 6)
    first = 2 * (2 / 3) * 1 / (2 / 3 + 1)  # precision 2/3, recall 2/2
    second = 2 * (1 / 2) * (1 / 2) / 1  # precision 1/2, recall 1/2
    assert value["f1_at_2"] == pytest.approx((first + second) / 6) and n["f1_at_2"] == 6
    assert all(estimate.of and estimate.unit and estimate.method for estimate in numbers.values())


def test_nothing_to_judge_is_no_number() -> None:
    numbers = summarise_longform([answer("", abstained=True)], [4])
    assert numbers["accuracy"].value is None and numbers["accuracy"].low is None and numbers["accuracy"].n == 0
    assert numbers["response_rate"].value == 0.0
    assert summarise_longform([], [])["accuracy"].value is None


def test_worlds_count_the_same_whatever_their_size() -> None:
    scores = several("s", "s", "n", "n", "n", "n", world=0) + several("s", "s", world=1)
    estimate = summarise_longform(scores, [])["accuracy"]
    assert estimate.value == pytest.approx((1 / 3 + 1) / 2)
    assert estimate.worlds == 2 and estimate.per_world == ((0, pytest.approx(1 / 3)), (1, 1.0))


def test_from_scored_keeps_the_order_of_the_claims() -> None:
    claims = tuple(ScoredClaim(Claim(c, 0), Evidence((), "none"), Judgement(LETTERS[c])) for c in ("n", "s", "u"))
    item = Item("persons", "i", "Tell", "Ada", popularity=5)
    response = Response("persons", "i", "m", 2, "text", 9, "length")
    scored = ScoredResponse("i", "Ada", "text", False, (), claims, "exact")
    score = longform.from_scored(scored, item, response, 2)
    assert score == LongformScore("i", "Ada", 2, 5, False, ("not_supported", "supported", "unparsed"), True)
    refused = ScoredResponse("i", "Ada", "text", True, (), claims, "exact")
    assert longform.from_scored(refused, item, response, 2).verdicts == ()


verdicts = st.lists(st.sampled_from(sorted(LETTERS)), max_size=8).map("".join)


def scored_response(pattern: str, number: int = 0) -> ScoredResponse:
    claims = tuple(ScoredClaim(Claim(c, 0), Evidence((), "none"), Judgement(LETTERS[c])) for c in pattern)
    return ScoredResponse(str(number), "topic", "text", False, (), claims, "exact")


@given(st.lists(verdicts, min_size=1, max_size=8), st.integers(1, 10))
def test_numbers_and_curve_by_another_implementation(patterns: list[str], max_k: int) -> None:
    scores = several(*patterns)
    responses = [scored_response(pattern, i) for i, pattern in enumerate(patterns)]
    numbers = summarise_longform(scores, [3])
    for name, expected in {
        "accuracy": aggregate.macro_accuracy(responses),
        "accuracy_abstention_zero": aggregate.macro_accuracy(responses, "zero"),
        "accuracy_micro": aggregate.micro_accuracy(responses),
        "claims": aggregate.claims_per_response(responses),
        "response_rate": aggregate.response_rate(responses),
        "unparsed_rate": aggregate.verdict_rate(responses, "unparsed"),
        "f1_at_3": aggregate.mean_f1_at_k(responses, 3),
    }.items():
        assert numbers[name].value == (None if expected is None else pytest.approx(expected)), name
    curve = longform.curve(scores, max_k)
    judged = [p.count("s") + p.count("n") for p in patterns]
    assert [point.k for point in curve.points] == list(range(1, min(max_k, max(judged)) + 1))
    for point in curve.points:
        assert point.accuracy.value == pytest.approx(aggregate.macro_accuracy_over_first(responses, point.k))
        assert point.accuracy.n == curve.responses == sum(n > 0 for n in judged)
        assert point.claims == pytest.approx(sum(min(n, point.k) for n in judged) / curve.responses)
        assert point.reach == pytest.approx(sum(n >= point.k for n in judged) / curve.responses)


def test_the_curve_ends_at_the_headline() -> None:
    scores = several("ssnn", "sn", "nnns", "s", "u")
    last = longform.curve(scores, 99).points[-1].accuracy
    headline = summarise_longform(scores, [])["accuracy"]
    assert (last.value, last.low, last.high) == (headline.value, headline.low, headline.high)


def test_curve_without_answers_is_empty() -> None:
    assert longform.curve([answer("", abstained=True)], 5).points == ()
    with pytest.raises(ValueError, match="max_k"):
        longform.curve([], 0)


def test_comparison_pairs_answers_and_corrects() -> None:
    base = several(*(["sn", "ss", "nn", "sn"] * 6))
    better = several(*(["ss", "ss", "sn", "sn"] * 6))
    silent = [answer("", s.subject, abstained=True) for s in base]
    rows = {
        (c.metric, c.model): c
        for c in compare({"sft": base, "new": better, "silent": silent}, "sft", longform_metrics())
    }
    new = rows["accuracy", "new"]
    assert new.value == pytest.approx(0.25)
    assert new.p is not None and new.p < 0.01 and new.p_holm is not None and new.p <= new.p_holm
    assert new.low is not None and new.high is not None and 0 < new.low < 0.25 < new.high
    assert new.detectable is not None and math.isfinite(new.detectable)
    assert new.better is None  # not a right-or-wrong score
    assert rows["accuracy", "silent"].value is None and rows["accuracy", "silent"].p_holm is None


# --- the area under the curve ------------------------------------------------------------------------------------


@given(st.lists(verdicts, min_size=2, max_size=10), st.integers(1, 8))
def test_the_area_is_that_under_the_curve(patterns: list[str], end: int) -> None:
    scores = several(*patterns)
    name = f"area_to_{end}"
    (metric,) = [m for m in longform_metrics((), end) if m.name == name]
    area, points = metric.estimate(scores), longform.curve(scores, end).points
    if not points:
        assert area.value is None
        return
    heights = [point.accuracy.value or 0.0 for point in points]
    heights += [heights[-1]] * (end - len(heights))  # past its longest answer the curve is level
    expected = heights[0] if end == 1 else float(np.trapezoid(heights)) / (end - 1)
    assert area.value == pytest.approx(expected) and area.n == sum(s.judged > 0 for s in scores)
    assert "divided by the range" in area.of and f"1 to {end}" in area.of


def test_the_interval_of_the_area_is_that_of_a_bootstrap_over_entities() -> None:
    rng = np.random.default_rng(0)
    scores = [answer("".join(rng.choice(["s", "n"], rng.integers(1, 9))), f"p{i}") for i in range(150)]
    (metric,) = [m for m in longform_metrics((), 5) if m.name == "area_to_5"]
    area = metric.estimate(scores)
    assert (area.low, area.high) == pytest.approx(stats.cluster_bootstrap(metric.sample(scores)), abs=0.006)


def test_the_common_range_ends_where_half_of_some_models_answers_do() -> None:
    long, short = several("s" * 8, "s" * 8, "s" * 6, "s"), several("sss", "ssn", "s", "u", "")
    assert longform.common_range([long]) == 8  # two of four reach 8
    assert longform.common_range([short]) == 3  # two of three with a judged claim reach 3
    assert longform.common_range([long, short]) == 3
    assert longform.common_range([long], reach=0.75) == 6 and longform.common_range([long], reach=1.0) == 1
    assert longform.common_range([long, [answer("", abstained=True)]]) == 0 == longform.common_range([])


@given(st.lists(st.lists(verdicts, min_size=1, max_size=6), min_size=1, max_size=3))
def test_the_common_range_by_the_curves(models: list[list[str]]) -> None:
    groups = [several(*patterns) for patterns in models]
    reached = [
        max((p.k for p in longform.curve(group, 20).points if p.reach >= longform.REACH), default=0) for group in groups
    ]
    assert longform.common_range(groups) == min(reached)
