"""Redraws of clusters: the bootstrap-t of a difference, and sums over redrawn rows. Equal data give equal draws."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_CHUNK = 2_000_000  # resampled indices held at once
#: Least standard error of a resample in a bootstrap-t, as a share of the observed one. With a half, intervals from one
#: to sixteen discordant answers cover better than the t-interval, hold the level, and are at most 1.7 times as wide
#: (simulated in tests/test_stats_few.py); with more the bound is hardly ever met.
_LEAST_SPREAD = 0.5


def bootstrap_t(value: float, influence: FloatArray, resamples: int, level: float) -> tuple[float, float]:
    """Half-width of the symmetric bootstrap-t interval round `value`, and the p-value of `value == 0`.

    `influence` holds the summed influence of each cluster; it sums to 0.
    """
    size = influence.size
    scale = math.sqrt(size / (size - 1))
    se = scale * math.sqrt(float(np.sum(influence**2)))
    sums = resampled_sums(np.stack([influence, influence**2], axis=1), resamples, "paired")
    spread = scale * np.sqrt(np.maximum(0.0, sums[:, 1] - sums[:, 0] ** 2 / size))
    # Where few clusters carry the difference, many resamples miss most of them (with a single one, 37 % miss it).
    # What little spread is left there comes of unequal cluster sizes and tells nothing of the standard error, but
    # dividing by it would make the quantile: such a resample counts with a part of the observed standard error.
    t = np.abs(sums[:, 0]) / np.maximum(spread, _LEAST_SPREAD * se)
    margin = float(np.quantile(t, level, method="higher")) * se
    p = (1 + int(np.sum(t >= abs(value) / se * (1 - 1e-12)))) / (resamples + 1)
    return margin, p


def resampled_sums(rows: FloatArray, resamples: int, purpose: str) -> FloatArray:
    """Column sums of `resamples` redraws (with replacement) of the rows, shape (resamples, columns)."""
    rng = purpose_generator(purpose)
    size = rows.shape[0]
    step = max(1, _CHUNK // size)
    chunks = []
    for start in range(0, resamples, step):
        drawn = rng.integers(size, size=(min(step, resamples - start), size))
        chunks.append(np.stack([column[drawn].sum(axis=1) for column in rows.T], axis=1))
    return np.concatenate(chunks)


def purpose_generator(purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose: the same data always give the same numbers."""
    digest = hashlib.sha256(f"harness.stats/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
