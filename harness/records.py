"""The frozen records that pass between stages: row -> item -> response -> scored response -> metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test", "fictitious", "fictitious_test"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset as its source gives it, before a task phrases it.

    `id` is unique within a task and split. `subject` is the entity asked about and the unit that intervals are
    clustered by. `question` is `None` for long-form rows, whose prompt the task writes. `target` is the text to
    be learnt, `answers` every string that counts as right. `kind` is the relation of a PopQA row, `bridge` or
    `comparison` of a HotpotQA row, the type of entity of a long-form row. `popularity` is in page views a month.
    """

    id: str
    subject: str
    target: str
    question: str | None = None
    answers: tuple[str, ...] = ()
    kind: str = ""
    popularity: int | None = None
    fake: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to ask a model, and what is needed to score its answer.

    `prefill` is the beginning of the answer that is given to the model. `topic` is the title looked up in the
    knowledge source. `gold` holds every right answer (short QA).
    """

    task: str
    id: str
    prompt: str
    subject: str
    topic: str = ""
    prefill: str = ""
    gold: tuple[str, ...] = ()
    kind: str = ""
    popularity: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What a model wrote for an item: `text` includes the prefill, `tokens` counts new tokens only.

    `finish` is `stop` where the model ended by itself and `length` where the limit cut it off.
    """

    task: str
    item_id: str
    model: str
    world: int
    text: str
    tokens: int
    finish: Literal["stop", "length"]
