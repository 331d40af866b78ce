"""What is said of rows near the base, and of the differences that a corrected test could have found."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from harness import stats
from harness.metrics.comparison import compare
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import longform_metrics, short_qa_metrics
from harness.reports import leaderboard, ordering
from tests.test_metrics_longform import answer
from tests.test_tables import POPQA, everything, order, qa

BASE_SHARE = 0.5


def near(items: int) -> list[QaScore]:
    """The base's answers, the last four drawn anew."""
    return [*qa(BASE_SHARE, items, seed=1)[:-4], *qa(BASE_SHARE, items, seed=2)[-4:]]


def by_worlds(shares: Sequence[float], items: int = 60) -> list[QaScore]:
    """Answers in as many worlds, each with a share of its own."""
    return [
        score
        for world, share in enumerate(shares)
        for score in qa(share, items, worlds=len(shares))
        if score.world == world
    ]


# --- near the base -------------------------------------------------------------------------------------------


def test_a_method_whose_whole_interval_is_small_stays_close_to_the_base() -> None:
    base = qa(BASE_SHARE, 480, seed=1)
    found = order(POPQA, {"base": base, "prereq_tune": near(480), "sft": qa(0.1, 480, seed=1)})
    (pair,) = [p for p in found.base if p.expected.higher == "prereq_tune"]
    low, high = pair.difference.low, pair.difference.high
    assert low is not None and high is not None and -0.05 <= low <= 0 <= high <= 0.05
    assert (
        "prereq_tune stays close to the base: not told apart from it, the whole interval of the difference within "
        "5 points." in found.words
    )
    assert "base cannot be told apart from it" in found.words
    assert f"in what stays close (intervals within {100 * low:+.1f} and {100 * high:+.1f})." in found.details
    assert "Below the base: sft." in found.words and "cannot be told apart from the base" not in found.words


def test_a_method_that_may_be_far_from_the_base_is_not_called_close_to_it() -> None:
    few = {"base": qa(BASE_SHARE, seed=1), "prereq_tune": near(120), "sft": qa(0.1, seed=1)}
    scattered = {"base": by_worlds([0.8, 0.8, 0.8]), "prereq_tune": by_worlds([0.1, 0.7, 0.5])}
    for scores in (few, scattered):
        found = order(POPQA, scores)
        (pair,) = [p for p in found.base if p.expected.higher == "prereq_tune"]
        assert pair.verdict == "undecided" and pair.detectable_holm is not None
        assert "close to the base" not in found.words
        assert "prereq_tune cannot be told apart from the base." in found.words
        value = f"{100 * (pair.difference.value or 0.0):+.1f}"
        assert f"From the base: differences of {value} points in what cannot be told apart" in found.details
        unseen = f"true ones below {100 * pair.detectable_holm:.1f} points would often go unnoticed"
        assert unseen in found.details


def test_the_margin_is_the_constant_and_includes_its_ends() -> None:
    def pair(low: float, high: float) -> ordering.OrderedPair:
        difference = stats.Difference((low + high) / 2, low, high, 0.5, 9, 1, 0.01, "")
        return ordering.OrderedPair(ordering.Expectation("a", "base", "accuracy"), difference, 0.5, "undecided", 0.01)

    for low, high, close in ((-0.05, 0.05, True), (-0.0501, 0.02, False), (-0.02, 0.0501, False)):
        said = ordering.words((), (), [pair(low, high)], ranked=True)
        assert ("a stays close to the base" in said) == close
        assert ("a cannot be told apart from the base" in said) != close
    assert ordering.CLOSE == 0.05
    assert "within 5 points (our margin)" in leaderboard.render(everything())


def test_a_row_is_close_only_where_it_is_so_in_every_metric_and_a_count_never_is() -> None:
    def claims(model: str, pattern: str) -> list[LongformScore]:
        return [answer(pattern, f"{model}{i}") for i in range(80)]

    same = {"base": claims("p", "ssns"), "prereq_tune": claims("p", "ssns")}
    for headline, close in (("accuracy", True), ("claims", False)):
        found = ordering.order((), same, longform_metrics(), headline)
        assert found is not None and ("stays close to the base" in found.words) == close
    both = {"V1": 0.5, "V2": 0.5}
    elsewhere = [*qa(both, 240)[:240], *qa(both, 240, seed=3)[240:]]
    scores = {"base": qa(both, 240), "prereq_know1": qa(both, 240), "prereq_know2": elsewhere}
    found = order(("table2_grounding", "accuracy_v1", "accuracy_v2"), scores, ranked=False)
    assert "base + know_v1 + skill stays close to the base" in found.words
    assert "base + know_v2 + skill cannot be told apart from the base" in found.words


