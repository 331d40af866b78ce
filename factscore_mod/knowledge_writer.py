"""The SQLite side of building a knowledge source: rows, transactions, and the process that writes them.

Reading, hashing and cutting go on in the calling process, inserting and indexing here; each is about half of the
work.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from factscore_mod import passages
from factscore_mod.knowledge_format import (
    FACTSCORE_SEPARATOR,
    POSITION_BITS,
    TITLE,
    WITHOUT_PARENTHESES,
    Document,
    KnowledgeBusyError,
    KnowledgeError,
    Redirect,
    read_meta,
    title_key,
    without_parentheses,
    write_meta,
)
from factscore_mod.processes import process_pool

Progress = Callable[[int], None]

COUNTED = ("documents", "passages", "duplicates", "empty")

_COMMIT = 16  # batches a transaction
_IN_PROCESS = 8  # batches written before a process for it is worth its start
_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Some inputs in order, with the number of inputs read so far and the running hash behind them.

    `cuts` are the ends of each article's passages, `None` for text cut by FActScore and for redirects.
    `numbers` are the row numbers of the articles where they are given.
    """

    items: list[Document | Redirect]
    cuts: list[list[int] | None]
    numbers: list[int] | None
    read: int
    digest: str


def connect(partial: Path) -> sqlite3.Connection:
    """Open a file that is being built, locked against any other builder until it is closed."""
    connection = sqlite3.connect(partial, isolation_level=None, timeout=2.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise KnowledgeBusyError(f"{partial}: another build is writing it; wait for that one") from error
        raise KnowledgeError(f"{partial}: {error}; delete it and build again") from error
    return connection


class _Writer:
    """Rows of one knowledge source, in transactions of `_COMMIT` batches."""

    def __init__(self, partial: Path) -> None:
        self._connection = connect(partial)
        meta = read_meta(self._connection)
        self._counts = {key: int(meta[key]) for key in COUNTED}
        self._read = int(meta["read"])
        self._batches = 0

    def write(self, batch: Batch) -> int:
        """Insert a batch; the number of inputs read so far."""
        if batch.read - len(batch.items) != self._read:
            # The file is let go for a moment when its writing moves to another process.
            raise KnowledgeBusyError("another build has come in between; start this one again")
        self._read = batch.read
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")
        self._insert(batch)
        self._batches += 1
        write_meta(self._connection, read=batch.read, digest=batch.digest, **self._counts)
        if self._batches % _COMMIT == 0:
            self._connection.execute("COMMIT")
        return batch.read

    def close(self) -> None:
        """Commit what is there and let the file go."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
        self._connection.close()

    def _insert(self, batch: Batch) -> None:
        redirects: list[tuple[str, str, str]] = []
        names: list[tuple[str, int, int]] = []
        titles: list[tuple[int, str]] = []
        indexed: list[tuple[int, str]] = []
        numbers = None if batch.numbers is None else iter(batch.numbers)
        for item, cuts in zip(batch.items, batch.cuts, strict=True):
            if isinstance(item, Redirect):
                redirects.append((item.title, title_key(item.title), item.target))
                continue
            number = self._store(item, cuts or []) if numbers is None else next(numbers)
            if number is None:
                self._counts["duplicates"] += 1
                continue
            if cuts is None:
                pieces = item.text.replace("<s>", " ").replace("</s>", " ").split(FACTSCORE_SEPARATOR)
            else:
                pieces = passages.split(item.text, cuts)
            if len(pieces) >= 1 << POSITION_BITS:
                raise KnowledgeError(f"article {item.title!r} has {len(pieces):,} passages; split the article")
            redirects.extend((title, title_key(title), item.title) for title in item.redirects)
            key, bare = title_key(item.title), title_key(without_parentheses(item.title))
            names.append((key, TITLE, number))
            if bare != key:
                names.append((bare, WITHOUT_PARENTHESES, number))
            titles.append((number, item.title))
            first = number << POSITION_BITS
            indexed.extend((first + index, f"{item.title}\n{piece}") for index, piece in enumerate(pieces))
            self._counts["documents"] += 1
            self._counts["passages"] += len(pieces)
            self._counts["empty"] += not pieces
        run = self._connection.executemany
        run("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", names)
        run("INSERT OR IGNORE INTO redirects VALUES (?, ?, ?)", redirects)
        run("INSERT INTO title_index(rowid, title) VALUES (?, ?)", titles)
        run("INSERT INTO passage_index(rowid, text) VALUES (?, ?)", indexed)

    def _store(self, item: Document, cuts: list[int]) -> int | None:
        """The article's new row, `None` where its title is there already."""
        row = (item.title, item.text, json.dumps(cuts, separators=(",", ":")))
        insert = "INSERT OR IGNORE INTO documents(title, text, cuts) VALUES (?, ?, ?)"
        cursor = self._connection.execute(insert, row)
        return cursor.lastrowid if cursor.rowcount else None


def write_all(partial: Path, batches: Iterator[Batch], parallel: bool | None, progress: Progress | None) -> None:
    """Write every batch to `partial`: the first few here, the rest in a process of its own.

    Only a few batches are ever in flight, so memory stays flat however fast the reader is.
    """
    if parallel is None:
        parallel = (os.cpu_count() or 1) > 1
    writer = _Writer(partial)
    try:
        for batch in itertools.islice(batches, _IN_PROCESS if parallel else None):
            _tell(progress, writer.write(batch))
    finally:
        writer.close()
    head = next(batches, None)
    if head is None:
        return
    with process_pool(1, _open_writer, partial) as pool:
        flying: deque[Future[int]] = deque()
        for batch in itertools.chain([head], batches):
            flying.append(pool.submit(_write, batch))
            if len(flying) > _IN_FLIGHT:
                _tell(progress, flying.popleft().result())
        while flying:
            _tell(progress, flying.popleft().result())
        pool.submit(_close_writer).result()


def _tell(progress: Progress | None, read: int) -> None:
    if progress is not None:
        progress(read)


_writer: _Writer | None = None  # of the process that `write_all` starts


def _open_writer(partial: Path) -> None:
    global _writer
    _writer = _Writer(partial)


def _write(batch: Batch) -> int:
    assert _writer is not None
    return _writer.write(batch)


def _close_writer() -> None:
    assert _writer is not None
    _writer.close()
