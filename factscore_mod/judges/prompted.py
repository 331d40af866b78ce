"""Decomposition and verification by prompting a language model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from factscore_mod.cache import cache_key
from factscore_mod.chat import Ask, CallFailed, Chat, Reply
from factscore_mod.judges.base import DecompositionFailed
from factscore_mod.profiles import Profile
from factscore_mod.prompting import fence, load_prompt, neutralise
from factscore_mod.published import filter_facts, has_no_facts, parse_facts, read_true_false
from factscore_mod.records import Claim, Evidence, Judgement, Passage, Sentence, Usage, Verdict
from factscore_mod.replies import (
    CLAIMS_SCHEMA,
    VERDICTS_SCHEMA,
    parse_claims,
    parse_verdicts,
    true_false_score,
    verdict_scores,
)
from factscore_mod.usage import total

_SENTENCES_PER_CALL = 30
_EVIDENCE_CHARACTERS = 40_000


class WholeDecomposer:
    """Asks once for the claims of a whole response, its sentences numbered (30 a call at most)."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.name = chat.name
        self.prompt = load_prompt("decompose_whole.v1")
        self.fingerprint = cache_key(chat.fingerprint, self.prompt.identity, _SENTENCES_PER_CALL).hex()[:16]

    async def decompose(
        self, topic: str, text: str, sentences: tuple[Sentence, ...]
    ) -> tuple[tuple[Claim, ...], Usage]:
        """Raises DecompositionFailed where replies did not come or could not be read."""
        parts = [sentences[i : i + _SENTENCES_PER_CALL] for i in range(0, len(sentences), _SENTENCES_PER_CALL)]
        results = await asyncio.gather(*[self._part(topic, part) for part in parts])
        usage = total(used for _, _, used in results)
        claims = tuple(claim for made, _, _ in results for claim in made)
        failed = {
            sentence.index: failure
            for part, (_, failure, _) in zip(parts, results, strict=True)
            if failure is not None
            for sentence in part
        }
        if failed:
            raise DecompositionFailed(claims, failed, usage)
        return claims, usage

    async def _part(self, topic: str, sentences: Sequence[Sentence]) -> tuple[list[Claim], Judgement | None, Usage]:
        numbered = [f"{s.index + 1}. {neutralise(s.text)}" for s in sentences]
        numbers = {s.index + 1 for s in sentences}
        ask = Ask(
            stage="decompose",
            prompt=self.prompt.identity,
            system=self.prompt.fill("system"),
            user=self.prompt.fill(
                "user", topic=neutralise(topic) or "not given", sentences=fence("SENTENCES", *numbered)
            ),
            as_json=self.prompt.fill("json"),
            as_line=self.prompt.fill("line"),
            schema=CLAIMS_SCHEMA,
            max_tokens=500 + 3 * sum(map(len, numbered)) // 2,
        )
        try:
            reply, usage = await self.chat.ask(ask, lambda r: parse_claims(r, numbers) is not None)
        except CallFailed as failure:
            return [], Judgement("error", reason=f"decomposition: {failure}"), Usage()
        found = parse_claims(reply, numbers)
        if found is None:
            reason = "decomposition: the reply does not list claims in the form asked for"
            return [], Judgement("unparsed", reply.text, reason=reason), usage
        return [Claim(claim, number - 1) for number, claim in found], None, usage


