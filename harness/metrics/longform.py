"""Scores of long answers, claim by claim, and the accuracy of their first k claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factscore_mod.records import ScoredResponse, Verdict
from harness.records import Item, Response
from harness.stats import Interval, Sample, ratio


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
        """Supported share of the judged claims among the first k (all by default); None without any."""
        first = self.verdicts if k is None else self.verdicts[:k]
        supported, refuted = first.count("supported"), first.count("not_supported")
        return supported / (supported + refuted) if supported + refuted else None

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
    """Accuracy when every response is cut after its first `k` claims.

    `claims` is the mean number of claims that are left of a responding answer, `reach` the share of
    responding answers that have k claims or more.
    """

    k: int
    accuracy: Interval
    claims: float
    reach: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy against the number of claims kept, by truncation: nothing is generated anew.

    The accuracy at k is the mean, over responses with a judged claim among their first k, of the supported
    share of those claims; a response with fewer than k claims is kept whole. The last point therefore
    approaches the headline accuracy. Intervals are those of `stats.ratio`, point by point.
    """

    points: tuple[CurvePoint, ...]
    responses: int

    @property
    def mean_claims(self) -> float:
        """Mean number of claims kept at the last point."""
        return self.points[-1].claims if self.points else 0.0


def curve(scored: Sequence[LongformScore], max_k: int) -> Curve:
    """The curve for k = 1 .. max_k, ending at the longest response; ValueError unless max_k >= 1."""
    if max_k < 1:
        raise ValueError(f"a curve needs max_k >= 1, not {max_k}")
    responding = [s for s in scored if s.responds]
    longest = max((len(s.verdicts) for s in responding), default=0)
    points = []
    for k in range(1, min(max_k, longest) + 1):
        precisions = [s.precision(k) for s in responding]
        sample = Sample.of(
            [p or 0.0 for p in precisions],
            [float(p is not None) for p in precisions],
            [s.subject for s in responding],
            [s.world for s in responding],
        )
        kept = sum(min(k, len(s.verdicts)) for s in responding) / len(responding)
        reach = sum(len(s.verdicts) >= k for s in responding) / len(responding)
        points.append(CurvePoint(k, ratio(sample), kept, reach))
    return Curve(tuple(points), len(responding))
