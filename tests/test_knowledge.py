"""Knowledge sources: what is built, what survives a kill, what a topic is resolved to, FActScore's own files."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factscore_mod.knowledge import (
    BuildReport,
    Document,
    KnowledgeError,
    KnowledgeSource,
    Redirect,
    Resolution,
    build,
)
from factscore_mod.passages import cut, split

EINSTEIN = "Albert Einstein was born in Ulm in 1879. He developed the theory of relativity. " * 40
DOCUMENTS = [
    Document("Albert Einstein", EINSTEIN, ("Einstein",)),
    Document("Marie Curie", "Marie Curie discovered radium and polonium in Paris."),
    Document("Mercury (planet)", "Mercury is the planet nearest to the Sun."),
    Document("Mercury (element)", "Mercury is a chemical element, liquid when warm."),
    Document("Zürich", "Zürich is a city in Switzerland."),
    Document("C++", "C++ is a language by Bjarne Stroustrup."),
    Document("C", "C is a language by Dennis Ritchie."),
    Document("Paris, Texas", "Paris is a town in Texas."),
    Document("Sherlock Holmes (character)", "Holmes is a detective at Baker Street."),
    Document("Michael Jordan", "Michael Jordan played basketball."),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeSource:
    out = tmp_path_factory.mktemp("knowledge") / "wiki.db"
    build([*DOCUMENTS, Redirect("Madame Curie", "Marie Curie"), Redirect("Lost", "Nowhere")], out)
    return KnowledgeSource.open(out)


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything a reader of the file can see, apart from how SQLite lays it out."""
    tables = ("meta", "documents", "names", "redirects", "common")
    with sqlite3.connect(path) as connection:
        rows = {table: sorted(connection.execute(f"SELECT * FROM {table}")) for table in tables}
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, passage_index, instance)")
        rows["index"] = sorted(connection.execute("SELECT term, doc, offset FROM temp.terms"))
        return rows


# Building


def test_build_reports_what_is_in_the_file(tmp_path: Path) -> None:
    documents = [*DOCUMENTS, Document("C", "again"), Document("Empty", " "), Redirect("Lost", "Nowhere")]
    seen: list[int] = []
    report = build(documents, tmp_path / "wiki.db", progress=seen.append)
    assert isinstance(report, BuildReport)
    assert (report.documents, report.duplicates, report.empty) == (11, 1, 1)
    assert (report.redirects, report.dangling, report.resumed_at) == (2, 1, 0)
    assert seen == [13]
    with KnowledgeSource.open(report.path) as opened:
        assert opened.titles() == 11
        assert opened.fingerprint == report.fingerprint
        assert opened.passages("C")[0].text == "C is a language by Dennis Ritchie."
        assert opened.passages("Empty") == ()
    assert not list(tmp_path.glob("*.partial*"))


def test_source_is_usable_right_after_its_build_in_the_same_process(tmp_path: Path) -> None:
    """FActScore's DocDB is closed by its own build: the first query of that process fails."""
    report = build(DOCUMENTS, tmp_path / "wiki.db")
    assert KnowledgeSource.open(report.path).resolve("Marie Curie").found == "exact"


def test_failed_build_is_never_taken_for_a_built_one(tmp_path: Path) -> None:
    """FActScore leaves an empty table behind, and its next run takes that as built."""

    def failing() -> Iterator[Document]:
        yield from DOCUMENTS
        raise OSError("the disk went away")

    out = tmp_path / "wiki.db"
    with pytest.raises(OSError, match="disk"):
        build(failing(), out)
    assert not out.exists()
    with pytest.raises(KnowledgeError, match="start the same build again"):
        KnowledgeSource.open(out)
    with pytest.raises(KnowledgeError, match="half built"):
        KnowledgeSource.open(tmp_path / "wiki.db.partial")
    assert build(DOCUMENTS, out).documents == len(DOCUMENTS)


