"""Reading data that others wrote: every fault names the place, the field and the remedy."""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factscore_mod.knowledge_format import title_key
from harness.data.source import DataError

DOCS = "docs/data.md"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file or data set.

    For messages: `where` is its place in words, `docs` the page that shows its form.
    """

    where: str
    values: Mapping[str, Any]
    docs: str = DOCS

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

    def listed(self, name: str) -> tuple[str, ...]:
        """The same, or a text that holds such a list in JSON or as a Python literal (which is parsed, never run)."""
        value = self._get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (json.JSONDecodeError, RecursionError):
                try:
                    value = ast.literal_eval(value)
                except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                    raise self.fault(name, "is no list, in JSON or as a Python literal") from error
        values = list(value) if isinstance(value, tuple) else value
        return Record(self.where, {name: values}, self.docs).texts(name)

    def records(self, name: str) -> Iterator[Record]:
        """A field that must be a list of objects."""
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.fault(name, f"is {_kind(value)}, a list of objects is expected")
        for index, entry in enumerate(value):
            yield Record(f"{self.where}, {name}[{index}]", entry, self.docs)

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
        return DataError(f"{self.where}: field `{name}` {problem}; {_form(self.docs)}")

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise self.fault(name, f"is missing (there are: {', '.join(self.values) or 'none'})")
        return self.values[name]


def read_jsonl(path: Path, docs: str = DOCS) -> Iterator[Record]:
    """The objects of a JSON-lines file, plain or gzipped, one at a time.

    Raises DataError, which names the page `docs`.
    """
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
                    raise DataError(f"{where}: not valid JSON ({error}); {_form(docs)}") from error
                if not isinstance(value, dict):
                    raise DataError(f"{where}: {_kind(value)}, an object is expected; {_form(docs)}")
                yield Record(where, value, docs)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path, error, docs) from error


def read_names(path: Path, docs: str = DOCS) -> tuple[str, ...]:
    """Names from a JSON list of texts (`.json`) or a text file with one a line.

    Raises DataError, which names the page `docs`.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error, docs) from error
    if path.suffix != ".json":
        return tuple(line.strip() for line in content.splitlines() if line.strip())
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {_form(docs)}") from error
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise DataError(f"{path}: {_kind(value)}, a list of names is expected; {_form(docs)}")
    return tuple(value)


def read_views(path: Path) -> dict[str, int]:
    """Page views by `title_key` of `name`, of names that are there twice the larger; those not known are left out.

    Raises DataError.
    """
    views: dict[str, int] = {}
    for record in read_jsonl(path):
        if (count := record.count("views")) is not None:
            key = title_key(record.text("name"))
            views[key] = max(count, views.get(key, 0))
    return views


def _form(docs: str) -> str:
    return f"{docs} shows the form"


def _unreadable(path: Path, error: Exception, docs: str) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist; {docs} says where the set can be had and under what name")
    return DataError(f"{path}: cannot be read ({error}); get the file again")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
