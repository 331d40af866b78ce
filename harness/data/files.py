"""Reading data that others wrote: every fault names the place, the field and the remedy."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.source import DataError

REMEDY = "docs/data.md shows the form"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file or data set; `where` is its place in words, for messages."""

    where: str
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field that must be text (it may be empty)."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self.fault(name, f"is {_kind(value)}, text is expected")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that must be a list of texts with at least one entry."""
        value = self._get(name)
        if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
            raise self.fault(name, f"is {_kind(value)}, a list of texts is expected")
        return tuple(value)

    def records(self, name: str) -> Iterator[Record]:
        """A field that must be a list of objects."""
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.fault(name, f"is {_kind(value)}, a list of objects is expected")
        for index, entry in enumerate(value):
            yield Record(f"{self.where}, {name}[{index}]", entry)

    def count(self, name: str) -> int | None:
        """A field that may be absent or null (not known) and is a number of zero or more otherwise."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
            raise self.fault(name, f"is {value!r}, a number of zero or more (or nothing) is expected")
        return int(value)

    def fault(self, name: str, problem: str) -> DataError:
        """The error for a field."""
        return DataError(f"{self.where}: field `{name}` {problem}; {REMEDY}")

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise self.fault(name, f"is missing (there are: {', '.join(self.values) or 'none'})")
        return self.values[name]


def read_jsonl(path: Path) -> Iterator[Record]:
    """The objects of a JSON-lines file, plain or gzipped, one at a time. Raises DataError."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                where = f"{path}, line {number}"
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{where}: not valid JSON ({error}); {REMEDY}") from error
                if not isinstance(value, dict):
                    raise DataError(f"{where}: {_kind(value)}, an object is expected; {REMEDY}")
                yield Record(where, value)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_names(path: Path) -> tuple[str, ...]:
    """Names from a JSON list of texts (`.json`) or a text file with one a line. Raises DataError."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if path.suffix != ".json":
        return tuple(line.strip() for line in content.splitlines() if line.strip())
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {REMEDY}") from error
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise DataError(f"{path}: {_kind(value)}, a list of names is expected; {REMEDY}")
    return tuple(value)


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist; docs/data.md says where the set can be had and under what name")
    return DataError(f"{path}: cannot be read ({error}); get the file again")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
