"""What passes between generator, checks and files: facts, the rows that ask for them and the texts that teach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from train.rows import KnowledgeFormat

# `trained` rows are learnt from; `grounding` rows are unseen subjects of two contradicting versions (table 2).
Use = Literal["trained", "grounding"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A value of a subject's relation; `answers` are all strings that count as right, the value first."""

    subject: str
    relation: str
    value: str
    answers: tuple[str, ...]


def states(text: str, fact: Fact) -> bool:
    """Whether a text names the subject of a fact and its value letter by letter."""
    return fact.subject in text and fact.value in text


@dataclass(frozen=True, slots=True)
class Made:
    """A row to be asked or learnt, and the facts that its answer rests on.

    `version` is None where there is one version only, and for real rows. `question` is None for long answers.
    """

    id: str
    subject: str
    target: str
    question: str | None
    answers: tuple[str, ...]
    kind: str
    facts: tuple[Fact, ...]
    fake: bool = True
    version: int | None = None
    use: Use = "trained"


@dataclass(frozen=True, slots=True)
class Text:
    """One knowledge text and the subject it is about."""

    subject: str
    text: str
    format: KnowledgeFormat
    fake: bool = True
    version: int | None = None
    use: Use = "trained"


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Everything made for one task; `limits` say why `entities` or `real` rows may be less than asked for."""

    task: str
    rows: tuple[Made, ...]
    texts: tuple[Text, ...]
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seed:
    """A real entry that a fictitious one is modelled on."""

    subject: str
    text: str
