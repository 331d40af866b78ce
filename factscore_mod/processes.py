"""Worker processes that end when the process that started them does, even when that is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait


def process_pool(
    workers: int, initializer: Callable[..., None] | None = None, *arguments: object
) -> ProcessPoolExecutor:
    """A pool of `workers`; each runs `initializer(*arguments)` first.

    Processes are forked, which is cheap, where no other thread could be caught in the middle of something.
    """
    method = "fork" if hasattr(os, "fork") and threading.active_count() == 1 else "spawn"
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, context, _begin, (initializer, arguments))


def _begin(initializer: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    # The pool's queue would keep a worker waiting for ever after its parent was killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
