"""Rank correlation with an interval, for answers that come in clusters and worlds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.resampling import purpose_generator
from harness.stats import LEVEL, FloatArray, IntArray, Interval, t_quantile

_RESAMPLES = 999
_CHUNK = 2_000_000  # resampled weights held at once
#: Fewer entities than this give no interval.
_FEWEST = 8
_NEARLY_ONE = 1 - 1e-9


def spearman(x: Sequence[float], y: Sequence[float], subjects: Sequence[str], worlds: Sequence[int]) -> Interval:
    """Spearman's rank correlation of x and y: the mean over worlds, taken on Fisher's scale.

    The standard error within a world is that of a bootstrap over entities, on Fisher's scale; over several worlds
    the interval is the wider of the t-interval over worlds and the one over entities given these worlds, as in
    `stats.ratio`. Worlds in which x or y does not vary have no correlation and are left out. ValueError for
    sequences of different lengths.
    """
    if not len(x) == len(y) == len(subjects) == len(worlds):
        raise ValueError("x, y, subjects and worlds must be equally long")
    places = np.asarray(worlds, dtype=np.int64)
    heights, variances, kept, n, entities = [], [], [], 0, 0
    for world in sorted(set(worlds)):
        here = np.flatnonzero(places == world)
        first, second = (np.asarray(values, dtype=np.float64)[here] for values in (x, y))
        codes = np.unique(np.array([subjects[i] for i in here], dtype=str), return_inverse=True)[1].reshape(-1)
        whole = _fisher(_correlations(first, second, np.ones((here.size, 1))))[0]
        if math.isnan(whole):
            continue
        heights.append(float(whole))
        variances.append(_bootstrap_variance(first, second, codes, world))
        kept.append(int(world))
        n, entities = n + here.size, entities + int(codes.max()) + 1
    if not heights:
        return Interval(None, None, None, len(x), 0, 0, None, 0, "no variation")
    count, middle = len(heights), float(np.mean(heights))
    value, per_world = math.tanh(middle), tuple((w, math.tanh(z)) for w, z in zip(kept, heights, strict=True))
    if entities < _FEWEST * count or any(math.isnan(v) for v in variances):
        return Interval(value, None, None, n, entities, count, None, 0, "too few entities: no interval", per_world)
    views = [(math.sqrt(sum(variances)) / count, entities - count, "entities")]
    if count > 1:
        views.append((float(np.std(heights, ddof=1)) / math.sqrt(count), count - 1, f"{count} worlds"))
    margin, se, df, over = max((t_quantile(0.5 + LEVEL / 2, df) * se, se, df, over) for se, df, over in views)
    method = f"Fisher's z, bootstrap over entities; {over}, df {df}"
    return Interval(
        value, math.tanh(middle - margin), math.tanh(middle + margin), n, entities, count, se, df, method, per_world
    )


def _bootstrap_variance(x: FloatArray, y: FloatArray, codes: IntArray, world: int) -> float:
    """The variance of Fisher's z when entities are redrawn; NaN with fewer than two of them."""
    size = int(codes.max()) + 1
    if size < 2:
        return math.nan
    rng, step = purpose_generator(f"spearman/{world}"), max(1, _CHUNK // x.size)
    drawn = []
    for start in range(0, _RESAMPLES, step):
        draws = min(step, _RESAMPLES - start)
        picked = rng.integers(size, size=(size, draws)) * draws + np.arange(draws)
        counts = np.bincount(picked.ravel(), minlength=size * draws).reshape(size, draws)
        drawn.append(_fisher(_correlations(x, y, counts[codes].astype(np.float64))))
    return float(np.nanvar(np.concatenate(drawn), ddof=1))


def _correlations(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Spearman's correlation under each column of weights, shape (items, draws); NaN without variation.

    A weight is how often its item was drawn.
    """
    total = weights.sum(axis=0)
    a, b = (_mid_ranks(values, weights) for values in (x, y))
    a, b = (ranks - np.einsum("ij,ij->j", weights, ranks) / total for ranks in (a, b))
    above = np.einsum("ij,ij,ij->j", weights, a, b)
    below = np.sqrt(np.einsum("ij,ij,ij->j", weights, a, a) * np.einsum("ij,ij,ij->j", weights, b, b))
    return np.where(below > 1e-9, above / np.where(below > 1e-9, below, 1.0), np.nan)


def _mid_ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The ranks of the values (ties share their mean rank) when each stands as often as its weight says."""
    order = np.argsort(values, kind="stable")
    _, starts, codes = np.unique(values[order], return_index=True, return_inverse=True)
    totals = np.add.reduceat(weights[order], starts, axis=0)
    middle = np.cumsum(totals, axis=0) - (totals - 1) / 2
    return np.asarray(middle[codes.reshape(-1)[np.argsort(order)]], dtype=np.float64)


def _fisher(correlations: FloatArray) -> FloatArray:
    return np.asarray(np.arctanh(np.clip(correlations, -_NEARLY_ONE, _NEARLY_ONE)), dtype=np.float64)
