"""Articles whose words are distributed as in real text (Zipf), for the benchmarks of knowledge and retrieval."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_STOP = "the of and in to a was is he for on as with by that at from his it an were are which be this her had or she"
_VOCABULARY = 50_000
_LETTERS = np.array(list("etaoinshrdlucmfwyp"))


class ZipfText:
    """A source of sentences; equal seeds give equal text."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)
        made = ["".join(self._generator.choice(_LETTERS, size=n)) for n in self._generator.integers(3, 11, _VOCABULARY)]
        made[: len(_STOP.split())] = _STOP.split()
        self.vocabulary = np.array(made)
        weights = 1 / np.arange(1, _VOCABULARY + 1)
        self._cumulative = np.cumsum(weights / weights.sum())

    def words(self, count: int) -> list[str]:
        """`count` words, the commonest most often."""
        found: list[str] = self.vocabulary[np.searchsorted(self._cumulative, self._generator.random(count))].tolist()
        return found

    def article(self, count: int) -> str:
        """`count` words in sentences of 8 to 24."""
        words = self.words(count)
        sentences = []
        place = 0
        while place < len(words):
            length = int(self._generator.integers(8, 25))
            sentences.append(" ".join(words[place : place + length]).capitalize() + ".")
            place += length
        return " ".join(sentences)


def articles(number: int, words: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """`number` titles and texts of `words` words."""
    text = ZipfText(seed)
    for index in range(number):
        yield f"Topic {index}", text.article(words)
