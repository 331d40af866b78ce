"""What every backend is: lists of requests in fixed batches, what is done left out, and the rate of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.backends.decoding import Decoding, Generation, Request
from harness.backends.weights import BackendError


@dataclass(frozen=True, slots=True)
class Worklist:
    """A list of requests, and what of it is to be answered; see `Backend.generate`."""

    requests: Sequence[Request]
    done: Collection[str]
    part: tuple[int, int]

    def batches(self, size: int, order: Sequence[int] | None = None) -> list[Sequence[int]]:
        """The batches to be answered, as indices, of the whole list cut by `size` in its own or another `order`."""
        order = range(len(self.requests)) if order is None else order
        cut = [order[i : i + size] for i in range(0, len(order), size)]
        first, step = self.part
        return [batch for batch in cut[first::step] if any(self.requests[i].id not in self.done for i in batch)]


class Backend(ABC):
    """What turns prompts into answers."""

    def __init__(self, batch_size: int) -> None:
        if batch_size < 1:
            raise BackendError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self._written = 0
        self._seconds = 0.0

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second over the backend's life; loading, and what was in a cache, is not counted."""
        return self._written / self._seconds if self._seconds else 0.0

    def generate(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        adapter: Path | None = None,
        done: Collection[str] = (),
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[list[Generation]]:
        """Answer the requests and yield answers, a batch at a time, as they are finished.

        `adapter` is the folder of a peft adapter; without one the base answers. Batches are cut from the whole list
        before anything is left out, so that an answer does not depend on what else is there: `done` holds ids that
        need no answer (a batch is skipped when all of its are done, else made whole), and `part` (k, n) is every
        n-th batch from the k-th on, so that n parts make the whole.

        Nothing is loaded before the first batch that needs an answer. Raises ValueError where ids are not unique,
        BackendError when the base or the adapter cannot be used or a prompt exceeds the model's context,
        AdapterInert when the adapter changes nothing.
        """
        if len({request.id for request in requests}) != len(requests):
            raise ValueError("the requests' ids are not unique")
        if not all(request.id in done for request in requests):
            yield from self._answers(Worklist(requests, done, part), decoding, adapter)

    @abstractmethod
    def _answers(self, work: Worklist, decoding: Decoding, adapter: Path | None) -> Iterator[list[Generation]]:
        """`generate` for a list that is in order; adds new tokens to `_written`, and times itself by `_timed`."""

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started
