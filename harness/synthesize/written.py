"""What a language model is asked for, by the prompts of this package, and what its replies must hold.

Two requests: `alter` makes a fictitious subject with contradicting versions of its facts out of a real entry;
`write` puts given facts into statements, passages and an answer. Facts and entries are fenced; a reply that lacks
what was asked for is asked for again and then left out, never mended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from factscore_mod.chat import Ask, Chat, Reply
from factscore_mod.prompting import Prompt, fence, load_prompt, neutralise
from harness.synthesize.records import Fact, states

PACKAGE = "harness.synthesize"
ALTER, WRITE = "alter.v1", "write.v1"
MOST_FACTS = 7


@dataclass(frozen=True, slots=True)
class Altered:
    """A fictitious subject and its facts, version by version."""

    name: str
    versions: tuple[tuple[Fact, ...], ...]


@dataclass(frozen=True, slots=True)
class Written:
    """The facts of one subject and version in words."""

    statements: tuple[str, ...]
    passages: tuple[str, ...]
    answer: str


def prompts() -> tuple[Prompt, Prompt]:
    """The two prompts, `alter` and `write`."""
    return load_prompt(ALTER, PACKAGE), load_prompt(WRITE, PACKAGE)


async def alter(chat: Chat, subject: str, entry: str, versions: int) -> Altered | None:
    """A fictitious counterpart of a real entry; None where the model gave none that can be used.

    Raises CallFailed, BudgetReached and JudgeError as `Chat.ask` does.
    """
    prompt = prompts()[0]
    schema = _object(
        name={"type": "string"},
        facts=_array(_object(relation={"type": "string"}, values=_array({"type": "string"}))),
    )
    ask = Ask(
        stage="synthesize",
        prompt=prompt.identity,
        system=prompt.fill("system"),
        user=prompt.fill(
            "user",
            entry=fence("ENTRY", neutralise(f"{subject}: {entry}")),
            facts=str(MOST_FACTS),
            versions=str(versions),
        ),
        as_json=(told := prompt.fill("json", shape=", ".join(['"..."'] * versions))),
        as_line=told,
        schema=schema,
        max_tokens=1024,
    )
    reply, _ = await chat.ask(ask, lambda reply: read_altered(reply, subject, versions) is not None)
    return read_altered(reply, subject, versions)


async def write(chat: Chat, facts: Sequence[Fact], question: str, paraphrases: int, passages: int) -> Written | None:
    """The facts of one subject in words; None where the model left one out. Raises as `alter` does."""
    prompt = prompts()[1]
    lines = [neutralise(f"{n}. {fact.subject} | {fact.relation} | {fact.value}") for n, fact in enumerate(facts, 1)]
    ask = Ask(
        stage="synthesize",
        prompt=prompt.identity,
        system=prompt.fill("system"),
        user=prompt.fill(
            "user",
            facts=fence("FACTS", *lines),
            paraphrases=str(paraphrases),
            passages=str(passages),
            question=neutralise(question),
        ),
        as_json=prompt.fill("json"),
        as_line=prompt.fill("json"),
        schema=_object(
            statements=_array(_array({"type": "string"})),
            passages=_array({"type": "string"}),
            answer={"type": "string"},
        ),
        max_tokens=256 + 64 * len(facts) * (paraphrases + passages + 1),
    )
    reply, _ = await chat.ask(ask, lambda reply: read_written(reply, facts) is not None)
    return read_written(reply, facts)


def read_altered(reply: Reply, real: str, versions: int) -> Altered | None:
    """The subject of a reply, or None: no name of its own, a fact without all its versions, or no fact at all."""
    found = _json(reply)
    name, facts = found.get("name"), found.get("facts")
    if not isinstance(name, str) or not isinstance(facts, list) or not _own(name, real):
        return None
    name = " ".join(name.split())
    rows: dict[str, list[str]] = {}
    for fact in facts[:MOST_FACTS]:
        if not isinstance(fact, dict) or not isinstance(fact.get("relation"), str):
            return None
        values = fact.get("values")
        if not isinstance(values, list) or len(values) < versions or not all(map(_short, values[:versions])):
            return None
        rows[" ".join(fact["relation"].split())] = [" ".join(value.split()) for value in values[:versions]]
    if not rows:
        return None
    return Altered(
        name,
        tuple(
            tuple(Fact(name, relation, values[v], (values[v],)) for relation, values in rows.items())
            for v in range(versions)
        ),
    )


def read_written(reply: Reply, facts: Sequence[Fact]) -> Written | None:
    """The texts of a reply, or None where one lacks a name or value that it has to state.

    A statement has to name its subject and its value; each passage and the answer all of them.
    """
    found = _json(reply)
    statements, passages, answer = found.get("statements"), found.get("passages"), found.get("answer")
    if not isinstance(statements, list) or not _texts(passages) or not isinstance(answer, str):
        return None
    if len(statements) != len(facts) or not all(_texts(of_fact) for of_fact in statements):
        return None
    # What is looked at are the very texts that are kept.
    told = [[_joined(text) for text in of_fact] for of_fact in statements]
    whole = [_joined(text) for text in (*passages, answer)]
    for fact, of_fact in zip(facts, told, strict=True):
        if not all(states(text, fact) for text in (*of_fact, *whole)):
            return None
    return Written(
        tuple(dict.fromkeys(text for of_fact in told for text in of_fact)), tuple(dict.fromkeys(whole[:-1])), whole[-1]
    )


def _joined(text: str) -> str:
    return " ".join(text.split())


def _own(name: str, real: str) -> bool:
    """Whether a name shares no word of four letters or more with the real one."""
    words = {word.casefold() for word in real.split() if len(word) > 3}
    return bool(name.strip()) and not words & {word.casefold() for word in name.split()}


def _short(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.split()) <= 20


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text.strip() for text in value)


def _json(reply: Reply) -> Mapping[str, Any]:
    """The outermost JSON object of a reply; empty where there is none."""
    text = reply.text
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1]) if start >= 0 else {}
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
