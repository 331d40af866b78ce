"""Models side by side on the same items: differences from a baseline, ranks, and single pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import stats
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import Comparison, Expectation, Family, Metric, OrderedPair, S, Verdict

#: What models are compared in, beside the headline metric of the suite.
COMPARED: dict[Family, tuple[str, ...]] = {
    "longform": ("accuracy", "accuracy_micro", "supported_claims"),
    "short_qa": ("accuracy", "token_match"),
}


def compare(scores: Mapping[str, Sequence[S]], baseline: str, metrics: Sequence[Metric[S]]) -> tuple[Comparison, ...]:
    """Every other model against the baseline on the items that all of them have, in each of the metrics.

    Holm's correction is over the models compared in one metric.
    """
    aligned = align(scores)
    result: list[Comparison] = []
    for metric in metrics:
        against = metric.sample(aligned[baseline])
        rows = []
        for model, group in aligned.items():
            if model != baseline:
                rows.append((model, len(group), metric.sample(group)))
        differences = [stats.paired(sample, against) for _, _, sample in rows]
        adjusted = stats.holm([1.0 if d.p is None else d.p for d in differences])
        for (model, n, sample), d, p_holm in zip(rows, differences, adjusted, strict=True):
            better, worse, exact = discordant(sample, against)
            result.append(
                Comparison(
                    metric.name, model, baseline, d.value, d.low, d.high, d.p, None if d.p is None else
                    p_holm, n, d.clusters, d.worlds, d.detectable, d.method, d.per_world, better, worse,
                    exact,
                )
            )  # fmt: skip
    return tuple(result)


def rank_models(scores: Mapping[str, Sequence[S]], metric: Metric[S]) -> dict[str, int]:
    """1 + the number of models that are significantly better (`stats.ranks`)."""
    aligned = align(scores)
    return stats.ranks(list(aligned), [metric.sample(group) for group in aligned.values()])


def judge(
    expectations: Sequence[Expectation], scores: Mapping[str, Sequence[S]], metrics: Sequence[Metric[S]]
) -> tuple[OrderedPair, ...]:
    """Test each expectation on the items that all models have, paired; Holm's correction over all of them.

    A pair *holds* when its difference is positive and significant at 5 % after correction, is *opposite* when it
    is negative and significant, and *undecided* otherwise. KeyError for a model or metric that is not there.
    """
    aligned, known = align(scores), {metric.name: metric for metric in metrics}
    differences = [
        stats.paired(
            known[e.metric].sample(aligned[e.higher]), known[e.lower_metric or e.metric].sample(aligned[e.lower])
        )
        for e in expectations
    ]
    adjusted = stats.holm([1.0 if d.p is None else d.p for d in differences])
    return tuple(
        OrderedPair(e, d, None if d.p is None else p, _verdict(d, p))
        for e, d, p in zip(expectations, differences, adjusted, strict=True)
    )


def discordant(first: stats.Sample, second: stats.Sample) -> tuple[int | None, int | None, float | None]:
    """Discordant counts and McNemar's p-value where every score is a plain right or wrong."""
    for sample in (first, second):
        if not ((sample.denominator == 1).all() and ((sample.numerator == 0) | (sample.numerator == 1)).all()):
            return None, None, None
    better = int((first.numerator > second.numerator).sum())
    worse = int((first.numerator < second.numerator).sum())
    return better, worse, stats.mcnemar_exact(better, worse)


def align(scores: Mapping[str, Sequence[S]]) -> dict[str, list[S]]:
    """Each model's scores of the items that all models have, in the same order."""
    tables = {model: {_key(s): s for s in group} for model, group in scores.items()}
    shared = sorted(set.intersection(*(set(table) for table in tables.values()))) if tables else []
    return {model: [table[key] for key in shared] for model, table in tables.items()}


def _verdict(difference: stats.Difference, p: float) -> Verdict:
    if not difference.value or p >= 1 - stats.LEVEL:
        return "undecided"
    return "holds" if difference.value > 0 else "opposite"


def _key(score: QaScore | LongformScore) -> tuple[int, str]:
    return score.world, score.item_id if isinstance(score, QaScore) else score.response_id
