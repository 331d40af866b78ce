"""Text -> content words: the words, names and numbers of claims and passages, ready to be looked up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from factscore_mod.lexicon import MONTHS, NEGATIONS, NUMBER_WORDS, STOP_WORDS, fold, name_key, word_key
from factscore_mod.sentences import split_sentences

Kind = Literal["word", "name", "number"]

_TOKEN = re.compile(
    r"\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th|s)?(?![^\W_])|(?:[A-Za-z]\.){2,}|[^\W\d_]+(?:['\u2019][^\W\d_]+)?|\d+"
)
_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)(st|nd|rd|th|s)?$")


@dataclass(frozen=True, slots=True)
class Token:
    """A content word: its comparison key, kind, folded surface form and place among all words of the text."""

    key: str
    kind: Kind
    form: str
    place: int


def content_tokens(text: str) -> tuple[Token, ...]:
    """The content words of a text in order.

    A capitalised word is a name, except at the head of the text before a word in lower case.
    """
    surfaces = _TOKEN.findall(text)
    tokens: list[Token] = []
    for place, surface in enumerate(surfaces):
        if surface.endswith(("'s", "\u2019s")):
            surface = surface[:-2]
        number = _NUMBER.match(surface)
        if number:
            digits = number.group(1).replace(",", "") + ("s" if number.group(2) == "s" else "")
            tokens.append(Token(digits, "number", digits, place))
            continue
        form = fold(surface).rstrip(".").replace("\u2019", "'")
        if form in STOP_WORDS or form in NEGATIONS or form.endswith("n't"):
            continue
        if form in NUMBER_WORDS:
            tokens.append(Token(NUMBER_WORDS[form], "number", form, place))
            continue
        is_name = surface[0].isupper() and form not in MONTHS
        if is_name and place == 0:
            is_name = len(surfaces) > 1 and surfaces[1][0].isupper()
        key = name_key(form) if is_name else word_key(form)
        tokens.append(Token(key, "name" if is_name else "word", form, place))
    return tuple(tokens)


def negation_places(text: str) -> tuple[int, ...]:
    """Where the negations of a text stand, counted in words as `Token.place` is."""
    forms = (surface.lower().replace("\u2019", "'") for surface in _TOKEN.findall(text))
    return tuple(place for place, form in enumerate(forms) if form in NEGATIONS or form.endswith("n't"))


@dataclass(frozen=True, slots=True)
class PreparedPassage:
    """A passage ready for matching.

    `places[s]` maps each key of sentence s to its places in it, and `lengths[s]` counts its content words and
    `negations[s]` are the places of its negations; `where` maps a key to its sentences; `relatives`
    maps the first five letters to keys; `forms` are the folded content words.
    """

    places: tuple[dict[str, list[int]], ...]
    lengths: tuple[int, ...]
    negations: tuple[tuple[int, ...], ...]
    where: dict[str, list[int]]
    relatives: dict[str, list[str]]
    forms: frozenset[str]


@lru_cache(maxsize=4096)
def prepare(text: str) -> PreparedPassage:
    """Read a passage once; cached by its text."""
    places: list[dict[str, list[int]]] = []
    where: dict[str, list[int]] = {}
    forms: set[str] = set()
    lengths: list[int] = []
    negations: list[tuple[int, ...]] = []
    for index, sentence in enumerate(split_sentences(text)):
        held: dict[str, list[int]] = {}
        tokens = content_tokens(sentence.text)
        lengths.append(len(tokens))
        negations.append(negation_places(sentence.text))
        for token in tokens:
            forms.add(token.form)
            keys = {token.key} if token.kind == "number" else {word_key(token.form), name_key(token.form)}
            for key in sorted(keys):
                held.setdefault(key, []).append(token.place)
        for key in held:
            where.setdefault(key, []).append(index)
        places.append(held)
    relatives: dict[str, list[str]] = {}
    for key in where:
        if len(key) >= 5 and key[0] != "=":
            relatives.setdefault(key[:5], []).append(key)
    return PreparedPassage(tuple(places), tuple(lengths), tuple(negations), where, relatives, frozenset(forms))


def keys_in(passage: PreparedPassage, token: Token) -> Sequence[str]:
    """The passage's keys that count as this word: its own; for a decade its years; for a word a close relative."""
    key = token.key
    if key in passage.where:
        return (key,)
    if token.kind == "number":
        if len(key) == 5 and key.endswith("s"):
            return [year for year in passage.where if len(year) == 4 and year[:3] == key[:3]]
        return ()
    if token.kind == "word" and len(key) >= 5:
        return [
            other
            for other in passage.relatives.get(key[:5], ())
            if _common_prefix(key, other) >= 0.75 * max(len(key), len(other))
        ]
    return ()


def _common_prefix(a: str, b: str) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length
