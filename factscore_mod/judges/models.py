"""What models in process have in common: where they are loaded and how their files are told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from factscore_mod.judges.base import JudgeError

_SAMPLE = 65_536


def weights_fingerprint(model: str) -> str:
    """A hash of a model folder: the small files, and size, beginning and end of the weights; else the hub name."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".txt", ".model", ".jinja"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def pick_device(device: str | None) -> str:
    """The device asked for; else the first accelerator, else the processor."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def load(auto_class: Any, model: str, dtype: str, device: str) -> tuple[Any, Any]:
    """Tokenizer and model, safetensors only, no code from the hub. Raises JudgeError where they cannot be had."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded = auto_class.from_pretrained(model, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError) as problem:
        reason = str(problem).split("\n")[0]
        raise JudgeError(f"model {model!r} cannot be loaded ({reason}); give a folder or a hub name") from problem
    return tokenizer, loaded.to(device).eval()
