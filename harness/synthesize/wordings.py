"""How facts are said: the wordings of `prompts/wordings.v1.toml`, and the dataset's own questions."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from harness.records import Row

WORDINGS = "wordings.v1"
_A = re.compile(r"\b([Aa]) \{v\}")


@dataclass(frozen=True, slots=True)
class Wordings:
    """The wordings of one relation; `kind` is what its made-up subjects are."""

    kind: str
    named: tuple[str, ...]
    running: tuple[str, ...]


@cache
def wordings() -> dict[str, Wordings]:
    """The wordings of each relation."""
    tables = tomllib.loads(_read())
    return {name: Wordings(t["kind"], tuple(t["named"]), tuple(t["running"])) for name, t in tables.items()}


def identity() -> str:
    """The name of the wordings with version and the beginning of their hash."""
    return f"{WORDINGS}@{hashlib.sha256(_read().encode()).hexdigest()[:12]}"


def say(wording: str, subject: str, value: str) -> str:
    """One sentence; "a" before a value that begins with a vowel becomes "an"."""
    if value[:1].lower() in "aeiou":
        wording = _A.sub(r"\1n {v}", wording)
    return wording.replace("{v}", value).replace("{s}", subject)


def question_templates(rows: Iterable[Row]) -> dict[str, str]:
    """The question of each relation with `{s}` for the subject: the one that most rows have."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        question = row.question or ""
        if row.subject and question.count(row.subject) == 1:
            counts[row.kind][question.replace(row.subject, "{s}")] += 1
    return {kind: max(sorted(found), key=lambda text: found[text]) for kind, found in counts.items()}


def _read() -> str:
    return files("harness.synthesize").joinpath("prompts", f"{WORDINGS}.toml").read_text(encoding="utf-8")
