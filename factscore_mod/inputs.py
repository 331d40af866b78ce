"""Reading generations: FActScore's JSON lines and ours, CSV, and a Hugging Face dataset on disk.

| field | names that are understood |
|---|---|
| topic | `topic`, `subject`, `entity`, `title`; optional (the corpus is then searched for each claim) |
| text | `output`, `response`, `text`, `generation` |
| id | `id`, `item_id`; optional (the row's number) |
| claims | `claims` or `atomic_facts`: a list of strings; or FActScore's `annotations` |

FActScore's `input` (`Question: Tell me a bio of NAME.`) gives the topic where there is no `topic`.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

_TOPIC = ("topic", "subject", "entity", "title")
_TEXT = ("output", "response", "text", "generation")
_ID = ("id", "item_id")
_CLAIMS = ("claims", "atomic_facts")
_BIO = re.compile(r"tell me a bio of (.+?)\.?\s*$", re.IGNORECASE)


class InputError(ValueError):
    """Generations cannot be read. The message names the file, the row, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A response to be scored. `claims` are given where they need not be made; empty `topic` is allowed."""

    id: str
    topic: str
    text: str
    claims: tuple[str, ...] | None = None


def read_generations(path: Path, *, use_claims: bool = False, limit: int | None = None) -> list[Generation]:
    """All rows of a `.jsonl`, `.json` (a list), `.csv` (each also `.gz`) or a dataset folder, in order.

    `use_claims` takes the claims that the rows bring along instead of making new ones; a row whose claims are
    null is an abstention and is read as a response without claims.
    Raises InputError for unreadable files, missing fields, wrong types and repeated ids.
    """
    path = Path(path)
    rows: list[Generation] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(_rows(path), 1):
        if limit is not None and len(rows) >= limit:
            break
        generation = _generation(row, number, path, use_claims)
        if generation.id in seen:
            raise InputError(
                f"{path}, row {number}: id {generation.id!r} is that of row {seen[generation.id]} too; make ids unique"
            )
        seen[generation.id] = number
        rows.append(generation)
    if not rows:
        raise InputError(f"{path}: no rows to score")
    return rows


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.is_dir():
        yield from _dataset_rows(path)
        return
    if not path.is_file():
        raise InputError(f"{path}: no such file; give generations as .jsonl, .csv or a dataset folder")
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    try:
        with _open(path) as file:
            if kind == "jsonl":
                yield from _json_lines(file, path)
            elif kind == "json":
                yield from _json_list(file, path)
            elif kind == "csv":
                csv.field_size_limit(2**31 - 1)
                yield from csv.DictReader(file)
            else:
                raise InputError(f"{path}: cannot read .{kind} files; give .jsonl, .json, .csv or a dataset folder")
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as problem:
        raise InputError(f"{path}: cannot be read ({problem}); it must be UTF-8 text") from problem


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _json_lines(file: Iterable[str], path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise InputError(f"{path}, line {number}: not JSON ({problem})") from problem
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a {type(row).__name__}, not an object with topic and output")
        yield row


def _json_list(file: IO[str], path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        rows = json.load(file)
    except ValueError as problem:
        raise InputError(f"{path}: not JSON ({problem})") from problem
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: must hold a list of objects with topic and output")
    yield from rows


def _dataset_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    from datasets import Dataset, DatasetDict, load_from_disk

    try:
        data = load_from_disk(str(path))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: not a dataset saved with save_to_disk ({problem})") from problem
    if isinstance(data, DatasetDict):
        if len(data) != 1:
            raise InputError(f"{path}: has splits {', '.join(data)}; name one, as in {path}/{next(iter(data))}")
        data = next(iter(data.values()))
    yield from cast("Iterable[Mapping[str, Any]]", cast("Dataset", data))


def _generation(row: Mapping[str, Any], number: int, path: Path, use_claims: bool) -> Generation:
    text = _first(row, _TEXT)
    if not isinstance(text, str):
        found = "null" if any(name in row for name in _TEXT) else f"fields {', '.join(map(repr, row))}"
        raise InputError(f"{path}, row {number}: no text; it must be in the field 'output' (found {found})")
    topic = _first(row, _TOPIC)
    if topic is None:
        match = _BIO.search(str(row.get("input") or ""))
        topic = match.group(1) if match else ""
    if not isinstance(topic, str):
        raise InputError(f"{path}, row {number}: field 'topic' must be a string, not {type(topic).__name__}")
    given = _first(row, _ID)
    identifier = str(given) if given not in (None, "") else str(number - 1)
    claims = _claims(row, number, path) if use_claims else None
    return Generation(identifier, topic.strip(), text, claims)


def _claims(row: Mapping[str, Any], number: int, path: Path) -> tuple[str, ...]:
    """The row's own claims; a null list (FActScore's mark of an abstention) is no claims."""
    for name in _CLAIMS:
        if name in row:
            value = row[name]
            if isinstance(value, str):
                value = _parse_list(value, f"{path}, row {number}: field {name!r}")
            if value is None:
                return ()
            if not isinstance(value, list) or not all(isinstance(claim, str) for claim in value):
                raise InputError(f"{path}, row {number}: field {name!r} must be a list of strings")
            return tuple(value)
    if "annotations" not in row:
        raise InputError(f"{path}, row {number}: no claims; they must be in 'claims' or 'annotations'")
    try:
        return tuple(
            fact["text"] for sentence in row["annotations"] or [] for fact in sentence["model-atomic-facts"] or []
        )
    except (TypeError, KeyError) as problem:
        raise InputError(
            f"{path}, row {number}: field 'annotations' is not FActScore's (wants a list of objects with "
            f"'model-atomic-facts'): {problem!r}"
        ) from problem


def _parse_list(text: str, where: str) -> Any:
    """A list in a CSV cell, written as JSON."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as problem:
        raise InputError(f"{where} must be a JSON list of strings ({problem})") from problem


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
