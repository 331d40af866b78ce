"""Pre-training of a small language model on packed documents, until a probe is satisfied.

Several short documents share a row of fixed length. A document mask keeps them apart: without it a small model
learns no facts at all, because the name that a value belongs to drowns in other names. Training follows one
cosine over the planned number of tokens and then, where the probe asks for more, further short ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from train.collate import IGNORED
from train.hardware import uses_bf16

# Rows that stand open while documents are packed: enough to waste about 2 % of the tokens.
_OPEN_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecipe:
    """Optimiser and batch shape. Lengths and budgets are in tokens, a batch is `rows` rows of `row_length`.

    The learning rate rises over `warmup_updates`, then follows a cosine over `planned_tokens` down to
    `min_lr_ratio`; each continuation of `chunk_tokens` starts from half the peak.
    """

    learning_rate: float = 3e-3
    warmup_updates: int = 60
    min_lr_ratio: float = 0.05
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    max_grad_norm: float = 1.0
    rows: int = 8
    row_length: int = 128
    planned_tokens: int = 1_200_000
    chunk_tokens: int = 200_000
    max_tokens: int = 2_400_000
    precision: Literal["auto", "fp32", "bf16"] = "auto"


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row: tokens, the document each belongs to (-1 for padding) and its position inside that document."""

    ids: tuple[int, ...]
    documents: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProbePoint:
    """What the probe measured after so many tokens."""

    tokens: int
    value: float


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """How far training went and why it ended: `target` (the probe was satisfied) or `cap` (`max_tokens`)."""

    updates: int
    tokens: int
    history: tuple[ProbePoint, ...]
    ended: Literal["target", "cap"]


def pack(documents: Iterable[Sequence[int]], row_length: int, pad_id: int) -> Iterator[PackedRow]:
    """Pack documents into rows, first fit among a few open ones; a document longer than a row is cut into rows."""
    open_rows: list[list[Sequence[int]]] = []
    room: list[int] = []
    for document in documents:
        for start in range(0, len(document), row_length):
            piece = document[start : start + row_length]
            place = next((i for i, free in enumerate(room) if free >= len(piece)), None)
            if place is None:
                if len(open_rows) == _OPEN_ROWS:
                    fullest = min(range(len(room)), key=room.__getitem__)
                    yield _row(open_rows.pop(fullest), row_length, pad_id)
                    room.pop(fullest)
                open_rows.append([])
                room.append(row_length)
                place = len(open_rows) - 1
            open_rows[place].append(piece)
            room[place] -= len(piece)
    for pieces in open_rows:
        yield _row(pieces, row_length, pad_id)


def _row(pieces: Sequence[Sequence[int]], row_length: int, pad_id: int) -> PackedRow:
    ids: list[int] = []
    documents: list[int] = []
    positions: list[int] = []
    for number, piece in enumerate(pieces):
        ids += piece
        documents += [number] * len(piece)
        positions += range(len(piece))
    missing = row_length - len(ids)
    return PackedRow((*ids, *(pad_id,) * missing), (*documents, *(-1,) * missing), (*positions, *(0,) * missing))


