"""Evidence for claims: passages of the topic's article, or of the whole corpus where the topic has none.

retriever = Retriever(KnowledgeSource.open("wiki.db"))
evidence = retriever.for_claims("Marie Curie", ["She was born in Warsaw.", "She discovered radium."])
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factscore_mod import tokens
from factscore_mod.bm25 import ArticleIndex
from factscore_mod.knowledge import KnowledgeSource, Resolution
from factscore_mod.records import Evidence, Passage
from factscore_mod.retrieval_embedding import (
    DEFAULT_MODEL,
    FACTSCORE_MODEL,
    Embedder,
    SentenceEmbedder,
    by_likeness,
    fuse,
)

Method = Literal["bm25", "embedding", "hybrid"]

_KEPT_ARTICLES = 64
_CANDIDATES = 4  # passages of the corpus that embeddings choose one from
_TOKENS: dict[str, Callable[[str], list[str]]] = {"words": tokens.words, "whitespace": tokens.whitespace}


@dataclass
class _Article:
    """What a topic was resolved to, with indexes over its passages that are made when first asked for."""

    resolution: Resolution
    passages: tuple[Passage, ...]
    indexed: tuple[str, ...]
    tokenize: Callable[[str], list[str]]
    embedder: Embedder | None

    @cached_property
    def words(self) -> ArticleIndex:
        return ArticleIndex([self.tokenize(text) for text in self.indexed])

    @cached_property
    def vectors(self) -> NDArray[np.floating[Any]]:
        assert self.embedder is not None
        return self.embedder.encode([f"{passage.title} {passage.text}" for passage in self.passages])


class Retriever:
    """Finds `k` passages for each claim. Threads may share one.

    `always_lead` puts the article's first passage first among the evidence, whatever its rank.
    `topic_in_query` adds the topic to each query. `tokenize` is `words` (ours) or `whitespace` (FActScore's).
    `embedder` is for the methods `embedding` and `hybrid`: a model of sentence-transformers by its name or folder
    (a small one by default), or a ready one.
    `counts` tells how many calls of `for_claims` found their topic in which way.

    Raises `ValueError` for a switch that is not one, or where an embedder is needed and cannot be had.
    """

    def __init__(
        self,
        source: KnowledgeSource,
        *,
        method: Method = "bm25",
        k: int = 5,
        always_lead: bool = True,
        topic_in_query: bool = False,
        tokenize: Literal["words", "whitespace"] = "words",
        embedder: Embedder | str | None = None,
    ) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; retrieve at least one passage")
        if method not in ("bm25", "embedding", "hybrid"):
            raise ValueError(f"method is {method!r}; choose bm25, embedding or hybrid")
        if tokenize not in _TOKENS:
            raise ValueError(f"tokenize is {tokenize!r}; choose {' or '.join(_TOKENS)}")
        if method == "bm25":
            embedder = None
        elif embedder is None or isinstance(embedder, str):
            embedder = SentenceEmbedder(embedder or DEFAULT_MODEL)
        self.source = source
        self.method = method
        self.k = k
        self.always_lead = always_lead
        self.topic_in_query = topic_in_query
        self.tokenize = tokenize
        self.embedder = embedder
        self.counts: Counter[str] = Counter()
        self._articles: OrderedDict[str, _Article] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def factscore(
        cls, source: KnowledgeSource, *, k: int = 5, method: Literal["bm25", "embedding"] = "bm25"
    ) -> Retriever:
        """The published algorithm's retrieval: topic and claim as query, no passage forced in.

        BM25 with its tokenisation (`Retrieval.get_bm25_passages` in FActScore), or GTR vectors
        (`get_gtr_passages`).
        """
        return cls(
            source,
            method=method,
            k=k,
            always_lead=False,
            topic_in_query=True,
            tokenize="whitespace",
            embedder=FACTSCORE_MODEL,
        )

    @property
    def fingerprint(self) -> str:
        """Everything that decides what evidence a claim gets, in a line."""
        embedder = self.embedder.name if self.embedder else ""
        switches = (self.method, self.k, self.always_lead, self.topic_in_query, self.tokenize, embedder)
        return "|".join(map(str, (self.source.fingerprint, *switches)))

    def resolve(self, topic: str) -> Resolution:
        """The article that `topic` names; kept, so that asking again costs nothing."""
        return self._article(topic).resolution

    def for_claims(self, topic: str, claims: Sequence[str]) -> tuple[Evidence, ...]:
        """Evidence for each claim, in order.

        Where the topic is empty or names no article, each claim is searched for in the whole corpus and marked
        `search`, or `none` where nothing is found.
        """
        article = self._article(topic)
        resolution = article.resolution
        with self._lock:
            self.counts[resolution.found] += 1
        if not article.passages:
            return tuple(self._searched(topic, claim) for claim in claims)
        queries = [f"{topic} {claim.strip()}" if self.topic_in_query else claim for claim in claims]
        evidence: list[Evidence] = []
        for order in self._orders(article, queries):
            if self.always_lead:
                order = [0, *(position for position in order if position != 0)]
            chosen = tuple(article.passages[position] for position in order[: self.k])
            evidence.append(Evidence(chosen, resolution.found, resolution.title))
        return tuple(evidence)

    def _article(self, topic: str) -> _Article:
        with self._lock:
            article = self._articles.get(topic)
            if article is not None:
                self._articles.move_to_end(topic)
                return article
        resolution = self.source.resolve(topic)
        passages = self.source.passages(resolution.title) if resolution.title else ()
        indexed = tuple(passage.text for passage in passages)
        if self.tokenize == "whitespace" and passages:
            indexed = tuple(passage.text for passage in self.source.passages(resolution.title, markers=True))
        article = _Article(resolution, passages, indexed, _TOKENS[self.tokenize], self.embedder)
        with self._lock:
            self._articles[topic] = article
            while len(self._articles) > _KEPT_ARTICLES:
                self._articles.popitem(last=False)
        return article

    def _orders(self, article: _Article, queries: Sequence[str]) -> list[list[int]]:
        """Positions of the article's passages for each query, best first; at least `k` of them."""
        if self.embedder is None:
            return [article.words.top(article.tokenize(query), self.k) for query in queries]
        dense = [by_likeness(article.vectors, query) for query in self.embedder.encode(queries)]
        if self.method == "embedding":
            return dense
        every = len(article.passages)
        return [
            fuse((article.words.top(article.tokenize(query), every), likest))
            for query, likest in zip(queries, dense, strict=True)
        ]

    def _searched(self, topic: str, claim: str) -> Evidence:
        # A claim may say "he": the topic's words have to be in the query too.
        query = f"{topic} {claim}".strip()
        if self.embedder is None:
            passages = self.source.search(query, self.k)
        else:
            passages = self._reranked(query, self.source.search(query, self.k * _CANDIDATES))
        return Evidence(passages, "search" if passages else "none")

    def _reranked(self, query: str, passages: tuple[Passage, ...]) -> tuple[Passage, ...]:
        """The `k` of the found passages that embeddings (with the search's own order, if hybrid) put first."""
        if not passages:
            return ()
        assert self.embedder is not None
        texts = [f"{passage.title} {passage.text}" for passage in passages]
        vectors = self.embedder.encode([*texts, query])
        order = by_likeness(vectors[:-1], vectors[-1])
        if self.method == "hybrid":
            order = fuse((range(len(passages)), order))
        return tuple(passages[position] for position in order[: self.k])
