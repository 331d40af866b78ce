"""Models in process answer in batches: requests that wait at the same time are sorted by their text and run together.

Those about one topic begin alike and so stand together: a batch of them shares the cached prefix where the engine
keeps one, and is padded little where it does not.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from factscore_mod.chat import Ask, CallFailed, Form, Reply
from factscore_mod.judges.base import JudgeOptions


@dataclass(slots=True)
class Waiting:
    """A request in the queue, with its whole prompt as text."""

    ask: Ask
    text: str
    reply: asyncio.Future[Reply]


class BatchedEngine(ABC):
    """The queue in front of a model; the model runs in a thread of its own.

    `most` is the largest batch. Subclasses set `tokenizer` in `load`.
    """

    def __init__(self, name: str, model: str, options: JudgeOptions, settings: Mapping[str, Any], most: int) -> None:
        self.name = name
        self.model = model
        self.options = options
        self.settings = settings
        self.most = most
        self.tokenizer: Any = None
        self._waiting: list[Waiting] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @abstractmethod
    def load(self) -> None:
        """Load tokenizer and model, once. Raises JudgeError where they cannot be had."""

    @abstractmethod
    def run(self, batch: Sequence[Waiting]) -> list[Reply | CallFailed]:
        """One answer a request, in order."""

    def form(self, ask: Ask) -> Form:
        """The form in which this engine is asked."""
        return "line"

    async def send(self, ask: Ask) -> Reply:
        """The model's reply. Raises CallFailed for a prompt that does not fit, JudgeError for no such model."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        loop = asyncio.get_running_loop()
        if self.tokenizer is None:
            await loop.run_in_executor(self._thread, self._load_once)
        waiting = Waiting(ask, self._text(ask), loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.reply

    async def aclose(self) -> None:
        """Stop the thread; the model stays loaded."""
        if self._worker is not None and not self._worker.done():
            self._worker.cancel()
        if self._thread is not None:
            self._thread.shutdown()
        self._worker = self._thread = None

    def no_room(self, room: int) -> CallFailed:
        """What to answer where a prompt leaves no room for a reply."""
        return CallFailed(f"the prompt does not fit into the model's {room} tokens")

    async def _work(self) -> None:
        """Run batches as long as requests wait."""
        await asyncio.sleep(0.01)  # lets the requests that were made together arrive
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._waiting.sort(key=lambda waiting: (bool(waiting.ask.choices), waiting.text))
            batch = self._waiting[: self.most]
            del self._waiting[: len(batch)]
            try:
                replies = await loop.run_in_executor(self._thread, self.run, batch)
            except Exception as problem:
                reason = f"{type(problem).__name__}: {problem}"
                replies = [CallFailed(" ".join(reason.split())[:300])] * len(batch)
            for waiting, reply in zip(batch, replies, strict=True):
                if waiting.reply.done():
                    continue
                if isinstance(reply, CallFailed):
                    waiting.reply.set_exception(reply)
                else:
                    waiting.reply.set_result(reply)

    def _load_once(self) -> None:
        if self.tokenizer is None:
            self.load()

    def _text(self, ask: Ask) -> str:
        """The whole prompt as text: by the model's chat template, or plainly where it has none."""
        message = ask.message(self.form(ask))
        if self.tokenizer.chat_template is None:
            return f"{ask.system}\n\n{message}\n\nAnswer:"
        turns = [{"role": "system", "content": ask.system}, {"role": "user", "content": message}]
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    @property
    def adds_special_tokens(self) -> bool:
        """Whether the tokenizer has to: a chat template writes its own beginning-of-sequence token."""
        return self.tokenizer.chat_template is None
