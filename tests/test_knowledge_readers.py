"""Readers of articles: JSON lines, datasets, MediaWiki dumps, FActScore's files; and what they say of bad input."""

from __future__ import annotations

import bz2
import gzip
import json
import sqlite3
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factscore_mod.knowledge import Document, KnowledgeError, KnowledgeSource, Redirect
from factscore_mod.knowledge_readers import (
    build_from,
    open_documents,
    read_factscore_db,
    read_hf,
    read_jsonl,
    read_mediawiki,
)

ROWS = [
    {"title": "Ada", "text": "Ada wrote.", "redirects": ["Countess"]},
    {"title": "Émile", "text": [" Zola wrote. ", "He died."], "id": 7},
]
READ = [Document("Ada", "Ada wrote.", ("Countess",)), Document("Émile", "Zola wrote. He died.")]


def write_jsonl(path: Path) -> Path:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode() + b"\n\n"
    opened = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    with opened(path, "wb") as file:  # type: ignore[operator]
        file.write(data)
    return path


@pytest.mark.parametrize("name", ["wiki.jsonl", "wiki.jsonl.gz", "wiki.jsonl.bz2"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / name)
    assert list(read_jsonl(path)) == READ
    report = build_from(str(path), tmp_path / "wiki.db")
    assert KnowledgeSource.open(report.path).resolve("countess").title == "Ada"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"title": "A", "te', r"line 2: not JSON .* cut short"),
        ("[1, 2]", r"line 2: list instead of an object"),
        ('{"text": "x"}', r"line 2: field 'title' is missing"),
        ('{"title": " ", "text": "x"}', r"line 2: field 'title' is ' '"),
        ('{"title": 3, "text": "x"}', r"line 2: field 'title' is 3"),
        ('{"title": "A"}', r"line 2: field 'text' is missing"),
        ('{"title": "A", "text": [1]}', r"line 2: field 'text' is \[1\]; it must be a string or a list"),
        ('{"title": "A", "text": "x", "redirects": "B"}', r"line 2: field 'redirects' is 'B'"),
        ("\x00\ufffd", r"line 2: not JSON"),
    ],
)
def test_json_lines_that_are_wrong_name_file_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "wiki.jsonl"
    path.write_text('{"title": "Fine", "text": "x"}\n' + line, encoding="utf-8")
    with pytest.raises(KnowledgeError, match=r"wiki\.jsonl, " + message):
        list(read_jsonl(path))


def test_truncated_archive_is_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "wiki.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(KnowledgeError, match=r"wiki\.jsonl\.gz is cut short"):
        list(read_jsonl(path))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=80))
def test_any_bytes_give_documents_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "wiki.jsonl"
    path.write_bytes(data)
    try:
        documents = list(read_jsonl(path))
    except KnowledgeError as error:
        assert "line" in str(error)
    else:
        assert all(isinstance(document, Document) for document in documents)


def test_build_that_meets_a_bad_line_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl"
    good = [json.dumps({"title": f"T{number}", "text": f"Text {number}."}) for number in range(600)]
    path.write_text("\n".join([*good, '{"title": "Cut off', ""]))
    with pytest.raises(KnowledgeError, match="line 601"):
        build_from(str(path), tmp_path / "wiki.db")
    path.write_text("\n".join([*good, json.dumps({"title": "Last", "text": "Mended."})]))
    report = build_from(str(path), tmp_path / "wiki.db")
    assert report.documents == 601


# Datasets


@pytest.fixture(scope="module")
def columns() -> dict[str, list[str]]:
    return {"title": ["Ada", "Bo"], "text": ["Ada wrote.", "Bo sang."], "url": ["a", "b"]}


