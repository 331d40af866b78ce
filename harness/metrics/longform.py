"""Scores of long answers, claim by claim, and the accuracy of their first k claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from factscore_mod.records import ScoredResponse, Verdict
from harness.records import Item, Response
from harness.stats import Interval, Sample, ratio

#: A model's curve is its own as far as this share of its answers reaches; beyond, most are kept whole.
REACH = 0.5


@dataclass(frozen=True, slots=True)
class LongformScore:
    """What the metrics need of one scored response; `verdicts` are in the order of the claims."""

    response_id: str
    subject: str
    world: int
    popularity: int | None
    abstained: bool
    verdicts: tuple[Verdict, ...]
    cut_off: bool

    @property
    def responds(self) -> bool:
        """Whether the response states at least one claim and does not abstain."""
        return bool(self.verdicts) and not self.abstained

    @property
    def supported(self) -> int:
        """Number of supported claims."""
        return self.verdicts.count("supported")

    @property
    def judged(self) -> int:
        """Number of claims with a verdict on the matter: `unparsed` and `error` are none."""
        return self.supported + self.verdicts.count("not_supported")

    def precision(self, k: int | None = None) -> float | None:
        """Supported share of the first k judged claims (all by default); None without any."""
        judged = [verdict == "supported" for verdict in self.verdicts if verdict in ("supported", "not_supported")]
        first = judged[:k]
        return sum(first) / len(first) if first else None

    def area(self, k: int) -> float | None:
        """The area under this answer's precision over its first 1 .. k judged claims, divided by the range k - 1.

        By trapezoids; at k = 1 the precision itself. None without a judged claim. As the curve's accuracy is the
        mean of the answers' precisions, the area under the curve is the mean of these areas.
        """
        heights = [self.precision(i) or 0.0 for i in range(1, k + 1)]
        if not self.judged or not heights:
            return None
        return heights[0] if k == 1 else (sum(heights) - (heights[0] + heights[-1]) / 2) / (k - 1)

    def f1_at(self, k: int) -> float:
        """F1@K of precision and of recall = min(supported / K, 1); 0 without a supported claim.

        Source: Wei et al. 2024 (arXiv 2403.18802). K is fixed beforehand, never read from the data.
        """
        precision = self.precision()
        if not precision or k < 1:
            return 0.0
        recall = min(self.supported / k, 1.0)
        return 2 * precision * recall / (precision + recall)


def from_scored(scored: ScoredResponse, item: Item, response: Response, world: int) -> LongformScore:
    """The record of one response; an abstaining response has no claims whatever its text."""
    return LongformScore(
        response_id=scored.id,
        subject=item.subject,
        world=world,
        popularity=item.popularity,
        abstained=scored.abstained,
        verdicts=() if scored.abstained else tuple(c.judgement.verdict for c in scored.claims),
        cut_off=response.finish == "length",
    )


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy when every response is cut after its first `k` judged claims.

    `claims` is the mean number of judged claims that are left of a response, `reach` the share of responses that
    have k of them or more.
    """

    k: int
    accuracy: Interval
    claims: float
    reach: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy against the number of claims kept, by truncation: nothing is generated anew.

    The accuracy at k is the mean, over the `responses` with a judged claim, of the supported share of the first k
    judged claims; a response with fewer is kept whole. Every point is over the same responses, and the last one
    is the headline accuracy. Intervals are those of `stats.ratio`, point by point.
    """

    points: tuple[CurvePoint, ...]
    responses: int


def curve(scored: Sequence[LongformScore], max_k: int) -> Curve:
    """The curve for k = 1 .. max_k, ending at the longest response; ValueError unless max_k >= 1."""
    if max_k < 1:
        raise ValueError(f"a curve needs max_k >= 1, not {max_k}")
    kept = [s for s in scored if s.judged]
    lengths = [s.judged for s in kept]
    points = []
    for k in range(1, min(max_k, max(lengths, default=0)) + 1):
        precisions = [s.precision(k) or 0.0 for s in kept]
        accuracy = ratio(Sample.of(precisions, None, [s.subject for s in kept], [s.world for s in kept]))
        claims = sum(min(k, length) for length in lengths) / len(kept)
        reach = sum(length >= k for length in lengths) / len(kept)
        points.append(CurvePoint(k, accuracy, claims, reach))
    return Curve(tuple(points), len(kept))


def common_range(models: Iterable[Sequence[LongformScore]], reach: float = REACH) -> int:
    """The end K of the range 1 .. K of claims that all these models' curves have in common.

    The largest k at which, in every model, at least the share `reach` of the answers with a judged claim have k
    judged claims; up to there the figure's lines are full. 0 where a model has no such answer at all.
    """
    ends = []
    for scored in models:
        lengths = sorted((s.judged for s in scored if s.judged), reverse=True)
        ends.append(lengths[max(0, math.ceil(reach * len(lengths)) - 1)] if lengths else 0)
    return min(ends, default=0)