def test_nothing_to_build_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="no article"):
        build([], tmp_path / "wiki.db")
    assert not (tmp_path / "wiki.db").exists()


def test_existing_file_and_foolish_settings_are_refused(tmp_path: Path) -> None:
    build(DOCUMENTS, tmp_path / "wiki.db")
    with pytest.raises(KnowledgeError, match="exists already"):
        build(DOCUMENTS, tmp_path / "wiki.db")
    with pytest.raises(KnowledgeError, match="passage_words"):
        build(DOCUMENTS, tmp_path / "other.db", passage_words=0)
    with pytest.raises(KnowledgeError, match="'title' is empty"):
        build([Document(" ", "text")], tmp_path / "other.db")


def many(count: int) -> Iterator[Document]:
    for number in range(count):
        sentences = [f"Sentence {part} of topic {number} is about thing{(number * part) % 97}." for part in range(12)]
        yield Document(f"Topic {number}", " ".join(sentences), (f"Alias {number}",) if number % 7 == 0 else ())


def test_process_of_its_own_writes_the_same_file(tmp_path: Path) -> None:
    alone = build(many(3000), tmp_path / "alone.db", passage_words=32, parallel=False)
    both = build(many(3000), tmp_path / "both.db", passage_words=32, parallel=True)
    assert alone.fingerprint == both.fingerprint
    assert content(alone.path) == content(both.path)


def test_fingerprint_tells_contents_and_passage_sizes_apart(tmp_path: Path) -> None:
    changed = [*DOCUMENTS[:-1], Document("Michael Jordan", "Michael Jordan played baseball.")]
    prints = {
        build(DOCUMENTS, tmp_path / "a.db").fingerprint,
        build(changed, tmp_path / "b.db").fingerprint,
        build(DOCUMENTS, tmp_path / "c.db", passage_words=64).fingerprint,
        build(DOCUMENTS[::-1], tmp_path / "d.db").fingerprint,
    }
    assert len(prints) == 4
    assert build(iter(DOCUMENTS), tmp_path / "e.db").fingerprint in prints


_KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
from factscore_mod.knowledge import build
sys.path.insert(0, "tests")
from test_knowledge import many

def deadly(read):
    if read >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

