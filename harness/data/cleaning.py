"""Ambiguous questions: those that ask the same of several subjects that share a name.

The paper reports PopQA cleaned of them and as it is; how it cleaned was never published. The rule here is ours
and is called `unambiguous`: a question goes, in every split, when its text is asked more than once with
different answers. Nothing is merged and nothing else is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.data.source import DataError
from harness.records import Row, Split

PopqaCleaning = Literal["original", "unambiguous"]
POPQA_CLEANING: tuple[PopqaCleaning, ...] = ("original", "unambiguous")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What cleaning leaves, in the order it came in, and how many rows it dropped of each split."""

    rows: dict[Split, tuple[Row, ...]]
    dropped: dict[Split, int]


def unambiguous(rows: Mapping[Split, Sequence[Row]]) -> Cleaned:
    """The rows whose question has one answer in all splits together; the counts are logged.

    Subjects that share a name may be in different splits, so the splits have to be cleaned together.
    """
    ambiguous = ambiguous_questions(row for of_split in rows.values() for row in of_split)
    kept = {split: tuple(row for row in part if _asked(row) not in ambiguous) for split, part in rows.items()}
    dropped = {split: len(part) - len(kept[split]) for split, part in rows.items()}
    counts = ", ".join(f"{split} {count} of {len(rows[split])}" for split, count in dropped.items())
    _log.info("unambiguous: %d questions have several answers; rows dropped: %s", len(ambiguous), counts)
    return Cleaned(kept, dropped)


def ambiguous_questions(rows: Iterable[Row]) -> frozenset[str]:
    """The questions, case-folded and with single spaces, that rows answer differently.

    Two rows answer differently unless they count the same strings as right. The subject's name does not tell
    rows apart: what makes a question ambiguous is that its subjects are called the same.
    """
    answers: dict[str, set[frozenset[str]]] = {}
    for row in rows:
        if row.question is not None:
            answers.setdefault(_asked(row), set()).add(frozenset(row.answers))
    return frozenset(question for question, sets in answers.items() if len(sets) > 1)


def known_popqa_cleaning(rule: str | None) -> PopqaCleaning | None:
    """The rule of that name, or None for None. Raises DataError for another name."""
    for known in POPQA_CLEANING:
        if rule == known:
            return known
    if rule is None:
        return None
    raise DataError(f"popqa_cleaning: '{rule}' is unknown; choose one of {', '.join(POPQA_CLEANING)}")


def _asked(row: Row) -> str:
    return " ".join((row.question or "").casefold().split())