def pretrain(
    model: Any,
    documents: Callable[[int], Iterable[Sequence[int]]],
    recipe: PretrainRecipe,
    *,
    pad_id: int,
    probe: Callable[[Any], float],
    target: float,
    progress: Callable[[int, int], None] | None = None,
) -> PretrainResult:
    """Train `model` in place until `probe(model)` reaches `target` or `max_tokens` are used up.

    `documents(epoch)` gives the token ids of one epoch's documents in training order. The probe is asked at the
    end of the planned tokens and of every continuation, in eval mode. `progress` gets (tokens done, tokens
    planned at present). Tokens count padding, as computation does.
    """
    device = next(model.parameters()).device
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        fused=True,
    )
    bf16 = uses_bf16(recipe.precision)
    per_update = recipe.rows * recipe.row_length
    planned = math.ceil(recipe.planned_tokens / per_update)
    chunk = max(1, math.ceil(recipe.chunk_tokens / per_update))
    cap = max(planned, recipe.max_tokens // per_update)
    batches = _batches(documents, recipe, pad_id)
    history: list[ProbePoint] = []
    done, stretch_start, stretch_end, peak = 0, 0, planned, recipe.learning_rate
    while True:
        model.train()
        while done < stretch_end:
            warm = min(1.0, (done + 1) / (recipe.warmup_updates + 1))
            share = (done - stretch_start) / (stretch_end - stretch_start)
            cosine = recipe.min_lr_ratio + (1 - recipe.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = peak * warm * cosine
            train_step(model, next(batches), optimizer, recipe.max_grad_norm, bf16=bf16, device=device)
            done += 1
            if progress is not None:
                progress(done * per_update, stretch_end * per_update)
        model.eval()
        value = probe(model)
        history.append(ProbePoint(done * per_update, value))
        if value >= target or done >= cap:
            ended: Literal["target", "cap"] = "target" if value >= target else "cap"
            return PretrainResult(done, done * per_update, tuple(history), ended)
        stretch_start, stretch_end, peak = done, min(done + chunk, cap), recipe.learning_rate / 2


def train_step(
    model: Any,
    rows: Sequence[PackedRow],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    *,
    bf16: bool,
    device: torch.device,
) -> float:
    """One optimiser update on a batch of packed rows; returns the mean loss a token, in nats."""
    ids = torch.tensor([row.ids for row in rows], device=device)
    documents = torch.tensor([row.documents for row in rows], device=device)
    positions = torch.tensor([row.positions for row in rows], device=device)
    targets = next_tokens(ids, documents)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = model(
            input_ids=ids, attention_mask=document_mask(documents), position_ids=positions, use_cache=False
        ).logits
    loss: torch.Tensor = MeanCrossEntropy.apply(logits.flatten(0, 1), targets.flatten())  # type: ignore[no-untyped-call]
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def document_mask(documents: torch.Tensor) -> torch.Tensor:
    """(rows, length) document numbers -> an additive attention mask (rows, 1, length, length).

    A token sees earlier tokens of its own document and itself; padding sees padding, so that no row of the
    attention is empty.
    """
    same = documents[:, :, None] == documents[:, None, :]
    causal = torch.ones(documents.shape[1], documents.shape[1], dtype=torch.bool, device=documents.device).tril()
    hidden = torch.zeros(same.shape, device=documents.device)
    return hidden.masked_fill(~(same & causal), torch.finfo(torch.float32).min)[:, None]


def next_tokens(ids: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """(rows, length) targets: the next token of the same document, else IGNORED."""
    targets = torch.full_like(ids, IGNORED)
    follows = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
    targets[:, :-1] = torch.where(follows, ids[:, 1:], IGNORED)
    return targets


class MeanCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy over targets that are not IGNORED, by way of softmax.

    On a CPU torch's log-softmax and its gradient take a third of a small model's training step; softmax is
    vectorised and takes a twentieth of that.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(tokens, vocabulary) logits and (tokens,) targets -> a scalar."""
        kept = targets != IGNORED
        count = kept.sum().clamp(min=1)
        probabilities = torch.softmax(logits.float(), dim=-1)
        index = targets.clamp(min=0)[:, None]
        chosen = probabilities.gather(1, index)[:, 0]
        ctx.save_for_backward(probabilities, index, kept, count)
        ctx.dtype = logits.dtype
        floor = torch.finfo(torch.float32).tiny
        losses = -chosen.clamp(min=floor).log()
        return (losses * kept).sum() / count

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient (softmax - one-hot) / count at the kept positions."""
        probabilities, index, kept, count = ctx.saved_tensors
        gradient = probabilities.clone()
        gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
        gradient *= (kept * (grads[0] / count))[:, None]
        return gradient.to(ctx.dtype), None


def _batches(
    documents: Callable[[int], Iterable[Sequence[int]]], recipe: PretrainRecipe, pad_id: int
) -> Iterator[list[PackedRow]]:
    batch: list[PackedRow] = []
    epoch = 0
    while True:
        for row in pack(documents(epoch), recipe.row_length, pad_id):
            batch.append(row)
            if len(batch) == recipe.rows:
                yield batch
                batch = []
        epoch += 1
