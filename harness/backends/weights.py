"""Bases and adapters on disk: telling them apart by content, and putting an adapter on a base."""

from __future__ import annotations

import hashlib
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

from harness.errors import UserError

# Any text does: it only has to make the adapter's layers work.
ADAPTER_CHECK_PROMPT = "Question: Who was Marie Curie?\nAnswer:"


class BackendError(UserError):
    """A base or an adapter cannot be used. The message names the folder and the remedy."""


class AdapterInert(BackendError):
    """An adapter that changes nothing: scoring it would report the base under the method's name."""


def adapter_files(adapter: Path) -> tuple[Path, Path]:
    """The configuration and the weights of a peft adapter. Raises BackendError where one is missing."""
    files = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    for path in files:
        if not path.is_file():
            raise BackendError(f"{adapter}: no {path.name} there; give the folder of a peft adapter in safetensors")
    return files


def load_adapter(base: Any, adapter: Path) -> Any:
    """A copy of `base` with a peft adapter: merged where the base is fp32, else kept apart and in fp32.

    `base` itself is left as it was. Raises BackendError when the folder holds no whole safetensors adapter
    that fits the base.
    """
    import torch
    from peft import PeftModel

    adapter_files(adapter)
    merge = base.dtype == torch.float32
    try:
        with warnings.catch_warnings():
            # peft only warns when weights are missing; the layers without them would silently be the base's.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(deepcopy(base), str(adapter), is_trainable=False)
            return (model.merge_and_unload() if merge else model).eval()
    except (ValueError, RuntimeError, KeyError, UserWarning) as error:
        reason = str(error).splitlines()[0]
        raise BackendError(f"{adapter}: the adapter does not fit the base: {reason}") from error


def base_fingerprint(folder: Path) -> str:
    """Hash of a model folder's weights, configuration and tokenizer, by content."""
    hasher = hashlib.sha256()
    for path in sorted(p for pattern in ("*.safetensors", "*.json", "*.model") for p in folder.glob(pattern)):
        with path.open("rb") as stream:
            hasher.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()
