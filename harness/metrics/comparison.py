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


def compare(
    scores: Mapping[str, Sequence[S]], baseline: str, metrics: Sequence[Metric[S]], *, tests: int | None = None
) -> tuple[Comparison, ...]:
    """Every other model against the baseline on the items that both have, in each of the metrics.

    Holm's correction is over the models compared in one metric. `tests` says how many the tests are of which
    `detectable_holm` is to be told, where others stand beside these.
    """
    pairs = {model: align(group, scores[baseline]) for model, group in scores.items() if model != baseline}
    result: list[Comparison] = []
    for metric in metrics:
        rows = [(model, len(own), metric.sample(own), metric.sample(base)) for model, (own, base) in pairs.items()]
        differences = [stats.paired(sample, against) for _, _, sample, against in rows]
        adjusted = stats.holm([1.0 if d.p is None else d.p for d in differences])
        for (model, n, sample, against), d, p_holm in zip(rows, differences, adjusted, strict=True):
            better, worse, exact = discordant(sample, against)
            result.append(
                Comparison(
                    metric.name, model, baseline, d.value, d.low, d.high, d.p, None if d.p is None else
                    p_holm, n, d.clusters, d.worlds, d.detectable, d.method, d.per_world, better, worse,
                    exact, stats.detectable_of_many(d.spreads, tests or len(rows)),
                )
            )  # fmt: skip
    return tuple(result)


def rank_models(scores: Mapping[str, Sequence[S]], metric: Metric[S]) -> dict[str, int]:
    """1 + the number of models that are significantly better (`stats.ranks`), of the models with every world.

    A model that lacks a world has no rank and takes no part in the others'.
    """
    worlds = {model: _worlds(metric.sample(group)) for model, group in scores.items()}
    every = frozenset[int]().union(*worlds.values())

    def samples(first: str, second: str) -> tuple[stats.Sample, stats.Sample]:
        one, other = align(scores[first], scores[second])
        return metric.sample(one), metric.sample(other)

    return stats.ranks([model for model, found in worlds.items() if found and found == every], samples)


def judge(
    expectations: Sequence[Expectation], scores: Mapping[str, Sequence[S]], metrics: Sequence[Metric[S]]
) -> tuple[OrderedPair, ...]:
    """Test each expectation on the items that both models have, paired; Holm's correction over all of them.

    A pair *holds* when its difference is positive and significant at 5 % after correction, is *opposite* when it
    is negative and significant, and *undecided* otherwise. KeyError for a model or metric that is not there.
    """
    known = {metric.name: metric for metric in metrics}
    differences = []
    for e in expectations:
        higher, lower = align(scores[e.higher], scores[e.lower])
        differences.append(
            stats.paired(known[e.metric].sample(higher), known[e.lower_metric or e.metric].sample(lower))
        )
    adjusted = stats.holm([1.0 if d.p is None else d.p for d in differences])
    return tuple(
        OrderedPair(
            e, d, None if d.p is None else p, _verdict(d, p), stats.detectable_of_many(d.spreads, len(differences))
        )
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


def align(first: Sequence[S], second: Sequence[S]) -> tuple[list[S], list[S]]:
    """Two models' scores of the items that both have, in the same order.

    What a third model lacks (a world in which it could not be trained) takes nothing from these two.
    """
    one, other = ({_key(score): score for score in group} for group in (first, second))
    shared = sorted(one.keys() & other.keys())
    return [one[key] for key in shared], [other[key] for key in shared]


def _worlds(sample: stats.Sample) -> frozenset[int]:
    """The worlds in which there is something to score."""
    return frozenset(int(world) for world in sample.world[sample.denominator > 0])


def _verdict(difference: stats.Difference, p: float) -> Verdict:
    if not difference.value or p >= 1 - stats.LEVEL:
        return "undecided"
    return "holds" if difference.value > 0 else "opposite"


def _key(score: QaScore | LongformScore) -> tuple[int, str]:
    return score.world, score.item_id if isinstance(score, QaScore) else score.response_id
