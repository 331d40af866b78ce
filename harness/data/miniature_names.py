"""Invented words: names of people, places and substances that no English text contains.

A kind of name has its own endings, so that a reader can tell a city from a company, and so that two names never
share a stem.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_ONSETS = (
    "b", "br", "c", "cr", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pr",
    "qu", "r", "s", "st", "t", "tr", "v", "w", "z",
)  # fmt: skip
_NUCLEI = ("a", "e", "i", "o", "u", "ea")
_CODAS = ("l", "ld", "lm", "m", "n", "nd", "r", "rl", "rn", "rv", "sk", "st", "v", "z")

# The endings are long enough, and of such a form, that no suffix-stripping stemmer shortens them.
ENDINGS: dict[str, tuple[str, ...]] = {
    "first names": ("o", "an", "ek"),
    "last names": ("ack", "unk", "ov"),
    "cities": ("burg", "grad", "port"),
    "companies": ("corp", "werk", "tex"),
    "universities": ("wick", "holm", "ham"),
    "spouses": ("ia", "ina", "ara"),
    "prizes": ("aurum", "ark", "orb"),
    "discoverers": ("sohn", "quist", "witz"),
    "substances": ("yl", "ox", "ium"),
    "eponyms": ("mann", "stein", "feld"),
    "disease": ("osis", "itis", "oma"),
    "drug": ("mab", "stat", "vir"),
    "procedure": ("ectomy", "plasty", "scopy"),
}


def invent(kind: str, count: int, rng: np.random.Generator, taken: set[str]) -> tuple[str, ...]:
    """`count` new capitalised words of a kind in `ENDINGS`; they and their roots are added to `taken`.

    No two words of a world share a root, so that neither stemming nor a look at the first letters confuses
    them. Roots are of one syllable until those run out.
    """
    endings = ENDINGS[kind]
    words: list[str] = []
    refused = 0
    while len(words) < count:
        root = _syllable(rng) if refused < 50 else _pick(_ONSETS, rng) + _pick(_NUCLEI, rng) + _syllable(rng)
        word = root + _pick(endings, rng)
        if word in taken or root in taken:
            refused += 1
            continue
        taken.update((word, root))
        words.append(word.capitalize())
    return tuple(words)


def _syllable(rng: np.random.Generator) -> str:
    return _pick(_ONSETS, rng) + _pick(_NUCLEI, rng) + _pick(_CODAS, rng)


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def lower_words(texts: Iterable[str]) -> set[str]:
    """Every word of the texts in lower case, letters only."""
    words: set[str] = set()
    for text in texts:
        words.update("".join(c if c.isalpha() else " " for c in text).lower().split())
    return words