def test_agreeing_on_a_few_items_is_not_being_close() -> None:
    for entities, close in ((20, False), (72, False), (73, True)):
        same = {m: qa(BASE_SHARE, 3 * entities) for m in ("base", "prereq_tune")}
        found = order(POPQA, same)
        assert found.base[0].difference.clusters == entities and found.base[0].difference.value == 0
        assert ("stays close to the base" in found.words) == close
        assert ("cannot be told apart from the base" in found.words) != close


# --- what could have been found ------------------------------------------------------------------------------


def test_a_difference_of_the_corrected_size_is_found_at_the_strictest_step() -> None:
    rng = np.random.default_rng(21)
    noise, size, tests = 0.2, 50, 8
    true = stats.detectable_of_many([(noise / np.sqrt(size), size - 1)], tests)
    alone = stats.detectable_of_many([(noise / np.sqrt(size), size - 1)], 1)
    assert true is not None and alone is not None and true > 1.2 * alone
    zero = stats.Sample.of([0.0] * size)
    found = sum(
        (stats.paired(stats.Sample.of(list(rng.normal(true, noise, size))), zero, resamples=0).p or 0.0) < 0.05 / tests
        for _ in range(400)
    )
    assert found / 400 == pytest.approx(0.8, abs=0.06)


def test_what_stands_beside_a_corrected_verdict_is_corrected_too() -> None:
    shares = {"sft": 0.4, "base": 0.42, "popular": 0.5, "mine": 0.55}
    rows = compare({m: qa(share, 90, i) for i, (m, share) in enumerate(shares.items())}, "sft", short_qa_metrics()[:1])
    pairs = order(POPQA, {m: qa(share, 90, i) for i, (m, share) in enumerate(shares.items()) if m != "mine"})
    assert len(rows) == 3 and len(pairs.base) == 2
    for row in rows:
        alone, many = row.detectable, row.detectable_holm
        assert alone is not None and many is not None and many > alone
    for pair in pairs.base:
        d = pair.difference
        assert d.detectable == stats.detectable_of_many(d.spreads, 1)
        assert pair.detectable_holm == stats.detectable_of_many(d.spreads, 2)
    (same,) = compare({"sft": qa(0.5), "mine": qa(0.5)}, "sft", short_qa_metrics()[:1])
    assert same.detectable is None and same.detectable_holm is None


def test_over_worlds_the_view_that_says_less_counts_at_the_corrected_level() -> None:
    # At 5 % the entities say less, at 5 % / 20 the worlds with their one degree of freedom do.
    spreads = [(0.02, 1), (0.15, 200)]
    alone, many = (stats.detectable_of_many(spreads, tests) for tests in (1, 20))
    assert alone == stats.minimal_detectable_difference(0.15, 200)
    assert many == stats.minimal_detectable_difference(0.02, 1, level=1 - 0.05 / 20)
    assert stats.detectable_of_many([], 3) is None


def test_the_tables_show_the_corrected_difference_and_say_so() -> None:
    run = everything()
    text = leaderboard.render(run)
    for task in run.tasks:
        rows = [c for c in task.comparisons if c.metric == task.headline]
        if any(c.detectable_holm is not None for c in rows):
            level = f"at 5 % / {len(rows)}, the strictest step of Holm's correction"
            assert f"Smallest difference from {'SFT-real' if not task.ranks else rows[0].baseline}" in text
            assert level in text
    shown = text.split("Against sft, paired")[1].split("\n\n")[1].splitlines()
    (persons,) = [task for task in run.tasks if task.name == "persons"]
    first = next(c for c in persons.comparisons if c.metric == "accuracy" and c.model == "prereq_tune")
    assert "smallest detectable (Holm)" in shown[0] and first.detectable_holm is not None
    cells = next(line for line in shown if line.startswith("| prereq_tune |")).split("|")
    assert f"{100 * first.detectable_holm:.1f}" in cells[5]
    body = json.loads(run.to_json())["tasks"]["persons"]["comparisons"][0]
    assert {"detectable", "detectable_holm"} <= set(body)


def test_the_papers_difference_is_held_against_the_corrected_one() -> None:
    shares = {"prereq_tune": 0.5, "popular": 0.5, "sft": 0.5, "sft_fictitious": 0.5}
    found = order(POPQA, {m: qa(share, 1500, seed=i) for i, (m, share) in enumerate(shares.items())})
    undecided = [p for p in found.paper if p.verdict == "undecided"]
    missed = sum(100 * (p.detectable_holm or 0.0) > (p.expected.printed or 0.0) for p in undecided)
    alone = sum(100 * (p.difference.detectable or 0.0) > (p.expected.printed or 0.0) for p in undecided)
    assert missed >= alone and f"In {missed} of these the paper's own difference is smaller" in found.details


# --- ranks ---------------------------------------------------------------------------------------------------


def test_the_reading_notes_tell_the_two_families_apart() -> None:
    text = leaderboard.render(everything())
    assert "Ranks and the paper's order are tests of two families." in text
    assert "Holm's correction over all pairs of rows" in text and "over the pairs that the paper orders" in text
