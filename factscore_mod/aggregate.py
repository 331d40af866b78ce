"""From scored responses to numbers: pure functions, no files, no intervals.

A response has *responded* when it did not abstain and at least one claim was found in it. Accuracy is taken
over
claims that have a verdict: `unparsed` and `error` count neither for nor against, and their rates are given
beside it. Functions of nothing return `None`, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

from factscore_mod.records import ScoredClaim, ScoredResponse, Verdict


def responded(response: ScoredResponse) -> bool:
    """Whether the response did not abstain and holds at least one claim."""
    return not response.abstained and bool(response.claims)


def judged(claims: Iterable[ScoredClaim]) -> list[bool]:
    """Supported or not, for the claims that have a verdict, in reading order."""
    verdicts = (claim.judgement.verdict for claim in claims)
    return [verdict == "supported" for verdict in verdicts if verdict in ("supported", "not_supported")]


def accuracy(response: ScoredResponse) -> float | None:
    """The share of the response's judged claims that are supported; `None` without judged claims."""
    return mean([float(value) for value in judged(response.claims)])


def macro_accuracy(responses: Iterable[ScoredResponse], abstentions: str = "skip") -> float | None:
    """Mean of `accuracy` over responses: the headline.

    `abstentions="skip"` leaves out responses that did not respond (FActScore's reading); `"zero"` counts them
    0.
    """
    values: list[float] = []
    for response in responses:
        value = accuracy(response)
        if value is not None:
            values.append(value)
        elif abstentions == "zero" and not responded(response):
            values.append(0.0)
    return mean(values)


def micro_accuracy(responses: Iterable[ScoredResponse]) -> float | None:
    """Supported claims over judged claims, all responses pooled."""
    return mean([float(value) for response in responses for value in judged(response.claims)])


def claims_per_response(responses: Iterable[ScoredResponse]) -> float | None:
    """Mean number of claims of the responses that responded."""
    return mean([float(len(response.claims)) for response in responses if responded(response)])


def response_rate(responses: Iterable[ScoredResponse]) -> float | None:
    """The share of responses that responded."""
    return mean([float(responded(response)) for response in responses])


def verdict_rate(responses: Iterable[ScoredResponse], verdict: Verdict) -> float | None:
    """The share of all claims that have this verdict."""
    return mean([float(claim.judgement.verdict == verdict) for response in responses for claim in response.claims])


def f1_at_k(response: ScoredResponse, k: int) -> float:
    """F1 of precision and of recall = min(supported / k, 1); 0 where nothing is supported.

    Source: F1@K of Wei et al. 2024 (arXiv 2403.18802, section 5). `k` is fixed by whoever compares, never
    taken from the responses at hand. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"K must be at least 1, not {k}")
    values = judged(response.claims)
    supported = sum(values)
    if not supported:
        return 0.0
    precision, recall = supported / len(values), min(supported / k, 1.0)
    return 2 * precision * recall / (precision + recall)


def mean_f1_at_k(responses: Iterable[ScoredResponse], k: int) -> float | None:
    """Mean of `f1_at_k` over all responses; one that abstained counts 0."""
    return mean([f1_at_k(response, k) for response in responses])


def length_penalty(claims: int, gamma: int) -> float:
    """FActScore's factor for short responses: exp(1 - gamma / n) for n <= gamma, else 1; 1 for gamma 0."""
    if not gamma or claims > gamma:
        return 1.0
    return math.exp(1 - gamma / claims) if claims else 0.0


def penalised_score(responses: Iterable[ScoredResponse], gamma: int) -> float | None:
    """`macro_accuracy` with every response's value multiplied by its length penalty."""
    values = [(accuracy(response), len(response.claims)) for response in responses]
    return mean([value * length_penalty(n, gamma) for value, n in values if value is not None])


def accuracy_over_first(response: ScoredResponse, k: int) -> float | None:
    """`accuracy` of the response's first k judged claims in reading order; all of them where it has fewer."""
    return mean([float(value) for value in islice(judged(response.claims), k)])


def macro_accuracy_over_first(responses: Iterable[ScoredResponse], k: int) -> float | None:
    """Mean of `accuracy_over_first` over responses with a judged claim."""
    values = [accuracy_over_first(response, k) for response in responses]
    return mean([value for value in values if value is not None])


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean, exactly rounded so that the order does not matter; `None` for no values."""
    return math.fsum(values) / len(values) if values else None


def summary(
    responses: Sequence[ScoredResponse],
    *,
    gamma: int = 0,
    f1_ks: Sequence[int] = (10, 20),
    first_ks: Sequence[int] = (1, 2, 5, 10, 20),
) -> dict[str, float | int | None]:
    """All metrics by name, with the counts that are their denominators."""
    claims = [claim for response in responses for claim in response.claims]
    values: dict[str, float | int | None] = {
        "responses": len(responses),
        "responded": sum(map(responded, responses)),
        "abstained": sum(response.abstained for response in responses),
        "topics_not_found": sum(bool(r.topic) and r.topic_found == "none" for r in responses),
        "claims": len(claims),
        "claims_judged": len(judged(claims)),
        "accuracy_macro": macro_accuracy(responses),
        "accuracy_macro_abstentions_as_zero": macro_accuracy(responses, "zero"),
        "accuracy_micro": micro_accuracy(responses),
        "claims_per_response": claims_per_response(responses),
        "response_rate": response_rate(responses),
        "unparsed_rate": verdict_rate(responses, "unparsed"),
        "error_rate": verdict_rate(responses, "error"),
    }
    if gamma:
        values[f"penalised_gamma_{gamma}"] = penalised_score(responses, gamma)
    values |= {f"f1_at_{k}": mean_f1_at_k(responses, k) for k in f1_ks}
    values |= {f"accuracy_first_{k}": macro_accuracy_over_first(responses, k) for k in first_ks}
    return values
