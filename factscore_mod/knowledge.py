"""Open a knowledge source and look things up in it: titles, articles, full text.

    source = KnowledgeSource.open(Path("wiki.db"))
    source.resolve("albert einstein")          # Resolution(title="Albert Einstein", found="normalised")
    source.passages("Albert Einstein")         # the article, cut
    source.search("who discovered radium", 5)  # over the whole corpus

FActScore's own `.db` files are opened as they are and never written to. What they lack, an index of spellings
and full text, is built once in a file beside them, when a title first misses or a search is first made.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from factscore_mod import passages as cutting
from factscore_mod.knowledge_build import BuildReport, build, build_side_index
from factscore_mod.knowledge_format import (
    FACTSCORE_SEPARATOR,
    FORMAT,
    POSITION_BITS,
    TITLE,
    Document,
    KnowledgeBusyError,
    KnowledgeError,
    Redirect,
    read_meta,
    title_key,
    without_parentheses,
)
from factscore_mod.records import Passage
from factscore_mod.tokens import content_words, numbers, words

__all__ = [
    "BuildReport",
    "Document",
    "KnowledgeBusyError",
    "KnowledgeError",
    "KnowledgeSource",
    "Redirect",
    "Resolution",
    "build",
]

Found = Literal["exact", "normalised", "search", "none"]

_log = logging.getLogger(__name__)

# A search reads the postings of its rarest words first and stops adding words at this many expected rows.
_MOST_ROWS = 1000
_MOST_WORDS = 16
# A title found by search differs from the topic by left out words only; this much has to be left (Dice), and two
# words at least. `Thomas Jefferson` is not `Jefferson Thomas`, nor `Rosaline Elbay` the article on `Rosaline`.
_ENOUGH_SHARED = 0.6
_LEAST_SHARED = 2


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which article a topic means, and how it was found. `title` is empty where `found` is `none`."""

    title: str
    found: Found


def _check_whole(path: Path) -> None:
    """`KnowledgeError` where `path` is not a SQLite file or is shorter than its header says."""
    if not path.is_file():
        hint = "; a build of it was cut off: start the same build again" if _partial(path).exists() else ""
        raise KnowledgeError(f"{path}: no such knowledge source{hint}")
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise KnowledgeError(f"{path} is not a SQLite file; build one with `harness knowledge build`")
    page = int.from_bytes(header[16:18], "big")
    expected = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
    if path.stat().st_size < expected:
        raise KnowledgeError(
            f"{path} is cut short: {path.stat().st_size:,} of {expected:,} bytes; copy or build it again"
        )


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


