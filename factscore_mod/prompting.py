"""Prompt files, and how text that nobody vouches for is put into a prompt.

A prompt file has sections that begin with a line `== name ==` and blanks such as `{{topic}}`. Its name ends
in a version; name, version and a hash of the text go into cache keys and results.

Model text and evidence are untrusted. They stand between *fences*, lines that no text can forge: a fence
carries a hash of what it encloses, and everything in the text that looks like a fence or like the control
tokens of a chat template is rewritten. The hash depends on the content alone, so that equal prompts stay
equal between runs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_SECTION = re.compile(r"^== (\w+) ==\n", re.MULTILINE)
_BLANK = re.compile(r"\{\{(\w+)\}\}")
_FENCE_LIKE = re.compile(r"<{2,}|>{2,}|[\u00ab\u00bb\u2039\u203a\uff1c\uff1e]{2,}")
_CONTROL_TOKEN = re.compile(r"<(?=\||/?\s*[\w|/]{1,40}\s*[|]?>)|\[(?=/?(?:INST|SYS)\b)", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
_KEY = b"factscore_mod fence 1"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file. `identity` is its name with version and the beginning of its hash."""

    identity: str
    sections: Mapping[str, str]

    def fill(self, section: str, **values: str) -> str:
        """A section with its blanks filled; filled-in text is not searched for blanks again."""
        return _BLANK.sub(lambda blank: values[blank.group(1)], self.sections[section])


@cache
def load_prompt(name: str, package: str = "factscore_mod") -> Prompt:
    """The prompt file of that name in a package's `prompts` folder, such as `verify_structured.v1`."""
    text = files(package).joinpath("prompts", f"{name}.txt").read_text("utf-8")
    parts = _SECTION.split(text)
    sections = {parts[i]: parts[i + 1].strip("\n") for i in range(1, len(parts), 2)}
    return Prompt(f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}", sections)


def neutralise(text: str) -> str:
    """Untrusted text on one line, without anything that looks like a fence or a control token.

    Words, numbers and ordinary punctuation are left as they are.
    """
    text = _INVISIBLE.sub("", text)
    text = _FENCE_LIKE.sub(lambda run: " ".join(run.group()), text)
    text = _CONTROL_TOKEN.sub(lambda bracket: bracket.group() + " ", text)
    return " ".join(text.split())


def fence(kind: str, *lines: str) -> str:
    """`lines` (each one already neutralised, with whatever numbers they got) between two fence lines."""
    body = "\n".join(lines)
    mark = hmac.new(_KEY, f"{kind}\n{body}".encode(), "sha256").hexdigest()[:16]
    return f"<<<{kind} {mark}>>>\n{body}\n<<<END {kind} {mark}>>>"


_FENCED = re.compile(
    r"^<<<(?P<kind>[A-Z]+) (?P<mark>[0-9a-f]{16})>>>\n(?P<body>.*?)\n<<<END (?P=kind) (?P=mark)>>>$",
    re.DOTALL | re.MULTILINE,
)


def fenced(message: str) -> dict[str, list[str]]:
    """The lines between the fences of a message, by kind: what a stand-in for a model reads."""
    return {found["kind"]: found["body"].split("\n") for found in _FENCED.finditer(message)}
