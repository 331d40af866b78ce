"""Names for fictitious subjects: parts of real names put together anew, so that they sound like their kind.

A name is never one that the source knows (subject, answer, alias or title), nor one that was given before. That a
person or a film outside of the source bears it cannot be excluded; parts that few real names share make it unlikely,
and a knowledge source may be given to look names up in (harness/synthesize/checks.py).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from factscore_mod.knowledge_format import title_key
from harness.data.source import DataError

ATTEMPTS = 400
# Shorter invented places are too often real ones.
SHORTEST = 7
# Words that carry no meaning alone: a title is not made of these only, and none ends in one.
_SMALL = frozenset(
    (
        "a", "an", "the", "of", "in", "on", "at", "to", "for", "and", "or", "by", "with", "from", "de", "la", "le",
        "di", "el", "i", "ii", "iii", "iv", "v", "vi", "my", "your", "no",
    )
)  # fmt: skip
_NAME = re.compile(r"[^\W\d_][^\W\d_'’-]+")
_LATIN = re.compile(r"[A-Za-z]{6,}")
_TITLE = re.compile(r"[A-Za-z' ]+")
_VOWELS = "aeiouy"
_REGIONS = ("District", "Province", "County", "Region", "Department", "Municipality", "Prefecture", "Governorate")
_CLUBS = ("F.C.", "United F.C.", "City F.C.", "Town F.C.", "Rovers F.C.", "Athletic F.C.")


class NameMaker:
    """New names of a kind, from the subjects of training rows by kind.

    `known` are names that must not be given; it grows by every name that is. `is_title` says of a name whether it is
    known elsewhere.
    """

    def __init__(
        self,
        subjects: Mapping[str, Sequence[str]],
        known: Iterable[str],
        is_title: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._taken = {title_key(name) for name in known}
        self._is_title = is_title
        self._makers: dict[str, Callable[[random.Random], str]] = {
            "person": _person(subjects.get("person", ())),
            "work": _work(subjects.get("work", ())),
            "place": _place(subjects.get("place", ())),
        }
        place = self._makers["place"]
        self._makers["region"] = lambda rng: f"{place(rng)} {rng.choice(_REGIONS)}"
        self._makers["club"] = lambda rng: f"{place(rng)} {rng.choice(_CLUBS)}"

    def invent(self, kind: str, rng: random.Random) -> str:
        """A new name of a kind. Raises DataError where the real names are too few to make another one of."""
        for _ in range(ATTEMPTS):
            name = self._makers[kind](rng)
            key = title_key(name)
            if key and key not in self._taken and not self._is_title(name):
                self._taken.add(key)
                return name
        raise DataError(
            f"no further name for a {kind} can be made of the real ones: ask for fewer --entities, or give a source "
            "with more training rows"
        )


def _person(names: Sequence[str]) -> Callable[[random.Random], str]:
    """A first name and the last name of somebody else; parts that many share come no more often than rare ones."""
    pairs = [parts for name in names if len(parts := name.split()) == 2 and all(map(_NAME.fullmatch, parts))]
    return _joined([first for first, _ in pairs], [last for _, last in pairs])


def _work(names: Sequence[str]) -> Callable[[random.Random], str]:
    """All but the last word of a title, and the last word of another one."""
    fronts, ends = [], []
    for name in names:
        words = name.split()
        content = [word for word in words if word.lower() not in _SMALL and len(word) > 2]
        if not 2 <= len(words) <= 5 or not _TITLE.fullmatch(name) or words[-1] not in content:
            continue
        ends.append(words[-1])
        if any(word in content for word in words[:-1]):
            fronts.append(" ".join(words[:-1]))
    return _joined(fronts, ends)


def _joined(fronts: Sequence[str], ends: Sequence[str]) -> Callable[[random.Random], str]:
    # The parts that only one name has, where these are enough to choose from.
    def rare(parts: Sequence[str]) -> list[str]:
        counts = Counter(parts)
        alone = sorted(part for part, count in counts.items() if count == 1)
        return alone if len(alone) >= len(counts) / 2 else sorted(counts)

    first, last = rare(fronts), rare(ends)

    def make(rng: random.Random) -> str:
        if not first or not last:
            return ""
        front, end = rng.choice(first), rng.choice(last)
        return "" if end in front.split() else f"{front} {end}"

    return make


def _place(names: Sequence[str]) -> Callable[[random.Random], str]:
    """The beginning of a name up to a vowel and the rest of another one from a consonant on."""
    fronts, ends = set(), set()
    for name in names:
        if not _LATIN.fullmatch(name):
            continue
        cuts = [i for i in range(2, len(name) - 2) if name[i - 1] in _VOWELS and name[i] not in _VOWELS]
        fronts |= {name[:cut] for cut in cuts if cut <= 5}
        ends |= {name[cut:] for cut in cuts if 3 <= len(name) - cut <= 6}
    first, last = sorted(fronts), sorted(ends)

    def make(rng: random.Random) -> str:
        name = rng.choice(first) + rng.choice(last) if first and last else ""
        return name if len(name) >= SHORTEST else ""

    return make