class _Reader:
    """A read-only SQLite file with one connection a thread; a forked child opens its own."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.resolve().as_uri()}?mode=ro"
        self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        if getattr(self._local, "process", None) != os.getpid():
            connection = sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA mmap_size = 1073741824")
            connection.execute("PRAGMA cache_size = -16384")
            self._local.connection = connection
            self._local.process = os.getpid()
        connection = self._local.connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def close(self) -> None:
        if getattr(self._local, "process", None) == os.getpid():
            self._local.connection.close()
            self._local.process = None


class KnowledgeSource:
    """Titled articles cut into passages, read-only. Threads may share one; processes may open the same file."""

    def __init__(self, path: Path, table: str, columns: str, index: Path | None, fingerprint: str, count: int) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self._table = table
        self._columns = columns
        self._count = count
        self._text = _Reader(path)
        self._lock = threading.Lock()
        self._index_path = index
        self._index: _Reader | None = None
        self._common: dict[str, float] = {}
        self._passage_count = 0

    @classmethod
    def open(cls, path: Path | str, *, table: str = "documents") -> KnowledgeSource:
        """Open a source made by `build`, or a FActScore `.db` file (whose table may have another name).

        Raises `KnowledgeError` where the file is missing, cut short, half built, empty or of another kind.
        """
        path = Path(path)
        _check_whole(path)
        try:
            with closing(_Reader(path).connection()) as connection:
                return cls._from(path, table, connection)
        except sqlite3.DatabaseError as error:
            raise KnowledgeError(f"{path} cannot be read: {error}; build it again") from error

    @classmethod
    def _from(cls, path: Path, table: str, connection: sqlite3.Connection) -> KnowledgeSource:
        meta = read_meta(connection)
        if meta:
            if meta.get("format") != FORMAT:
                raise KnowledgeError(f"{path} has format {meta.get('format')!r}, not {FORMAT!r}; build it again")
            if meta.get("complete") != "1":
                raise KnowledgeError(f"{path} is half built; start the same build again")
            return cls(path, "documents", "title, text, cuts", path, meta["fingerprint"], int(meta["documents"]))
        columns = {row[1] for row in connection.execute("SELECT * FROM pragma_table_info(?)", (table,))}
        if not {"title", "text"} <= columns:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            raise KnowledgeError(
                f"{path} has no table {table!r} with columns title and text (tables: "
                f"{', '.join(names) or 'none'}); give the name of the table, or build a knowledge source"
            )
        quoted = '"' + table.replace('"', '""') + '"'
        count = int(connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0])
        if not count:
            raise KnowledgeError(
                f"{path}: table {table!r} has no rows, as a failed build leaves it; delete and rebuild it"
            )
        fingerprint = _sampled_hash(path, table)
        return cls(path, quoted, "title, coalesce(text, ''), NULL", None, fingerprint, count)

    def __enter__(self) -> KnowledgeSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of this thread's connections; a later look-up opens them again."""
        self._text.close()
        if self._index is not None:
            self._index.close()

    def titles(self) -> int:
        """How many articles there are."""
        return self._count

    def _article(self, where: str, value: str | int) -> tuple[str, list[str]] | None:
        query = f"SELECT {self._columns} FROM {self._table} WHERE {where} = ?"
        row = self._text.connection().execute(query, (value,)).fetchone()
        if row is None:
            return None
        title, text, cuts = row
        pieces = text.split(FACTSCORE_SEPARATOR) if cuts is None else cutting.split(text, json.loads(cuts))
        return title, pieces

    def passages(self, title: str, *, markers: bool = False) -> tuple[Passage, ...]:
        """The article of exactly this title in its passages, lead first; empty where there is none.

        `markers` leaves the `<s>` and `</s>` that FActScore's tokenizer put into its files.
        """
        article = self._article("title", title)
        if article is None:
            return ()
        pieces = article[1] if markers else [_without_markers(piece) for piece in article[1]]
        return tuple(Passage(article[0], piece, index) for index, piece in enumerate(pieces))

    def resolve(self, topic: str) -> Resolution:
        """Find the article that `topic` names.

        The title as it is; else spelt otherwise or redirected; else by a search over titles, which settles only
        for one clear winner. A topic that names nothing is `none`, never an error.
        """
        topic = topic.strip()
        if not topic:
            return Resolution("", "none")
        query = f"SELECT 1 FROM {self._table} WHERE title = ?"
        if self._text.connection().execute(query, (topic,)).fetchone():
            return Resolution(topic, "exact")
        number = self._redirected(topic)
        if number is None:
            number = self._normalised(topic)
        if number is not None:
            return Resolution(self._title(number), "normalised")
        number = self._title_search(topic)
        return Resolution("", "none") if number is None else Resolution(self._title(number), "search")

    def _title(self, number: int) -> str:
        query = f"SELECT title FROM {self._table} WHERE rowid = ?"
        title = self._text.connection().execute(query, (number,)).fetchone()[0]
        assert isinstance(title, str)
        return title

    def _redirected(self, topic: str) -> int | None:
        row = self._search_index().execute("SELECT target FROM redirects WHERE title = ?", (topic,)).fetchone()
        if row is None:
            return None
        query = f"SELECT rowid FROM {self._table} WHERE title = ?"
        found = self._text.connection().execute(query, row).fetchone()
        return None if found is None else int(found[0])

    def _normalised(self, topic: str) -> int | None:
        key = title_key(topic)
        index = self._search_index()
        rows = index.execute("SELECT kind, document FROM names WHERE key = ? ORDER BY kind", (key,)).fetchall()
        if rows:
            # The best kind of name decides; several articles of that kind are no answer.
            documents = [document for kind, document in rows if kind == rows[0][0]]
        else:
            query = "SELECT document FROM names WHERE key = ? AND kind = ?"
            bare = title_key(without_parentheses(topic))
            documents = [row[0] for row in index.execute(query, (bare, TITLE))]
        return int(documents[0]) if len(documents) == 1 else None

    def _title_search(self, topic: str) -> int | None:
        wanted = words(topic)
        if len(wanted) < _LEAST_SHARED:
            return None
        first, *others = content_words(topic)
        match = f"{_match([first], 'AND')} AND ({_match(others, 'OR')})"
        query = "SELECT rowid FROM title_index WHERE title_index MATCH ? LIMIT 2000"
        scored: list[tuple[float, int]] = []
        for (number,) in self._search_index().execute(query, (match,)).fetchall():
            title = words(self._title(number))
            shorter, longer = sorted((title, wanted), key=len)
            if len(shorter) >= _LEAST_SHARED and _is_shortened(shorter, longer):
                scored.append((2 * len(shorter) / (len(title) + len(wanted)), number))
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        if not scored or scored[0][0] < _ENOUGH_SHARED:
            return None
        if len(scored) > 1 and scored[1][0] == scored[0][0]:
            return None
        return scored[0][1]

    def search(self, query: str, k: int = 5) -> tuple[Passage, ...]:
        """The `k` passages of the corpus that match `query` best by BM25; fewer where fewer match at all.

        Stop words and, where there are rarer ones, the commonest words are left out: they cost most of the time
        and decide nothing.
        """
        index = self._search_index()
        asked = {term: self._share(term) for term in content_words(query)}
        terms = sorted(asked, key=asked.__getitem__)
        chosen: list[str] = []
        expected = 0.0
        for term in terms[:_MOST_WORDS]:
            expected += asked[term] * self._passage_count
            if len(chosen) > 1 and expected > _MOST_ROWS:
                break
            chosen.append(term)
        if not chosen:
            return ()
        rows = index.execute(
            "SELECT rowid FROM passage_index WHERE passage_index MATCH ? ORDER BY rank LIMIT ?",
            (_match(chosen, "OR"), k),
        ).fetchall()
        found: list[Passage] = []
        for (number,) in rows:
            article = self._article("rowid", number >> POSITION_BITS)
            assert article is not None
            position = number & ((1 << POSITION_BITS) - 1)
            found.append(Passage(article[0], _without_markers(article[1][position]), position))
        return tuple(found)

    def _share(self, term: str) -> float:
        """About the share of passages that hold `term` in either number; 0 for all but the commonest words."""
        return sum(self._common.get(form, 0.0) for form in numbers(term))

    def _search_index(self) -> sqlite3.Connection:
        with self._lock:
            if self._index is None:
                path = self._index_path or self._side_index()
                index = _Reader(path)
                connection = index.connection()
                self._common = dict(connection.execute("SELECT term, share FROM common"))
                self._passage_count = int(read_meta(connection)["passages"])
                self._index = index
        return self._index.connection()

    def _side_index(self) -> Path:
        """The index beside a FActScore file, built now where it is missing."""
        side = self.path.with_name(self.path.name + ".index")
        if not os.access(self.path.parent, os.W_OK) and not side.exists():
            folder = Path(tempfile.mkdtemp(prefix="knowledge-index-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            side = folder / side.name
            _log.warning("%s: the folder cannot be written to; the index is made anew for each run", self.path)
        if not side.exists():
            _log.warning("%s: no index of spellings and full text yet; building %s once", self.path, side)
        while not side.exists():
            # Several processes may come here at once: one builds, and if it dies the next goes on where it was.
            with _alone(self.path):
                if side.exists():
                    break
                try:
                    build_side_index(self.rows(), self.rows(500), self.fingerprint, side)
                except KnowledgeBusyError:
                    time.sleep(1.0)
        _check_whole(side)
        with closing(_Reader(side).connection()) as connection:
            if read_meta(connection).get("origin") != self.fingerprint:
                raise KnowledgeError(f"{side} was made for another {self.path.name}; delete it, it is built again")
        return side

    def rows(self, sample: int | None = None) -> Iterator[tuple[int, str, str]]:
        """Row number, title and text, as stored, of all articles or of about `sample` of them."""
        step = 1 if sample is None else max(1, self._count // sample)
        connection = _Reader(self.path).connection()
        query = f"SELECT rowid, title, coalesce(text, '') FROM {self._table} WHERE rowid % ? = 0 ORDER BY rowid"
        yield from connection.execute(query, (step,))
        connection.close()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock lies on the file itself, beside those of SQLite, and goes with its holder."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: the lock on the file that is being built has to do
        yield
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _without_markers(text: str) -> str:
    """FActScore's sentence markers as spaces: two sentences must not grow together."""
    if "<s>" not in text and "</s>" not in text:
        return text.strip()
    return " ".join(text.replace("<s>", " ").replace("</s>", " ").split())


def _is_shortened(shorter: list[str], longer: list[str]) -> bool:
    """Whether leaving out words of `longer`, but not the first, gives `shorter`."""
    rest = iter(longer)
    return shorter[0] == longer[0] and all(word in rest for word in shorter)


def _match(terms: list[str], operator: str) -> str:
    """An FTS5 query over words of `tokens.content_words`, which hold no quote, in either number."""
    either = (" OR ".join(f'"{form}"' for form in numbers(term)) for term in terms)
    return f" {operator} ".join(f"({forms})" for forms in either)


def _sampled_hash(path: Path, table: str) -> str:
    """Hash of a file's size and 64 blocks spread over it: a full hash of FActScore's 20 GB takes minutes."""
    size = path.stat().st_size
    digest = blake2b(f"{size}|{table}|".encode(), digest_size=16)
    with path.open("rb") as file:
        for block in range(64):
            file.seek(size * block // 64)
            digest.update(file.read(4096))
    return digest.hexdigest()
