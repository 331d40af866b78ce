"""Build a knowledge source: stream articles into SQLite, survive a kill at any moment, use two cores.

    build(read_jsonl("wiki.jsonl"), Path("wiki.db"))

The file grows as `wiki.db.partial` and is renamed when whole. Every few thousand articles are committed together
with the number of articles read, so starting the same build again skips what is there and goes on. A running
hash over the articles, kept with it, proves that the input has not changed in between; at the end it is the
`fingerprint`, equal for equal articles in equal order, however often the build was killed.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from factscore_mod import passages
from factscore_mod.knowledge_format import (
    FACTSCORE_SEPARATOR,
    FORMAT,
    INDEX_TABLES,
    REDIRECT,
    TEXT_TABLE,
    Document,
    KnowledgeBusyError,
    KnowledgeError,
    Redirect,
    read_meta,
    write_meta,
)
from factscore_mod.knowledge_rows import Batch, make_batch
from factscore_mod.knowledge_writer import COUNTED, Progress, connect, current_boot, write_all
from factscore_mod.tokens import content_words

_BATCH = 256  # articles handled at once
_SAMPLE = (500, 4000)  # articles that the commonest words are counted on: a hundredth, but at least, at most
_COMMON_SHARE = 0.002


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    `duplicates` are repeated titles (the first wins), `empty` articles without text, `dangling` redirects to
    titles that are not there. `resumed_at` counts the inputs found done at the start.
    """

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


def build(
    documents: Iterable[Document | Redirect],
    out: Path,
    *,
    passage_words: int = 256,
    progress: Progress | None = None,
    parallel: bool | None = None,
) -> BuildReport:
    """Write a knowledge source to `out` and say what is in it.

    A build that was cut off goes on from its last commit when given the same `documents` again. `progress` is
    called with the number of inputs read. SQLite works in a process of its own where there are two cores and
    more than a few thousand articles; `parallel` decides that by hand.

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
    meta = _start(partial, passage_words, "")
    resumed_at = int(meta["read"])
    if meta["complete"] != "1":
        stream = _Stream(documents, passage_words)
        stream.skip(resumed_at, meta["digest"])
        write_all(partial, stream.batches(), parallel, progress)
        with closing(connect(partial)) as connection:
            meta = stream.check_all_written(connection)
            if not int(meta["documents"]):
                raise KnowledgeError(f"nothing to build {out} from: the input holds no article")
            total = connection.execute("SELECT max(id) FROM documents").fetchone()[0]
            step = max(1, total // min(max(total // 100, _SAMPLE[0]), _SAMPLE[1]))
            rows = connection.execute("SELECT title, text FROM documents WHERE id % ? = 0 ORDER BY id", (step,))
            meta = _finish(connection, rows, passage_words)
    _publish(partial, out)
    return BuildReport(
        path=out,
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

    `sample` are some of them, to count the commonest words on. `origin` identifies that file; an index made for
    another is refused when opened. Resumes as `build` does.
    """
    partial = out.with_name(out.name + ".partial")
    meta = _start(partial, None, origin)
    if meta["complete"] != "1":
        numbers: list[int] = []

        def documents() -> Iterator[Document]:
            for number, title, text in rows:
                numbers.append(number)
                yield Document(title, text)

        stream = _Stream(documents(), None, numbers)
        stream.skip(int(meta["read"]), meta["digest"])
        write_all(partial, stream.batches(), None, progress)
        with closing(connect(partial)) as connection:
            stream.check_all_written(connection)
            _finish(connection, ((title, text) for _, title, text in sample), None)
    _publish(partial, out)


