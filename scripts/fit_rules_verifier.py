"""Fit the weights of the rules verifier, and say what they reach on rows they were not fitted on.

    python scripts/fit_rules_verifier.py --data DATA

Nine features (factscore_mod.verify.Features), one logistic model for all sets. Every set, and in it each label,
weighs the same, so that the threshold 0.5 is one of balanced accuracy. Signs are constrained: more coverage never
lowers a score and more that is missing never raises it. Prints a table (cross-validated by cluster, and each set
with weights fitted on the other sets) and the constants to be put into factscore_mod/verify.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from factscore_mod.agreement import auroc, best_balanced_accuracy, cluster_codes, confusion
from factscore_mod.calibration import unigram_overlap
from factscore_mod.labelled import CLAIM_SETS, LabelledClaim
from factscore_mod.verify import THRESHOLD, Features, match_claim

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIGNS = Features(
    coverage=1, window=1, pairs=1, adjacency=1, subject=1, missing_names=-1, missing_numbers=-1, last_missing=-1,
    log_evidence=0,
)  # fmt: skip
L2 = 1.0
# The weight of a set relative to the penalty: as if each had so many rows.
ROWS = 350.0
FOLDS = 5


@dataclass(frozen=True)
class Sample:
    """The features of a set's rows (n, 9), their labels, which of them a guard refuses, and their clusters."""

    x: Floats
    y: Bools
    guarded: Bools
    clusters: NDArray[np.int64]
    overlap: Sequence[float]

    def take(self, rows: Bools) -> tuple[Floats, Bools]:
        """Features and labels of some rows."""
        return self.x[rows], self.y[rows]


def read(rows: Sequence[LabelledClaim]) -> Sample:
    """Compute the features of a set."""
    matches = [match_claim(row.claim, row.evidence.passages, row.topic) for row in rows]
    return Sample(
        np.array([astuple(match.features()) for match in matches], dtype=np.float64),
        np.array([row.supported for row in rows]),
        np.array([bool(match.guard()) for match in matches]),
        cluster_codes([row.cluster for row in rows]),
        [unigram_overlap(row) for row in rows],
    )


def fit(parts: Sequence[tuple[Floats, Bools]]) -> tuple[Floats, float]:
    """Coefficients (9,) and intercept of the sign-constrained, L2-penalised logistic model of several sets."""
    x = np.vstack([part[0] for part in parts])
    sign = np.where(np.concatenate([part[1] for part in parts]), 1.0, -1.0)
    weight = np.concatenate([np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum()) * ROWS for _, y in parts])
    mean, scale = x.mean(0), x.std(0) + 1e-9
    z = (x - mean) / scale

    def loss(b: Floats) -> tuple[float, Floats]:
        margin = sign * (z @ b[:-1] + b[-1])
        slope = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        value = np.logaddexp(0, -margin) @ weight + 0.5 * L2 * (b[:-1] @ b[:-1])
        return float(value), np.r_[z.T @ slope + L2 * b[:-1], slope.sum()]

    bounds = [(0, None) if s > 0 else (None, 0) if s < 0 else (None, None) for s in astuple(SIGNS)]
    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, bounds=[*bounds, (None, None)], method="L-BFGS-B")
    coefficients = found.x[:-1] / scale
    return coefficients, float(found.x[-1] - coefficients @ mean)


def scores(x: Floats, guarded: Bools, model: tuple[Floats, float]) -> Floats:
    """What `verify_claim` gives for these features."""
    plain = 1 / (1 + np.exp(-(x @ model[0] + model[1])))
    return np.where(guarded, np.minimum(plain, np.nextafter(THRESHOLD, 0)), plain)


def cross_validated(samples: dict[str, Sample], seed: int) -> dict[str, Floats]:
    """Each row's score by a model that saw no row of its cluster."""
    generator = np.random.default_rng(seed)
    folds = {
        name: generator.permutation(int(sample.clusters.max()) + 1)[sample.clusters] % FOLDS
        for name, sample in samples.items()
    }
    result = {name: np.zeros(len(sample.y)) for name, sample in samples.items()}
    for fold in range(FOLDS):
        model = fit([sample.take(folds[name] != fold) for name, sample in samples.items()])
        for name, sample in samples.items():
            held = folds[name] == fold
            result[name][held] = scores(sample.x[held], sample.guarded[held], model)
    return result


def describe(y: Bools, score: Floats) -> str:
    """Balanced accuracy at the fixed threshold, and AUROC."""
    balanced = confusion(list(y), list(score >= THRESHOLD)).balanced_accuracy
    return f"{float(balanced):.3f} {auroc(list(y), list(score)):.3f}"


def main() -> None:
    """Print the table and the constants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets (docs/calibration.md)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    options = parser.parse_args()
    samples = {name: read(list(reader(options.data))) for name, reader in CLAIM_SETS.items()}
    held_out = cross_validated(samples, options.seed)
    print("balanced accuracy and AUROC: cross-validated; fitted on the other sets; overlap at its best threshold")
    for name, sample in samples.items():
        others = fit([other.take(np.ones(len(other.y), bool)) for key, other in samples.items() if key != name])
        baseline = f"{best_balanced_accuracy(list(sample.y), sample.overlap)[0]:.3f}"
        baseline += f" {auroc(list(sample.y), sample.overlap):.3f}"
        transferred = describe(sample.y, scores(sample.x, sample.guarded, others))
        print(f"{name:16}{describe(sample.y, held_out[name])}   {transferred}   {baseline}")
    coefficients, intercept = fit([sample.take(np.ones(len(sample.y), bool)) for sample in samples.values()])
    print(f"\nINTERCEPT = {intercept:.3f}\nCOEFFICIENTS = Features(")
    for field, value in zip(fields(Features), coefficients, strict=True):
        print(f"    {field.name}={value:.3f},")
    print(")")


if __name__ == "__main__":
    main()
