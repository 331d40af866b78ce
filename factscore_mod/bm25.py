"""BM25 over the few passages of one article, built once and asked many times.

The scores are those of `rank_bm25.BM25Okapi` (a test holds the two equal); what is saved is its walk over all
passages for every query: a word's weights in all passages are worked out at its first use and kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

K1, B, EPSILON = 1.5, 0.75, 0.25  # the defaults of rank_bm25


class ArticleIndex:
    """Okapi BM25 (Robertson and Zaragoza 2009, section 3), rank_bm25's floor for words in most passages."""

    def __init__(self, passages: Sequence[Sequence[str]]) -> None:
        """`passages` are the tokens of each passage; at least one passage."""
        self._counts = [Counter(tokens) for tokens in passages]
        lengths = np.array([len(tokens) for tokens in passages], dtype=np.float64)
        average = lengths.mean() or 1.0
        self._norms: NDArray[np.float64] = K1 * (1 - B + B * lengths / average)
        self._idf = self._inverse_frequencies(len(passages))
        self._weights: dict[str, NDArray[np.float64]] = {}

    def _inverse_frequencies(self, count: int) -> dict[str, float]:
        document_frequency = Counter(word for counts in self._counts for word in counts)
        idf = {
            word: math.log(count - frequency + 0.5) - math.log(frequency + 0.5)
            for word, frequency in document_frequency.items()
        }
        floor = EPSILON * sum(idf.values()) / len(idf) if idf else 0.0
        return {word: floor if value < 0 else value for word, value in idf.items()}

    def _weight(self, word: str) -> NDArray[np.float64]:
        weight = self._weights.get(word)
        if weight is None:
            frequency = np.array([counts[word] for counts in self._counts], dtype=np.float64)
            weight = self._idf[word] * frequency * (K1 + 1) / (frequency + self._norms)
            self._weights[word] = weight
        return weight

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """The score of each passage; a repeated query word counts each time."""
        total = np.zeros(len(self._counts))
        for word in query:
            if word in self._idf:
                total += self._weight(word)
        return total

    def top(self, query: Sequence[str], k: int) -> list[int]:
        """Positions of the `k` best passages, best first, the earlier one first among equals."""
        order = np.argsort(-self.scores(query), kind="stable")[:k]
        return [int(position) for position in order]
