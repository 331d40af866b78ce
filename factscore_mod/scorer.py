"""`FactScorer`: topics and responses in, scored claims out.

    from factscore_mod.scorer import FactScorer

    scorer = FactScorer("rules", Path("wiki.db"))
    [scored] = scorer.score(["Ada Lovelace"], ["Ada Lovelace was born in 1815 in London."])
    print([(c.claim.text, c.judgement.verdict) for c in scored.claims])

A response goes through five steps: abstention check, sentences, claims, evidence, verdicts. Each finished
response is kept in the cache under everything that it was made from, so that the same work is never done or
paid twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from factscore_mod.abstain import is_abstention
from factscore_mod.budget import Budget, BudgetReached
from factscore_mod.cache import ReplyCache, cache_key
from factscore_mod.chat import Ledger
from factscore_mod.cost import PriceTable
from factscore_mod.inputs import Generation
from factscore_mod.judges import DecompositionFailed, Judge, JudgeOptions, make_judge
from factscore_mod.knowledge import KnowledgeSource
from factscore_mod.outputs import response_from_json, response_to_json
from factscore_mod.profiles import Profile, get_profile
from factscore_mod.records import (
    Claim,
    Decomposer,
    Evidence,
    Judgement,
    ScoredClaim,
    ScoredResponse,
    Sentence,
    Usage,
    Verifier,
)
from factscore_mod.retrieval import Method, Retriever
from factscore_mod.retrieval_embedding import Embedder
from factscore_mod.sentences import Splitter, split_sentences
from factscore_mod.usage import total

T = TypeVar("T")

_VERSION = 2
"""Of the steps in this file. Raise it when the same judge replies would give other records."""


class FactScorer:
    """Scores long-form responses against a knowledge source.

    judge: a name of `factscore_mod.judges.JUDGES`, or a ready `Judge`. `decomposer` and `verifier` replace
        one half.
    knowledge: the SQLite file of a knowledge source, or an open one.
    profile: `modified`, `factscore`, or a `Profile` with its own switches.
    cache: a file for replies and finished responses; `None` keeps nothing.
    budget: limits on calls and money; reaching one raises BudgetReached after what is finished was handed
        over.
    prices: for `budget` and for the cost in the results. dry: send nothing, make replies up, add up the cost.
    retrieval: the retriever's method. embedder: its model where it has one, in place of the profile's.
    splitter: of sentences. window: responses in progress at once.
    """

    def __init__(
        self,
        judge: str | Judge = "rules",
        knowledge: Path | str | KnowledgeSource | None = None,
        *,
        profile: str | Profile = "modified",
        decomposer: str | Decomposer | None = None,
        verifier: str | Verifier | None = None,
        cache: Path | ReplyCache | None = None,
        options: JudgeOptions | None = None,
        budget: Budget | None = None,
        prices: PriceTable | None = None,
        retrieval: Method = "bm25",
        embedder: Embedder | str | None = None,
        splitter: Splitter = "nupunkt",
        window: int = 256,
        dry: bool = False,
    ) -> None:
        """Raises JudgeError, CacheError, KnowledgeError or ValueError when a part cannot be made."""
        self.profile = get_profile(profile)
        if knowledge is None:
            raise ValueError("FactScorer needs a knowledge source: the path of a SQLite file, or an open one")
        self.source = KnowledgeSource.open(Path(knowledge)) if isinstance(knowledge, (str, Path)) else knowledge
        self.retriever = Retriever(
            self.source,
            method=retrieval,
            k=self.profile.passages,
            always_lead=self.profile.always_lead,
            topic_in_query=self.profile.topic_in_query,
            tokenize=self.profile.query_words,
            embedder=embedder or self.profile.embedder,
        )
        self.cache = ReplyCache(cache) if isinstance(cache, (str, Path)) else cache
        self.ledger = Ledger(self.cache, budget or Budget(), prices or PriceTable(), dry=dry)
        if isinstance(judge, Judge):
            self.judge = judge
        else:
            self.judge = make_judge(
                judge,
                decomposer=decomposer,
                verifier=verifier,
                profile=self.profile,
                options=options,
                ledger=self.ledger,
            )
        self.splitter: Splitter = splitter
        self.window = window
        self.fingerprint = _hash(
            _VERSION,
            self.judge.decomposer.fingerprint,
            self.judge.verifier.fingerprint,
            self.profile.fingerprint,
            self.retriever.fingerprint,
            splitter,
        )

    def score(
        self,
        topics: Sequence[str],
        responses: Sequence[str],
        ids: Sequence[str] | None = None,
        claims: Sequence[Sequence[str] | None] | None = None,
    ) -> list[ScoredResponse]:
        """Score all responses, in order.

        `claims` gives the claims of a response where they are known already; nothing is decomposed then.
        Raises BudgetReached, JudgeError, or ValueError where the sequences differ in length.
        """
        return list(self.iter_score(topics, responses, ids, claims))

    async def ascore(
        self,
        topics: Sequence[str],
        responses: Sequence[str],
        ids: Sequence[str] | None = None,
        claims: Sequence[Sequence[str] | None] | None = None,
    ) -> list[ScoredResponse]:
        """`score` for callers with an event loop of their own."""
        try:
            return [scored async for scored in self.aiter_generations(generations(topics, responses, ids, claims))]
        finally:
            await self.aclose()

    def iter_score(
        self,
        topics: Sequence[str],
        responses: Sequence[str],
        ids: Sequence[str] | None = None,
        claims: Sequence[Sequence[str] | None] | None = None,
    ) -> Iterator[ScoredResponse]:
        """`score`, yielding each response in order as soon as it is done; see `iter_generations`."""
        return self.iter_generations(generations(topics, responses, ids, claims))

    def iter_generations(self, items: Iterable[Generation]) -> Iterator[ScoredResponse]:
        """Score many at once, and yield each in order as soon as it and all before it are done.

        Whoever appends what comes to a file can be killed at any moment and go on with the rest. On
        BudgetReached every response that could be finished has been yielded.
        """
        if self.judge.synchronous:
            for item in items:
                yield _step(self._score(item))
        else:
            yield from _iterate(self.aiter_generations(items), self.aclose)

    async def aiter_generations(self, items: Iterable[Generation]) -> AsyncGenerator[ScoredResponse]:
        """`iter_generations` inside an event loop. Call `aclose` afterwards."""
        source = iter(items)
        running: deque[asyncio.Task[ScoredResponse]] = deque()
        stopped: BudgetReached | None = None
        try:
            while True:
                while stopped is None and len(running) < self.window:
                    item = next(source, None)
                    if item is None:
                        break
                    running.append(asyncio.create_task(self._score(item)))
                if not running:
                    break
                try:
                    yield await running[0]
                except BudgetReached as reached:
                    stopped = reached
                running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if stopped is not None:
            raise stopped

    async def aclose(self) -> None:
        """Close connections. The scorer can be used again."""
        for closeable in self.judge.closeables:
            await closeable.aclose()

    async def _score(self, item: Generation) -> ScoredResponse:
        """One response, from the cache where it is there."""
        item = replace(item, topic=clean(item.topic), text=clean(item.text))
        if self.cache is None:
            return await self._score_fresh(item)
        key = cache_key("response", self.fingerprint, item.topic, item.text, item.claims)
        stored = self.cache.get(key)
        if stored is not None:
            scored = response_from_json(json.loads(stored))
            self.ledger.count_stored(scored.usage)
            return replace(scored, id=item.id, usage=replace(scored.usage, cached_calls=scored.usage.calls))
        scored = await self._score_fresh(item)
        if not scored.count("error") and not self.ledger.dry:
            row = json.dumps(response_to_json(scored), ensure_ascii=False, separators=(",", ":"))
            self.cache.put(key, row)
        return scored

    async def _score_fresh(self, item: Generation) -> ScoredResponse:
        sentences = split_sentences(item.text, self.splitter)
        abstained = self.profile.detect_abstentions and item.claims is None and is_abstention(item.text)
        claims: tuple[Claim, ...] = ()
        failed: dict[int, Judgement] = {}
        usage = Usage()
        if item.claims is not None:
            claims = tuple([Claim(text, locate(text, sentences)) for text in map(clean, item.claims) if text.strip()])
        elif not abstained and sentences:
            try:
                claims, usage = await self.judge.decomposer.decompose(item.topic, item.text, sentences)
            except DecompositionFailed as failure:
                claims, failed, usage = failure.claims, failure.failed, failure.usage
        if self.profile.deduplicate:
            claims = deduplicate(claims)
        evidence = self.retriever.for_claims(item.topic, [claim.text for claim in claims]) if claims else ()
        judgements: tuple[Judgement, ...] = ()
        if claims:
            judgements, spent = await self.judge.verifier.verify(item.topic, claims, evidence)
            usage = total((usage, spent))
        scored = [ScoredClaim(*parts) for parts in zip(claims, evidence, judgements, strict=True)]
        if failed:
            nothing = Evidence((), "none")
            scored += [ScoredClaim(Claim(sentences[i].text, i), nothing, why) for i, why in failed.items()]
            scored.sort(key=lambda claim: claim.claim.sentence)
        return ScoredResponse(
            id=item.id,
            topic=item.topic,
            text=item.text,
            abstained=abstained,
            sentences=sentences,
            claims=tuple(scored),
            topic_found=self.retriever.resolve(item.topic).found if item.topic else "none",
            usage=usage,
        )


def generations(
    topics: Sequence[str],
    responses: Sequence[str],
    ids: Sequence[str] | None = None,
    claims: Sequence[Sequence[str] | None] | None = None,
) -> list[Generation]:
    """Parallel sequences as records. Raises ValueError where their lengths differ or ids repeat."""
    if isinstance(topics, str) or isinstance(responses, str):
        raise ValueError("topics and responses must be sequences of strings, not one string")
    ids = ids if ids is not None else [str(i) for i in range(len(responses))]
    claims = claims if claims is not None else [None] * len(responses)
    lengths = {"topics": len(topics), "responses": len(responses), "ids": len(ids), "claims": len(claims)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"topics, responses, ids and claims must be equally many, not {lengths}")
    return [
        Generation(id=i, topic=topic, text=text, claims=None if given is None else tuple(given))
        for topic, text, i, given in zip(topics, responses, ids, claims, strict=True)
    ]


def deduplicate(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """The first of claims that are equal but for case, space and the final stop."""
    seen: dict[str, Claim] = {}
    for claim in claims:
        seen.setdefault(" ".join(claim.text.casefold().split()).rstrip(" ."), claim)
    return tuple(seen.values())


def locate(claim: str, sentences: Sequence[Sentence]) -> int:
    """The index of the sentence that shares most words with a given claim; the first of equals."""
    words = set(re.findall(r"\w+", claim.casefold()))
    shared = [len(words.intersection(re.findall(r"\w+", s.text.casefold()))) for s in sentences]
    return max(range(len(shared)), key=lambda i: (shared[i], -i)) if shared else 0


def clean(text: str) -> str:
    """The text without what UTF-8 cannot hold (lone surrogates become question marks)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _step(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("a judge declared as synchronous waited for something")


def _iterate(stream: AsyncGenerator[T], close: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """An asynchronous iterator as a plain one; in another thread where this one runs an event loop."""
    end = object()

    async def following() -> Any:
        return await anext(stream, end)

    try:
        asyncio.get_running_loop()
        busy = True
    except RuntimeError:
        busy = False
    # Not asyncio.Runner: it sets signal handlers at each step, at the price of a repr of every result.
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as thread:

        def run(work: Coroutine[Any, Any, Any]) -> Any:
            if busy:
                return thread.submit(loop.run_until_complete, work).result()
            return loop.run_until_complete(work)

        try:
            while (value := run(following())) is not end:
                yield value
        finally:
            run(stream.aclose())
            run(close())
            run(loop.shutdown_asyncgens())
            run(loop.shutdown_default_executor())
            loop.close()
