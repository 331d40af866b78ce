"""A causal language model in process, by transformers.

Requests that wait at the same time are sorted by their text and run in batches, so that those about one topic,
which begin alike, stand together. A request with fixed choices costs one forward pass and gives a probability.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from factscore_mod.chat import Ask, CallFailed, Reply, Token
from factscore_mod.judges.base import JudgeOptions
from factscore_mod.judges.models import load, pick_device, weights_fingerprint


@dataclass(slots=True)
class _Waiting:
    ask: Ask
    text: str
    reply: asyncio.Future[Reply]


class LocalEngine:
    """Batches requests through one model on one device."""

    def __init__(self, model: str, options: JudgeOptions) -> None:
        self.model = model
        self.name = f"local:{model}"
        self.options = options
        self.settings: Mapping[str, Any] = {
            "weights": weights_fingerprint(model),
            "temperature": options.temperature,
            "seed": options.seed,
            "dtype": options.dtype,
        }
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._tokenizer: Any = None
        self._model: Any = None
        self._device = ""

    async def send(self, ask: Ask) -> Reply:
        """The model's reply. Raises CallFailed for a prompt that does not fit, JudgeError for no such model."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        loop = asyncio.get_running_loop()
        if self._model is None:
            await loop.run_in_executor(self._thread, self._load)
        waiting = _Waiting(ask, self._text(ask), loop.create_future())
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

    async def _work(self) -> None:
        """Run batches as long as requests wait."""
        await asyncio.sleep(0)  # lets the requests that were made together arrive
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._waiting.sort(key=lambda waiting: (bool(waiting.ask.choices), waiting.text))
            kind = bool(self._waiting[0].ask.choices)
            batch = [w for w in self._waiting[: self.options.batch_size] if bool(w.ask.choices) == kind]
            del self._waiting[: len(batch)]
            run = self._choose if kind else self._generate
            try:
                replies = await loop.run_in_executor(self._thread, run, batch)
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

    def _load(self) -> None:
        from transformers import AutoModelForCausalLM

        if self._model is not None:
            return
        self._device = pick_device(self.options.device)
        self._tokenizer, self._model = load(AutoModelForCausalLM, self.model, self.options.dtype, self._device)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def _text(self, ask: Ask) -> str:
        """The whole prompt as text: by the model's chat template, or plainly where it has none."""
        message = ask.message("line")
        if self._tokenizer.chat_template is None:
            return f"{ask.system}\n\n{message}\n\nAnswer:"
        turns = [{"role": "system", "content": ask.system}, {"role": "user", "content": message}]
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    def _tokens(self, batch: Sequence[_Waiting]) -> Any:
        # A chat template writes its own beginning-of-sequence token.
        plain = self._tokenizer.chat_template is None
        texts = [waiting.text for waiting in batch]
        return self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=plain).to(self._device)

    def _room(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)

    def _choose(self, batch: Sequence[_Waiting]) -> list[Reply | CallFailed]:
        """The likelier choice by its first token, with the probabilities of all choices."""
        import torch

        tokens = self._tokens(batch)
        if tokens["input_ids"].shape[1] >= self._room():
            return self._one_by_one(batch, self._choose)
        with torch.inference_mode():
            logits = self._model(**tokens, logits_to_keep=1).logits[:, -1].float()
        logprobs = logits.log_softmax(-1)
        replies: list[Reply | CallFailed] = []
        for row, waiting in enumerate(batch):
            choices = waiting.ask.choices
            masses = [float(logprobs[row, self._first_tokens(choice)].logsumexp(0)) for choice in choices]
            best = max(range(len(choices)), key=masses.__getitem__)
            alternatives = tuple((c, m) for c, m in zip(choices, masses, strict=True) if math.isfinite(m))
            replies.append(
                Reply(
                    choices[best],
                    prompt_tokens=int(tokens["attention_mask"][row].sum()),
                    completion_tokens=1,
                    tokens=(Token(choices[best], alternatives),),
                )
            )
        return replies

    def _first_tokens(self, choice: str) -> list[int]:
        """The tokens that a choice can begin with: with and without a space, in both cases."""
        spellings = (choice, f" {choice}", choice.lower(), f" {choice.lower()}")
        encoded = [self._tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings]
        first = {ids[0] if self._tokenizer.decode(ids[:1]).strip() else ids[1] for ids in encoded if len(ids) > 0}
        return sorted(first)

    def _generate(self, batch: Sequence[_Waiting]) -> list[Reply | CallFailed]:
        import torch

        tokens = self._tokens(batch)
        length = tokens["input_ids"].shape[1]
        room = self._room() - length
        if room <= 0:
            return self._one_by_one(batch, self._generate)
        warm = self.options.temperature > 0
        settings = {"do_sample": warm, "temperature": self.options.temperature} if warm else {"do_sample": False}
        if warm and self.options.seed is not None:
            torch.manual_seed(self.options.seed)
        limit = min(room, max(waiting.ask.max_tokens for waiting in batch))
        with torch.inference_mode():
            written = self._model.generate(
                **tokens, max_new_tokens=limit, pad_token_id=self._tokenizer.pad_token_id, **settings
            )[:, length:]
        ends = _as_set(self._model.generation_config.eos_token_id) | {self._tokenizer.pad_token_id}
        replies: list[Reply | CallFailed] = []
        for row, ids in enumerate(written.tolist()):
            count = next((i for i, token in enumerate(ids) if token in ends), len(ids))
            replies.append(
                Reply(
                    self._tokenizer.decode(ids[:count], skip_special_tokens=True).strip(),
                    finish="length" if count == len(ids) else "stop",
                    prompt_tokens=int(tokens["attention_mask"][row].sum()),
                    completion_tokens=count,
                )
            )
        return replies

    def _one_by_one(self, batch: Sequence[_Waiting], run: Any) -> list[Reply | CallFailed]:
        """A batch in which some prompt is too long, each alone; what does not fit by itself has failed."""
        if len(batch) == 1:
            return [CallFailed(f"the prompt does not fit into the model's {self._room()} tokens")]
        return [run([waiting])[0] for waiting in batch]


def _as_set(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)
