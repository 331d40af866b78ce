"""How well verdicts agree with labels: balanced accuracy, kappa, AUROC, sensitivity, specificity, with intervals.

Intervals are percentile bootstraps over *clusters* (a response, an article, a claim with several snippets), because
the labels of one cluster are not independent. All functions are pure; the draws come from a generator that is keyed
by a seed and a purpose.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts, or arrays of counts, of labels against verdicts; `tp` is supported by label and by verdict."""

    tp: Floats
    fp: Floats
    tn: Floats
    fn: Floats

    @property
    def sensitivity(self) -> Floats:
        """Share of the truly supported that the judge calls supported; NaN without any."""
        return _divide(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Floats:
        """Share of the truly unsupported that the judge calls unsupported; NaN without any."""
        return _divide(self.tn, self.tn + self.fp)

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean of sensitivity and specificity; 0.5 for a constant answer."""
        return np.asarray((self.sensitivity + self.specificity) / 2)

    @property
    def kappa(self) -> Floats:
        """Cohen's kappa (Cohen 1960): agreement beyond what the margins give by chance."""
        n = self.tp + self.fp + self.tn + self.fn
        observed = _divide(self.tp + self.tn, n)
        chance = _divide((self.tp + self.fp) * (self.tp + self.fn) + (self.tn + self.fn) * (self.tn + self.fp), n * n)
        return _divide(observed - chance, 1 - chance)


def _divide(a: Floats, b: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(a, dtype=np.float64) / np.asarray(b, dtype=np.float64))


def confusion(labels: Sequence[bool], verdicts: Sequence[bool]) -> Confusion:
    """The counts of two equally long sequences."""
    truth, said = np.asarray(labels, dtype=bool), np.asarray(verdicts, dtype=bool)
    return Confusion(*(np.float64(np.sum(cell)) for cell in _cells(truth, said)))  # type: ignore[arg-type]


def _cells(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    return truth & said, ~truth & said, ~truth & ~said, truth & ~said


def auroc(labels: Sequence[bool], scores: Sequence[float], weights: Floats | None = None) -> float:
    """Probability that a supported claim scores above an unsupported one, ties counting half; NaN for one class.

    `weights` (n,) repeats rows, as a bootstrap does.
    """
    truth, order, starts = _ranking(labels, scores)
    ones = np.ones(len(truth)) if weights is None else weights
    return float(_weighted_auroc(truth, order, starts, ones))


def _ranking(labels: Sequence[bool], scores: Sequence[float]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else np.zeros(0, dtype=int)
    return np.asarray(labels, dtype=np.float64), order.astype(np.int64), starts.astype(np.int64)


def _weighted_auroc(truth: Floats, order: NDArray[np.int64], starts: NDArray[np.int64], weights: Floats) -> float:
    if not len(truth):
        return float("nan")
    ordered, weight = truth[order], weights[order]
    positive = np.add.reduceat(ordered * weight, starts)
    negative = np.add.reduceat((1 - ordered) * weight, starts)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float(np.sum(positive * (below + negative / 2)) / pairs) if pairs else float("nan")


def best_balanced_accuracy(labels: Sequence[bool], scores: Sequence[float]) -> tuple[float, float]:
    """The balanced accuracy at the threshold that is best on these very rows, and that threshold.

    This flatters the score: it is meant for a baseline that a judge has to beat at a threshold fixed beforehand.
    """
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if truth.all() or not truth.any():
        return float("nan"), float("nan")
    thresholds = np.unique(values)
    positives, negatives = np.sort(values[truth]), np.sort(values[~truth])
    sensitivity = 1 - np.searchsorted(positives, thresholds) / len(positives)
    specificity = np.searchsorted(negatives, thresholds) / len(negatives)
    balanced = (sensitivity + specificity) / 2
    best = int(np.argmax(balanced))
    return float(balanced[best]), float(thresholds[best])


def rogan_gladen(observed: float, sensitivity: float, specificity: float) -> float:
    """The supported rate corrected for the judge's errors (Rogan and Gladen 1978), kept within [0, 1].

    NaN for a judge no better than chance, whose errors cannot be corrected.
    """
    power = sensitivity + specificity - 1
    if not power > 0:
        return float("nan")
    return min(1.0, max(0.0, (observed + specificity - 1) / power))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Estimates on one set with their 95 % intervals; NaN where a figure does not exist."""

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    kappa: float
    kappa_interval: Interval
    auroc: float
    auroc_interval: Interval
    sensitivity: float
    sensitivity_interval: Interval
    specificity: float
    specificity_interval: Interval


def agreement(
    labels: Sequence[bool],
    verdicts: Sequence[bool],
    scores: Sequence[float] | None,
    clusters: Sequence[Hashable],
    *,
    purpose: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Agreement of verdicts (and scores) with labels, with intervals clustered by `clusters`."""
    truth, said = np.asarray(labels, dtype=bool), np.asarray(verdicts, dtype=bool)
    codes = cluster_codes(clusters)
    count = int(codes.max()) + 1 if len(codes) else 0
    draws = resampled_counts(count, purpose=purpose, seed=seed, resamples=resamples)
    cells = [np.bincount(codes, cell, minlength=count) for cell in _cells(truth, said)]
    point = confusion(labels, verdicts)
    drawn = Confusion(*(np.asarray(draws @ cell, dtype=np.float64) for cell in cells))
    area, area_interval = float("nan"), (float("nan"), float("nan"))
    if scores is not None:
        area = auroc(labels, scores)
        ranking = _ranking(labels, scores)
        area_interval = percentiles(
            np.array([_weighted_auroc(*ranking, row[codes].astype(np.float64)) for row in draws])
        )
    return Agreement(
        float(point.balanced_accuracy),
        percentiles(drawn.balanced_accuracy),
        float(point.kappa),
        percentiles(drawn.kappa),
        area,
        area_interval,
        float(point.sensitivity),
        percentiles(drawn.sensitivity),
        float(point.specificity),
        percentiles(drawn.specificity),
    )


def cluster_codes(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """Clusters numbered in the order of their first row."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(cluster, len(seen)) for cluster in clusters], dtype=np.int64)


def resampled_counts(clusters: int, *, purpose: str, seed: int = 0, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each cluster is drawn in each resample: (resamples, clusters)."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    if not clusters:
        return np.zeros((resamples, 0), dtype=np.int64)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.int64)


def percentiles(values: Floats, level: float = LEVEL) -> Interval:
    """The percentile interval of drawn values; NaN draws (an empty class) are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
