"""What a stage may ask for that training cannot make by itself: sampled responses, and judgements of them.

A method that learns from its own samples (FLAME, FactTune, RL) says so with these records. Whoever runs the
stages makes the samples and judgements first, keeps them under their fingerprints, and fills the stage in from
them (`baselines.derive`). Equal samplings of different methods are thereby the same piece of work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from train.rows import Example, plain
from train.template import PromptTemplate

if TYPE_CHECKING:
    from train.stages import Stage

# fs: share of claims that the knowledge source supports. mc: mean confidence of the base in its own most frequent
# answer about each claim; ec: the same with the expected confidence. match: 1 where a short answer is right, else 0.
Measure = Literal["fs", "mc", "ec", "match"]

# Raise when a change to sampling or judging changes what equal records stand for.
SAMPLING_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """`count` responses to each of `prompts`, from `model` (a stage's adapter; `None` is the base).

    `prompts` are examples whose prompt and prefill are used and whose completion is not. `shots` are solved
    examples put before each prompt. Temperature 0 is greedy decoding. A response ends at EOS, at
    `max_new_tokens` or before the first of the `stop` strings. `teacher` names a teacher that is asked instead
    of the base (see `TaskData.teacher`); it has no adapter.
    """

    name: str
    prompts: tuple[Example, ...]
    seed: int
    max_new_tokens: int
    model: Stage | None = None
    teacher: str = ""
    count: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    shots: tuple[Example, ...] = ()
    stop: tuple[str, ...] = ()
    template: PromptTemplate = field(default_factory=PromptTemplate)

    def __post_init__(self) -> None:
        if self.teacher and self.model is not None:
            raise ValueError(f"sampling {self.name!r}: a teacher is asked as it is, without an adapter")

    def fingerprint(self, base_fingerprint: str) -> str:
        """Hex SHA-256 of everything that decides the samples (the readable `name` does not)."""
        content = {
            "prompts": plain(self.prompts),
            "shots": plain(self.shots),
            "template": plain(self.template),
            "settings": [self.seed, self.max_new_tokens, self.count, self.temperature, self.top_p, *self.stop],
            "model": self.model.fingerprint(base_fingerprint) if self.model else None,
            "base": self.teacher or base_fingerprint,
            "format": SAMPLING_FORMAT,
        }
        return _hash(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """A score, and verdicts on the claims, for every response of `samples`.

    `answers`, `temperature` and `top_p` say how the base is asked about each claim for `mc` and `ec` (FactTune,
    arXiv 2311.08401: 20 answers at temperature 1, top-p 0.9).
    """

    samples: Sampling
    measure: Measure
    answers: int = 20
    temperature: float = 1.0
    top_p: float = 0.9

    def fingerprint(self, base_fingerprint: str) -> str:
        """Hex SHA-256 of everything but the judge that decides the judgements."""
        settings = [self.answers, self.temperature, self.top_p] if self.measure in ("mc", "ec") else []
        return _hash({"samples": self.samples.fingerprint(base_fingerprint), "measure": self.measure, "how": settings})


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response to the prompt with index `prompt`; `text` is without the prefill."""

    prompt: int
    text: str
    finish: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A claim of a sampled response; `supported` is `None` where the judge gave no verdict."""

    text: str
    supported: bool | None


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """A sampled response with its score in [0, 1]; `None` where there is nothing to score (no claim, no verdict)."""

    sample: Sample
    score: float | None
    claims: tuple[JudgedClaim, ...] = ()


# --- training data made of samples ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Supervised rows: every sampled response is a completion of its prompt. Empty ones, ones cut off by the
    length limit and refusals are left out.
    """

    samples: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Preference pairs within a prompt, the higher score chosen; ties give none.

    `all`: every two responses whose scores differ by more than `min_gap`; `extremes`: the best against the
    worst alone. `most_per_prompt` keeps so many pairs of a prompt, drawn at random (`None`: all).
    """

    judged: Judging
    rule: Literal["all", "extremes"]
    min_gap: float = 0.0
    most_per_prompt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Rows for a fact verifier: a claim and a question on its truth, answered "Yes." or "No." (Kang et al. 2024)."""

    judged: Judging


Derived = Answers | Pairs | Verdicts


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt (with its prefill) and two responses, of which `chosen` is the better."""

    example: Example
    chosen: str
    rejected: str


class Workbench(Protocol):
    """What training needs from above while it runs: reading what a model wrote."""

    def claims(self, texts: Sequence[str], subjects: Sequence[str]) -> list[tuple[str, ...]]:
        """The atomic claims of each response, in order; `texts` hold the prefill as well."""

    def matches(self, texts: Sequence[str], examples: Sequence[Example]) -> list[bool | None]:
        """Whether each short answer is right; `None` where it declines to answer."""


def samplings(data: Derived) -> tuple[Sampling, Judging | None]:
    """The sampling that derived data rest on, and its judging where there is one."""
    match data:
        case Answers(samples=samples):
            return samples, None
        case Pairs(judged=judged) | Verdicts(judged=judged):
            return judged.samples, judged


def describe(data: Derived, base_fingerprint: str) -> dict[str, object]:
    """What of derived data decides an adapter: fingerprints in place of what they stand for."""
    match data:
        case Answers(samples=samples):
            return {"answers": samples.fingerprint(base_fingerprint)}
        case Pairs(judged=judged):
            settings = [data.rule, data.min_gap, data.most_per_prompt]
            return {"pairs": judged.fingerprint(base_fingerprint), "settings": settings}
        case Verdicts(judged=judged):
            return {"verdicts": judged.fingerprint(base_fingerprint)}


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
