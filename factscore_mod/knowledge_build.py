"""Build a knowledge source: stream articles into SQLite, survive a kill at any moment, use every core.

    build(read_jsonl("wiki.jsonl"), Path("wiki.db"))

The file grows as `wiki.db.partial` and is renamed when whole. Every few thousand articles are committed together
with the number of articles read, so starting the same build again skips what is there and goes on. A running hash
over the articles, kept with it, proves that the input has not changed in between; at the end it is the
`fingerprint`, equal for equal articles in equal order, however often the build was killed.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.connection import wait
from pathlib import Path

from factscore_mod import passages
from factscore_mod.knowledge_format import (
    FACTSCORE_SEPARATOR,
    FORMAT,
    INDEX_TABLES,
    POSITION_BITS,
    REDIRECT,
    TEXT_TABLE,
    TITLE,
    WITHOUT_PARENTHESES,
    Document,
    KnowledgeError,
    Redirect,
    read_meta,
    title_key,
    without_parentheses,
    write_meta,
)
from factscore_mod.tokens import words

Progress = Callable[[int], None]

_BATCH = 256  # articles handed to a worker at once
_COMMIT = 16  # batches a transaction
_IN_PROCESS = 8  # batches prepared before a process pool is worth its start
_SAMPLE = 1500  # articles that the commonest words are counted on
_COMMON_SHARE = 0.01
_COUNTED = ("documents", "passages", "duplicates", "empty")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. `duplicates` are repeated titles (the first wins), `empty` articles without text,
    `dangling` redirects to titles that are not there. `resumed_at` counts the inputs found done at the start."""

    path: Path
    documents: int
    passages: int
    redirects: int
    duplicates: int
    empty: int
    dangling: int
    resumed_at: int
    seconds: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An article ready to be written; made in a worker process."""

    title: str
    text: str
    redirects: tuple[str, ...]
    names: tuple[tuple[str, int], ...]
    cuts: list[int]
    title_words: str
    passage_words: list[str]


def _prepare(batch: list[Document | Redirect], size: int | None) -> list[_Prepared | Redirect]:
    """Cut and tokenise. `size` is the words a passage; `None` for texts that FActScore has cut already."""
    prepared: list[_Prepared | Redirect] = []
    for item in batch:
        if isinstance(item, Redirect):
            prepared.append(item)
            continue
        if size is None:
            cuts, pieces = [], item.text.replace("<s>", "").replace("</s>", "").split(FACTSCORE_SEPARATOR)
        else:
            cuts = passages.cut(item.text, size)
            pieces = passages.split(item.text, cuts)
        if len(pieces) >= 1 << POSITION_BITS:
            raise KnowledgeError(f"article {item.title!r}: {len(pieces):,} passages; split the article")
        key = title_key(item.title)
        bare = title_key(without_parentheses(item.title))
        names = ((key, TITLE),) if bare == key else ((key, TITLE), (bare, WITHOUT_PARENTHESES))
        title_words = " ".join(words(item.title))
        indexed = [f"{title_words} {' '.join(words(piece))}" for piece in pieces]
        prepared.append(_Prepared(item.title, item.text, item.redirects, names, cuts, title_words, indexed))
    return prepared


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; the pool's own queue would keep it waiting for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepared_batches(
    batches: Iterator[list[Document | Redirect]], size: int | None, workers: int
) -> Iterator[list[_Prepared | Redirect]]:
    """`_prepare` over `batches` in order: in this process at first, in `workers` others once there is much to do.

    Only a few batches are ever in flight, so memory stays flat however fast the reader is.
    """
    for batch in itertools.islice(batches, _IN_PROCESS if workers else None):
        yield _prepare(batch, size)
    head = next(batches, None)
    if head is None:
        return
    # A fork is cheap, and safe as long as nothing else runs in this process.
    method = "fork" if hasattr(os, "fork") and threading.active_count() == 1 else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        flying: deque[Future[list[_Prepared | Redirect]]] = deque()
        for batch in itertools.chain([head], batches):
            flying.append(pool.submit(_prepare, batch, size))
            if len(flying) > 2 * workers:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()


def _clean(text: str) -> str:
    """`text` as SQLite can store it: JSON may carry half of a surrogate pair, which UTF-8 has no form for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class _Stream:
    """The input, batch by batch, with the running hash and count of what has been handed out."""

    def __init__(self, items: Iterable[Document | Redirect]) -> None:
        self._items = iter(items)
        self._digest = b""
        self._marks: deque[tuple[int, str]] = deque()
        self._read = 0

    def _next(self, count: int) -> list[Document | Redirect]:
        batch: list[Document | Redirect] = []
        for item in itertools.islice(self._items, count):
            if isinstance(item, Redirect):
                item = Redirect(_clean(item.title), _clean(item.target))
                fields: tuple[str, ...] = (item.title, item.target)
            else:
                item = Document(_clean(item.title), _clean(item.text), tuple(map(_clean, item.redirects)))
                fields = (item.title, item.text, *item.redirects)
            if not item.title.strip():
                raise KnowledgeError(f"article {self._read + len(batch) + 1}: field 'title' is empty")
            digest = blake2b(self._digest, digest_size=16)
            for field in fields:
                data = field.encode()
                digest.update(b"%d:" % len(data))
                digest.update(data)
            self._digest = digest.digest()
            batch.append(item)
        self._read += len(batch)
        return batch

    def skip(self, count: int, expected: str) -> None:
        """Read over what an earlier build has stored; `KnowledgeError` where the input is not the same."""
        left = count
        while left and (batch := self._next(min(left, _BATCH))):
            left -= len(batch)
        if left or self._digest.hex() != expected:
            raise KnowledgeError(
                f"the build that was cut off had read {count:,} articles, and this input does not begin with "
                "them; give it the same input, or delete the .partial file to start over"
            )

    def batches(self) -> Iterator[list[Document | Redirect]]:
        while batch := self._next(_BATCH):
            self._marks.append((self._read, self._digest.hex()))
            yield batch

    def mark(self) -> tuple[int, str]:
        """Count and hash as they were behind the oldest batch that no `mark` was taken for."""
        return self._marks.popleft()


