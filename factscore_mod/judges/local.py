"""A causal language model in process, by transformers.

A request with fixed choices costs one forward pass and gives a probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from factscore_mod.chat import CallFailed, Reply, Token
from factscore_mod.judges.base import JudgeOptions
from factscore_mod.judges.batches import BatchedEngine, Waiting
from factscore_mod.judges.models import load, pick_device, weights_fingerprint


class LocalEngine(BatchedEngine):
    """Batches requests through one model on one device."""

    def __init__(self, model: str, options: JudgeOptions) -> None:
        settings = {
            "weights": weights_fingerprint(model),
            "temperature": options.temperature,
            "seed": options.seed,
            "dtype": options.dtype,
        }
        super().__init__(f"local:{model}", model, options, settings, options.batch_size)
        self._model: Any = None
        self._device = ""

    def load(self) -> None:
        """Raises JudgeError where the model cannot be had."""
        from transformers import AutoModelForCausalLM

        self._device = pick_device(self.options.device)
        tokenizer, self._model = load(AutoModelForCausalLM, self.model, self.options.dtype, self._device)
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer = tokenizer

    def run(self, batch: Sequence[Waiting]) -> list[Reply | CallFailed]:
        """Those with fixed choices apart from the others; the queue has them in this order."""
        written = [waiting for waiting in batch if not waiting.ask.choices]
        chosen = [waiting for waiting in batch if waiting.ask.choices]
        return [
            *(self._generate(written) if written else []),
            *(self._choose(chosen) if chosen else []),
        ]

    def _tokens(self, batch: Sequence[Waiting]) -> Any:
        texts = [waiting.text for waiting in batch]
        special = self.adds_special_tokens
        return self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=special).to(self._device)

    def _room(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)

    def _choose(self, batch: Sequence[Waiting]) -> list[Reply | CallFailed]:
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
        encoded = [self.tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings]
        first = {ids[0] if self.tokenizer.decode(ids[:1]).strip() else ids[1] for ids in encoded if len(ids) > 0}
        return sorted(first)

    def _generate(self, batch: Sequence[Waiting]) -> list[Reply | CallFailed]:
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
                **tokens, max_new_tokens=limit, pad_token_id=self.tokenizer.pad_token_id, **settings
            )[:, length:]
        ends = _as_set(self._model.generation_config.eos_token_id) | {self.tokenizer.pad_token_id}
        replies: list[Reply | CallFailed] = []
        for row, ids in enumerate(written.tolist()):
            count = next((i for i, token in enumerate(ids) if token in ends), len(ids))
            replies.append(
                Reply(
                    self.tokenizer.decode(ids[:count], skip_special_tokens=True).strip(),
                    finish="length" if count == len(ids) else "stop",
                    prompt_tokens=int(tokens["attention_mask"][row].sum()),
                    completion_tokens=count,
                )
            )
        return replies

    def _one_by_one(self, batch: Sequence[Waiting], run: Any) -> list[Reply | CallFailed]:
        """A batch in which some prompt is too long, each alone; what does not fit by itself has failed."""
        if len(batch) == 1:
            return [self.no_room(self._room())]
        return [run([waiting])[0] for waiting in batch]


def _as_set(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)
