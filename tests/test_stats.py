"""Statistics against closed forms, scipy, and simulation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
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


def ranked(names: Sequence[str], samples: Sequence[Sample]) -> dict[str, int]:
    by_name = dict(zip(names, samples, strict=True))
    return stats.ranks(names, lambda first, second: (by_name[first], by_name[second]))


def test_ranks_share_what_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.1, 60)
    samples = [Sample.of(list(shift + noise + rng.normal(0, 0.05, 60))) for shift in (0.0, 0.5, 0.501)]
    assert ranked(["low", "a", "b"], samples) == {"low": 3, "a": 1, "b": 1}


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


# --- worlds and seeds above entities ---------------------------------------------------------------------------


def two_levels(
    rng: np.random.Generator, worlds: int, entities: int, *, between: float, within: float, shift: float = 0.0
) -> tuple[Sample, Sample]:
    """Two models in worlds that differ, and that favour one or the other of them by chance (sd `between`)."""
    level = rng.normal(0.5, 0.1, (worlds, 1))
    liking = shift + rng.normal(0, between, (worlds, 1))
    easy = rng.normal(0, 0.2, (worlds, entities))
    first, second = (
        (level + extra + easy + rng.normal(0, within, (worlds, entities))).ravel() for extra in (liking, 0.0)
    )
    names = [f"{w}-{i}" for w, i in itertools.product(range(worlds), range(entities))]
    places = list(np.repeat(range(worlds), entities))
    return Sample.of(list(first), None, names, places), Sample.of(list(second), None, names, places)


@pytest.mark.parametrize(("worlds", "between"), [(2, 0.05), (3, 0.05), (5, 0.05), (5, 0.0)])
def test_paired_differences_over_worlds_cover_and_hold_their_level(worlds: int, between: float) -> None:
    rng = np.random.default_rng([9, worlds, round(100 * between)])
    covered = rejected = 0
    for _ in range(400):
        got = stats.paired(*two_levels(rng, worlds, 40, between=between, within=0.1, shift=0.1))
        assert got.low is not None and got.high is not None
        covered += got.low <= 0.1 <= got.high
        null = stats.paired(*two_levels(rng, worlds, 40, between=between, within=0.1))
        rejected += null.p is not None and null.p < 0.05
    # Never below the nominal rate by more than chance; above it, since the weaker of two tests counts.
    assert covered / 400 >= 0.92 and rejected / 400 <= 0.075


def test_taking_worlds_for_entities_would_be_wrong() -> None:
    """The control of the test above: without the level of worlds, intervals are far too narrow."""
    rng = np.random.default_rng(10)
    covered = 0
    for _ in range(200):
        a, b = two_levels(rng, 5, 40, between=0.05, within=0.1, shift=0.1)
        flat = [Sample.of(list(s.numerator), None, [str(c) for c in s.cluster]) for s in (a, b)]
        got = stats.paired(*flat, resamples=0)
        covered += got.low is not None and got.high is not None and got.low <= 0.1 <= got.high
    assert covered / 200 < 0.75


@pytest.mark.parametrize("seeds", [2, 5])
def test_seeds_over_the_same_entities_cover_new_seeds_and_new_entities(seeds: int) -> None:
    rng = np.random.default_rng([11, seeds])
    entities, names = 60, [str(i) for i in range(60)] * seeds
    places, covered = list(np.repeat(range(seeds), entities)), 0
    for _ in range(300):
        easy, luck = rng.normal(0, 0.2, entities), rng.normal(0, 0.04, (seeds, 1))
        values = 0.5 + easy + luck + rng.normal(0, 0.05, (seeds, entities))
        got = stats.ratio(Sample.of(list(values.ravel()), None, names, places), share=False)
        covered += got.low is not None and got.high is not None and got.low <= 0.5 <= got.high
    assert covered / 300 >= 0.92


def test_the_detectable_difference_is_found_four_times_out_of_five_over_worlds() -> None:
    rng = np.random.default_rng(12)
    worlds, entities, between, within = 5, 200, 0.05, 0.05
    true_se = np.sqrt((between**2 + 2 * within**2 / entities) / worlds)
    shift = stats.minimal_detectable_difference(true_se, worlds - 1)
    found, stated = 0, []
    for _ in range(400):
        got = stats.paired(*two_levels(rng, worlds, entities, between=between, within=within, shift=shift))
        assert got.detectable is not None
        found += got.p is not None and got.p < 0.05
        stated.append(got.detectable)
    assert found / 400 == pytest.approx(0.8, abs=0.06)
    # What each run states of itself scatters round that, by the scatter of a standard error from 5 worlds.
    assert 0.8 * shift < np.median(stated) < 1.1 * shift


# --- right or wrong, and ranks -------------------------------------------------------------------------------------


def test_mcnemar_holds_its_level_and_agrees_with_the_bootstrap_on_independent_answers() -> None:
    rng = np.random.default_rng(13)
    exact = bootstrap = 0
    for _ in range(300):
        known = rng.random(120)
        a, b = ((rng.random(120) < known).astype(float) for _ in range(2))
        exact += stats.mcnemar_exact(int((a > b).sum()), int((a < b).sum())) < 0.05
        bootstrap += (stats.paired(Sample.of(list(a)), Sample.of(list(b)), resamples=499).p or 0.0) < 0.05
    assert exact / 300 <= 0.07 and bootstrap / 300 <= 0.08 and abs(exact - bootstrap) <= 15


def test_equal_models_share_the_first_rank() -> None:
    rng = np.random.default_rng(14)
    apart = 0
    for _ in range(150):
        easy = rng.normal(0.5, 0.2, 60)
        samples = [Sample.of(list(easy + rng.normal(0, 0.1, 60))) for _ in range(6)]
        apart += set(ranked("abcdef", samples).values()) != {1}
    # Any of 15 pairs found apart is one error: Holm's correction keeps that below 5 %.
    assert apart / 150 <= 0.09


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_ranks_count_the_significantly_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["a", "b", "c", "d"]
    samples = [Sample.of(list(shift + rng.normal(0, 0.3, 40))) for shift in rng.choice([0.0, 0.1, 0.4], 4)]
    got = ranked(names, samples)
    pairs = list(itertools.combinations(range(4), 2))
    found = [scipy_stats.ttest_rel(samples[i].numerator, samples[j].numerator) for i, j in pairs]
    adjusted = stats.holm([float(f.pvalue) for f in found])
    expected = dict.fromkeys(names, 1)
    for (i, j), f, p in zip(pairs, found, adjusted, strict=True):
        if p < 0.05:
            expected[names[j if f.statistic > 0 else i]] += 1
    assert got == expected
    turned = ranked(names[::-1], samples[::-1])
    assert turned == got and min(got.values()) == 1


def test_items_that_differ_in_one_entity_alone_give_a_finite_interval() -> None:
    # Resamples without that entity have no spread; what rounding leaves of it must not be divided by.
    for odd in (1 / 7, -0.15, 1 / 3):
        for size in range(8, 30):
            first = [0.3 + (odd if i == 3 else 0.0) for i in range(size)]
            d = stats.paired(stats.Sample.of(first), stats.Sample.of([0.3] * size))
            assert d.low is not None and d.high is not None
            assert -1 < d.low <= odd / size <= d.high < 1
