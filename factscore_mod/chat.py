"""Asking a language model: a request, a reply, and the cache and budget in front of the model.

An *engine* sends a request and brings back a reply (`judges/openai.py`, `judges/local.py`, `judges/mock.py`).
`Chat` puts the reply cache, the budget and the count of what was spent in front of it, and asks again when a
reply cannot be read. Judges (`judges/prompted.py`) only see `Chat`.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from factscore_mod.budget import Budget
from factscore_mod.cache import ReplyCache, cache_key
from factscore_mod.cost import PriceTable, estimate_tokens
from factscore_mod.records import Usage

Form = Literal["json", "line"]
Stage = Literal["decompose", "verify", "teach", "synthesize"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to a model.

    `prompt` names the prompt file with version and hash. `user` is followed by `as_json` where the engine
    holds the reply to `schema`, and by `as_line` where it cannot. `choices`, where given, are all the replies
    allowed. `logprobs` asks for the alternatives of each token of the reply.
    """

    stage: Stage
    prompt: str
    system: str
    user: str
    as_json: str = ""
    as_line: str = ""
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    max_tokens: int = 1024
    logprobs: bool = False

    def message(self, form: Form) -> str:
        """The user message for one form of reply."""
        tail = self.as_json if form == "json" else self.as_line
        return f"{self.user}\n\n{tail}" if tail else self.user

    def key(self) -> list[Any]:
        """Everything that can change the reply, as JSON values."""
        return [
            self.prompt,
            self.system,
            self.user,
            self.as_json,
            self.as_line,
            self.schema,
            self.choices,
            self.max_tokens,
            self.logprobs,
        ]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply, and the log-probabilities of those that could have stood there, itself included."""

    text: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote: `form` is the instruction it answered, `finish` is `length` where it was cut off."""

    text: str
    form: Form = "line"
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: tuple[Token, ...] = ()


class CallFailed(Exception):
    """A request was given up after its retries. Its claims get the verdict `error` with this reason."""


class Engine(Protocol):
    """A language model. `settings` are all that can change a reply: JSON values, never a credential."""

    name: str
    model: str
    settings: Mapping[str, Any]

    async def send(self, ask: Ask) -> Reply:
        """The model's reply. Raises CallFailed when given up, JudgeError when no request can ever work."""

    async def aclose(self) -> None:
        """Let connections go. The engine may be used again."""


@dataclass(slots=True)
class Plan:
    """What a dry run would send in one stage."""

    calls: int = 0
    cached_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = 0.0


@dataclass(slots=True)
class Ledger:
    """What the judges of one scorer share: cache, budget, prices, and the count of what was spent.

    `sent` counts requests that were answered now, `cached` replies that were not asked for again. In a `dry`
    ledger nothing is sent or stored: replies that are missing are made up, and `plans` adds up their cost.
    Finished responses from the cache are planned as the stage `finished`.
    """

    cache: ReplyCache | None = None
    budget: Budget = field(default_factory=Budget)
    prices: PriceTable = field(default_factory=PriceTable)
    dry: bool = False
    sent: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    plans: defaultdict[str, Plan] = field(default_factory=lambda: defaultdict(Plan))

    def count_stored(self, usage: Usage) -> None:
        """Note that a finished response was taken from the cache, with all its calls."""
        self.cached += usage.calls
        self.plans["finished"].cached_calls += usage.calls


