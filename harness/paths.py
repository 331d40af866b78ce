"""Where things are kept, and how they are named: the cache folder, content hashes, whole-file writes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import platformdirs


def home() -> Path:
    """The cache folder: `HARNESS_HOME`, else the platform's cache folder."""
    named = os.environ.get("HARNESS_HOME")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("llm-factuality-harness"))


def digest(content: Any) -> str:
    """Hex SHA-256 of a value made of dataclasses, mappings, sequences and scalars, independent of key order."""

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        raise TypeError(f"cannot hash a {type(value).__name__}")

    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()


def derive_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each consumer of randomness, so that none depends on the others' order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "big")


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    """`write_whole` of indented JSON with sorted keys."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """`write_whole` of JSON lines."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines and flush them to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line that a killed process left unfinished is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def mend_lines(path: Path) -> None:
    """Cut an unfinished last line off a JSON-lines file, so that appending to it is safe."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
