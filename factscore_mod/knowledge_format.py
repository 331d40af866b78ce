"""The file format of a knowledge source, shared by what builds it and what opens it.

One SQLite file:

    meta(key, value)                    format, passage_words, documents, passages, fingerprint, complete, ...
    documents(id, title, text, cuts)    an article; cuts = JSON list of the ends of its passages, in characters
    names(key, kind, document)          what an article may be asked for by: its normalised title and redirects
    redirects(title, key, target)       other titles as they were given
    passage_index                       FTS5 over the content words of title + passage; no text of its own
    title_index                         FTS5 over the words of titles
    common(term, share)                 words found in more than a hundredth of the passages

The row number in `passage_index` is `document << 16 | position of the passage in its article`.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

from factscore_mod.tokens import fold

FORMAT = "factscore_mod knowledge source 1"
FACTSCORE_SEPARATOR = "####SPECIAL####SEPARATOR####"
POSITION_BITS = 16

# Kinds of names, best first.
TITLE, REDIRECT, WITHOUT_PARENTHESES = 0, 1, 2


class KnowledgeError(ValueError):
    """A knowledge source, or what it is to be built from, is not usable; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Document:
    """An article as a reader gives it. `redirects` are further titles that lead to it."""

    title: str
    text: str
    redirects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirect:
    """A title that leads to another, where a dump gives the two in separate pages and any order."""

    title: str
    target: str


_DROPPED = re.compile("[\"'`.,\u2018\u2019\u201c\u201d\u00b4]")
_SPACES = re.compile(r"[\s_\u2010-\u2015-]+")
_PARENTHESES = re.compile(r"\s*\([^()]*\)\s*$")


def title_key(title: str) -> str:
    """What two spellings of a title have in common: case, accents, underscores, dashes, quotes, dots and spaces
    are ignored; other signs count, so that `C`, `C++` and `C#` stay apart."""
    folded = fold(title)
    return _SPACES.sub(" ", _DROPPED.sub("", folded)).strip() or folded.strip()


def without_parentheses(title: str) -> str:
    """`Mercury (planet)` without its disambiguation; a title that is nothing else stays as it is."""
    return _PARENTHESES.sub("", title).strip() or title


TEXT_TABLE = (
    "CREATE TABLE documents(id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, text TEXT, cuts TEXT)"
)
INDEX_TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE names(key TEXT, kind INTEGER, document INTEGER, PRIMARY KEY(key, kind, document)) WITHOUT ROWID",
    "CREATE TABLE redirects(title TEXT PRIMARY KEY, key TEXT NOT NULL, target TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE common(term TEXT PRIMARY KEY, share REAL NOT NULL) WITHOUT ROWID",
    # The words come ready-made from factscore_mod.tokens, so the cheapest tokenizer does; no text is kept twice.
    "CREATE VIRTUAL TABLE passage_index USING fts5(words, content='', tokenize='ascii')",
    "CREATE VIRTUAL TABLE title_index USING fts5(words, content='', tokenize='ascii', detail='none')",
)


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """The `meta` table; empty where there is none."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return {}
    return dict(connection.execute("SELECT key, value FROM meta"))


def write_meta(connection: sqlite3.Connection, **values: object) -> None:
    """Set some keys of `meta`."""
    rows = [(key, str(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
