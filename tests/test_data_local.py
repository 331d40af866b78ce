"""Real data from a folder: splits without leaks, reference answers, knowledge sources, and errors that help."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.knowledge import KnowledgeSource
from harness.data import local
from harness.data.local import LocalSource, is_person, lead
from harness.data.normalise import PopqaRecord, opening, popqa_rows, split_of
from harness.data.source import DataError, Source


def write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def popqa_row(i: int, **changes: Any) -> dict[str, Any]:
    row = {
        "question": f"What is Person {i}'s occupation?", "subj": f"Person {i}", "prop": "occupation",
        "obj": "poet", "possible_answers": ["poet", "bard"], "s_pop": i,
    }  # fmt: skip
    return row | changes


def biography(name: str, year: int = 1950) -> str:
    return (
        f"{name} (born {year} in Riverton) is a former weaver who worked for the town's mill for thirty years. "
        f"{name} wrote two books about the trade and taught it at the evening school until the mill was closed. "
        "The town named a street after the older of the books. This last sentence was cut off by the"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / local.POPQA, [popqa_row(i) for i in range(300)])
    hotpot = {"question": "Who is older?", "answer": "Ann", "type": "comparison"}
    write(tmp_path / local.HOTPOTQA_TEST, [hotpot, {"question": "Who?", "answer": "yes", "type": "bridge"}])
    write(tmp_path / local.HOTPOTQA_TRAIN, [hotpot | {"question": "Who is taller?", "level": "easy"}])
    for path, names in zip(local.PERSON_LISTS, ["Ann Ames\nBob Bell\nCy Cole\n", "Dee Dale\n"], strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(names, encoding="utf-8")
    (tmp_path / local.PERSON_DEV).parent.mkdir(parents=True)
    (tmp_path / local.PERSON_DEV).write_text('["Bob Bell"]', encoding="utf-8")

    def passages(*pairs: tuple[str, str]) -> list[dict[str, str]]:
        return [{"title": title, "text": text} for title, text in pairs]

    write(
        tmp_path / local.PERSON_PASSAGES,
        [
            {
                "name": "Ann Ames",
                "passages": passages(
                    ("Ann Ames", "later she moved to Hillside and sold the"),
                    ("Ann Ames", f"Ann Ames {biography('Ann Maria Ames')}"),
                    ("Eve Eaton", f"Eve Eaton {biography('Eve Eaton')}"),
                    ("Eve Eaton", f"Eve Eaton {biography('Eve Eaton')}"),
                    ("Riverton Mill", "Riverton Mill Riverton Mill (1890) stands empty. It was a mill."),
                    ("Eve Eaton (painter)", f"Eve Eaton (painter) {biography('Eve Eaton', 1900)}"),
                ),
            },
            {"name": "Bob Bell", "passages": passages(("Bob Bell", f"Bob Bell {biography('Bob Bell')}"))},
            {"name": "Cy Cole", "passages": passages(("Eve Eaton", "Eve Eaton retired to Hillside in 1999."))},
        ],
    )
    write(tmp_path / local.PERSON_VIEWS, [{"name": "Eve Eaton", "views": 12.0}, {"name": "Ann Ames", "views": 7}])
    answers = [
        {"question": "How is it treated?", "qtype": "treatment", "answer": "With rest."},
        {"question": "What is it?", "qtype": "information", "answer": biography("Blue fever")},
    ]
    document = {"focus": "Fever, blue", "qa": answers}
    write(
        tmp_path / local.MEDICAL,
        [
            {"entity": "Blue fever", "split": "test", "docs": [document]},
            {"entity": "Red fever", "split": "dev", "docs": [document | {"focus": "Red fever"}]},
        ],
    )
    return tmp_path


# --- PopQA -------------------------------------------------------------------------------------------------


def test_popqa_splits_share_no_subject_and_lose_no_row(folder: Path) -> None:
    source: Source = LocalSource(folder, seed=3)
    splits = [source.rows("popqa", split) for split in ("train", "validation", "test")]
    assert sum(map(len, splits)) == 300
    assert all(splits)
    subjects = [{row.subject for row in rows} for rows in splits]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    row = next(row for row in splits[0] if row.id == "7" or int(row.id) > 7)
    assert row.target == "poet"
    assert row.answers == ("poet", "bard")
    assert row.kind == "occupation"
    assert row.popularity == int(row.id)
    assert source.rows("popqa", "fictitious") == ()
    assert source.knowledge_sets("popqa") == ()


def test_a_list_inside_a_text_is_the_same_list(folder: Path) -> None:
    before = LocalSource(folder, 0).rows("popqa", "test")
    for form in (json.dumps, repr):
        write(folder / local.POPQA, [popqa_row(i, possible_answers=form(["poet", "bard"])) for i in range(300)])
        assert LocalSource(folder, 0).rows("popqa", "test") == before


def test_the_fingerprint_of_a_folder_stays_what_it_was(tmp_path: Path) -> None:
    """Written down before a text could hold the list and before there were page views of medical entities."""
    (tmp_path / "popqa").mkdir()
    (tmp_path / local.POPQA).write_bytes(b"anything")
    assert LocalSource(tmp_path, 0).fingerprint == "a3060a95982e256c7b3cd44d12f98f2c25aa282a1df01bac808cfd5e654913fc"


def test_the_seed_draws_the_split_and_only_that(folder: Path) -> None:
    first, again, other = LocalSource(folder, 0), LocalSource(folder, 0), LocalSource(folder, 1)
    assert first.rows("popqa", "test") == again.rows("popqa", "test") != other.rows("popqa", "test")
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert LocalSource(folder, 0, clean="none").fingerprint != first.fingerprint
    assert first.rows("persons", "train") == other.rows("persons", "train")


@given(st.text(alphabet=st.characters(codec="ascii")), st.integers(0, 5))
def test_a_split_does_not_see_case_or_surrounding_spaces(subject: str, seed: int) -> None:
    assert split_of(subject, seed, "popqa") == split_of(f" {subject.upper()} ", seed, "popqa")


def test_split_shares_are_those_stated() -> None:
    drawn = [split_of(f"subject {i}", 0, "popqa") for i in range(20_000)]
    # Four standard errors of a share of 0.159 (0.058) in 20,000 draws are 0.0103 (0.0066).
    assert abs(drawn.count("test") / 20_000 - 0.159) < 0.0103
    assert abs(drawn.count("validation") / 20_000 - 0.058) < 0.0066


def test_three_ways_to_treat_repeated_questions() -> None:
    def record(index: int, answers: tuple[str, ...], popularity: int | None, subject: str = "Lee") -> PopqaRecord:
        return PopqaRecord(index, f"Who is {subject}?", subject, "occupation", answers[0], answers, popularity)

    records = [
        record(0, ("poet",), None),
        record(1, ("actor", "star"), 9),
        record(2, ("actor", "star"), 2),
        record(3, ("spy",), 5, "Kim"),
        record(4, ("spy",), 6, "Kim"),
        record(5, ("cook",), 5, ""),
    ]

    def cleaned(way: Any) -> dict[str, tuple[str, tuple[str, ...], int | None]]:
        rows = [row for split in popqa_rows(records, 0, way).values() for row in split]
        return {row.id: (row.target, row.answers, row.popularity) for row in rows}

    assert sorted(cleaned("none")) == ["0", "1", "2", "3", "4", "5"]
    assert cleaned("merge") == {"0": ("actor", ("actor", "star", "poet"), 9), "3": ("spy", ("spy",), 6)}
    assert cleaned("drop") == {"3": ("spy", ("spy",), 6)}
    with pytest.raises(DataError, match="none, merge, drop"):
        cleaned("tidy")


def test_views_that_are_not_known_stay_unknown(folder: Path) -> None:
    rows = [popqa_row(i) for i in range(40)]
    del rows[0]["s_pop"]
    rows[1]["s_pop"] = None
    write(folder / local.POPQA, rows)
    source = LocalSource(folder, 0)
    known = {row.id: row.popularity for s in ("train", "validation", "test") for row in source.rows("popqa", s)}  # type: ignore[arg-type]
    assert known["0"] is None
    assert known["1"] is None
    assert known["2"] == 2


# --- HotpotQA ----------------------------------------------------------------------------------------------


def test_hotpotqa_trains_on_the_train_file_and_tests_on_the_dev_file(folder: Path) -> None:
    source = LocalSource(folder, 0)
    (train,) = source.rows("hotpotqa", "train")
    assert train.target == "final answer: Ann"
    test = source.rows("hotpotqa", "test")
    assert [(row.kind, row.answers) for row in test] == [("comparison", ("Ann",)), ("bridge", ("yes",))]
    assert len({row.id for row in test}) == 2
    assert source.rows("hotpotqa", "validation") == ()


# --- persons -----------------------------------------------------------------------------------------------


def test_persons_with_a_page_of_their_own_are_tested_and_others_are_learnt(folder: Path) -> None:
    source = LocalSource(folder, 0)
    assert [row.subject for row in source.rows("persons", "test")] == ["Ann Ames"]
    assert [row.subject for row in source.rows("persons", "validation")] == ["Bob Bell"]
    (eve,) = source.rows("persons", "train")
    assert (eve.subject, eve.popularity, eve.kind) == ("Eve Eaton", 12, "person")
    assert eve.target.startswith("Eve Eaton (born 1950 in Riverton) is a former weaver")
    assert eve.target.endswith("the older of the books.")
    assert source.rows("persons", "test")[0].popularity == 7


def test_the_persons_knowledge_source_holds_every_page_once(folder: Path, tmp_path: Path) -> None:
    source = LocalSource(folder, 0)
    path = source.knowledge_source("persons", tmp_path / "home")
    assert source.knowledge_source("persons", tmp_path / "home") == path
    knowledge = KnowledgeSource.open(path)
    ann = " ".join(passage.text for passage in knowledge.passages("Ann Ames"))
    assert ann.startswith("Ann Maria Ames (born 1950")
    assert "moved to Hillside" in ann
    eve = " ".join(passage.text for passage in knowledge.passages("Eve Eaton"))
    assert eve.count("former weaver") == 1
    assert "retired to Hillside" in eve


def test_without_page_views_popularity_is_unknown(folder: Path) -> None:
    (folder / local.PERSON_VIEWS).unlink()
    assert LocalSource(folder, 0).rows("persons", "test")[0].popularity is None


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Al Ax", "Al Ax Albert Ax (born 1900) was a", "Albert Ax (born 1900) was a"),
        ("Al Ax", "Al Ax Al Ax (; born 1900) was a", "Al Ax (born 1900) was a"),
        ("Al Ax", "Al Ax Al Ax () was a", "Al Ax was a"),
        ("Al Ax", "Al Ax was born in", None),
        ("Al Ax", "of the town. Al Ax Al Ax (born", None),
        ("Al Ax", "Al Ax", None),
    ],
)
def test_the_first_passage_of_a_page_is_known_by_its_title(title: str, text: str, expected: str | None) -> None:
    assert lead(title, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Al Ax (born 5 May 1900) was a poet.", True),
        ("Al Ax (c. 1420 - 1480), was the abbot of", True),
        ("Axton (1900) stands empty. It was a mill.", False),
        ("Al Ax is a poet.", False),
    ],
)
def test_persons_are_told_by_their_years(text: str, expected: bool) -> None:
    assert is_person(text) is expected


@given(st.text(alphabet="ab .A\n", max_size=400), st.integers(1, 60), st.integers(0, 20))
def test_an_opening_is_made_of_whole_sentences_within_its_limits(text: str, most: int, least: int) -> None:
    got = opening(text, most, least)
    if got:
        assert least <= len(got.split()) <= most
        assert got.endswith(".")
        assert "".join(text.split()).find("".join(got.split())) >= 0


# --- medical -----------------------------------------------------------------------------------------------


def test_medical_entities_keep_their_published_lists(folder: Path, tmp_path: Path) -> None:
    source = LocalSource(folder, 0)
    assert [row.subject for row in source.rows("medical", "test")] == ["Blue fever"]
    assert [row.subject for row in source.rows("medical", "validation")] == ["Red fever"]
    assert source.rows("medical", "train") == ()
    assert source.rows("medical", "test")[0].target.startswith("Blue fever (born")
    knowledge = KnowledgeSource.open(source.knowledge_source("medical", tmp_path / "home"))
    texts = [passage.text for passage in knowledge.passages("Blue fever")]
    assert "former weaver" in texts[0]
    assert "With rest." in " ".join(texts)
    assert knowledge.resolve("Fever, blue").title == "Blue fever"


def test_medical_entities_have_the_page_views_that_are_known(folder: Path) -> None:
    assert LocalSource(folder, 0).rows("medical", "test")[0].popularity is None
    write(folder / local.MEDICAL_VIEWS, [{"name": "blue fever", "views": 4}])
    assert LocalSource(folder, 0).rows("medical", "test")[0].popularity == 4
    assert LocalSource(folder, 0).rows("medical", "validation")[0].popularity is None


# --- faults ------------------------------------------------------------------------------------------------


def breaking(path: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(content) and None


FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing file": ("popqa", lambda f: (f / local.POPQA).unlink(), r"popqa_test.*does not exist; docs/data.md"),
    "missing field": (
        "popqa", lambda f: write(f / local.POPQA, [popqa_row(0), {"question": "?"}]),
        r"popqa_test.*line 2: field `subj` is missing \(there are: question\)",
    ),
    "wrong type": (
        "popqa", lambda f: write(f / local.POPQA, [popqa_row(0, possible_answers="poet")]),
        r"line 1: field `possible_answers` is no list, in JSON or as a Python literal; docs/data.md",
    ),
    "negative views": ("popqa", lambda f: write(f / local.POPQA, [popqa_row(0, s_pop=-1)]), r"`s_pop` is -1"),
    "not JSON": ("popqa", breaking(local.POPQA, gzip.compress(b'{"a": 1}\n{"a"')), r"line 1: field|line 2: not valid"),
    "not an object": ("popqa", breaking(local.POPQA, gzip.compress(b"[1]\n")), r"line 1: a list, an object"),
    "not gzip": ("popqa", breaking(local.POPQA, b"plain"), r"popqa_test.*cannot be read"),
    "cut off": (
        "popqa", breaking(local.POPQA, gzip.compress(os.urandom(5000).hex().encode())[:2000]), r"cannot be read"
    ),
    "unknown type": (
        "hotpotqa", lambda f: write(f / local.HOTPOTQA_TEST, [{"question": "?", "answer": "", "type": "odd"}]),
        r"field `type` is 'odd', expected bridge or comparison",
    ),
    "bad list": ("persons", breaking(local.PERSON_DEV, b'{"a": 1}'), r"bio_skill_dev.*a list of names is expected"),
    "bad passages": (
        "persons", lambda f: write(f / local.PERSON_PASSAGES, [{"name": "A", "passages": [{"title": "A"}]}]),
        r"line 1, passages\[0\]: field `text` is missing",
    ),
    "unknown split": (
        "medical", lambda f: write(f / local.MEDICAL, [{"entity": "A", "split": "train", "docs": []}]),
        r"field `split` is 'train'",
    ),
    "no text": (
        "medical", lambda f: write(f / local.MEDICAL, [{"entity": "A", "split": "test", "docs": []}]),
        r"field `docs` holds no answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_file_line_field_and_remedy(folder: Path, fault: str) -> None:
    task, damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(DataError, match=message):
        LocalSource(folder, 0).rows(task, "test")


def test_other_tasks_work_when_one_set_is_missing(folder: Path) -> None:
    (folder / local.POPQA).unlink()
    assert LocalSource(folder, 0).rows("hotpotqa", "test")


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        LocalSource(folder / "nowhere", 0)
    with pytest.raises(DataError, match=r"no task 'grounding'.*harness synthesize .*--fictitious"):
        LocalSource(folder, 0).rows("grounding", "test")
    with pytest.raises(DataError, match="no knowledge source for 'popqa'"):
        LocalSource(folder, 0).knowledge_source("popqa", tmp_path)


# --- the real folder ---------------------------------------------------------------------------------------


@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="HARNESS_DATA names no data folder")
def test_the_real_folder() -> None:
    source = LocalSource(os.environ["HARNESS_DATA"], 0, clean="none")
    counts = {split: len(source.rows("popqa", split)) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert sum(counts.values()) == 14_267
    test = source.rows("hotpotqa", "test")
    assert (len(test), sum(row.kind == "bridge" for row in test)) == (7_405, 5_918)
    assert len(source.rows("hotpotqa", "train")) == 100
    assert len(source.rows("persons", "test")) > 300
    assert len(source.rows("persons", "train")) > 500
    train = {row.subject for row in source.rows("persons", "train")}
    assert not train & {row.subject for row in source.rows("persons", "test")}
    assert [len(source.rows("medical", split)) for split in ("validation", "test")] == [15, 62]  # type: ignore[arg-type]
