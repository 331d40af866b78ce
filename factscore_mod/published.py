"""The rules of the published FActScore that are neither prompts nor metrics: how its replies are read.

Source: shmsw25/FActScore v0.2, `factscorer.py` and `atomic_facts.py`; written anew from what they do.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(rf"\b(?:\d{{1,2}} )?(?:{_MONTH})\b(?: \d{{1,2}}\b)?(?:,? \d{{4}}\b)?")
_NUMBER = re.compile(r"\b\d+\b")
_BARE_ENDINGS = (
    "born.", " appointed.", " characterized.", " described.", " known.", " member.", " advocate.", "served.",
    "elected.",
)  # fmt: skip
_DOUBTS = {"not", "cannot", "unknown", "information"}


def read_true_false(reply: str, empty_is_supported: bool = False) -> bool | None:
    """True, False, or `None` where the reply says neither.

    Where both words occur, the one whose first occurrence is later decides. With `empty_is_supported` a reply
    with neither word counts as True unless it holds one of `not`, `cannot`, `unknown`, `information`: so does
    the published code, even for an empty reply.
    """
    text = reply.lower()
    true, false = text.find("true"), text.find("false")
    if true >= 0 or false >= 0:
        return true > false
    if empty_is_supported:
        words = text.translate(str.maketrans("", "", string.punctuation)).split()
        return _DOUBTS.isdisjoint(words)
    return None


def has_no_facts(sentence: str, index: int) -> bool:
    """Whether a sentence is small talk of a chat model, which is not decomposed."""
    return sentence.startswith(("This sentence does not contain any facts", "Sure", "Please")) or (
        index == 0 and sentence.startswith("Here are")
    )


def parse_facts(reply: str) -> list[str]:
    """The facts of a reply: what follows each `- `; the last one gets a full stop."""
    facts = [piece.strip() for piece in reply.split("- ")[1:]]
    facts = [fact for fact in facts if fact]
    if facts and not facts[-1].endswith("."):
        facts[-1] += "."
    return facts


def filter_facts(sentence: str, facts: Sequence[str]) -> list[str]:
    """The facts without those that invent a number or date, or that end in a bare verb and repeat another fact.

    A date of which the fact has the beginning is completed from the sentence. Where the remaining facts do
    not mention every number of the sentence, the filter is taken to have erred and all facts are kept.
    """
    known = _entities(sentence)
    covered: set[str] = set()
    kept: list[str] = []
    for position, original in enumerate(facts):
        fact = original
        others = [other for place, other in enumerate(facts) if place != position]
        bare = fact.endswith(_BARE_ENDINGS) and not fact.endswith("founding member.")
        if bare and any(fact[:-1] in other for other in others):
            continue
        mentioned = _entities(fact)
        covered |= mentioned & known
        invented = False
        for entity in sorted(mentioned - known):
            whole = min((k for k in known if k.startswith(entity)), default=None)
            if whole is None:
                invented = True
                break
            fact = fact.replace(entity, whole)
            covered.add(whole)
        if not invented and fact not in kept:
            kept.append(fact)
    return kept if covered == known else list(facts)


def _entities(text: str) -> set[str]:
    """Dates with a month, and the numbers that are in none of them."""
    dates = set(_DATE.findall(text))
    return dates | {number for number in _NUMBER.findall(text) if not any(number in date for date in dates)}
