"""Batched generation with transformers, on CPU or GPU, with peft adapters.

Floating-point sums depend on the shape of a batch, and a greedy choice between two near-equal tokens with them.
Batches are therefore cut from the whole list of requests: a run that was killed and taken up again, or that is spread
over several processes, writes the same bytes as one that was not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.backends.attention import use_grouped
from harness.backends.backend import Worklist
from harness.backends.decoding import Decoding, Generation, choose
from harness.backends.local import LocalBackend
from harness.backends.weights import AdapterInert, BackendError, load_adapter

if TYPE_CHECKING:
    import torch

# A beginning that all prompts share (few-shot examples) is read once; below this many tokens that saves nothing.
SHORTEST_PREFIX = 32

# Finished rows leave a batch when so large a part of it is done that copying the cache pays for itself.
SHRINK_BELOW = 0.75


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The key-value cache of a beginning that prompts share, for one row; `length` is in tokens."""

    length: int
    cache: Any


class TransformersBackend(LocalBackend):
    """Generation in this process, longest prompts first.

    `dtype` is `auto` (fp32 on CPU, bf16 on a GPU that has it, else fp16) or a torch dtype's name; `device` is `auto`
    (GPU if there is one) or a torch device; `attention` is `auto` (grouped SDPA on CPU, else SDPA) or a name that
    transformers knows. Decoder-only models with a key-value cache are supported.

    On fp32 bases an adapter is merged into a copy of the weights: 1.5 times as fast on small models and equal
    up to rounding in the seventh digit. Below fp32 merging would round the adapter away, so it stays apart.
    """

    def __init__(
        self,
        base_dir: Path | str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 64,
        attention: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(str(base_dir), batch_size, trust_remote_code)
        self._dtype = dtype
        self._device = device
        self._attention = attention
        self._adapted: tuple[str, Any] | None = None

    def _answers(self, work: Worklist, decoding: Decoding, adapter: Path | None) -> Iterator[list[Generation]]:
        ids = [self._encode(request) for request in work.requests]
        # Stable, so that equally long prompts keep their order.
        opened = work.batches(self.batch_size, sorted(range(len(ids)), key=lambda i: -len(ids[i])))
        if not opened:
            return
        model = self._with_adapter(adapter)
        prefix = self._read_prefix(model, ids)
        for batch in opened:
            names = [work.requests[i].id for i in batch]
            with self._timed():
                answers = self._decode(model, [ids[i] for i in batch], decoding, decoding.generators(names), prefix)
            yield [self._finish(name, *answer, decoding) for name, answer in zip(names, answers, strict=True)]

    # --- the loop ----------------------------------------------------------------------------------------

    def _read_prefix(self, model: Any, prompts: list[list[int]]) -> _Prefix:
        """The cache of the tokens that all prompts begin with, always leaving each prompt a token of its own."""
        import torch

        from harness.backends.cache import growing_cache

        length = min(_shared_length(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
        cache = growing_cache(model.config)
        if length < SHORTEST_PREFIX:
            return _Prefix(0, cache)
        self._check_context(length, self._context)
        with self._timed(), torch.inference_mode():
            ids = torch.tensor([prompts[0][:length]], device=model.device)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return _Prefix(length, cache)

    def _decode(
        self,
        model: Any,
        prompts: list[list[int]],
        decoding: Decoding,
        draws: list[random.Random],
        prefix: _Prefix,
    ) -> list[tuple[list[int], Literal["stop", "length"]]]:
        """New token ids (without EOS) and the reason of ending, for each prompt of one batch.

        A loop of our own rather than `generate` of transformers: it drops finished rows from the cache, shares
        the prefix, reads no sampling defaults from the model's folder, and spends 10 to 20 percent less on
        small models.
        """
        import torch

        rows, width = len(prompts), max(map(len, prompts))
        self._check_context(width, self._context)
        steps = min(decoding.max_new_tokens, self._context - width)
        eos = self._eos_ids
        ids = torch.full((rows, width), self._pad_id, dtype=torch.long)
        mask = torch.ones((rows, width + steps), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            # The padding stands between the shared prefix, which is in the cache already, and the rest.
            start = prefix.length + width - len(prompt)
            ids[row, start:] = torch.tensor(prompt[prefix.length :])
            mask[row, prefix.length : start] = 0
        ids, mask = ids[:, prefix.length :].to(model.device), mask.to(model.device)
        positions = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)[:, prefix.length :]

        written: list[list[int]] = [[] for _ in prompts]
        reasons: list[Literal["stop", "length"]] = ["length"] * rows
        alive = list(range(rows))  # the prompt that each row of the tensors belongs to
        ended: set[int] = set()
        cache = deepcopy(prefix.cache)
        with torch.inference_mode():
            if prefix.length:
                cache.batch_repeat_interleave(rows)
            for step in range(steps):
                logits = model(
                    input_ids=ids,
                    attention_mask=mask[:, : width + step],
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits
                scores = logits[:, -1]
                if step < decoding.min_new_tokens:
                    scores = scores.index_fill(-1, torch.tensor(sorted(eos), device=scores.device), -torch.inf)
                ids = choose(scores, decoding, [draws[i].random() for i in alive] if draws else ())
                positions = positions[:, -1:] + 1
                for prompt_index, token in zip(alive, ids[:, 0].tolist(), strict=True):
                    if prompt_index in ended:
                        continue
                    if token in eos:
                        ended.add(prompt_index)
                        reasons[prompt_index] = "stop"
                        continue
                    written[prompt_index].append(token)
                    if decoding.stop:
                        text = self._text(written[prompt_index])
                        if any(stop in text for stop in decoding.stop):
                            ended.add(prompt_index)
                if len(ended) == rows:
                    break
                keep = [i for i, prompt_index in enumerate(alive) if prompt_index not in ended]
                if len(keep) <= SHRINK_BELOW * len(alive):
                    index = torch.tensor(keep, device=model.device)
                    cache.batch_select_indices(index)
                    ids, mask, positions = ids[index], mask[index], positions[index]
                    alive = [alive[i] for i in keep]
        return list(zip(written, reasons, strict=True))

    # --- the model ---------------------------------------------------------------------------------------

    @cached_property
    def _placement(self) -> tuple[str, str]:
        """Device and dtype by name."""
        import torch

        gpu = torch.cuda.is_available()
        device = ("cuda" if gpu else "cpu") if self._device == "auto" else self._device
        if self._dtype != "auto":
            if not isinstance(getattr(torch, self._dtype, None), torch.dtype):
                raise BackendError(f"dtype '{self._dtype}' is unknown; use auto, float32, bfloat16 or float16")
            return device, self._dtype
        if not device.startswith("cuda"):
            return device, "float32"
        return device, "bfloat16" if torch.cuda.is_bf16_supported() else "float16"

    @cached_property
    def _base(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        device, dtype = self._placement
        logging.disable_progress_bar()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self.base_dir,
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa" if self._attention == "auto" else self._attention,
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
            )
        except (OSError, ValueError) as error:
            raise BackendError(f"{self.base_dir}: the model cannot be loaded: {error}") from error
        if self._attention == "auto" and device == "cpu":
            use_grouped(model)
        return model.to(device).eval()

    @cached_property
    def _context(self) -> int:
        return int(getattr(self._base.config, "max_position_embeddings", None) or 2**31)

    @cached_property
    def _pad_id(self) -> int:
        """The pad token by name; where there is none any token does, because padding is masked."""
        for id_ in (self._tokenizer.pad_token_id, self._tokenizer.unk_token_id, self._tokenizer.eos_token_id):
            if id_ is not None:
                return int(id_)
        return 0

    def _with_adapter(self, adapter: Path | None) -> Any:
        """The base, or a copy that carries the adapter; the last adapter's copy is kept."""
        if adapter is None:
            return self._base
        if self._adapted is None or self._adapted[0] != str(adapter):
            self._adapted = None  # frees the old copy before the new one is made
            model = load_adapter(self._base, adapter)
            before, after = self._check_logits(self._base), self._check_logits(model)
            if bool((before == after).all()):
                raise AdapterInert(
                    f"{adapter}: the adapter changes nothing (logits of a fixed prompt are equal with and "
                    "without it), so its answers would be the base's; check its training and its base"
                )
            self._adapted = (str(adapter), model)
        return self._adapted[1]

    def _check_logits(self, model: Any) -> torch.Tensor:
        import torch

        ids = torch.tensor([self._check_ids()], device=model.device)
        with torch.inference_mode():
            logits: torch.Tensor = model(input_ids=ids).logits
        return logits


def _shared_length(first: list[int], second: list[int]) -> int:
    """How many tokens two lists begin with in common. Of the least and the greatest list it is that of all."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


@lru_cache(maxsize=1)
def open_backend(
    base: str, *, dtype: str = "auto", batch_size: int = 64, trust_remote_code: bool = False
) -> TransformersBackend:
    """The backend of this process for a base; jobs that follow each other share the loaded weights."""
    return TransformersBackend(base, dtype=dtype, batch_size=batch_size, trust_remote_code=trust_remote_code)