class _Writer:
    """Rows of one knowledge source, or of the index beside a FActScore file (`ids` are that file's rows)."""

    def __init__(
        self, connection: sqlite3.Connection, meta: dict[str, str], ids: deque[int] | None = None
    ) -> None:
        self._connection = connection
        self._ids = ids
        self.counts = {key: int(meta[key]) for key in _COUNTED}
        if ids is None:
            self._next_id = 1 + int(
                connection.execute("SELECT coalesce(max(id), 0) FROM documents").fetchone()[0]
            )

    def _new_id(self, item: _Prepared) -> int | None:
        """The article's row, `None` where its title is there already."""
        if self._ids is not None:
            return self._ids.popleft()
        row = (self._next_id, item.title, item.text, json.dumps(item.cuts, separators=(",", ":")))
        if not self._connection.execute("INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?)", row).rowcount:
            return None
        self._next_id += 1
        return self._next_id - 1

    def write(self, batch: list[_Prepared | Redirect]) -> None:
        """Insert a batch; counts go to `counts`."""
        redirects: list[tuple[str, str, str]] = []
        names: list[tuple[str, int, int]] = []
        titles: list[tuple[int, str]] = []
        indexed: list[tuple[int, str]] = []
        for item in batch:
            if isinstance(item, Redirect):
                redirects.append((item.title, title_key(item.title), item.target))
                continue
            number = self._new_id(item)
            if number is None:
                self.counts["duplicates"] += 1
                continue
            redirects.extend((title, title_key(title), item.title) for title in item.redirects)
            names.extend((key, kind, number) for key, kind in item.names)
            titles.append((number, item.title_words))
            first = number << POSITION_BITS
            indexed.extend(enumerate(item.passage_words, first))
            self.counts["documents"] += 1
            self.counts["passages"] += len(item.passage_words)
            self.counts["empty"] += not item.passage_words
        run = self._connection.executemany
        run("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", names)
        run("INSERT OR IGNORE INTO redirects VALUES (?, ?, ?)", redirects)
        run("INSERT INTO title_index(rowid, words) VALUES (?, ?)", titles)
        run("INSERT INTO passage_index(rowid, words) VALUES (?, ?)", indexed)


