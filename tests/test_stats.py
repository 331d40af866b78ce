"""Statistics against closed forms, scipy, and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from harness.stats import Sample


def clusters(sizes: list[int]) -> list[str]:
    return [f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]


# --- closed forms --------------------------------------------------------------------------------------------


def test_unclustered_mean_is_the_textbook_t_interval() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=30)
    got = stats.ratio(Sample.of(list(values)), share=False)
    expected = scipy_stats.t.interval(0.95, 29, values.mean(), scipy_stats.sem(values))
    assert (got.low, got.high) == pytest.approx(expected)
    assert (got.n, got.clusters, got.df) == (30, 30, 29)


def test_clustered_share_by_hand() -> None:
    # Clusters with 2/2, 0/2 and 1/2: mean 1/2, cluster sums of residuals 1, -1, 0.
    sample = Sample.of([1, 1, 0, 0, 1, 0], None, clusters([2, 2, 2]))
    se = np.sqrt((1 + 1 + 0) * 3 / 2) / 6
    assert stats.ratio(sample, share=False).se == pytest.approx(se)


def test_repeating_every_item_of_a_cluster_changes_nothing() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    once = stats.ratio(Sample.of(values))
    thrice = stats.ratio(Sample.of(list(np.repeat(values, 3)), None, clusters([3] * 8)))
    assert (once.value, once.low, once.high) == pytest.approx((thrice.value, thrice.low, thrice.high))


@given(st.integers(0, 40), st.integers(1, 40))
def test_wilson_against_scipy(successes: int, extra: int) -> None:
    n = successes + extra
    expected = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert stats.wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_perfect_score_is_not_certain() -> None:
    got = stats.ratio(Sample.of([1.0] * 10))
    assert got.value == got.high == 1.0
    assert got.low is not None and 0.6 < got.low < 0.75


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_intervals_hold_the_value_and_stay_in_bounds(rows: list[tuple[int, int, int, int]]) -> None:
    sample = Sample.of(
        [min(top, bottom) for top, bottom, _, _ in rows],
        [bottom for _, bottom, _, _ in rows],
        [str(c) for _, _, c, _ in rows],
        [w for _, _, _, w in rows],
    )
    got = stats.ratio(sample)
    if got.low is not None and got.high is not None:
        assert got.value is not None and 0 <= got.low <= got.value + 1e-9 and got.value - 1e-9 <= got.high <= 1
    again = stats.ratio(sample)
    assert got == again


def test_one_entity_gives_no_interval() -> None:
    got = stats.ratio(Sample.of([1, 0], None, ["a", "a"]))
    assert got.value == 0.5 and got.low is None and "no interval" in got.method


def test_several_worlds_are_the_unit() -> None:
    values, worlds = [], []
    for world, share in enumerate((0.2, 0.5, 0.8)):
        values += [1.0] * round(100 * share) + [0.0] * round(100 * (1 - share))
        worlds += [world] * 100
    got = stats.ratio(Sample.of(values, None, None, worlds))
    expected = scipy_stats.t.interval(0.95, 2, 0.5, np.std([0.2, 0.5, 0.8], ddof=1) / np.sqrt(3))
    assert (got.low, got.high) == pytest.approx((max(0, expected[0]), min(1, expected[1])))
    assert got.worlds == 3 and got.df == 2


def test_worlds_that_agree_are_still_uncertain() -> None:
    values = [1.0, 0.0] * 25
    got = stats.ratio(Sample.of(values * 2, None, None, [0] * 50 + [1] * 50))
    assert got.low is not None and got.low < 0.45


def test_the_same_entities_in_every_world_are_no_new_entities() -> None:
    rng = np.random.default_rng(1)
    values = list(rng.random(40))
    shared = stats.ratio(Sample.of(values * 5, None, [str(i) for i in range(40)] * 5, list(np.repeat(range(5), 40))))
    one = stats.ratio(Sample.of(values))
    assert None not in (shared.low, shared.high, one.low, one.high)
    width = (shared.high or 0) - (shared.low or 0)
    assert 1.0 <= width / ((one.high or 0) - (one.low or 0)) < 1.4


def test_empty_worlds_do_not_count() -> None:
    got = stats.ratio(Sample.of([1, 0, 1, 0], [1, 1, 0, 0], None, [0, 0, 1, 1]))
    assert got.worlds == 1 and got.value == 0.5


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(stats.StatisticsError, match="equally long"):
        Sample.of([1, 0], [1])


# --- pairs ---------------------------------------------------------------------------------------------------


def test_paired_t_against_scipy() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(25), rng.random(25)
    got = stats.paired(Sample.of(list(a)), Sample.of(list(b)), resamples=0)
    expected = scipy_stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    assert got.p == pytest.approx(expected.pvalue)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))


def test_paired_bootstrap_is_close_to_t_and_repeats_itself() -> None:
    rng = np.random.default_rng(3)
    a = rng.random(80)
    b = a + rng.normal(0.05, 0.2, 80)
    first, second = Sample.of(list(b)), Sample.of(list(a))
    boot, t = stats.paired(first, second), stats.paired(first, second, resamples=0)
    assert boot == stats.paired(first, second)
    assert boot.low == pytest.approx(t.low, abs=0.006) and boot.p == pytest.approx(t.p, abs=0.02)


@given(st.integers(0, 10_000))
def test_interval_and_p_value_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worlds = [int(w) for w in np.arange(30) // (15 if seed % 2 else 30)]
    a, b = (Sample.of(list(rng.random(30) + s), None, None, worlds) for s in (0.12, 0.0))
    got = stats.paired(a, b, resamples=199)
    assert got.p is not None and got.low is not None and got.high is not None
    assert (got.p <= 0.05) == (not got.low <= 0 <= got.high)
    assert stats.paired(b, a, resamples=199).value == pytest.approx(-(got.value or 0))


def test_pairing_over_worlds_removes_their_level() -> None:
    rng = np.random.default_rng(4)
    worlds = list(np.repeat(range(4), 50))
    level = np.repeat([0.1, 0.3, 0.5, 0.7], 50)
    a = Sample.of(list(level + 0.1 + rng.normal(0, 0.02, 200)), None, None, worlds)
    b = Sample.of(list(level + rng.normal(0, 0.02, 200)), None, None, worlds)
    got = stats.paired(a, b)
    single = stats.ratio(a)
    assert got.low is not None and got.high is not None and single.low is not None and single.high is not None
    assert got.high - got.low < 0.1 * (single.high - single.low)
    assert got.value == pytest.approx(0.1, abs=0.01)


def test_pairs_must_be_the_same_items() -> None:
    with pytest.raises(stats.StatisticsError, match="same items"):
        stats.paired(Sample.of([1, 0]), Sample.of([1, 0], None, ["a", "a"]))


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_against_the_binomial_test(better: int, worse: int) -> None:
    expected = scipy_stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert stats.mcnemar_exact(better, worse) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_by_definition(ps: list[float]) -> None:
    got = stats.holm(ps)
    order = sorted(range(len(ps)), key=ps.__getitem__)
    for step, i in enumerate(order):
        assert got[i] == pytest.approx(max(min(1.0, (len(ps) - j) * ps[order[j]]) for j in range(step + 1)))


def test_ranks_share_what_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.1, 60)
    samples = [Sample.of(list(shift + noise + rng.normal(0, 0.05, 60))) for shift in (0.0, 0.5, 0.501)]
    empty = Sample.of([0.0] * 60, [0.0] * 60)
    assert stats.ranks(["low", "a", "b", "none"], [*samples, empty]) == {"low": 3, "a": 1, "b": 1}


def test_minimal_detectable_difference_has_its_power() -> None:
    for df in (3, 20, 500):
        shift = stats.minimal_detectable_difference(1.0, df)
        critical = scipy_stats.t.ppf(0.975, df)
        assert scipy_stats.nct.sf(critical, df, shift) == pytest.approx(0.8, abs=1e-6)
    assert stats.minimal_detectable_difference(1.0, 10**6) == pytest.approx(1.96 + 0.8416, abs=1e-3)


# --- simulation ----------------------------------------------------------------------------------------------


def simulated_claims(rng: np.random.Generator, entities: int, worlds: int, spread: float, mean: float) -> Sample:
    """Claims of entities whose own accuracies differ, in worlds whose levels differ."""
    tops, bottoms = [], []
    for _ in range(worlds):
        level = float(np.clip(mean + spread * rng.standard_normal(), 0.02, 0.98))
        bottoms.append(rng.integers(1, 9, entities))
        tops.append(rng.binomial(bottoms[-1], rng.beta(4 * level, 4 * (1 - level), entities)))
    names = [f"{w}-{i}" for w, i in itertools.product(range(worlds), range(entities))]
    return Sample.of(
        list(np.concatenate(tops)), list(np.concatenate(bottoms)), names, list(np.repeat(range(worlds), entities))
    )


@pytest.mark.parametrize(
    ("entities", "worlds", "spread", "mean"),
    [(12, 1, 0.0, 0.5), (40, 1, 0.0, 0.9), (150, 1, 0.0, 0.3), (60, 2, 0.05, 0.5), (60, 4, 0.05, 0.5)],
)
def test_intervals_cover_at_their_nominal_rate(entities: int, worlds: int, spread: float, mean: float) -> None:
    rng = np.random.default_rng([entities, worlds])
    hits = 0
    for _ in range(400):
        got = stats.ratio(simulated_claims(rng, entities, worlds, spread, mean))
        assert got.low is not None and got.high is not None
        hits += got.low <= mean <= got.high
    # 400 draws at 95 %: the standard error is 1.1 points. Over worlds the interval may be somewhat cautious.
    assert 0.918 <= hits / 400 <= (0.98 if worlds == 1 else 0.995)


def test_bootstrap_interval_of_a_ratio_agrees_with_the_linearised_one() -> None:
    sample = simulated_claims(np.random.default_rng(6), 200, 1, 0.0, 0.4)
    exact = stats.ratio(sample)
    assert stats.cluster_bootstrap(sample) == pytest.approx((exact.low, exact.high), abs=0.006)


@pytest.mark.parametrize(("entities", "worlds", "resamples"), [(20, 1, 499), (80, 1, 499), (40, 3, 0)])
def test_paired_test_holds_its_level(entities: int, worlds: int, resamples: int) -> None:
    rng = np.random.default_rng([7, entities])
    names = [f"{w}-{i}" for w, i in itertools.product(range(worlds), range(entities))]
    places = list(np.repeat(range(worlds), entities))
    rejected = 0
    for _ in range(400):
        known = rng.random(entities * worlds)
        a, b = ((rng.random(known.size) < known).astype(float) for _ in range(2))
        got = stats.paired(
            Sample.of(list(a), None, names, places), Sample.of(list(b), None, names, places), resamples=resamples
        )
        rejected += got.p is not None and got.p < 0.05
    assert rejected / 400 <= 0.08


def test_paired_test_finds_what_it_says_it_can() -> None:
    rng = np.random.default_rng(8)
    noise, size = 0.2, 50
    shift = stats.minimal_detectable_difference(noise / np.sqrt(size), size - 1)
    zero = Sample.of([0.0] * size)
    found = sum(
        (stats.paired(Sample.of(list(rng.normal(shift, noise, size))), zero, resamples=0).p or 0) < 0.05
        for _ in range(400)
    )
    assert found / 400 == pytest.approx(0.8, abs=0.06)
