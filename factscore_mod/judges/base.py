"""What every judge is made of, and how a judge says that it could not answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from factscore_mod.records import Claim, Decomposer, Judgement, Usage, Verifier


class JudgeError(ValueError):
    """A judge cannot be made or cannot work at all: wrong name, wrong key, missing model."""


class DecompositionFailed(Exception):
    """Some sentences could not be decomposed: the judge's reply was unreadable or did not come.

    `claims` are those of the other sentences; `failed` maps sentence indices to what to report for each. The
    scorer keeps every such sentence as one claim with that judgement, so that nothing vanishes from the
    counts.
    """

    def __init__(self, claims: tuple[Claim, ...], failed: Mapping[int, Judgement], usage: Usage) -> None:
        super().__init__(f"{len(failed)} sentences could not be decomposed")
        self.claims = claims
        self.failed = dict(failed)
        self.usage = usage


class Closeable(Protocol):
    """Something with connections or a model to let go."""

    async def aclose(self) -> None:
        """Release what is held; the object may be used again afterwards."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A decomposer and a verifier that work together.

    `synchronous` promises that their coroutines never suspend: the scorer then runs them without an event
    loop.
    """

    name: str
    decomposer: Decomposer
    verifier: Verifier
    synchronous: bool = False
    closeables: tuple[Closeable, ...] = ()


StructuredOutput = Literal["auto", "json_schema", "guided", "off"]


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """Settings of model judges. Those that can change a reply are part of the cache key and the fingerprint.

    base_url, api_key: of an OpenAI-compatible endpoint; default `OPENAI_BASE_URL` and `OPENAI_API_KEY`. The
        key is never shown, logged, cached or written.
    concurrency: requests in flight at once.
    timeout: seconds for one request. `attempts`: tries for a request that fails (429 is not a failure).
    patience: seconds that one request may spend waiting for a rate limit before it is given up as `error`.
    reasks: how often an unreadable reply is asked for again.
    structured: `auto` uses a JSON schema until the server refuses it; `json_schema` insists; `guided` uses
        vLLM's guided decoding; `off` uses the last-line grammar.
    logprobs: ask for the probabilities of the verdict. Dropped when the server refuses them.
    temperature, seed: passed on. The published FActScore used 0.7; 0 here.
    device, dtype, batch_size: for models in process.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 128
    timeout: float = 120.0
    attempts: int = 12
    patience: float = 600.0
    reasks: int = 2
    structured: StructuredOutput = "auto"
    logprobs: bool = False
    temperature: float = 0.0
    seed: int | None = None
    device: str | None = None
    dtype: str = "auto"
    batch_size: int = 16
