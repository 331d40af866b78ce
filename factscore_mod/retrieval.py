"""Evidence for claims: passages of the topic's article, or of the whole corpus where the topic has none.

retriever = Retriever(KnowledgeSource.open("wiki.db"))
evidence = retriever.for_claims("Marie Curie", ["She was born in Warsaw.", "She discovered radium."])
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from factscore_mod import tokens
from factscore_mod.bm25 import ArticleIndex
from factscore_mod.knowledge import KnowledgeSource, Resolution
from factscore_mod.records import Evidence, Passage

Method = Literal["bm25", "embedding", "hybrid"]

_KEPT_ARTICLES = 64
_TOKENS: dict[str, Callable[[str], list[str]]] = {"words": tokens.words, "whitespace": tokens.whitespace}


@dataclass(slots=True)
class _Article:
    resolution: Resolution
    passages: tuple[Passage, ...]
    index: ArticleIndex | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Retriever:
    """Finds `k` passages for each claim. Threads may share one.

    `always_lead` puts the article's first passage first among the evidence, whatever its rank. `topic_in_query`
    adds the topic to each query. `tokenize` is `words` (ours) or `whitespace` (FActScore's).
    `counts` tells how many calls of `for_claims` found their topic in which way.
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
    ) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; retrieve at least one passage")
        if method not in ("bm25", "embedding", "hybrid"):
            raise ValueError(f"method is {method!r}; choose bm25, embedding or hybrid")
        if tokenize not in _TOKENS:
            raise ValueError(f"tokenize is {tokenize!r}; choose {' or '.join(_TOKENS)}")
        self.source = source
        self.method = method
        self.k = k
        self.always_lead = always_lead
        self.topic_in_query = topic_in_query
        self.counts: Counter[str] = Counter()
        self._tokenize = _TOKENS[tokenize]
        self._tokenizer_name = tokenize
        self._articles: OrderedDict[str, _Article] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def factscore(cls, source: KnowledgeSource, *, k: int = 5) -> Retriever:
        """The published algorithm's retrieval with BM25: topic and claim as query, no passage forced in."""
        return cls(source, k=k, always_lead=False, topic_in_query=True, tokenize="whitespace")

    @property
    def fingerprint(self) -> str:
        """Everything that decides what evidence a claim gets."""
        switches = (self.method, self.k, self.always_lead, self.topic_in_query, self._tokenizer_name)
        return "|".join(map(str, (self.source.fingerprint, *switches)))

    def resolve(self, topic: str) -> Resolution:
        """The article that `topic` names; kept, so that asking again costs nothing."""
        return self._article(topic).resolution

    def for_claims(self, topic: str, claims: Sequence[str]) -> tuple[Evidence, ...]:
        """Evidence for each claim, in order.

        A topic that is empty or names no article is searched for in the whole corpus, claim by claim, and counts
        as `search`; a claim for which nothing is found there gets no passages and counts as `none`.
        """
        article = self._article(topic)
        with self._lock:
            self.counts[article.resolution.found] += 1
        if not article.passages:
            return tuple(self._searched(topic, claim) for claim in claims)
        return tuple(
            Evidence(self._select(article, topic, claim), article.resolution.found, article.resolution.title)
            for claim in claims
        )

    def _article(self, topic: str) -> _Article:
        with self._lock:
            article = self._articles.get(topic)
            if article is not None:
                self._articles.move_to_end(topic)
                return article
        resolution = self.source.resolve(topic)
        passages = self.source.passages(resolution.title) if resolution.title else ()
        article = _Article(resolution, passages)
        with self._lock:
            self._articles[topic] = article
            while len(self._articles) > _KEPT_ARTICLES:
                self._articles.popitem(last=False)
        return article

    def _select(self, article: _Article, topic: str, claim: str) -> tuple[Passage, ...]:
        passages = article.passages
        order = self._order(article, f"{topic} {claim.strip()}" if self.topic_in_query else claim)
        if self.always_lead:
            order = [0, *(position for position in order if position != 0)]
        return tuple(passages[position] for position in order[: self.k])

    def _order(self, article: _Article, query: str) -> list[int]:
        if article.index is None:
            with article.lock:
                if article.index is None:
                    article.index = ArticleIndex(
                        [self._tokenize(passage.text) for passage in article.passages]
                    )
        return article.index.top(self._tokenize(query), self.k)

    def _searched(self, topic: str, claim: str) -> Evidence:
        # A claim may say "he": the topic's words have to be in the query too.
        passages = self.source.search(f"{topic} {claim}", self.k)
        return Evidence(passages, "search" if passages else "none")
