"""The generator that asks a language model: texts about facts that the rules chose, and whole biographies.

Short questions keep the subjects and values of the rules (so that right answers stay the data's own); a model writes
their statements and passages. Long-form entries are altered by the model itself. Whatever a model does not deliver
in the form asked for is left out and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from factscore_mod.chat import CallFailed, Chat
from factscore_mod.knowledge_format import title_key
from harness.records import Row
from harness.synthesize import written
from harness.synthesize.asked import reasons
from harness.synthesize.output import PROMPTS
from harness.synthesize.records import Fact, Made, Seed, TaskSet, Text, Use
from harness.synthesize.rules import Sizes, contradict, slug
from harness.synthesize.written import Altered, Written

Group = tuple[str, bool, int | None, Use]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was made, and how many subjects were left out for which reason."""

    made: TaskSet
    left_out: Counter[str]


async def rewrite(made: TaskSet, chat: Chat, sizes: Sizes) -> Outcome:
    """The rows of the rules with texts of a model. A subject is left out with all its versions."""
    facts: dict[Group, dict[Fact, None]] = {}
    asked: dict[Group, str] = {}
    for row in made.rows:
        for fact in row.facts:
            group = (fact.subject, row.fake, row.version, row.use)
            facts.setdefault(group, {})[fact] = None
            asked.setdefault(group, row.question or row.subject)
    left_out: Counter[str] = Counter()

    async def one(group: Group) -> Written | None:
        return await _written(chat, tuple(facts[group]), asked[group], sizes, left_out)

    replies = dict(zip(facts, await asyncio.gather(*map(one, facts)), strict=True))
    missing = {(subject, fake, use) for (subject, fake, _, use), reply in replies.items() if reply is None}
    kept = [row for row in made.rows if not any((fact.subject, row.fake, row.use) in missing for fact in row.facts)]
    needed = {(fact.subject, row.fake, row.version, row.use) for row in kept for fact in row.facts}
    texts = [
        text
        for group, reply in replies.items()
        if reply is not None and group in needed
        for text in _texts(group, reply)
    ]
    own = [text for text in made.texts if (text.subject, text.fake, text.version, text.use) not in facts]
    why = f"left out: {reasons(left_out)}" if left_out else ""
    limits = {size: "; ".join(filter(None, (made.limits.get(size), why))) for size in ("entities", "real")}
    return Outcome(TaskSet(made.task, tuple(kept), (*texts, *own), limits), left_out)


async def biographies(
    task: str, seeds: Sequence[Seed], chat: Chat, sizes: Sizes, known: Iterable[str], is_title: Callable[[str], bool]
) -> Outcome:
    """Fictitious entries in contradicting versions, modelled on real ones; no name is known or a title."""
    left_out: Counter[str] = Counter()

    async def altered(seed: Seed) -> Altered | None:
        try:
            made = await written.alter(chat, seed.subject, seed.text, sizes.versions)
        except CallFailed:
            left_out["the request was given up"] += 1
            return None
        if made is None:
            left_out["the reply had not the form asked for"] += 1
        return None if made is None else _consistent(made, seed, left_out)

    taken = {title_key(name) for name in known}
    chosen = []
    for found in await asyncio.gather(*map(altered, seeds[: sizes.entities])):
        if found is None:
            continue
        if title_key(found.name) in taken or is_title(found.name):
            left_out["the name is taken or real"] += 1
            continue
        taken.add(title_key(found.name))
        chosen.append(found)

    async def told(found: Altered) -> list[Written | None]:
        prompt = PROMPTS[task].phrase(Row(id="", subject=found.name, target="")).prompt
        return await asyncio.gather(*(_written(chat, facts, prompt, sizes, left_out) for facts in found.versions))

    rows: list[Made] = []
    texts: list[Text] = []
    for found, versions in zip(chosen, await asyncio.gather(*map(told, chosen)), strict=True):
        if any(one is None for one in versions):
            continue
        for version, (facts, one) in enumerate(zip(found.versions, versions, strict=True), start=1):
            assert one is not None
            rows.append(
                Made(
                    id=f"{slug(found.name)}-v{version}",
                    subject=found.name,
                    target=one.answer,
                    question=None,
                    answers=(),
                    kind="person" if task == "persons" else task,
                    facts=facts,
                    version=version,
                )
            )
            texts += _texts((found.name, True, version, "trained"), one)
    why = [f"the source has {len(seeds):,} entries"] if len(seeds) < sizes.entities else []
    why += [f"left out: {reasons(left_out)}"] if left_out else []
    return Outcome(TaskSet(task, tuple(rows), tuple(texts), {"entities": "; ".join(why)}), left_out)


async def _written(
    chat: Chat, facts: Sequence[Fact], question: str, sizes: Sizes, left_out: Counter[str]
) -> Written | None:
    try:
        reply = await written.write(chat, facts, question, sizes.paraphrases, sizes.passages)
    except CallFailed:
        left_out["the request was given up"] += 1
        return None
    if reply is None:
        left_out["a text lacked a name or a value"] += 1
    return reply


def _consistent(made: Altered, seed: Seed, left_out: Counter[str]) -> Altered | None:
    """Only the relations whose values contradict each other in all versions and are none of the real entry."""
    real = seed.text.casefold()
    columns = list(zip(*made.versions, strict=True))
    good = [
        facts
        for facts in columns
        if all(fact.value.casefold() not in real for fact in facts)
        and all(contradict(one, two) for i, one in enumerate(facts) for two in facts[i + 1 :])
    ]
    if not good:
        left_out["the versions did not contradict each other"] += 1
        return None
    return Altered(made.name, tuple(zip(*good, strict=True)))


def _texts(group: Group, reply: Written) -> list[Text]:
    subject, fake, version, use = group
    return [
        *(Text(subject, text, "statement", fake, version, use) for text in reply.statements),
        *(Text(subject, text, "passage", fake, version, use) for text in reply.passages),
    ]
