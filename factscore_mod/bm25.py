"""BM25 over the few passages of one article, built once and asked many times.

The scores are those of `rank_bm25.BM25Okapi` (a test holds the two equal). What is saved is its walk over all
passages for every word of a query: here a word's weights in the passages that hold it are worked out beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

K1, B, EPSILON = 1.5, 0.75, 0.25  # the defaults of rank_bm25


class ArticleIndex:
    """Okapi BM25 (Robertson and Zaragoza 2009, section 3), rank_bm25's floor for words in most passages."""

    def __init__(self, passages: Sequence[Sequence[str]]) -> None:
        """`passages` are the tokens of each passage; at least one passage."""
        self._size = len(passages)
        self._ids = {word: number for number, word in enumerate(dict.fromkeys(chain.from_iterable(passages)))}
        lengths = np.array([len(tokens) for tokens in passages])
        words = np.array([self._ids[word] for tokens in passages for word in tokens], dtype=np.int64)
        # One key for each (word, passage), so that sorting them groups the postings of a word.
        keys, counts = np.unique(words * self._size + np.repeat(np.arange(self._size), lengths), return_counts=True)
        self._passages = keys % self._size
        self._starts = np.searchsorted(keys, np.arange(len(self._ids) + 1) * self._size).tolist()
        frequencies = np.diff(self._starts)
        idf = self._inverse(frequencies)
        norms = K1 * (1 - B + B * lengths / (lengths.mean() or 1.0))
        # Multiplied in rank_bm25's order: a rounding apart, and equal passages would change places.
        gains = counts * (K1 + 1) / (counts + norms[self._passages])
        self._weights: NDArray[np.float64] = np.repeat(idf, frequencies) * gains

    def _inverse(self, frequencies: NDArray[np.int64]) -> NDArray[np.float64]:
        """Inverse document frequency of each word, the floor in place of what would be negative."""
        if not len(frequencies):
            return np.zeros(0)
        by_count = [math.log(self._size - n + 0.5) - math.log(n + 0.5) for n in range(self._size + 1)]
        idf = np.array(by_count)[frequencies]
        mean = np.cumsum(idf)[-1] / len(idf)  # added one by one, as there; numpy's mean adds in pairs
        return np.where(idf < 0, EPSILON * mean, idf)

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """The score of each passage; a repeated query word counts each time."""
        total = np.zeros(self._size)
        for word in query:
            number = self._ids.get(word)
            if number is not None:
                start, end = self._starts[number], self._starts[number + 1]
                total[self._passages[start:end]] += self._weights[start:end]
        return total

    def top(self, query: Sequence[str], k: int) -> list[int]:
        """Positions of the `k` best passages, best first, the earlier one first among equals."""
        order: list[int] = np.argsort(-self.scores(query), kind="stable")[:k].tolist()
        return order