def _connect(partial: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(partial, isolation_level=None, timeout=10.0)
    try:
        # One builder at a time: the lock is held until the connection is closed.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise KnowledgeError(
            f"{partial}: {error}; another build may be writing it: wait for that, or delete the file"
        ) from error
    return connection


def _ingest(
    connection: sqlite3.Connection,
    writer: _Writer,
    stream: _Stream,
    size: int | None,
    workers: int,
    progress: Progress | None,
) -> None:
    """Write the rest of the stream. Articles and the count of them are committed together."""
    connection.execute("BEGIN")
    for number, batch in enumerate(_prepared_batches(stream.batches(), size, workers), 1):
        writer.write(batch)
        read, digest = stream.mark()
        write_meta(connection, read=read, digest=digest, **writer.counts)
        if number % _COMMIT == 0:
            connection.execute("COMMIT")
            connection.execute("BEGIN")
        if progress is not None:
            progress(read)
    connection.execute("COMMIT")


def _finish(connection: sqlite3.Connection, sample: Iterable[tuple[str, str]], size: int | None) -> None:
    """What can only be known when every article is there; one transaction, which also marks the file whole."""
    meta = read_meta(connection)
    connection.execute("BEGIN")
    dangling = 0
    if size is not None:
        connection.execute(
            "INSERT OR IGNORE INTO names SELECT r.key, ?, d.id FROM redirects r JOIN documents d ON d.title = r.target",
            (REDIRECT,),
        )
        dangling = connection.execute(
            "SELECT count(*) FROM redirects WHERE target NOT IN (SELECT title FROM documents)"
        ).fetchone()[0]
    found = Counter[str]()
    number = 0
    for indexed in _sample(sample, size):
        found.update(set(indexed.split()))
        number += 1
    common = [
        (word, count / number) for word, count in sorted(found.items()) if count > number * _COMMON_SHARE
    ]
    connection.executemany("INSERT OR REPLACE INTO common VALUES (?, ?)", common)
    redirects = connection.execute("SELECT count(*) FROM redirects").fetchone()[0]
    fingerprint = blake2b(f"{FORMAT}|{size}|{meta['digest']}".encode(), digest_size=16).hexdigest()
    write_meta(connection, redirects=redirects, dangling=dangling, fingerprint=fingerprint, complete=1)
    connection.execute("COMMIT")


def _sample(rows: Iterable[tuple[str, str]], size: int | None) -> Iterator[str]:
    for title, text in rows:
        for item in _prepare([Document(title, text)], size):
            if isinstance(item, _Prepared):
                yield from item.passage_words


def _start(connection: sqlite3.Connection, size: int | None, origin: str) -> dict[str, str]:
    """Make the tables, or check that those of a build that was cut off fit this one."""
    meta = read_meta(connection)
    wanted = {"format": FORMAT, "passage_words": str(size or ""), "origin": origin}
    if not meta:
        connection.execute("BEGIN")
        for statement in (TEXT_TABLE, *INDEX_TABLES) if size is not None else INDEX_TABLES:
            connection.execute(statement)
        # New postings are gathered in memory and written in few large pieces: half the time of the default.
        connection.execute("INSERT INTO passage_index(passage_index, rank) VALUES ('hashsize', 67108864)")
        write_meta(connection, **wanted, read=0, digest="", complete=0, **dict.fromkeys(_COUNTED, 0))
        connection.execute("COMMIT")
        return read_meta(connection)
    for key, value in wanted.items():
        if meta.get(key) != value:
            raise KnowledgeError(
                f"the build that was cut off has {key} {meta.get(key)!r}, this one {value!r}; "
                "use the same setting, or delete the .partial file to start over"
            )
    return meta


