"""A deterministic stand-in for the model of `written.py`: serves dry runs, tests and the mock server.

It reads the same prompts as a real model and makes replies of the length of real ones. What it invents is the real
entry's own words turned around, so that it can be told from anything real at a glance.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from factscore_mod.cache import ReplyCache
from factscore_mod.chat import Ask, Engine, Reply
from factscore_mod.cost import estimate_tokens
from factscore_mod.prompting import fenced

_COUNT = re.compile(r"(\d+) (facts at most|invented values|sentences that|short paragraphs)")
_RELATIONS = ("place of birth", "year of birth", "role", "first work", "home", "teacher")


def answer(system: str, message: str, as_json: bool) -> str:
    """The reply to one of this package's prompts."""
    blocks = fenced(message)
    counts = {what: int(number) for number, what in _COUNT.findall(message)}
    if "ENTRY" in blocks:
        name = blocks["ENTRY"][0].partition(":")[0]
        versions = counts["invented values"]
        facts = [
            {"relation": relation, "values": [f"{relation} {_mark(name, relation, v)}" for v in range(versions)]}
            for relation in _RELATIONS
        ]
        return json.dumps({"name": f"{_turned(name)} {_mark(name)}", "facts": facts})
    facts_told = [line.partition(". ")[2].split(" | ") for line in blocks.get("FACTS", [])]
    statements = [
        [f"({n}) {subject} has as {relation} {value}." for n in range(counts["sentences that"])]
        for subject, relation, value in facts_told
    ]
    said = " ".join(f"{subject} has as {relation} {value}." for subject, relation, value in facts_told)
    passages = [f"{said} ({n})" for n in range(counts["short paragraphs"])]
    return json.dumps({"statements": statements, "passages": passages, "answer": said})


class Estimating:
    """The stand-in under the name and settings of a real engine: what is in the cache of that is not asked for."""

    def __init__(self, real: Engine) -> None:
        self.name = real.name
        self.model = real.model
        self.settings: Mapping[str, Any] = real.settings

    async def send(self, ask: Ask) -> Reply:
        """A made-up reply and the tokens that a real one would take."""
        message = ask.message("json")
        text = answer(ask.system, message, True)
        return Reply(
            text,
            "json",
            prompt_tokens=estimate_tokens(ask.system + message),
            completion_tokens=estimate_tokens(text),
        )

    async def aclose(self) -> None:
        """Nothing to close."""


class ReadOnly(ReplyCache):
    """A cache that gives and takes nothing: for estimates."""

    def put_many(self, rows: object) -> None:
        """Keep nothing."""


def _turned(name: str) -> str:
    return " ".join(word[::-1].capitalize() for word in name.split())


def _mark(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:6]
