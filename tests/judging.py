"""Shared by the tests of scoring: a small knowledge source, and an engine whose replies a test decides."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from factscore_mod.chat import Ask, Chat, Ledger, Reply
from factscore_mod.judges import Judge
from factscore_mod.judges.mock import answer
from factscore_mod.judges.prompted import SentenceDecomposer, StructuredVerifier, TrueFalseVerifier, WholeDecomposer
from factscore_mod.knowledge import Document, build
from factscore_mod.profiles import MODIFIED, Profile

ARTICLES = {
    "Ada Lovelace": "Ada Lovelace was born in London in 1815. She was an English mathematician. She married William "
    "King in 1835. She translated an article by Luigi Menabrea and added notes.",
    "Marie Curie": "Marie Curie was born in Warsaw in 1867. She discovered radium and polonium. She won the "
    "Nobel Prize in Physics in 1903 and the Nobel Prize in Chemistry in 1911.",
    "Grace Hopper": "Grace Hopper was born in New York City in 1906. She was a rear admiral of the United States Navy.",
}


@functools.cache
def knowledge() -> Path:
    """A knowledge source of three articles."""
    path = Path(tempfile.mkdtemp()) / "knowledge.db"
    build([Document(title, text) for title, text in ARTICLES.items()], path)
    return path


class ScriptedEngine:
    """Replies as a function of the request says: text, a whole Reply, or an exception to raise."""

    name = "scripted"
    model = "scripted"

    def __init__(self, script: Callable[[Ask], str | Reply | Exception], form: str = "line") -> None:
        self.script = script
        self.form = form
        self.asks: list[Ask] = []
        self.settings: Mapping[str, Any] = {"form": form}

    async def send(self, ask: Ask) -> Reply:
        self.asks.append(ask)
        made = self.script(ask)
        if isinstance(made, Exception):
            raise made
        if isinstance(made, Reply):
            return made
        form = "json" if self.form == "json" and ask.schema else "line"
        return replace(Reply(made, prompt_tokens=10, completion_tokens=5), form=form)

    async def aclose(self) -> None:
        return None

    def count(self, stage: str) -> int:
        return sum(ask.stage == stage for ask in self.asks)


def honest(ask: Ask, as_json: bool = False) -> str:
    """What the mock judge would say."""
    return answer(ask.system, ask.message("json" if as_json else "line"), as_json=as_json and ask.schema is not None)


def scripted_judge(
    script: Callable[[Ask], str | Reply | Exception],
    profile: Profile = MODIFIED,
    ledger: Ledger | None = None,
    form: str = "line",
    reasks: int = 2,
) -> tuple[Judge, ScriptedEngine]:
    """A judge of that profile whose model is the script."""
    engine = ScriptedEngine(script, form)
    chat = Chat(engine, ledger or Ledger(), reasks)
    decomposer = SentenceDecomposer(chat, profile) if profile.decomposition == "per_sentence" else WholeDecomposer(chat)
    verifier = (
        TrueFalseVerifier(chat, profile) if profile.verification == "true_false" else StructuredVerifier(chat, profile)
    )
    return Judge("scripted", decomposer, verifier, closeables=(chat,)), engine
