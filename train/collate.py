"""Encoded rows to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from train.encode import Encoded

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch padded on the right.

    `input_ids` is (rows, length). `targets` is (rows, kept): the token to be predicted at each kept position,
    IGNORED where none is. `keep` (kept,) holds the positions at which some row has a target, `None` when that
    is every one: logits are computed there and nowhere else. There is no attention mask: padding stands on
    the right, and under causal attention no real token looks there.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    keep: torch.Tensor | None


def pad(rows: Sequence[Encoded], pad_id: int) -> Padded:
    """Pad `rows` to the longest, with the targets already shifted by one.

    The last token of a row predicts nothing, so it is not part of the input.
    """
    length = max(len(row.ids) for row in rows) - 1
    first = min(max(row.trained_from, 1) for row in rows) - 1
    input_ids = [[*row.ids[:-1], *(pad_id,) * (length + 1 - len(row.ids))] for row in rows]
    targets = []
    for row in rows:
        start = max(row.trained_from, 1)
        line = [IGNORED] * (start - 1 - first) + list(row.ids[start:])
        targets.append(line + [IGNORED] * (length - first - len(line)))
    return Padded(
        input_ids=torch.tensor(input_ids),
        targets=torch.tensor(targets),
        keep=torch.arange(first, length) if first else None,
    )
