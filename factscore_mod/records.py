"""The frozen records of scoring: response -> sentences -> claims -> evidence -> verdicts.

Vocabulary: a *claim* is an atomic statement found in a *response*; *evidence* are the passages retrieved for it
from a *knowledge source*; a *verdict* is what a *judge* concludes from the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

Verdict = Literal["supported", "not_supported", "unparsed", "error"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a response; `start` and `end` are character offsets into the response's text."""

    index: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An atomic statement; `sentence` is the index of the sentence it was found in."""

    text: str
    sentence: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of an article; `index` is its position in the article, 0 for the lead."""

    title: str
    text: str
    index: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was retrieved for one claim. `found` says how the article was found; `none` means it was not.

    `title` is the article that the topic was resolved to (empty for `search` over the whole corpus and `none`).
    """

    passages: tuple[Passage, ...]
    found: Literal["exact", "normalised", "search", "none"]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a judge call cost: tokens in and out, and money in US dollars where the price is known."""

    calls: int = 0
    cached_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's answer on one claim: the verdict, the reply it was read from, and a score where there is one.

    `score` is in [0, 1], higher for supported: the probability of the verdict token, or a lexical score.
    `reason` says why a verdict is `unparsed` or `error`, and may say what decided a rule.
    """

    verdict: Verdict
    reply: str = ""
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ScoredClaim:
    """A claim with its evidence and the judgement on it."""

    claim: Claim
    evidence: Evidence
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response taken apart and judged.

    `abstained` responses have no claims. `topic_found` repeats how the topic was resolved, for counting misses.
    """

    id: str
    topic: str
    text: str
    abstained: bool
    sentences: tuple[Sentence, ...]
    claims: tuple[ScoredClaim, ...]
    topic_found: Literal["exact", "normalised", "search", "none"]
    usage: Usage = field(default_factory=Usage)

    def count(self, verdict: Verdict) -> int:
        """How many claims have this verdict."""
        return sum(scored.judgement.verdict == verdict for scored in self.claims)


class Decomposer(Protocol):
    """Turns the sentences of a response into claims."""

    name: str
    fingerprint: str

    async def decompose(
        self, topic: str, text: str, sentences: tuple[Sentence, ...]
    ) -> tuple[tuple[Claim, ...], Usage]:
        """Claims in reading order. `topic` is the entity that the response is about, or empty."""


class Verifier(Protocol):
    """Judges claims of one response against their evidence."""

    name: str
    fingerprint: str

    async def verify(
        self, topic: str, claims: tuple[Claim, ...], evidence: tuple[Evidence, ...]
    ) -> tuple[tuple[Judgement, ...], Usage]:
        """One judgement a claim, in order. Never raises for a bad reply: that is `unparsed` or `error`."""
