"""A deterministic stand-in for a language model: answers by word overlap, in the forms that the prompts ask for.

It reads the same prompts as a real model and knows nothing else. It serves tests, dry runs, `mock_server` and
anyone who wants to try the path without spending.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from factscore_mod.chat import Ask, Reply
from factscore_mod.cost import estimate_tokens
from factscore_mod.prompting import fenced

_NUMBERED = re.compile(r"(\d+)\. (.*)")
_WORD = re.compile(r"\w+")
_SHORT = 3
_ENOUGH = 0.75


class MockEngine:
    """The stand-in as an engine, in process."""

    name = "mock"
    model = "mock"
    settings: Mapping[str, Any] = {"mock": 1}

    async def send(self, ask: Ask) -> Reply:
        """The reply that `answer` gives, as JSON where the request has a schema."""
        form = "json" if ask.schema else "line"
        message = ask.message("json" if ask.schema else "line")
        text = answer(ask.system, message, as_json=ask.schema is not None)
        return Reply(
            text,
            "json" if form == "json" else "line",
            prompt_tokens=estimate_tokens(ask.system + message),
            completion_tokens=estimate_tokens(text),
        )

    async def aclose(self) -> None:
        """Nothing to close."""


def answer(system: str, message: str, *, as_json: bool = False) -> str:
    """The reply to one of this package's prompts; to any other text, the word True.

    Sentences become one claim each. A claim is supported when three quarters of its words of four letters and
    more, and all its numbers, are in the passages.
    """
    blocks = fenced(message)
    if "SENTENCES" in blocks:
        pairs = _numbered(blocks["SENTENCES"])
        if as_json:
            return json.dumps({"claims": [{"sentence": n, "claim": text} for n, text in pairs]})
        return "\n".join(f"{n}| {text}" for n, text in pairs)
    if "SENTENCE" in blocks:
        return f"- {blocks['SENTENCE'][0]}"
    words = _words(" ".join(blocks.get("PASSAGES", [])))
    if "STATEMENT" in blocks:
        return str(_stated(blocks["STATEMENT"][0], words))
    if "CLAIMS" in blocks:
        verdicts = [(n, _stated(text, words)) for n, text in _numbered(blocks["CLAIMS"])]
        if as_json:
            rows = [{"claim": n, "verdict": "supported" if yes else "not_supported"} for n, yes in verdicts]
            return json.dumps({"verdicts": rows})
        return "VERDICTS: " + " ".join(f"{n}={'S' if yes else 'N'}" for n, yes in verdicts)
    return "True"


def _numbered(lines: list[str]) -> list[tuple[int, str]]:
    matches = (_NUMBERED.fullmatch(line) for line in lines)
    return [(int(match[1]), match[2]) for match in matches if match]


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))


def _stated(claim: str, evidence: frozenset[str]) -> bool:
    words = {word for word in _words(claim) if len(word) > _SHORT or word.isdigit()}
    found = words & evidence
    numbers = {word for word in words if word.isdigit()}
    return bool(words) and numbers <= found and len(found) >= _ENOUGH * len(words)
