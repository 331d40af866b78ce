"""Dense retrieval with sentence-transformers, an optional extra, and its fusion with BM25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from factscore_mod.profiles import FACTSCORE, MODIFIED

DEFAULT_MODEL = MODIFIED.embedder
FACTSCORE_MODEL = FACTSCORE.embedder

_FUSION = 60  # the constant of Cormack et al. 2009


class Embedder(Protocol):
    """Turns texts into vectors whose inner product is their likeness."""

    name: str

    def encode(self, texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        """Vectors of unit length, shape (texts, dimensions)."""


class SentenceEmbedder:
    """A model of sentence-transformers: a folder or a hub name.

    Raises `ValueError` where the extra is not installed or the model cannot be loaded.
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, batch_size: int = 32, device: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ValueError(
                f"embedding retrieval with {model} needs {error.name}; "
                "pip install 'llm-factuality-harness[embedding]', or retrieve with bm25"
            ) from error
        self.name = str(model)
        try:
            self._model: Any = SentenceTransformer(self.name, device=device)
        except (OSError, ValueError) as error:
            raise ValueError(f"embedding model {model} cannot be loaded: {error}") from error
        self._batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        """Vectors of unit length, shape (texts, dimensions)."""
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors)


def by_likeness(vectors: NDArray[np.floating[Any]], query: NDArray[np.floating[Any]]) -> list[int]:
    """Positions of `vectors` (passages, dimensions), the likest to `query` (dimensions,) first."""
    return [int(position) for position in np.argsort(-(vectors @ query), kind="stable")]


def fuse(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009) of rankings of the same positions."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking, 1):
            scores[position] = scores.get(position, 0.0) + 1.0 / (_FUSION + rank)
    return sorted(scores, key=lambda position: (-scores[position], position))