def _publish(partial: Path, out: Path) -> None:
    """Give the finished file its name, durably."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(out)


def build(
    documents: Iterable[Document | Redirect],
    out: Path,
    *,
    passage_words: int = 256,
    progress: Progress | None = None,
    workers: int | None = None,
) -> BuildReport:
    """Write a knowledge source to `out` and say what is in it.

    A build that was cut off goes on from its last commit when given the same `documents` again. `progress` is
    called with the number of inputs read. `workers` processes cut and tokenise (default: one less than there are
    cores, at least one; 0 keeps everything in this process, as small inputs do anyway).

    Raises `KnowledgeError` where `out` exists, where another build holds it, or where the input or the settings
    differ from those of the build that was cut off.
    """
    out = Path(out)
    if not 8 <= passage_words <= 4096:
        raise KnowledgeError(f"passage_words is {passage_words}; choose 8 to 4096")
    if out.exists():
        raise KnowledgeError(f"{out} exists already; delete it or choose another name")
    began = time.perf_counter()
    partial = out.with_name(out.name + ".partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    with closing(_connect(partial)) as connection:
        meta = _start(connection, passage_words, "")
        resumed_at = int(meta["read"])
        if meta["complete"] != "1":
            stream = _Stream(documents)
            stream.skip(resumed_at, meta["digest"])
            writer = _Writer(connection, meta)
            _ingest(connection, writer, stream, passage_words, _default(workers), progress)
            total = int(read_meta(connection)["documents"])
            if not total:
                raise KnowledgeError(f"nothing to build {out} from: the input holds no article")
            step = max(1, total // _SAMPLE)
            rows = connection.execute(
                "SELECT title, text FROM documents WHERE id % ? = 0 ORDER BY id", (step,)
            )
            _finish(connection, rows, passage_words)
        meta = read_meta(connection)
    _publish(partial, out)
    return _report(out, meta, resumed_at, began)


def _default(workers: int | None) -> int:
    return max(1, (os.cpu_count() or 2) - 1) if workers is None else workers


def _report(path: Path, meta: dict[str, str], resumed_at: int, began: float) -> BuildReport:
    return BuildReport(
        path=path,
        documents=int(meta["documents"]),
        passages=int(meta["passages"]),
        redirects=int(meta["redirects"]),
        duplicates=int(meta["duplicates"]),
        empty=int(meta["empty"]),
        dangling=int(meta["dangling"]),
        resumed_at=resumed_at,
        seconds=time.perf_counter() - began,
        fingerprint=meta["fingerprint"],
    )


def build_side_index(
    rows: Iterable[tuple[int, str, str]],
    sample: Iterable[tuple[int, str, str]],
    origin: str,
    out: Path,
    *,
    progress: Progress | None = None,
) -> None:
    """The index of a FActScore file, beside it: names and full text of `rows` (row number, title, text).

    `sample` are some of them to count the commonest words on. `origin` identifies that file; an
    index made for another is refused when opened. Resumes as `build` does.
    """
    partial = out.with_name(out.name + ".partial")
    ids: deque[int] = deque()

    def documents() -> Iterator[Document]:
        for number, title, text in rows:
            ids.append(number)
            yield Document(title, text)

    with closing(_connect(partial)) as connection:
        meta = _start(connection, None, origin)
        if meta["complete"] != "1":
            stream = _Stream(documents())
            read = int(meta["read"])
            stream.skip(read, meta["digest"])
            for _ in range(read):
                ids.popleft()
            writer = _Writer(connection, meta, ids)
            _ingest(connection, writer, stream, None, _default(None), progress)
            _finish(connection, ((title, text) for _, title, text in sample), None)
    _publish(partial, out)
