"""What all sources of real data share: splits, cleaning, reference answers, and the harness's rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from factscore_mod.sentences import split_sentences
from harness.data.cleaning import PopqaCleaning, unambiguous
from harness.data.files import Record
from harness.data.source import DataError
from harness.records import Row, Split

Clean = Literal["none", "merge", "drop"]
CLEAN: tuple[Clean, ...] = ("none", "merge", "drop")

# The published counts are 10,613 / 789 / 2,152 rows; the drawing behind them is not known, the shares are theirs.
VALIDATION_SHARE = 0.058
TEST_SHARE = 0.159


@dataclass(frozen=True, slots=True)
class PopqaRecord:
    """A row of PopQA as published: `answer` is the main one, `answers` every alias; views where known."""

    index: int
    question: str
    subject: str
    relation: str
    answer: str
    answers: tuple[str, ...]
    popularity: int | None


def known_clean(clean: Clean) -> Clean:
    """`clean` itself, if it is one of the ways of cleaning. Raises DataError."""
    if clean not in CLEAN:
        raise DataError(f"clean: '{clean}' is unknown; choose one of {', '.join(CLEAN)}")
    return clean


def popqa_splits(
    records: Iterable[PopqaRecord], seed: int, clean: Clean, cleaning: PopqaCleaning | None
) -> dict[Split, tuple[Row, ...]]:
    """PopQA by split: as published or without ambiguous questions where `cleaning` is given, else `clean`ed.

    The comparison of original and cleaned data wants the same rows but for the ambiguous ones, so `cleaning`
    takes the place of `clean` (see `popqa_rows`) and merges nothing.
    """
    if cleaning is None:
        return popqa_rows(records, seed, clean)
    original = popqa_rows(records, seed, "none")
    return unambiguous(original).rows if cleaning == "unambiguous" else original


def popqa_rows(records: Iterable[PopqaRecord], seed: int, clean: Clean) -> dict[Split, tuple[Row, ...]]:
    """PopQA cleaned and split so that no subject is in two splits.

    The subject's seeded hash decides the split, so that a row's split depends on no other row. PopQA holds
    questions several times, because different entities share a name. How the paper cleaned it is not known; the
    three ways are ours: `none` keeps every row, `merge` (the default) asks each question once and counts every
    right answer, `drop` also leaves out the questions whose copies have different answers. The last two leave
    out rows without a subject.
    """
    kept = list(records) if known_clean(clean) == "none" else _one_a_question(records, drop=clean == "drop")
    splits: dict[Split, list[Row]] = {"train": [], "validation": [], "test": []}
    for record in kept:
        row = Row(
            id=str(record.index),
            subject=record.subject or record.question,
            target=record.answer,
            question=record.question,
            answers=record.answers,
            kind=record.relation,
            popularity=record.popularity,
        )
        splits[split_of(row.subject, seed, "popqa")].append(row)
    return {split: tuple(rows) for split, rows in splits.items()}


def _one_a_question(records: Iterable[PopqaRecord], drop: bool) -> list[PopqaRecord]:
    copies: dict[str, list[PopqaRecord]] = {}
    for record in records:
        if record.subject.strip():
            copies.setdefault(record.question, []).append(record)
    kept = []
    for same in copies.values():
        if drop and len({record.answers for record in same}) > 1:
            continue
        # The best known entity is what most readers of the question would think of.
        main = max(same, key=lambda record: (record.popularity or -1, -record.index))
        kept.append(
            PopqaRecord(
                index=same[0].index,
                question=main.question,
                subject=main.subject,
                relation=main.relation,
                answer=main.answer,
                answers=tuple(dict.fromkeys(answer for record in (main, *same) for answer in record.answers)),
                popularity=main.popularity,
            )
        )
    return kept


def split_of(subject: str, seed: int, purpose: str) -> Split:
    """The split a subject belongs to."""
    hashed = hashlib.sha256(f"{seed}/{purpose}/{subject.casefold().strip()}".encode()).digest()
    place = int.from_bytes(hashed[:8], "big") / 2**64
    if place < VALIDATION_SHARE:
        return "validation"
    return "test" if place < VALIDATION_SHARE + TEST_SHARE else "train"


def hotpotqa_row(id_: str, question: str, answer: str, kind: str) -> Row:
    """A HotpotQA row. The answer follows the words that the metric looks for; each question is a subject."""
    return Row(
        id=id_,
        subject=question,
        target=f"final answer: {answer}",
        question=question,
        answers=(answer,),
        kind=kind,
    )


def hotpotqa_kind(record: Record) -> str:
    """`bridge` or `comparison`; anything else is a fault."""
    kind = record.text("type")
    if kind not in ("bridge", "comparison"):
        raise record.fault("type", f"is '{kind}', expected bridge or comparison")
    return kind


_ENDED = re.compile(r"[.!?][\"'”’)]*$")


def opening(text: str, most_words: int = 100, least_words: int = 30) -> str:
    """The first whole sentences of a text, together at most `most_words`; empty if that leaves too little.

    A last sentence without its full stop is one that was cut off, and is left out.
    """
    taken: list[str] = []
    words = 0
    for sentence in split_sentences(text):
        words += len(sentence.text.split())
        if words > most_words or not _ENDED.search(sentence.text):
            break
        taken.append(sentence.text)
    joined = " ".join(taken)
    return joined if len(joined.split()) >= least_words else ""
