"""The reply cache: a SQLite file in WAL mode that several runs and processes may use at once.

A row is a hashed key, a compressed value and a checksum. A row whose checksum is wrong counts as missing, is
counted in `corrupt`, and is overwritten by the next reply. Keys hold everything that a reply depends on;
values hold replies and never a credential.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, value BLOB, checksum INTEGER) WITHOUT ROWID"


class CacheError(ValueError):
    """The cache file cannot be used at all. The message names the file and the remedy."""


def cache_key(*parts: Any) -> bytes:
    """A 32-byte hash of JSON values; equal values give equal keys on every machine and in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


class ReplyCache:
    """A persistent mapping from `cache_key` to text.

    `corrupt` counts rows that were skipped because they could not be read back.
    """

    def __init__(self, path: Path, *, busy_timeout: float = 30.0) -> None:
        """Open or create `path`. Raises CacheError where it is not a cache or cannot be written."""
        self.path = Path(path)
        self.corrupt = 0
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=busy_timeout, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_SCHEMA)
            self._db.execute("SELECT key, value, checksum FROM replies LIMIT 1").fetchone()
        except (OSError, sqlite3.Error) as problem:
            raise CacheError(
                f"{path}: not usable as a reply cache ({problem}); name another file or move this one away"
            ) from problem

    def get(self, key: bytes) -> str | None:
        """The value, or `None` where there is none or it is damaged."""
        with self._lock:
            try:
                row = self._db.execute("SELECT value, checksum FROM replies WHERE key = ?", (key,)).fetchone()
            except sqlite3.DatabaseError as problem:
                if isinstance(problem, sqlite3.OperationalError) and "lock" in str(problem):
                    raise CacheError(f"{self.path}: locked by another process for too long") from problem
                self.corrupt += 1
                return None
            if row is None:
                return None
            try:
                if _checksum(key, row[0]) == row[1]:
                    return zlib.decompress(row[0]).decode()
            except (TypeError, zlib.error, UnicodeDecodeError):
                pass
            self.corrupt += 1
            return None

    def put(self, key: bytes, value: str) -> None:
        """Store a value; it survives the death of this process. The last writer of a key wins."""
        self.put_many([(key, value)])

    def put_many(self, rows: Sequence[tuple[bytes, str]]) -> None:
        """Store several values in one transaction. Raises CacheError where nothing can be written."""
        packed = [(key, zlib.compress(value.encode(), 1)) for key, value in rows]
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    "INSERT OR REPLACE INTO replies VALUES (?, ?, ?)",
                    [(key, value, _checksum(key, value)) for key, value in packed],
                )
                self._db.execute("COMMIT")
            except sqlite3.Error as problem:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise CacheError(
                    f"{self.path}: a reply cannot be stored ({problem}); free space or name another cache"
                ) from problem

    def __len__(self) -> int:
        """The number of rows, damaged ones included."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the file. What was put stays."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))
