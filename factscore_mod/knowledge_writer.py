"""The SQLite side of building a knowledge source: rows, transactions, and the process that writes them.

Reading, hashing, cutting and the making of rows go on in the calling process, inserting and indexing here; each is
about half of the work.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from factscore_mod.knowledge_format import KnowledgeBusyError, KnowledgeError, read_meta, write_meta
from factscore_mod.knowledge_rows import Batch
from factscore_mod.processes import process_pool

Progress = Callable[[int], None]

COUNTED = ("documents", "passages", "duplicates", "empty")

_COMMIT = 32  # batches a transaction
_IN_PROCESS = 8  # batches written before a process for it is worth its start
_IN_FLIGHT = 4


def current_boot() -> str:
    """What tells this run of the operating system from the one before; empty where it cannot be told.

    A killed process leaves what it wrote to the system, which still writes it to disk. So only a build that was cut
    off by a fall of the whole machine has to be started over, and nothing need wait for the disk at each commit.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def connect(partial: Path) -> sqlite3.Connection:
    """Open a file that is being built, locked against any other builder until it is closed."""
    connection = sqlite3.connect(partial, isolation_level=None, timeout=2.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA synchronous = {'OFF' if current_boot() else 'NORMAL'}")
        connection.execute("PRAGMA cache_size = -32768")
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
        if batch.read - batch.inputs != self._read:
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
        run = self._connection.executemany
        if batch.documents:
            stored = run("INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?)", batch.documents)
            if stored.rowcount != len(batch.documents):
                known = self._connection.execute("SELECT id FROM documents WHERE id >= ?", (batch.documents[0][0],))
                repeated = {row[0] for row in batch.documents}.difference(number for (number,) in known)
                self._counts["duplicates"] += len(repeated)
                batch = batch.without(repeated)
        run("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", batch.names)
        run("INSERT OR IGNORE INTO redirects VALUES (?, ?, ?)", [row[:3] for row in batch.redirects])
        run("INSERT INTO title_index(rowid, title) VALUES (?, ?)", batch.titles)
        run("INSERT INTO passage_index(rowid, text) VALUES (?, ?)", batch.passages)
        self._counts["documents"] += len(batch.titles)
        self._counts["passages"] += len(batch.passages)
        self._counts["empty"] += len(batch.empty)


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
    with process_pool(1, _open_writer, partial) as pool, partial.open("r+b") as file:
        flying: deque[Future[int]] = deque([pool.submit(_write, head)])  # which forks, while there is one thread
        with ThreadPoolExecutor(1) as flusher:
            for count, batch in enumerate(batches, 1):
                flying.append(pool.submit(_write, batch))
                if len(flying) > _IN_FLIGHT:
                    _tell(progress, flying.popleft().result())
                if count % _COMMIT == 0:
                    # The disk has work from early on, and little is left for the end.
                    flusher.submit(os.fsync, file.fileno())
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
