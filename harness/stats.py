"""Intervals, paired tests and power for scores that come in clusters.

Every score of the harness is a ratio of sums over items: accuracy over questions has numerators 0/1 and
denominators 1, accuracy over claims has supported and judged claims of each response, a mean over responding
items has denominators 0/1. The unit that was drawn is the *cluster* (an entity); *worlds* (or training seeds)
are drawn above it. One set of formulas therefore serves all:

- One world: Taylor-linearised ratio variance, clustered by entity, with C - 1 degrees of freedom.
  Shares get Wilson's interval at the effective sample size p(1 - p)/variance (Korn and Graubard 1998), which
  stays inside [0, 1] and does not collapse at 0 or 1.
- Several worlds: the score is the mean of the worlds' own scores, all counting the same. The interval is the
  wider of two: the t-interval over worlds (W - 1 degrees of freedom, exact whatever the spread between worlds;
  where worlds share entities, two-way clustered as in Cameron, Gelbach and Miller 2011), and the one of entities
  given these worlds, without which two worlds that happen to agree would look certain.

See Miller 2024 (arXiv 2411.00640) for why evaluations should be read this way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.resampling import bootstrap_t, resampled_sums

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEVEL = 0.95
RESAMPLES = 9_999


class StatisticsError(ValueError):
    """The data do not fit the question, for example unpaired items in a paired comparison."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One score's numerators and denominators, shape (items,), with each item's entity and world as codes.

    Items with denominator 0 take no part in the score but stay in place, so that two samples of the same
    items can be paired.
    """

    numerator: FloatArray
    denominator: FloatArray
    cluster: IntArray
    world: IntArray

    @classmethod
    def of(
        cls,
        numerator: Sequence[float],
        denominator: Sequence[float] | None = None,
        subjects: Sequence[str] | None = None,
        worlds: Sequence[int] | None = None,
    ) -> Sample:
        """A sample from plain sequences.

        By default denominators are 1, every item is an entity of its own, and there is one world.
        """
        size = len(numerator)
        codes = (
            np.arange(size) if subjects is None else np.unique(np.array(subjects, dtype=str), return_inverse=True)[1]
        )
        worlds_array = np.zeros(size, dtype=np.int64) if worlds is None else np.asarray(worlds, dtype=np.int64)
        dens = np.ones(size) if denominator is None else np.asarray(denominator, dtype=np.float64)
        sample = cls(np.asarray(numerator, dtype=np.float64), dens, codes.reshape(-1).astype(np.int64), worlds_array)
        if not sample.denominator.size == sample.cluster.size == sample.world.size == size:
            raise StatisticsError("numerators, denominators, subjects and worlds must be equally long")
        return sample


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its 95 % interval; `None` where there is nothing to compute it from.

    `n` is the sum of the denominators, `clusters` the number of entities and `worlds` the number of worlds
    that have any; `se` the standard error, `df` its degrees of freedom, `per_world` the score of each world.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    worlds: int
    se: float | None
    df: int
    method: str
    per_world: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of two scores on the same items: first minus second, with interval and p-value.

    `detectable` is the smallest true difference that a single test of this size finds at 80 % power; None where
    nothing varies, which tells nothing of it. `spreads` are the standard errors behind it, each with its degrees of
    freedom, from which `detectable_of_many` tells that of one test among several.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    clusters: int
    worlds: int
    detectable: float | None
    method: str
    per_world: tuple[tuple[int, float], ...] = ()
    spreads: tuple[tuple[float, int], ...] = ()


# --- one score --------------------------------------------------------------------------------------------


def ratio(sample: Sample, *, share: bool = True) -> Interval:
    """The score of a sample and its interval.

    `share` says that the score lies in [0, 1]; other scores get a t-interval that does not go below 0.
    """
    parts = _linearise(sample)
    if parts is None:
        return Interval(None, None, None, 0, 0, 0, None, 0, "no observations")
    used = sample.denominator > 0
    n, clusters, worlds = round(float(sample.denominator.sum())), _pairs(sample, used), len(parts.worlds)
    per_world = tuple(zip(parts.worlds, parts.values, strict=True))
    value = float(np.mean(parts.values))
    views = _views(sample, parts, used)
    if not views:
        return Interval(value, None, None, n, clusters, worlds, None, 0, "one entity: no interval", per_world)
    view = max(views, key=lambda v: v.margin)
    if share and (worlds == 1 or value * (1 - value) <= 1e-12):
        kind = "Wilson at effective n"
        low, high = _effective_wilson(value, view, clusters)
    else:
        kind = "t"
        low, high = max(0.0, value - view.margin), min(1.0 if share else math.inf, value + view.margin)
    method = f"{kind} over {view.over}, df {view.df}"
    return Interval(value, low, high, n, clusters, worlds, view.se, view.df, method, per_world)


def wilson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); StatisticsError where the counts make no share."""
    if not (0 <= successes <= n and n > 0):
        raise StatisticsError(f"a share needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    return _wilson(successes / n, n, normal_quantile(0.5 + level / 2))


def cluster_bootstrap(sample: Sample, *, resamples: int = RESAMPLES, purpose: str = "ratio") -> tuple[float, float]:
    """Percentile interval of a score: entities are redrawn within each world, their items together.

    With several worlds this is the interval *given these worlds*; `ratio` is the one that covers new ones.
    """
    worlds = [w for w in np.unique(sample.world) if sample.denominator[sample.world == w].sum() > 0]
    if not worlds:
        raise StatisticsError("a bootstrap needs at least one item with a denominator above 0")
    total = np.zeros(resamples)
    for world in worlds:
        here = sample.world == world
        _, codes = np.unique(sample.cluster[here], return_inverse=True)
        sums = np.stack([_totals(x[here], codes) for x in (sample.numerator, sample.denominator)], axis=1)
        drawn = resampled_sums(sums, resamples, f"{purpose}/{world}")
        with np.errstate(invalid="ignore"):
            total += drawn[:, 0] / drawn[:, 1]
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(total / len(worlds), [tail, 1 - tail])
    return float(low), float(high)


# --- two scores on the same items -------------------------------------------------------------------------


def paired(first: Sample, second: Sample, *, resamples: int = RESAMPLES) -> Difference:
    """The difference `first - second` of two scores on the same items, in the same order.

    In one world the interval and the p-value come from a studentised cluster bootstrap of the linearised
    differences (both from the same draws, so that they agree), or from a t-test where `resamples` is 0; over
    several worlds from a t-test over the worlds' paired differences, and from the entities given these worlds,
    whichever says less (see `ratio`).
    """
    if not (np.array_equal(first.cluster, second.cluster) and np.array_equal(first.world, second.world)):
        raise StatisticsError("paired samples must hold the same items in the same order")
    a, b = _linearise(first), _linearise(second)
    if a is None or b is None:
        return Difference(None, None, None, None, 0, 0, None, "no observations")
    joint = a.minus(b, first.world)
    used = ((first.denominator > 0) | (second.denominator > 0)) & np.isin(first.world, joint.worlds)
    clusters, worlds = _pairs(first, used), len(joint.worlds)
    per_world = tuple(zip(joint.worlds, joint.values, strict=True))
    if worlds == 0 or clusters < 2:
        return Difference(None, None, None, None, clusters, worlds, None, "too few items", per_world)
    value = float(np.mean(joint.values))
    views = _views(first, joint, used)
    if not any(view.se for view in views):
        p = 1.0 if value == 0 else 0.0
        return Difference(value, value, value, p, clusters, worlds, None, "constant difference", per_world)
    spreads = tuple((view.se, view.df) for view in views)
    detectable = detectable_of_many(spreads, 1)
    if worlds > 1 or resamples == 0:
        view = max(views, key=lambda v: v.margin)
        margin, p = view.margin, max(view.p(value) for view in views)
        method = f"paired t over {view.over}, df {view.df}"
    else:
        codes = np.unique(first.cluster[used], return_inverse=True)[1]
        margin, p = bootstrap_t(value, _totals(joint.influence[used], codes), resamples, LEVEL)
        method = "studentised paired cluster bootstrap"
    low, high = value - margin, value + margin
    return Difference(value, low, high, p, clusters, worlds, detectable, method, per_world, spreads)


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided exact McNemar p-value from the discordant counts (binomial test at 1/2); 1.0 without any."""
    if better < 0 or worse < 0:
        raise StatisticsError("discordant counts cannot be negative")
    from scipy.special import bdtr

    total = better + worse
    return 1.0 if total == 0 else min(1.0, 2.0 * float(bdtr(min(better, worse), total, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for step, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - step) * p_values[i]))
        adjusted[i] = running
    return adjusted


def ranks(
    names: Sequence[str], samples: Callable[[str, str], tuple[Sample, Sample]], level: float = LEVEL
) -> dict[str, int]:
    """Rank of each score, best first: 1 + the number of scores that are significantly better.

    Every pair is compared (paired, clustered t), with Holm's correction over all pairs, so that models which
    cannot be told apart from the best share rank 1. `samples` gives two scores on the items that both have.
    """
    pairs = [(first, second) for k, first in enumerate(names) for second in names[k + 1 :]]
    differences = [paired(*samples(*pair), resamples=0) for pair in pairs]
    adjusted = holm([1.0 if d.p is None else d.p for d in differences])
    worse_than = dict.fromkeys(names, 0)
    for (first, second), difference, p in zip(pairs, differences, adjusted, strict=True):
        if p < 1 - level and difference.value:
            worse_than[second if difference.value > 0 else first] += 1
    return {name: 1 + worse for name, worse in worse_than.items()}


def minimal_detectable_difference(se: float, df: int, power: float = 0.8, level: float = LEVEL) -> float:
    """The true difference that a two-sided t-test with this standard error finds with probability `power`."""
    from scipy.special import nctdtrinc

    critical = t_quantile(0.5 + level / 2, df)
    # The noncentrality that puts 1 - power of the distribution below the critical value.
    return float(nctdtrinc(df, 1 - power, critical)) * se


def detectable_of_many(spreads: Sequence[tuple[float, int]], tests: int) -> float | None:
    """The true difference that one of `tests` tests finds at 80 % power at the strictest step of Holm's correction.

    That step asks for 5 % / `tests`, so a difference of this size is found whatever the other tests say.
    `spreads` are (standard error, degrees of freedom), of which the one that says less counts; None without any.
    """
    level = 1 - (1 - LEVEL) / max(1, tests)
    return max((minimal_detectable_difference(se, df, level=level) for se, df in spreads), default=None)


# --- distributions ----------------------------------------------------------------------------------------


def t_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def t_tail(t: float, df: int) -> float:
    """Upper tail probability of Student's t distribution."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


# --- the parts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """A score near its value: the worlds' scores, and each item's influence on the mean of them."""

    worlds: tuple[int, ...]
    values: tuple[float, ...]
    influence: FloatArray

    def minus(self, other: _Linear, world: IntArray) -> _Linear:
        """The linearised difference over the worlds that both have."""
        mine, theirs = (
            dict(zip(self.worlds, self.values, strict=True)),
            dict(zip(other.worlds, other.values, strict=True)),
        )
        both = tuple(w for w in self.worlds if w in theirs)
        # Influences are divided by the number of worlds averaged over; rescale to the common worlds.
        influence = self.influence * len(self.worlds) - other.influence * len(other.worlds)
        influence = np.where(np.isin(world, both), influence, 0.0) / max(1, len(both))
        return _Linear(both, tuple(mine[w] - theirs[w] for w in both), influence)


def _linearise(sample: Sample) -> _Linear | None:
    """Scores of the worlds that have observations, and influences; None if no world has any."""
    worlds, codes = np.unique(sample.world, return_inverse=True)
    if not worlds.size:
        return None
    top = np.bincount(codes, sample.numerator * (sample.denominator > 0))
    bottom = np.bincount(codes, sample.denominator)
    kept = bottom > 0
    if not kept.any():
        return None
    safe = np.where(kept, bottom, 1.0)
    value = top / safe
    influence = (sample.numerator - value[codes] * sample.denominator) / safe[codes] / kept.sum()
    influence = np.where((sample.denominator > 0) & kept[codes], influence, 0.0)
    return _Linear(tuple(int(w) for w in worlds[kept]), tuple(float(v) for v in value[kept]), influence)


@dataclass(frozen=True, slots=True)
class _View:
    """A standard error with its degrees of freedom, and what it takes as drawn at random."""

    se: float
    df: int
    over: str

    @property
    def margin(self) -> float:
        """Half-width of the t-interval."""
        return t_quantile(0.5 + LEVEL / 2, self.df) * self.se

    def p(self, value: float) -> float:
        """Two-sided p-value of the t-test that the true value is 0."""
        if self.se == 0:
            return 1.0 if value == 0 else 0.0
        return 2 * t_tail(abs(value) / self.se, self.df)


def _views(sample: Sample, parts: _Linear, used: npt.NDArray[np.bool_]) -> tuple[_View, ...]:
    """The standard errors of the mean over worlds: by entities, and by worlds if there are several.

    Empty with fewer than two entities.
    """
    if _pairs(sample, used) < 2:
        return ()
    influence, cluster, world = parts.influence[used], sample.cluster[used], sample.world[used]
    crossed = int(np.unique(cluster).size)
    nested = _cluster_variance(influence, _pair_codes(cluster, world))
    by_entity = _cluster_variance(influence, cluster) if crossed > 1 else nested
    count = len(parts.worlds)
    entities = _View(math.sqrt(by_entity), max(1, crossed - 1), "entities")
    if count == 1:
        return (entities,)
    by_world = float(np.var(parts.values, ddof=1)) / count
    # Entities that occur in several worlds add their covariance; otherwise the last two terms cancel.
    total = max(by_world, by_world + by_entity - nested)
    return entities, _View(math.sqrt(total), count - 1, f"{count} worlds")


def _cluster_variance(influence: FloatArray, cluster: IntArray) -> float:
    """Sum of squared cluster totals with the C / (C - 1) correction."""
    totals = _totals(influence, np.unique(cluster, return_inverse=True)[1])
    return float(np.sum(totals**2)) * totals.size / (totals.size - 1)


def _totals(values: FloatArray, codes: IntArray) -> FloatArray:
    """Sum of the values of each code 0..C-1, shape (C,)."""
    return np.bincount(codes, values).astype(np.float64)


def _pair_codes(cluster: IntArray, world: IntArray) -> IntArray:
    """One code for each entity within a world."""
    worlds, codes = np.unique(world, return_inverse=True)
    return (cluster * worlds.size + codes).astype(np.int64)


def _pairs(sample: Sample, used: npt.NDArray[np.bool_]) -> int:
    """How many entities, counted within their world, have observations."""
    return int(np.unique(_pair_codes(sample.cluster, sample.world)[used]).size)


def _wilson(share: float, n: float, critical: float) -> tuple[float, float]:
    if math.isinf(n):
        return share, share
    square = critical**2 / n
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def _effective_wilson(share: float, view: _View, clusters: int) -> tuple[float, float]:
    """Wilson's interval at the sample size that would give this standard error.

    At exactly 0 or 1 no spread can be seen: the entities are then the sample, as if drawn independently.
    """
    spread = share * (1 - share)
    if spread <= 1e-12:
        return _wilson(round(share), clusters, t_quantile(0.5 + LEVEL / 2, clusters - 1))
    n = spread / view.se**2 if view.se > 0 else math.inf
    return _wilson(share, n, t_quantile(0.5 + LEVEL / 2, view.df))