def _clean(text: str) -> str:
    """`text` as SQLite can store it: JSON may carry half of a surrogate pair, which UTF-8 has no form for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class _Stream:
    """The input, batch by batch, with the running hash and count of what has been handed out."""

    def __init__(
        self, items: Iterable[Document | Redirect], size: int | None, numbers: list[int] | None = None
    ) -> None:
        """`size` is the words a passage, `None` for text that is cut already; `numbers` fills up with the row
        numbers of the articles as they are read, where they are given and not to be dealt out."""
        self._items = iter(items)
        self._size = size
        self._numbers = numbers
        self._digest = b""
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
                raise KnowledgeError(f"input {self._read + len(batch) + 1}: field 'title' is empty; give it one")
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
            self._take_numbers()
        if left or self._digest.hex() != expected:
            raise KnowledgeError(
                f"the build that was cut off had read {count:,} articles, and this input does not begin with "
                "them; give it the same input, or delete the .partial file to start over"
            )

    def _take_numbers(self) -> list[int] | None:
        if self._numbers is None:
            return None
        numbers = self._numbers[:]
        self._numbers.clear()
        return numbers

    def check_all_written(self, connection: sqlite3.Connection) -> dict[str, str]:
        """The file's `meta`, if it holds exactly what was read here; `KnowledgeBusyError` if not."""
        meta = read_meta(connection)
        if (meta["read"], meta["digest"], meta["complete"]) != (str(self._read), self._digest.hex(), "0"):
            raise KnowledgeBusyError("another build has come in between; start this one again")
        return meta

    def batches(self) -> Iterator[Batch]:
        """The rest of the input as rows. Articles are numbered as they are read, unless `numbers` says otherwise."""
        while items := self._next(_BATCH):
            numbers = self._take_numbers() or range(self._read - len(items) + 1, self._read + 1)
            yield make_batch(items, self._size, numbers, self._read, self._digest.hex())


def _start(partial: Path, size: int | None, origin: str) -> dict[str, str]:
    """Make the tables, or check that those of a build that was cut off fit this one."""
    wanted = {"format": FORMAT, "passage_words": str(size or ""), "origin": origin}
    boot = current_boot()
    with closing(connect(partial)) as connection:
        meta = read_meta(connection)
        if not meta:
            connection.execute("BEGIN")
            for statement in INDEX_TABLES if size is None else (TEXT_TABLE, *INDEX_TABLES):
                connection.execute(statement)
            write_meta(connection, **wanted, boot=boot, read=0, digest="", complete=0, **dict.fromkeys(COUNTED, 0))
            connection.execute("COMMIT")
            return read_meta(connection)
    for key, value in wanted.items():
        if meta.get(key) != value:
            raise KnowledgeError(
                f"{partial}: the build that was cut off has {key} {meta.get(key)!r}, this one {value!r}; "
                "use the same, or delete that file to start over"
            )
    if meta["complete"] != "1" and meta.get("boot") != boot:
        raise KnowledgeError(
            f"{partial}: the machine was restarted after that build was cut off, so the file may not be whole; "
            "delete it to start over"
        )
    return meta


def _finish(connection: sqlite3.Connection, sample: Iterable[tuple[str, str]], size: int | None) -> dict[str, str]:
    """What can only be known when every article is there; one transaction, which also marks the file whole."""
    connection.execute("BEGIN")
    dangling = 0
    if size is not None:
        connection.execute(
            "INSERT OR IGNORE INTO names SELECT r.key, ?, d.id FROM redirects r JOIN documents d ON d.title = r.target",
            (REDIRECT,),
        )
        missing = "SELECT count(*) FROM redirects WHERE target NOT IN (SELECT title FROM documents)"
        dangling = connection.execute(missing).fetchone()[0]
    found = Counter[str]()
    total = 0
    for title, text in sample:
        cut = text.split(FACTSCORE_SEPARATOR) if size is None else passages.split(text, passages.cut(text, size))
        for piece in cut:
            found.update(set(content_words(f"{title} {piece}")))
            total += 1
    common = [(word, count / total) for word, count in sorted(found.items()) if count > total * _COMMON_SHARE]
    connection.executemany("INSERT INTO common VALUES (?, ?)", common)
    redirects = connection.execute("SELECT count(*) FROM redirects").fetchone()[0]
    digest = read_meta(connection)["digest"]
    fingerprint = blake2b(f"{FORMAT}|{size}|{digest}".encode(), digest_size=16).hexdigest()
    write_meta(connection, redirects=redirects, dangling=dangling, fingerprint=fingerprint, complete=1)
    connection.execute("DELETE FROM meta WHERE key = 'boot'")
    connection.execute("COMMIT")
    return read_meta(connection)


def _publish(partial: Path, out: Path) -> None:
    """Give the finished file its name, durably."""
    try:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    except FileNotFoundError:
        if not out.exists():  # else another process, which waited for this one, has done it
            raise
