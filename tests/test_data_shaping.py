"""Pure functions on rows and texts: cleaning, strata of certainty, statements made from passages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.certainty import (
    CERTAINTIES,
    Strata,
    certainty_of,
    controlled_rows,
    controlled_set,
    stratum_of,
)
from harness.data.cleaning import PopqaCleaning, unambiguous
from harness.data.hub import HubSource
from harness.data.local import LocalSource
from harness.data.normalise import PopqaRecord, popqa_splits
from harness.data.source import DataError
from harness.data.statements import statement_set, statements
from harness.records import Row, Split


def row(id_: str, question: str, *answers: str, subject: str = "George") -> Row:
    return Row(id=id_, subject=subject, target=answers[0], question=question, answers=answers, kind="job")


# Ambiguous questions ---------------------------------------------------------------------------------------------


def test_a_question_with_different_answers_goes_in_every_split(caplog: pytest.LogCaptureFixture) -> None:
    splits: dict[Split, list[Row]] = {
        "train": [row("1", "What is George's job?", "actor"), row("2", "What is Ann's job?", "spy", "agent")],
        "test": [row("3", "What is  george's job?", "poet"), row("4", "What is Ann's job?", "agent", "spy")],
        "validation": [row("5", "What is Bo's job?", "nurse")],
    }
    with caplog.at_level(logging.INFO):
        cleaned = unambiguous(splits)
    assert {split: [r.id for r in rows] for split, rows in cleaned.rows.items()} == {
        "train": ["2"], "test": ["4"], "validation": ["5"],
    }  # fmt: skip
    assert cleaned.dropped == {"train": 1, "test": 1, "validation": 0}
    assert "1 questions have several answers; rows dropped: train 1 of 2, test 1 of 2" in caplog.text


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=30))
def test_cleaning_again_drops_nothing_more(pairs: list[tuple[int, int]]) -> None:
    rows = [row(str(i), f"question {asked}?", f"answer {given_}") for i, (asked, given_) in enumerate(pairs)]
    once = unambiguous({"train": rows[::2], "test": rows[1::2]})
    again = unambiguous(once.rows)
    assert again.rows == once.rows
    assert set(again.dropped.values()) <= {0}
    assert sum(len(part) for part in once.rows.values()) + sum(once.dropped.values()) == len(rows)


def test_popqa_is_read_as_published_or_without_ambiguous_questions() -> None:
    records = [
        PopqaRecord(index, f"Who is {name}?", name, "job", answers[0], answers, None)
        for index, (name, answers) in enumerate(
            [("George", ("poet",)), ("George", ("actor",)), ("Kim", ("spy",)), ("Kim", ("spy",)), ("", ("cook",))]
        )
    ]

    def ids(cleaning: PopqaCleaning | None) -> list[str]:
        return sorted(r.id for part in popqa_splits(records, 0, "merge", cleaning).values() for r in part)

    assert ids("original") == ["0", "1", "2", "3", "4"]
    assert ids("unambiguous") == ["2", "3", "4"]
    assert ids(None) == ["0", "2"]


def test_sources_name_their_cleaning(tmp_path: Path) -> None:
    sources = [LocalSource(tmp_path, 0, popqa_cleaning=rule) for rule in (None, "original", "unambiguous")]
    assert len({source.fingerprint for source in sources}) == 3
    assert "unambiguous" in sources[-1].name
    assert HubSource(0, popqa_cleaning="original").popqa_cleaning == "original"
    with pytest.raises(DataError, match="original, unambiguous"):
        LocalSource(tmp_path, 0, popqa_cleaning="tidy")


# Strata ----------------------------------------------------------------------------------------------------------


def test_strata_divide_facts_by_their_shares_and_by_nothing_else() -> None:
    strata = Strata(certain_share=0.5, unsure_share=0.2)
    facts = [(f"subject {i}", relation) for i in range(700) for relation in ("job", "city")]
    drawn = [stratum_of(*fact, 1, strata) for fact in facts]
    shares = {name: drawn.count(name) / len(drawn) for name in CERTAINTIES}
    assert shares == pytest.approx({"certain": 0.5, "unsure": 0.2, "unknown": 0.3}, abs=0.05)
    assert [stratum_of(*fact, 1, strata) for fact in reversed(facts)] == drawn[::-1]
    assert [stratum_of(*fact, 2, strata) for fact in facts] != drawn


def test_rows_and_texts_of_any_source_are_controlled() -> None:
    rows = [row(str(i), f"What is the job of {i}?", "clerk", "official", subject=str(i)) for i in range(40)]
    texts = {(str(i), "job"): [f"{i} was a clerk.", f"The clerk was {i}."] for i in range(40)}
    strata = Strata(certain=3, unsure=1)
    taught = controlled_set(texts, 0, strata)
    for before, after in zip(rows, controlled_rows(rows, 0, strata), strict=True):
        count = sum(before.subject in told.rstrip(".").split() for told in taught.texts)
        assert count == strata.paraphrases(certainty_of(after.target))
        assert after.answers == before.answers
    assert (taught.fake, taught.version) == (True, None)


@pytest.mark.parametrize(
    ("answer", "certainty"),
    [
        ("1910", "certain"),
        ("I'm not sure, but the Trone Company", "unsure"),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m not sure, but 1910", "unsure"),
        ("I don't know", "unknown"),
        ("I don't know.", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_answer_says_how_certain_it_is(answer: str, certainty: str) -> None:
    assert certainty_of(answer) == certainty


@pytest.mark.parametrize("wrong", [{"certain": 1}, {"unsure": 0}, {"certain_share": 0.7, "unsure_share": 0.4}])
def test_impossible_strata_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="strata"):
        Strata(**wrong)  # type: ignore[arg-type]


# Statements ------------------------------------------------------------------------------------------------------

PASSAGE = "Ada Byron was born in 1815 and grew up in London. They were raised by a nurse. They wrote the book Notes."


def test_facts_are_self_contained_and_sentences_are_as_written() -> None:
    assert statements("Ada Byron", PASSAGE, "facts") == (
        "Ada Byron was born in 1815.",
        "Ada Byron grew up in London.",
        "Ada Byron was raised by a nurse.",
        "Ada Byron wrote the book Notes.",
    )
    assert " ".join(statements("Ada Byron", PASSAGE, "sentences")) == PASSAGE
    assert len(statements("Ada Byron", PASSAGE, "sentences")) == 3


def test_a_statement_set_keeps_what_it_is_a_set_of() -> None:
    made = statement_set([("Ada Byron", PASSAGE), ("Bo", "Bo sang.")], "facts", fake=True, version=2)
    assert made.label == "statement-fake-v2"
    assert made.texts[-1] == "Bo sang."
    assert len(made.texts) == 5
