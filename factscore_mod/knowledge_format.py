"""The file format of a knowledge source, shared by what builds it and what opens it.

One SQLite file:

    meta(key, value)                    format, passage_words, documents, passages, fingerprint, complete, ...
    documents(id, title, text, cuts)    an article; cuts: JSON list of the ends of its passages, in characters
    names(key, kind, document)          what an article may be asked for by: normalised titles and redirects
    redirects(title, key, target)       other titles as they were given
    passage_index                       FTS5 over title + passage; no text of its own
    title_index                         FTS5 over titles
    common(term, share)                 words found in more than two of a thousand passages

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
    """A knowledge source, or what it is built from, cannot be used; the message says why and what to do."""


class KnowledgeBusyError(KnowledgeError):
    """Another process is building the file at this moment."""


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
    """What two spellings of a title have in common.

    Case, accents, underscores, dashes, quotes, dots and spaces are ignored. Other signs count, so that `C`, `C++`
    and `C#` stay apart.
    """
    folded = fold(title)
    return _SPACES.sub(" ", _DROPPED.sub("", folded)).strip() or folded.strip()


def without_parentheses(title: str) -> str:
    """`Mercury (planet)` without its disambiguation; a title that is nothing else stays as it is."""
    return _PARENTHESES.sub("", title).strip() or title


# No stemmer: it costs a tenth of a build, and a query can ask for both numbers of a noun.
_TOKENIZER = "unicode61 remove_diacritics 2"

TEXT_TABLE = "CREATE TABLE documents(id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, text TEXT, cuts TEXT)"
INDEX_TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE names(key TEXT, kind INTEGER, document INTEGER, PRIMARY KEY(key, kind, document)) WITHOUT ROWID",
    "CREATE TABLE redirects(title TEXT PRIMARY KEY, key TEXT NOT NULL, target TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE common(term TEXT PRIMARY KEY, share REAL NOT NULL) WITHOUT ROWID",
    # Contentless: the text is in documents, once. Ranking needs the counts that only detail=full keeps.
    f"CREATE VIRTUAL TABLE passage_index USING fts5(text, content='', tokenize='{_TOKENIZER}')",
    f"CREATE VIRTUAL TABLE title_index USING fts5(title, content='', tokenize='{_TOKENIZER}', detail='none')",
    # New postings are gathered in memory and written in few large pieces: half the time of the default.
    "INSERT INTO passage_index(passage_index, rank) VALUES ('hashsize', 67108864)",
    # Pieces are merged 32 at a time, which is after a quarter of a million articles. By default each posting is
    # written again and again, and what it replaces goes through the journal.
    "INSERT INTO passage_index(passage_index, rank) VALUES ('automerge', 0)",
    "INSERT INTO passage_index(passage_index, rank) VALUES ('crisismerge', 32)",
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
