"""Backends that have the model here: prompts are token ids with one BOS, made as for training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from harness.backends.backend import Backend
from harness.backends.decoding import Decoding, Generation, Request, finished
from harness.backends.weights import ADAPTER_CHECK_PROMPT, BackendError


class LocalBackend(Backend):
    """Generation for the base in a model folder, or of a hub id, in safetensors, and any number of its adapters."""

    def __init__(self, base_dir: str, batch_size: int, trust_remote_code: bool) -> None:
        super().__init__(batch_size)
        self.base_dir = base_dir
        self.trust_remote_code = trust_remote_code

    def _encode(self, request: Request) -> list[int]:
        ids = self._ids(request.prompt)
        if not ids:
            raise BackendError(f"request {request.id!r} has an empty prompt")
        return ids

    def _check_ids(self) -> list[int]:
        """The fixed prompt that an adapter must change something of."""
        return self._ids(ADAPTER_CHECK_PROMPT)

    def _ids(self, prompt: str) -> list[int]:
        from train.encode import encode_prompt

        return encode_prompt(prompt, self._tokenizer)

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _finish(
        self, id_: str, ids: Sequence[int], reason: Literal["stop", "length"], decoding: Decoding
    ) -> Generation:
        """An answer of new token ids, without EOS."""
        self._written += len(ids)
        return finished(id_, self._text(ids), len(ids), reason, decoding)

    def _check_context(self, tokens: int, context: int) -> None:
        if tokens >= context:
            raise BackendError(f"a prompt of {tokens} tokens does not fit {self.base_dir}, whose context is {context}")

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.base_dir, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as error:
            raise BackendError(f"{self.base_dir}: the tokenizer cannot be loaded: {error}") from error

    @cached_property
    def _eos_ids(self) -> frozenset[int]:
        """The tokenizer's EOS and those of the generation config (chat models list several)."""
        from transformers import AutoConfig, GenerationConfig

        try:
            listed = GenerationConfig.from_pretrained(self.base_dir).eos_token_id
        except OSError:
            config = AutoConfig.from_pretrained(self.base_dir, trust_remote_code=self.trust_remote_code)
            listed = getattr(config, "eos_token_id", None)
        ids = {listed} if isinstance(listed, int) else set(listed or ())
        if self._tokenizer.eos_token_id is not None:
            ids.add(self._tokenizer.eos_token_id)
        return frozenset(ids)