def test_dataset_on_disk(tmp_path: Path, columns: dict[str, list[str]]) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict(columns)
    expected = [Document("Ada", "Ada wrote."), Document("Bo", "Bo sang.")]
    made.save_to_disk(str(tmp_path / "one"))
    assert list(open_documents(str(tmp_path / "one"))) == expected
    datasets.DatasetDict({"train": made, "rest": made.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert list(open_documents(str(tmp_path / "two"), split="rest")) == expected[1:]
    made.to_parquet(str(tmp_path / "wiki.parquet"))
    assert list(open_documents(str(tmp_path / "wiki.parquet"))) == expected
    assert list(read_hf(tmp_path / "one", title="url")) == [Document("a", "Ada wrote."), Document("b", "Bo sang.")]


def test_dataset_without_the_column_or_split_is_told(tmp_path: Path, columns: dict[str, list[str]]) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict(columns)
    made.save_to_disk(str(tmp_path / "one"))
    with pytest.raises(KnowledgeError, match="no column 'body'; it has title, text, url"):
        list(read_hf(tmp_path / "one", text="body"))
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(KnowledgeError, match="no split 'test'; choose from train"):
        list(read_hf(tmp_path / "two", "test"))


# MediaWiki

PAGE = """
  <page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{redirect}
    <revision><id>{id}0</id><timestamp>2024-01-01T00:00:00Z</timestamp><model>wikitext</model>
    <format>text/x-wiki</format><text bytes="1" xml:space="preserve">{text}</text></revision></page>
"""
WIKITEXT = """{{Infobox person|name=Ada}}
[[File:Ada.jpg|thumb|A portrait of Ada]]
'''Ada Lovelace''' was an [[England|English]] mathematician.&lt;ref&gt;A source.&lt;/ref&gt; She wrote a [[program]].

== Life ==
She was born in 1815.
{| class="wikitable"
|-
| cell || other
|}

== References ==
{{reflist}}
[[Category:People]]
"""


def write_dump(path: Path) -> Path:
    pages = [
        PAGE.format(title="Ada Lovelace", ns=0, id=1, redirect="", text=WIKITEXT),
        PAGE.format(
            title="Countess",
            ns=0,
            id=2,
            redirect='<redirect title="Ada Lovelace" />',
            text="#REDIRECT [[Ada Lovelace]]",
        ),
        PAGE.format(title="Talk:Ada Lovelace", ns=1, id=3, redirect="", text="Chatter."),
    ]
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">'
    siteinfo = (
        "<siteinfo><sitename>W</sitename><dbname>w</dbname><base>b</base><generator>g</generator>"
        '<case>first-letter</case><namespaces><namespace key="0" case="first-letter" />'
        '<namespace key="1" case="first-letter">Talk</namespace></namespaces></siteinfo>'
    )
    data = (head + siteinfo + "".join(pages) + "</mediawiki>").encode()
    path.write_bytes(bz2.compress(data) if path.suffix == ".bz2" else data)
    return path


@pytest.mark.parametrize("name", ["dump.xml", "dump.xml.bz2"])
def test_mediawiki_dump(tmp_path: Path, name: str) -> None:
    pytest.importorskip("mwxml")
    pytest.importorskip("mwparserfromhell")
    article, redirect = read_mediawiki(write_dump(tmp_path / name))
    assert isinstance(article, Document)
    assert article.title == "Ada Lovelace"
    assert article.text.startswith("Ada Lovelace was an English mathematician. She wrote a program.")
    assert article.text.endswith("She was born in 1815.")
    for markup in ("Infobox", "portrait", "source", "cell", "Category", "[[", "{{"):
        assert markup not in article.text
    assert redirect == Redirect("Countess", "Ada Lovelace")


def test_mediawiki_redirects_resolve(tmp_path: Path) -> None:
    pytest.importorskip("mwxml")
    report = build_from(str(write_dump(tmp_path / "dump.xml.bz2")), tmp_path / "wiki.db")
    assert (report.documents, report.redirects, report.dangling) == (1, 1, 0)
    assert KnowledgeSource.open(report.path).resolve("countess").title == "Ada Lovelace"


@pytest.mark.parametrize("name", ["dump.xml", "dump.xml.bz2"])
def test_mediawiki_dump_cut_short_is_told(tmp_path: Path, name: str) -> None:
    pytest.importorskip("mwxml")
    path = write_dump(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(KnowledgeError, match=r"dump\.xml"):
        list(read_mediawiki(path))


def test_mediawiki_without_the_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mwparserfromhell", ModuleType("mwparserfromhell"))
    monkeypatch.setitem(sys.modules, "mwxml", None)
    with pytest.raises(KnowledgeError, match=r"mwxml.*\[mediawiki\]"):
        list(read_mediawiki(write_dump(tmp_path / "dump.xml")))


# FActScore's files


def test_factscore_file_can_be_cut_anew(tmp_path: Path) -> None:
    path = tmp_path / "enwiki.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE documents (title PRIMARY KEY, text)")
        text = "<s>Ada wrote a pro####SPECIAL####SEPARATOR####gram.</s><s>She died.</s>"
        connection.execute("INSERT INTO documents VALUES ('Ada', ?)", (text,))
    assert list(read_factscore_db(path)) == [Document("Ada", "Ada wrote a program. She died.")]
    assert build_from(str(path), tmp_path / "wiki.db").passages == 1


# Choice of a reader


@pytest.mark.parametrize("source", ["absent.jsonl", "absent", "data/absent.xml", "a/b/c"])
def test_absent_sources_are_told(source: str) -> None:
    with pytest.raises(KnowledgeError, match="no such file"):
        open_documents(source)


def test_unknown_kind_of_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "wiki.pdf"
    path.touch()
    with pytest.raises(KnowledgeError, match="not a kind of file"):
        open_documents(str(path))
