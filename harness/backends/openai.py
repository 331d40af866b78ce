"""Answers of a model that is served behind an OpenAI-compatible endpoint, by its name there.

Text completions by default: the model reads the very prompt that it would read here. Chat models are asked by one
user message. Requests, retries and rate limits are those of the judges' client (factscore_mod.judges.endpoint);
every answer is kept in the reply cache, so that none is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factscore_mod.cache import ReplyCache, cache_key
from factscore_mod.chat import CallFailed
from factscore_mod.judges.base import JudgeError, JudgeOptions
from factscore_mod.judges.endpoint import Body, Endpoint
from harness.backends.backend import Backend, Worklist
from harness.backends.decoding import Decoding, Generation, Request, finished
from harness.backends.weights import BackendError
from harness.paths import home

# The API takes four stop strings at most; further ones are cut here alone.
MOST_STOPS = 4

# Raise when equal requests come to stand for other answers.
ANSWER_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Served:
    """Where and how a model is served.

    `base_url` defaults to OPENAI_BASE_URL; the key is OPENAI_API_KEY's. `chat` asks by chat completions.
    """

    base_url: str | None = None
    chat: bool = False
    concurrency: int = 256
    timeout: float = 600.0
    attempts: int = 12


class OpenAIBackend(Backend):
    """Generation by one served model; adapters are models of their own names there."""

    def __init__(self, model: str, served: Served | None = None, cache: Path | None = None) -> None:
        """`cache` defaults to the reply cache of the home folder. Raises BackendError for what is no endpoint."""
        self.model = model
        self.served = served or Served()
        super().__init__(self.served.concurrency)
        self._cache = cache or home() / "judge_cache.sqlite"
        # What the server says it cannot do is left out of the requests that follow.
        self._client()

    def _answers(self, work: Worklist, decoding: Decoding, adapter: Path | None) -> Iterator[list[Generation]]:
        """Many are asked at once, and yielded as they come; what was answered before a failure stays in the cache."""
        if adapter is not None:
            raise BackendError(
                f"{adapter}: a served model takes no adapter from here; serve it there and name it openai:NAME"
            )
        if not (opened := [work.requests[i] for (i,) in work.batches(1)]):
            return
        with closing(self._arriving(opened, decoding)) as answers:
            while True:
                with self._timed():
                    batch = next(answers, None)
                if batch is None:
                    return
                yield batch

    def _arriving(self, requests: Sequence[Request], decoding: Decoding) -> Generator[list[Generation]]:
        """Answers in the order of their coming, all that have come at a time; asking goes on in a thread meanwhile."""
        came: queue.SimpleQueue[Generation | BaseException | None] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._ask_all(requests, decoding, came.put))

        def ask() -> None:
            try:
                loop.run_until_complete(work)
                came.put(None)
            except asyncio.CancelledError:
                came.put(None)
            except BaseException as problem:
                came.put(problem)
            finally:
                loop.close()

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            while True:
                items = [came.get()]
                while not came.empty():
                    items.append(came.get())
                if batch := [item for item in items if isinstance(item, Generation)]:
                    yield batch
                last = items[-1]
                if isinstance(last, (JudgeError, CallFailed)):
                    raise BackendError(f"openai:{self.model}: {last}") from last
                if isinstance(last, BaseException):
                    raise last
                if last is None:
                    return
        finally:
            # Where the caller stops early, so does the asking.
            with suppress(RuntimeError):  # the loop may have ended by itself
                loop.call_soon_threadsafe(work.cancel)
            thread.join()

    async def _ask_all(
        self, requests: Sequence[Request], decoding: Decoding, give: Callable[[Generation], None]
    ) -> None:
        client = self._client()
        seeds = decoding.seeds([request.id for request in requests])
        waiting = zip(requests, seeds, strict=True)
        with ReplyCache(self._cache) as cache:

            async def work() -> None:
                for request, seed in waiting:
                    give(await self._one(client, cache, request, decoding, seed))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.served.concurrency, len(requests))):
                        group.create_task(work())
            except BaseExceptionGroup as problems:
                raise problems.exceptions[0] from None
            finally:
                await client.aclose()

    async def _one(
        self, client: _Client, cache: ReplyCache, request: Request, decoding: Decoding, seed: int | None
    ) -> Generation:
        settings = asdict(decoding) | {"seed": seed}
        key = cache_key("answer", ANSWER_FORMAT, self.model, client.place, self.served.chat, request.prompt, settings)
        stored = cache.get(key)
        if stored is None:
            text, tokens, finish = await client.complete(request.prompt, decoding, seed)
            cache.put(key, json.dumps([text, tokens, finish]))
            self._written += tokens
        else:
            text, tokens, finish = json.loads(stored)
        return finished(request.id, text, tokens, "length" if finish == "length" else "stop", decoding)

    def _client(self) -> _Client:
        options = JudgeOptions(
            base_url=self.served.base_url,
            concurrency=self.served.concurrency,
            timeout=self.served.timeout,
            attempts=self.served.attempts,
        )
        try:
            return _Client(self.model, options, self.served.chat)
        except JudgeError as error:
            raise BackendError(f"openai:{self.model}: {error}") from error


class _Client(Endpoint):
    """Completions of prompts, or of one user message."""

    def __init__(self, model: str, options: JudgeOptions, chat: bool) -> None:
        path, noun = ("chat/completions", "chat completion") if chat else ("completions", "completion")
        super().__init__(model, options, path=path, noun=noun)
        self._chat = chat
        self._seeded = True

    async def complete(self, prompt: str, decoding: Decoding, seed: int | None) -> tuple[str, int, str]:
        """The new text, its number of tokens, and why it ended."""
        return await self.exchange(lambda: (self._body(prompt, decoding, seed), self._read))

    def _body(self, prompt: str, decoding: Decoding, seed: int | None) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, self._limit_name: decoding.max_new_tokens}
        if self._chat:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self._temperature:
            body["temperature"] = decoding.temperature
        if decoding.stop:
            body["stop"] = list(decoding.stop[:MOST_STOPS])
        extra = {
            "top_p": decoding.top_p if decoding.temperature and decoding.top_p < 1 else None,
            "seed": seed if self._seeded else None,
            "min_tokens": decoding.min_new_tokens or None,
        }
        return body | {name: value for name, value in extra.items() if value is not None}

    def _do_without(self, message: str, body: Body) -> bool:
        """A seed is left out where it is refused; what else sampling or forced lengths need is insisted on."""
        if super()._do_without(message, body):
            return True
        if "seed" not in message or "seed" not in body:
            return False
        self._seeded = False
        return True

    def _read(self, answer: Any) -> tuple[str, int, str]:
        choice = answer["choices"][0]
        text = choice["message"].get("content") if self._chat else choice["text"]
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        return text or "", tokens, str(choice.get("finish_reason") or "stop")