class SentenceDecomposer:
    """The published decomposition: every sentence alone, after fixed and picked demonstrations.

    Source: Min et al. 2023, appendix A; shmsw25/FActScore, `atomic_facts.py`. Demonstrations and wording are
    ours.
    """

    def __init__(self, chat: Chat, profile: Profile) -> None:
        self.chat = chat
        self.profile = profile
        self.name = chat.name
        self.prompt = load_prompt("decompose_sentence.v1")
        text, self.demonstrations = _demonstrations()
        self.fingerprint = cache_key(chat.fingerprint, self.prompt.identity, text, profile.fingerprint).hex()[:16]
        self._index: Any = None

    async def decompose(
        self, topic: str, text: str, sentences: tuple[Sentence, ...]
    ) -> tuple[tuple[Claim, ...], Usage]:
        """Raises DecompositionFailed where replies did not come or were empty."""
        asked = [s for s in sentences if not has_no_facts(s.text, s.index)]
        replies = await asyncio.gather(*[self._sentence(s) for s in asked], return_exceptions=True)
        failed: dict[int, Judgement] = {}
        facts: dict[int, list[str]] = {}
        usages: list[Usage] = []
        for sentence, answer in zip(asked, replies, strict=True):
            if isinstance(answer, CallFailed):
                failed[sentence.index] = Judgement("error", reason=f"decomposition: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                reply, usage = answer
                usages.append(usage)
                if reply.text.strip():
                    facts[sentence.index] = parse_facts(reply.text)
                else:
                    failed[sentence.index] = Judgement("unparsed", reason="decomposition: the reply is empty")
        if self.profile.number_filter:
            facts = {index: filter_facts(sentences[index].text, made) for index, made in facts.items()}
        claims = tuple(Claim(fact.strip(), index) for index, made in sorted(facts.items()) for fact in made)
        if failed:
            raise DecompositionFailed(claims, failed, total(usages))
        return claims, total(usages)

    async def _sentence(self, sentence: Sentence) -> tuple[Reply, Usage]:
        fixed = self.demonstrations[: self.profile.fixed_demonstrations]
        shown = [
            self.prompt.fill(
                "demonstration", sentence=demo["sentence"], facts="\n".join(f"- {fact}" for fact in demo["facts"])
            )
            for demo in [*fixed, *self._nearest(sentence.text)]
        ]
        ask = Ask(
            stage="decompose",
            prompt=self.prompt.identity,
            system=self.prompt.fill("system"),
            user=self.prompt.fill(
                "user",
                demonstrations="\n\n".join(shown),
                sentence=fence("SENTENCE", neutralise(sentence.text)),
            ),
            max_tokens=512,
        )
        return await self.chat.ask(ask, lambda reply: bool(reply.text.strip()))

    def _nearest(self, sentence: str) -> list[dict[str, Any]]:
        """The demonstrations nearest to the sentence by BM25 over words cut at spaces."""
        import numpy as np
        from rank_bm25 import BM25Okapi

        if self._index is None:
            self._index = BM25Okapi([demo["sentence"].split(" ") for demo in self.demonstrations])
        scores = self._index.get_scores(sentence.split(" "))
        best = np.argsort(-scores, kind="stable")[: self.profile.picked_demonstrations]
        return [self.demonstrations[i] for i in best]


class StructuredVerifier:
    """Judges many claims of one response in one call, against all passages retrieved for any of them."""

    def __init__(self, chat: Chat, profile: Profile) -> None:
        self.chat = chat
        self.size = profile.claims_per_call
        self.name = chat.name
        self.prompt = load_prompt("verify_structured.v1")
        self.fingerprint = cache_key(chat.fingerprint, self.prompt.identity, self.size, _EVIDENCE_CHARACTERS).hex()[:16]

    async def verify(
        self, topic: str, claims: tuple[Claim, ...], evidence: tuple[Evidence, ...]
    ) -> tuple[tuple[Judgement, ...], Usage]:
        """One judgement a claim. A claim that a reply leaves out is asked about once more, alone."""
        batches = list(_batches(evidence, self.size))
        answers = await asyncio.gather(*[self._ask(topic, claims, evidence, batch) for batch in batches])
        judgements = {i: judgement for made, _ in answers for i, judgement in made.items()}
        usages = [usage for _, usage in answers]
        left = [i for i, judgement in judgements.items() if judgement.verdict == "unparsed"]
        if left and len(claims) > 1:
            again = await asyncio.gather(*[self._ask(topic, claims, evidence, [i]) for i in left])
            judgements |= {i: judgement for made, _ in again for i, judgement in made.items()}
            usages += [usage for _, usage in again]
        return tuple(judgements[i] for i in range(len(claims))), total(usages)

    async def _ask(
        self, topic: str, claims: Sequence[Claim], evidence: Sequence[Evidence], batch: Sequence[int]
    ) -> tuple[dict[int, Judgement], Usage]:
        passages = _union(evidence[i] for i in batch)
        ask = Ask(
            stage="verify",
            prompt=self.prompt.identity,
            system=self.prompt.fill("system"),
            user=self.prompt.fill(
                "user",
                topic=neutralise(topic) or "not given",
                passages=_fence_passages(passages),
                claims=fence("CLAIMS", *[f"{n}. {neutralise(claims[i].text)}" for n, i in enumerate(batch, 1)]),
            ),
            as_json=self.prompt.fill("json"),
            as_line=self.prompt.fill("line"),
            schema=VERDICTS_SCHEMA,
            max_tokens=200 + 25 * len(batch),
            logprobs=True,
        )
        size = len(batch)
        try:
            reply, usage = await self.chat.ask(ask, lambda r: len(parse_verdicts(r, size)) == size)
        except CallFailed as failure:
            return dict.fromkeys(batch, Judgement("error", reason=str(failure))), Usage()
        verdicts = parse_verdicts(reply, size)
        scores = verdict_scores(reply, size)
        made: dict[int, Judgement] = {}
        for number, i in enumerate(batch, 1):
            verdict = verdicts.get(number)
            if verdict is None:
                made[i] = Judgement("unparsed", reply.text, reason="the reply has no readable verdict on it")
            else:
                made[i] = Judgement(verdict, reply.text, scores.get(number))
        return made, usage


class TrueFalseVerifier:
    """The published verification: one question a claim, the later of True and False in the reply decides.

    Source: Min et al. 2023, section 4; shmsw25/FActScore, `factscorer.py`. The wording is ours.
    """

    def __init__(self, chat: Chat, profile: Profile) -> None:
        self.chat = chat
        self.empty_is_supported = profile.empty_reply_is_supported
        self.name = chat.name
        self.prompt = load_prompt("verify_true_false.v1")
        self.fingerprint = cache_key(chat.fingerprint, self.prompt.identity, self.empty_is_supported).hex()[:16]

    async def verify(
        self, topic: str, claims: tuple[Claim, ...], evidence: tuple[Evidence, ...]
    ) -> tuple[tuple[Judgement, ...], Usage]:
        """One judgement a claim, one call each."""
        answers = await asyncio.gather(
            *[self._ask(topic, claim, found) for claim, found in zip(claims, evidence, strict=True)]
        )
        return tuple(judgement for judgement, _ in answers), total(usage for _, usage in answers)

    async def _ask(self, topic: str, claim: Claim, evidence: Evidence) -> tuple[Judgement, Usage]:
        ask = Ask(
            stage="verify",
            prompt=self.prompt.identity,
            system=self.prompt.fill("system"),
            user=self.prompt.fill(
                "user",
                topic=neutralise(topic) or "the subject",
                passages=_fence_passages(tuple(reversed(evidence.passages))),
                claim=fence("STATEMENT", neutralise(claim.text)),
            ),
            choices=("True", "False"),
            max_tokens=128,
            logprobs=True,
        )
        try:
            reply, usage = await self.chat.ask(
                ask, lambda r: read_true_false(r.text, self.empty_is_supported) is not None
            )
        except CallFailed as failure:
            return Judgement("error", reason=str(failure)), Usage()
        supported = read_true_false(reply.text, self.empty_is_supported)
        if supported is None:
            return Judgement("unparsed", reply.text, reason="the reply says neither True nor False"), usage
        verdict: Verdict = "supported" if supported else "not_supported"
        return Judgement(verdict, reply.text, true_false_score(reply)), usage


def _batches(evidence: Sequence[Evidence], size: int) -> Iterable[list[int]]:
    """Neighbouring claims, `size` at most, as long as their passages together stay within bounds."""
    batch: list[int] = []
    held: dict[Passage, None] = {}
    for i, found in enumerate(evidence):
        together = held | dict.fromkeys(found.passages)
        if batch and (len(batch) >= size or sum(len(p.text) for p in together) > _EVIDENCE_CHARACTERS):
            yield batch
            batch, together = [], dict.fromkeys(found.passages)
        batch.append(i)
        held = together
    if batch:
        yield batch


def _union(evidence: Iterable[Evidence]) -> tuple[Passage, ...]:
    """Every passage once, in the order of the articles: prompts of one topic then begin alike."""
    passages = dict.fromkeys(passage for found in evidence for passage in found.passages)
    return tuple(sorted(passages, key=lambda passage: (passage.title, passage.index)))


def _fence_passages(passages: Sequence[Passage]) -> str:
    return fence("PASSAGES", *(map(_passage_line, passages) if passages else ["(nothing was found)"]))


@lru_cache(maxsize=4096)
def _passage_line(passage: Passage) -> str:
    return f"[{neutralise(passage.title)}] {neutralise(passage.text)}"


@cache
def _demonstrations() -> tuple[str, list[dict[str, Any]]]:
    text = files("factscore_mod").joinpath("prompts", "demonstrations.v1.json").read_text("utf-8")
    return text, json.loads(text)
