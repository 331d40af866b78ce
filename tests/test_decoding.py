"""How a token is chosen: greedy, sampled, from the nucleus, and never EOS too early."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from harness.backends.decoding import Decoding, Request, choose
from harness.backends.transformers import TransformersBackend
from tests.test_backend_transformers import REQUESTS, answers, save_base

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
GRID = [(i + 0.5) / 2000 for i in range(2000)]


def shares(decoding: Decoding) -> list[float]:
    """The share of each token when the uniform numbers run through an even grid: the exact distribution."""
    chosen = Counter(choose(LOGITS.expand(len(GRID), -1), decoding, GRID)[:, 0].tolist())
    return [chosen[token] / len(GRID) for token in range(4)]


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (0.5, 1.0, [p**2 / 0.365 for p in (0.5, 0.3, 0.15, 0.05)]),
        (1.0, 0.8, [0.625, 0.375, 0.0, 0.0]),
        (1.0, 0.81, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0]),
        (1.0, 0.1, [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_sampling_follows_the_tempered_distribution_of_the_nucleus(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    found = shares(Decoding(8, temperature=temperature, top_p=top_p))
    assert all(math.isclose(a, b, abs_tol=1.5e-3) for a, b in zip(found, expected, strict=True)), found


def test_greedy_takes_the_likeliest_and_needs_no_numbers() -> None:
    assert choose(LOGITS, Decoding(8), ()).tolist() == [[0]]


def test_the_ends_of_the_unit_interval_give_tokens() -> None:
    decoding = Decoding(8, temperature=1.0, top_p=0.95)
    assert choose(LOGITS.expand(2, -1), decoding, [0.0, math.nextafter(1.0, 0.0)]).tolist() == [[0], [2]]


@pytest.mark.parametrize(
    ("field", "value"), [("max_new_tokens", 0), ("temperature", -1.0), ("top_p", 0.0), ("min_new_tokens", 9)]
)
def test_settings_that_mean_nothing_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Decoding(**{"max_new_tokens": 8, field: value})  # type: ignore[arg-type]


def test_a_sample_depends_on_seed_and_id_alone(tmp_path: Path) -> None:
    base = save_base(tmp_path)
    decoding = Decoding(12, temperature=1.0, seed=3)
    together = answers(TransformersBackend(base, batch_size=4), decoding)
    alone = TransformersBackend(base, batch_size=1)
    for request in REQUESTS[:4]:
        (batch,) = alone.generate([request], decoding)
        assert batch[0].text == together[request.id].text
    twice = [Request("a", "w1 w2"), Request("b", "w1 w2")]
    (pair,) = TransformersBackend(base).generate(twice, decoding)
    assert pair[0].text != pair[1].text
    assert answers(alone, Decoding(12, temperature=1.0, seed=4)) != together


def test_eos_is_not_chosen_before_the_shortest_length(tmp_path: Path) -> None:
    base = save_base(tmp_path)
    free = answers(TransformersBackend(base), Decoding(40, temperature=2.0))
    ended = [g for g in free.values() if g.finish == "stop"]
    held = answers(TransformersBackend(base), Decoding(40, temperature=2.0, min_new_tokens=40))
    assert ended
    assert {g.tokens for g in held.values()} == {40}
