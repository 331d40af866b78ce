"""What every backend is asked and gives back, and how one token is chosen from logits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from train.seeds import generator

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are decoded: at most `max_new_tokens` tokens, ended by EOS or by the first of the `stop` strings.

    A stop string and all after it are cut from the answer. Before `min_new_tokens` tokens EOS is not chosen.
    Temperature 0 is greedy; otherwise each request draws from a generator of its own, keyed by (`seed`, its id),
    from the smallest set of tokens that holds `top_p` of the probability.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("max_new_tokens", self.max_new_tokens >= 1, "must be at least 1"),
            ("temperature", self.temperature >= 0, "must not be negative"),
            ("top_p", 0 < self.top_p <= 1, "must be above 0 and at most 1"),
            ("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens, "must be within max_new_tokens"),
        ):
            if not holds:
                raise ValueError(f"{name} {rule}, not {getattr(self, name)}")

    def generators(self, ids: Sequence[str]) -> list[random.Random]:
        """A generator a request; none where decoding is greedy."""
        return [generator(self.seed, "sample", id_) for id_ in ids] if self.temperature else []

    def seeds(self, ids: Sequence[str]) -> list[int | None]:
        """A seed a request, for engines that draw by themselves; None where decoding is greedy."""
        if not self.temperature:
            return [None] * len(ids)
        return [draw.getrandbits(31) for draw in self.generators(ids)]


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt in its final form (templated text, no special tokens); `id` is unique among requests."""

    id: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Generation:
    """The new text; `tokens` counts new tokens without EOS, `length` means that the limit cut it off."""

    id: str
    text: str
    tokens: int
    finish: Literal["stop", "length"]


def finished(id_: str, text: str, tokens: int, finish: Literal["stop", "length"], decoding: Decoding) -> Generation:
    """A generation of the text up to the first stop string."""
    cuts = [at for at in (text.find(stop) for stop in decoding.stop) if at >= 0]
    return Generation(id_, text[: min(cuts)], tokens, "stop") if cuts else Generation(id_, text, tokens, finish)


def choose(logits: torch.Tensor, decoding: Decoding, uniform: Sequence[float]) -> torch.Tensor:
    """One token a row: [rows, vocabulary] logits -> [rows, 1] token ids.

    `uniform` holds one number in [0, 1) a row (none for greedy decoding). Sampling inverts the cumulative
    distribution at it, so that a row's token depends on its own logits and its own number alone.
    """
    import torch

    if not decoding.temperature:
        return logits.argmax(-1, keepdim=True)
    probabilities = torch.softmax(logits.float() / decoding.temperature, -1)
    at = torch.tensor(uniform, device=logits.device, dtype=probabilities.dtype).unsqueeze(-1)
    if decoding.top_p == 1:
        cumulative = probabilities.cumsum(-1)
        return _invert(cumulative, at * cumulative[:, -1:])
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.cumsum(-1)
    # A token is kept while those before it hold less than top_p: the first one always is.
    kept = (cumulative - ordered < decoding.top_p).sum(-1, keepdim=True)
    mass = cumulative.gather(-1, kept - 1)
    return tokens.gather(-1, _invert(cumulative, at * mass).minimum(kept - 1))


def _invert(cumulative: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative probability exceeds `at`."""
    index = (cumulative <= at).sum(-1, keepdim=True)
    return index.clamp(max=cumulative.shape[-1] - 1)
