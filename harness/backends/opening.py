"""The backend of this process: one at a time, because each holds a model's memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from multiprocessing.util import Finalize
from typing import Any

from harness.backends.backend import Backend

_engine: tuple[tuple[Any, ...], Any] | None = None


def open_backend(
    name: str,
    base: str,
    *,
    dtype: str = "auto",
    batch_size: int = 64,
    trust_remote_code: bool = False,
    engine: Mapping[str, Any] | None = None,
) -> Backend:
    """The backend of that name for a base; jobs that follow each other share the loaded model.

    `engine` are the fields of `vllm.EngineSettings` or `openai.Served`.
    """
    if name == "transformers":
        from harness.backends import transformers

        return transformers.open_backend(base, dtype=dtype, batch_size=batch_size, trust_remote_code=trust_remote_code)
    if name == "openai":
        from harness.backends.openai import OpenAIBackend, Served

        return OpenAIBackend(base, Served(**(engine or {})))
    global _engine
    wanted = (base, dtype, batch_size, trust_remote_code, tuple(sorted((engine or {}).items())))
    if _engine is None or _engine[0] != wanted:
        from harness.backends.vllm import EngineSettings, VllmBackend

        release()
        # An engine has processes of its own: this one would wait for them for ever at its end.
        Finalize(None, release, exitpriority=10)
        _engine = wanted, VllmBackend(base, dtype, batch_size, EngineSettings(**(engine or {})), trust_remote_code)
    made: Backend = _engine[1]
    return made


def release() -> None:
    """Let go of the models that this process holds, before something else needs the memory."""
    global _engine
    if _engine is not None:
        _engine[1].close()
        _engine = None
    if (loaded := sys.modules.get("harness.backends.transformers")) is not None:
        loaded.open_backend.cache_clear()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def make_room() -> None:
    """Let go of an engine that holds a GPU, before training or a judge in this process needs it.

    In a machine's own memory there is room for both, and an engine takes half a minute to start.
    """
    import torch

    if torch.cuda.is_available():
        release()