build(many(14000), Path(sys.argv[1]), passage_words=32, progress=deadly)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_build_resumes_to_equal_content(tmp_path: Path) -> None:
    whole = build(many(14000), tmp_path / "whole.db", passage_words=32)
    out = tmp_path / "killed.db"
    for after in (7000, 12000):  # killed twice
        command = [sys.executable, "-c", _KILLED_BUILD, str(out), str(after)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not out.exists()
    report = build(many(14000), out, passage_words=32)
    assert report.resumed_at >= 4096
    assert content(out) == content(whole.path)
    assert (report.documents, report.passages) == (whole.documents, whole.passages)


def test_resume_with_other_input_or_settings_is_refused(tmp_path: Path) -> None:
    def failing() -> Iterator[Document]:
        yield from many(3000)
        raise OSError("gone")

    out = tmp_path / "wiki.db"
    with pytest.raises(OSError, match="gone"):
        build(failing(), out, parallel=False)
    with pytest.raises(KnowledgeError, match="does not begin with"):
        build(DOCUMENTS, out)
    with pytest.raises(KnowledgeError, match="passage_words"):
        build(many(3000), out, passage_words=64)
    assert build(many(3000), out).resumed_at > 0


def test_build_cut_off_by_a_fall_of_the_machine_is_started_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits do not wait for the disk: a killed process loses nothing by that, a machine without power might."""

    def failing() -> Iterator[Document]:
        yield from DOCUMENTS
        raise OSError("gone")

    out = tmp_path / "wiki.db"
    monkeypatch.setattr("factscore_mod.knowledge_build.current_boot", lambda: "the run before")
    with pytest.raises(OSError, match="gone"):
        build(failing(), out)
    monkeypatch.undo()
    with pytest.raises(KnowledgeError, match=r"restarted .* delete it"):
        build(DOCUMENTS, out)
    (tmp_path / "wiki.db.partial").unlink()
    assert build(DOCUMENTS, out).documents == len(DOCUMENTS)


def test_repeated_titles_are_found_within_a_batch_and_across(tmp_path: Path) -> None:
    first = [Document(f"Topic {number % 300}", f"text {number}", (f"Alias {number}",)) for number in range(700)]
    report = build(first, tmp_path / "wiki.db")
    assert (report.documents, report.duplicates, report.passages, report.redirects) == (300, 400, 300, 300)
    with KnowledgeSource.open(report.path) as opened:
        assert opened.passages("Topic 7")[0].text == "text 7"
        assert opened.resolve("Alias 307").found == "none"
        assert {passage.title for passage in opened.search("307", 5)} == set()


def test_two_builds_of_one_file_do_not_mix(tmp_path: Path) -> None:
    def meddled() -> Iterator[Document]:
        yield from many(300)
        with pytest.raises(KnowledgeError, match="another build"):
            build(many(300), tmp_path / "wiki.db")
        yield from DOCUMENTS

    assert build(meddled(), tmp_path / "wiki.db", parallel=False).documents == 300 + len(DOCUMENTS)


def test_half_of_a_surrogate_pair_does_not_stop_a_build(tmp_path: Path) -> None:
    report = build([Document("Broken \ud800", "Text \udfff here.")], tmp_path / "wiki.db")
    with KnowledgeSource.open(report.path) as opened:
        assert opened.search("text here") != ()


# Passages


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab AB. \n\"'!?(é1。)"), max_size=400), st.integers(8, 20))
def test_passages_hold_the_whole_text_in_order(text: str, size: int) -> None:
    ends = cut(text, size)
    assert ends == sorted(set(ends))
    pieces = split(text, ends)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(pieces)
    assert all(len(piece.split()) <= size for piece in pieces)


def test_passages_end_at_sentences() -> None:
    text = "Dr. J. R. Smith was born in St. Louis in 1950. " * 30
    pieces = split(text, cut(text, 64))
    assert len(pieces) > 4
    assert all(piece.endswith("in 1950.") for piece in pieces)


def test_scripts_without_spaces_are_cut_too() -> None:
    text = "居里夫人发现了镭。" * 800
    pieces = split(text, cut(text, 64))
    assert len(pieces) > 3
    assert all(piece.endswith("。") for piece in pieces)


# Titles


@pytest.mark.parametrize(
    ("topic", "title", "found"),
    [
        ("Albert Einstein", "Albert Einstein", "exact"),
        (" Albert Einstein ", "Albert Einstein", "exact"),
        ("albert einstein", "Albert Einstein", "normalised"),
        ("Albert_Einstein", "Albert Einstein", "normalised"),
        ("ALBERT  EINSTEIN", "Albert Einstein", "normalised"),
        ("Ａlbert Einstein", "Albert Einstein", "normalised"),
        ("Einstein", "Albert Einstein", "normalised"),
        ("einstein", "Albert Einstein", "normalised"),
        ("Madame Curie", "Marie Curie", "normalised"),
        ("madame curie", "Marie Curie", "normalised"),
        ("Zurich", "Zürich", "normalised"),
        ("ZU\u0308RICH", "Zürich", "normalised"),
        ("c++", "C++", "normalised"),
        ("Paris Texas", "Paris, Texas", "normalised"),
        ("Sherlock Holmes", "Sherlock Holmes (character)", "normalised"),
        ("Michael Jordan (basketball)", "Michael Jordan", "normalised"),
        ("Marie Skłodowska Curie", "Marie Curie", "search"),
        ("Curie Marie", "", "none"),
        ("Zurich Insurance", "", "none"),
        ("Mercury (god)", "", "none"),
        ("Lost", "", "none"),
        ("Someone Unheard Of", "", "none"),
        ('" OR AND NEAR(', "", "none"),
        ("", "", "none"),
    ],
)
def test_topics_are_resolved(source: KnowledgeSource, topic: str, title: str, found: str) -> None:
    assert source.resolve(topic) == Resolution(title, found)  # type: ignore[arg-type]


def test_topic_that_may_mean_two_articles_is_not_guessed(source: KnowledgeSource) -> None:
    assert source.resolve("Mercury").found == "none"


def test_unknown_title_is_no_assertion(source: KnowledgeSource) -> None:
    """FActScore asserts that every topic is a title."""
    assert source.passages("Nobody") == ()
    assert source.resolve("Nobody") == Resolution("", "none")


def test_every_title_gets_its_own_article(tmp_path: Path) -> None:
    """FActScore-turbo looks up the row behind the one that was asked for."""
    report = build(many(200), tmp_path / "wiki.db")
    with KnowledgeSource.open(report.path) as opened:
        for number in range(200):
            passages = opened.passages(f"Topic {number}")
            assert {passage.title for passage in passages} == {f"Topic {number}"}
            assert f"of topic {number} is" in passages[0].text
            best = opened.search(f"topic {number} thing{number % 97}", 1)
            assert best[0].title == f"Topic {number}" or number % 97 != number


@settings(max_examples=100, deadline=None)
@given(topic=st.text(max_size=40))
def test_any_text_is_a_harmless_topic_and_query(source: KnowledgeSource, topic: str) -> None:
    assert source.resolve(topic).found in ("exact", "normalised", "search", "none")
    source.search(topic, 2)


# Search


def test_search_finds_the_passage_by_its_rare_words(source: KnowledgeSource) -> None:
    assert source.search("Who discovered the element radium?", 2)[0].title == "Marie Curie"
    assert source.search("einsteins theories", 1)[0].title == "Albert Einstein"
    assert len(source.search("Mercury", 5)) == 2
    assert source.search("of the and", 3) == ()
    assert source.search("", 3) == ()


def test_commonest_words_cost_nothing_where_there_are_rarer_ones(tmp_path: Path) -> None:
    report = build(many(2000), tmp_path / "wiki.db", passage_words=32)
    with KnowledgeSource.open(report.path) as opened:
        found = opened.search("sentence of topic 1234 is about", 3)
        assert found[0].title == "Topic 1234"
        assert len(opened.search("sentence topic", 3)) == 3


def _resolve_in_a_process(path: str) -> str:
    return KnowledgeSource.open(Path(path)).resolve("madame curie").title


def test_threads_and_processes_share_a_source(source: KnowledgeSource) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend(source.resolve("einstein").title for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["Albert Einstein"] * 200
    with ProcessPoolExecutor(2) as pool:
        assert set(pool.map(_resolve_in_a_process, [str(source.path)] * 4)) == {"Marie Curie"}


# Files that are not what they should be


def test_truncated_file_is_refused(source: KnowledgeSource, tmp_path: Path) -> None:
    whole = source.path.read_bytes()
    cut_short = tmp_path / "cut.db"
    for size in (0, 50, 4096, len(whole) // 2, len(whole) - 1):
        cut_short.write_bytes(whole[:size])
        with pytest.raises(KnowledgeError, match=r"cut\.db"):
            KnowledgeSource.open(cut_short)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="no such knowledge source"):
        KnowledgeSource.open(tmp_path / "absent.db")
    text = tmp_path / "text.db"
    text.write_text("title,text\n" * 50)
    with pytest.raises(KnowledgeError, match="not a SQLite file"):
        KnowledgeSource.open(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE meta(key, value)")
        connection.execute("INSERT INTO meta VALUES ('format', 'something else')")
    with pytest.raises(KnowledgeError, match="something else"):
        KnowledgeSource.open(other)


# FActScore's own files

SEPARATOR = "####SPECIAL####SEPARATOR####"


def factscore_db(path: Path, table: str = "documents", rows: int = 3) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {table} (title PRIMARY KEY, text)")
        articles = [
            ("Ada Lovelace", f"<s>Ada was born in 1815.</s><s>She wrote a program.</s>{SEPARATOR}<s>She died.</s>"),
            ("Alan Turing", f"<s>Turing broke Enigma.</s>{SEPARATOR}<s>He ran marathons.</s>"),
            ("Émile Zola", "<s>Zola wrote Germinal.</s>"),
        ]
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", articles[:rows])
    return path


def test_factscore_file_is_opened_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = factscore_db(tmp_path / "enwiki.db")
    before = path.read_bytes()
    opened = KnowledgeSource.open(path)
    assert opened.titles() == 3
    assert opened.resolve("Alan Turing") == Resolution("Alan Turing", "exact")
    assert [passage.text for passage in opened.passages("Ada Lovelace")] == [
        "Ada was born in 1815. She wrote a program.",
        "She died.",
    ]
    raw = opened.passages("Ada Lovelace", markers=True)
    assert raw[0].text == "<s>Ada was born in 1815.</s><s>She wrote a program.</s>"
    assert list(tmp_path.iterdir()) == [path], "an exact title needs no index"
    with caplog.at_level(logging.WARNING):
        assert opened.resolve("emile zola") == Resolution("Émile Zola", "normalised")
    assert "enwiki.db.index" in caplog.text
    assert opened.search("who broke the Enigma", 1)[0].text == "Turing broke Enigma."
    assert path.read_bytes() == before
    again = KnowledgeSource.open(path)
    caplog.clear()
    assert again.search("marathons", 1)[0].title == "Alan Turing"
    assert not caplog.text, "the index is built once"
    assert again.fingerprint == opened.fingerprint


def _search_in_a_process(path: str) -> str:
    return KnowledgeSource.open(Path(path)).search("who broke the Enigma", 1)[0].title


def test_processes_that_need_the_index_at_once_build_it_once(tmp_path: Path) -> None:
    path = factscore_db(tmp_path / "enwiki.db")
    with ProcessPoolExecutor(4) as pool:
        assert set(pool.map(_search_in_a_process, [str(path)] * 8)) == {"Alan Turing"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["enwiki.db", "enwiki.db.index"]


def test_index_of_another_factscore_file_is_refused(tmp_path: Path) -> None:
    path = factscore_db(tmp_path / "enwiki.db")
    KnowledgeSource.open(path).search("Enigma")
    path.unlink()
    factscore_db(path, rows=2)
    with pytest.raises(KnowledgeError, match="another"):
        KnowledgeSource.open(path).search("Enigma")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs folder permissions that bind")
def test_factscore_file_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = factscore_db(tmp_path / "enwiki.db")
    tmp_path.chmod(0o500)
    try:
        assert KnowledgeSource.open(path).search("Enigma") != ()
    finally:
        tmp_path.chmod(0o700)


def test_index_goes_to_a_temporary_folder_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = factscore_db(tmp_path / "enwiki.db")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert KnowledgeSource.open(path).search("Enigma")[0].title == "Alan Turing"
    assert "cannot be written" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


def test_empty_factscore_file_is_refused(tmp_path: Path) -> None:
    """What FActScore's failed build leaves is no knowledge source."""
    with pytest.raises(KnowledgeError, match="no rows"):
        KnowledgeSource.open(factscore_db(tmp_path / "enwiki.db", rows=0))


def test_table_name_is_heeded(tmp_path: Path) -> None:
    """FActScore-turbo takes a `table_name` and reads another."""
    path = factscore_db(tmp_path / "turbo.db", table="articles")
    with pytest.raises(KnowledgeError, match=r"no table 'documents'.*articles"):
        KnowledgeSource.open(path)
    assert KnowledgeSource.open(path, table="articles").resolve("Ada Lovelace").found == "exact"