class Chat:
    """An engine behind cache and budget."""

    def __init__(self, engine: Engine, ledger: Ledger, reasks: int = 2) -> None:
        self.engine = engine
        self.ledger = ledger
        self.reasks = reasks
        self.name = engine.name
        self.fingerprint = cache_key(engine.model, engine.settings).hex()[:16]
        self._under_way: dict[bytes, asyncio.Future[tuple[Reply, Usage]]] = {}

    async def ask(self, ask: Ask, readable: Callable[[Reply], bool]) -> tuple[Reply, Usage]:
        """A reply and what it cost when it was bought (`cached_calls` says whether that was earlier).

        A reply that is not `readable` is asked for again, `reasks` times at most; the last one is kept as it
        is. Equal requests at the same time are sent once. Raises CallFailed, BudgetReached, JudgeError.
        """
        key = cache_key("reply", self.engine.model, self.engine.settings, ask.key())
        stored = self._stored(key)
        if stored is not None:
            self.ledger.plans[ask.stage].cached_calls += stored[1].calls
            return stored
        if self.ledger.dry:
            return self._pretend(ask)
        while (twin := self._under_way.get(key)) is not None:
            try:
                reply, usage = await asyncio.shield(twin)
                return reply, _as_cached(usage)
            except asyncio.CancelledError:
                if not twin.cancelled():
                    raise
        future = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        try:
            answer = await self._buy(ask, readable, key)
        except BaseException as problem:
            if isinstance(problem, Exception):
                future.set_exception(problem)
                future.exception()  # marks it as seen, for the case that nobody else waits
            else:
                future.cancel()
            raise
        else:
            future.set_result(answer)
            return answer
        finally:
            del self._under_way[key]

    async def _buy(self, ask: Ask, readable: Callable[[Reply], bool], key: bytes) -> tuple[Reply, Usage]:
        price = self.ledger.prices.get(self.engine.model)
        usage = Usage()
        reply = Reply("")
        for attempt in range(1 + self.reasks):
            length = estimate_tokens(ask.system + ask.message("json"))
            highest = price.of(length, ask.max_tokens) if price else 0.0
            self.ledger.budget.reserve(highest)
            dollars = 0.0
            try:
                reply = await self.engine.send(ask)
                dollars = price.of(reply.prompt_tokens, reply.completion_tokens) if price else 0.0
            except CallFailed:
                if attempt == 0:
                    raise
                break
            finally:
                self.ledger.budget.settle(highest, dollars)
            usage = self._count(usage, reply, dollars)
            if readable(reply):
                break
        if self.ledger.cache is not None:
            self.ledger.cache.put(key, _to_row(reply, usage))
        return reply, usage

    def _count(self, usage: Usage, reply: Reply, dollars: float) -> Usage:
        ledger = self.ledger
        ledger.sent += 1
        ledger.prompt_tokens += reply.prompt_tokens
        ledger.completion_tokens += reply.completion_tokens
        ledger.dollars += dollars
        return Usage(
            calls=usage.calls + 1,
            prompt_tokens=usage.prompt_tokens + reply.prompt_tokens,
            completion_tokens=usage.completion_tokens + reply.completion_tokens,
            dollars=usage.dollars + dollars,
        )

    def _stored(self, key: bytes) -> tuple[Reply, Usage] | None:
        text = self.ledger.cache.get(key) if self.ledger.cache is not None else None
        if text is None:
            return None
        reply, usage = _from_row(text)
        self.ledger.cached += usage.calls
        return reply, _as_cached(usage)

    def _pretend(self, ask: Ask) -> tuple[Reply, Usage]:
        """A made-up reply of a dry run, with its cost noted."""
        from factscore_mod.judges.mock import answer

        reply = Reply(answer(ask.system, ask.message("line")))
        price = self.ledger.prices.get(self.engine.model)
        plan = self.ledger.plans[ask.stage]
        prompt_tokens = estimate_tokens(ask.system + ask.message("json"))
        completion_tokens = estimate_tokens(reply.text) * (3 if ask.schema else 1)
        plan.calls += 1
        plan.prompt_tokens += prompt_tokens
        plan.completion_tokens += completion_tokens
        if price is None:
            plan.dollars = None
        elif plan.dollars is not None:
            plan.dollars += price.of(prompt_tokens, completion_tokens)
        return reply, Usage()

    async def aclose(self) -> None:
        """Close the engine's connections."""
        await self.engine.aclose()


def _to_row(reply: Reply, usage: Usage) -> str:
    """What the cache keeps of a reply: plain fields in a fixed order."""
    tokens = [[token.text, token.alternatives] for token in reply.tokens]
    counts = [reply.prompt_tokens, reply.completion_tokens, usage.calls]
    totals = [usage.prompt_tokens, usage.completion_tokens, usage.dollars]
    return json.dumps([reply.text, reply.form, reply.finish, tokens, *counts, *totals])


def _from_row(text: str) -> tuple[Reply, Usage]:
    words, form, finish, tokens, prompt, completion, calls, all_prompt, all_completion, dollars = json.loads(text)
    made = tuple(Token(word, tuple((other, logprob) for other, logprob in others)) for word, others in tokens)
    usage = Usage(calls, 0, all_prompt, all_completion, dollars)
    return Reply(words, form, finish, prompt, completion, made), usage


def _as_cached(usage: Usage) -> Usage:
    return Usage(usage.calls, usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.dollars)
