"""What a training run will read, decided before it starts.

A plan lists every micro-batch of a run in order: which rows, under which frozen adapter, with which weight.
All of it is a function of the stage alone. So the same rows meet the same adapters in the same order on one
process or on eight, a resumed run reads what the killed one would have read, and the loss is an exact mean
over all the tokens of an update however the update is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from train.encode import Encoded
from train.seeds import generator
from train.stages import Recipe, Stage


class StageError(ValueError):
    """A stage cannot be trained as described. The message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One forward and backward pass: `rows` (indices) under the new adapter and, if any, a frozen `knowledge`
    one.

    `knowledge` is the fingerprint of the stage that made the frozen adapter. The pass contributes `weight`
    times the summed cross-entropy of its targets.
    """

    rows: tuple[int, ...]
    weight: float
    knowledge: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All micro-batches of a run, each a tuple of branches; `per_update` consecutive ones make one update."""

    micro_batches: tuple[tuple[Branch, ...], ...]
    per_update: int

    @property
    def updates(self) -> int:
        """The number of optimiser updates."""
        return len(self.micro_batches) // self.per_update


def micro_batches_per_update(recipe: Recipe, *, even: bool = False) -> int:
    """How many micro-batches make one update; an even number with `even` (each format gets half)."""
    count = -(-recipe.batch_size // recipe.micro_batch_size)
    return count + 1 if even and count % 2 and count < recipe.batch_size else count


def visits(units: int, recipe: Recipe, seed: int) -> Iterator[list[int]]:
    """Yield the units (rows or subjects) of each update: always a full batch, drawn from one shuffled epoch
    after another. There are `epochs * units / batch_size` updates, rounded, and at least one.
    """
    updates = max(1, round(recipe.epochs * units / recipe.batch_size))
    queue: list[int] = []
    epoch = 0
    for _ in range(updates):
        while len(queue) < recipe.batch_size:
            order = list(range(units))
            generator(seed, "data-order", epoch).shuffle(order)
            queue += order
            epoch += 1
        yield queue[: recipe.batch_size]
        queue = queue[recipe.batch_size :]


def split(items: Sequence[int], parts: int) -> list[list[int]]:
    """Cut `items` into `parts` consecutive pieces whose sizes differ by at most one."""
    size, larger = divmod(len(items), parts)
    borders = [i * size + min(i, larger) for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(borders)]


def deal(update: Sequence[int], parts: int, stage: Stage, number: int, length: Callable[[int], int]) -> list[list[int]]:
    """The units of update `number` in so many micro-batches: in their order, or those of similar length together.

    The latter (`group_by_length`) stand in a random order, because adapters are drawn by position.
    """
    if not stage.recipe.group_by_length:
        return split(update, parts)
    pieces = split(sorted(update, key=lambda unit: (length(unit), unit)), parts)
    generator(stage.seed, "length-groups", number).shuffle(pieces)
    return pieces


def plain_update(rows: Sequence[Encoded], chosen: Sequence[int], parts: int) -> list[tuple[Branch, ...]]:
    """One update with a single loss, the token-mean over `chosen`, in micro-batches of similar length."""
    tokens = sum(rows[i].targets for i in chosen)
    by_length = sorted(chosen, key=lambda i: (len(rows[i].ids), i))
    return [(Branch(tuple(piece), 1 / tokens),) for piece in split(by_length, parts)]
