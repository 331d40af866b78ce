"""Spearman's correlation with its interval: against scipy, by weights, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.metrics import correlation
from harness.metrics.correlation import spearman
from harness.metrics.summary import summarise_longform
from tests.test_metrics_longform import LETTERS, LongformScore

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=3, max_size=25)


def names(count: int) -> list[str]:
    return [f"e{i}" for i in range(count)]


@given(pairs)
def test_against_scipy_with_ties(rows: list[tuple[int, int]]) -> None:
    x, y = ([float(row[i]) for row in rows] for i in (0, 1))
    got = spearman(x, y, names(len(x)), [0] * len(x))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert got.value is None and got.method == "no variation"
    else:
        assert got.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-6)
        if got.low is not None and got.high is not None:
            assert -1 <= got.low <= got.value <= got.high <= 1


@given(pairs, st.integers(0, 99))
def test_a_weight_is_a_repetition(rows: list[tuple[int, int]], seed: int) -> None:
    x, y = (np.array([float(row[i]) for row in rows]) for i in (0, 1))
    counts = np.random.default_rng(seed).integers(0, 4, x.size)
    weighted = correlation._correlations(x, y, counts[:, None].astype(float))[0]
    a, b = np.repeat(x, counts), np.repeat(y, counts)
    if np.unique(a).size < 2 or np.unique(b).size < 2:
        assert np.isnan(weighted)
    else:
        assert weighted == pytest.approx(scipy_stats.spearmanr(a, b).statistic)


@pytest.mark.parametrize(("size", "strength"), [(20, 0.0), (60, 0.5), (60, 0.9)])
def test_the_interval_covers(size: int, strength: float) -> None:
    rng, hits = np.random.default_rng([size, round(10 * strength)]), 0
    truth = 6 / np.pi * np.arcsin(strength / 2)  # of two normal variables
    for _ in range(200):
        x = rng.normal(size=size)
        y = strength * x + np.sqrt(1 - strength**2) * rng.normal(size=size)
        got = spearman(list(x), list(y), names(size), [0] * size)
        hits += got.low is not None and got.high is not None and got.low <= truth <= got.high
    assert 0.90 <= hits / 200 <= 0.99


def test_several_worlds_are_the_unit() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 200))
    y = np.array([[0.2], [0.5], [0.8]]) * x + rng.normal(size=(3, 200))
    places = list(np.repeat(range(3), 200))
    got = spearman(list(x.ravel()), list(y.ravel()), names(600), places)
    each = [scipy_stats.spearmanr(x[w], y[w]).statistic for w in range(3)]
    z = np.arctanh(each)
    margin = scipy_stats.t.ppf(0.975, 2) * z.std(ddof=1) / np.sqrt(3)
    assert got.value == pytest.approx(np.tanh(z.mean()))
    assert (got.low, got.high) == pytest.approx((np.tanh(z.mean() - margin), np.tanh(z.mean() + margin)))
    assert got.worlds == 3 and [value for _, value in got.per_world] == pytest.approx(each)
    assert got == spearman(list(x.ravel()), list(y.ravel()), names(600), places)


@given(st.integers(0, 30))
@settings(max_examples=10)
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, 30).astype(float), rng.integers(0, 9, 30).astype(float)
    subjects = sorted(names(30))
    turn = rng.permutation(30)
    got = spearman(list(x), list(y), subjects, [0] * 30)
    other = spearman(list(x[turn]), list(y[turn]), [subjects[i] for i in turn], [0] * 30)
    assert (got.value, got.low, got.high) == pytest.approx((other.value, other.low, other.high))


def test_few_entities_have_no_interval() -> None:
    got = spearman([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], names(3), [0] * 3)
    assert got.value == pytest.approx(0.5) and got.low is None and "no interval" in got.method
    with pytest.raises(ValueError, match="equally long"):
        spearman([1.0], [1.0, 2.0], ["a"], [0])


def test_answers_about_entities_of_unknown_popularity_are_left_out() -> None:
    def score(i: int, claims: int, popularity: int | None) -> LongformScore:
        return LongformScore(f"p{i}", f"p{i}", 0, popularity, False, (LETTERS["s"],) * claims, False)

    known = [score(i, 1 + i // 3, i) for i in range(12)]
    numbers = summarise_longform([*known, score(98, 9, None), score(99, 0, 50)], [])
    assert numbers["claims_popularity"].n == 12
    assert numbers["claims_popularity"].value == pytest.approx(
        scipy_stats.spearmanr([1 + i // 3 for i in range(12)], range(12)).statistic
    )
    assert "claims_popularity" not in summarise_longform([score(0, 1, None)], [])
