"""What the machine can do well, and loading a base accordingly."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Literal

import torch

KERNELS_KEPT = "4096"


def keep_kernels() -> None:
    """Have oneDNN keep the kernels of this many products, unless the environment says otherwise.

    It makes one for every shape, which takes a miniature base three times as long as running it, and keeps 1,024 by
    itself: those of some twenty shapes of micro-batches, fewer than a stage meets. A kernel takes about 0.14 MB. Has
    no effect in a process that has multiplied already, and none on any result.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS_KEPT)


def uses_bf16(precision: Literal["auto", "fp32", "bf16"]) -> bool:
    """Whether to compute in bf16: as told, or for `auto` where it is fast.

    On a CPU that means instructions for it: with AVX512-BF16 alone (an EPYC core), LoRA training of a Llama of
    width 128 took 0.6 and of width 512 half of the time that it took in fp32.
    """
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def require_liger() -> None:
    """Raise StageError where Liger's kernels cannot run."""
    from train.plan import StageError

    if not torch.cuda.is_available():
        raise StageError("kernels: Liger's run on an NVIDIA GPU, and torch sees none here; use those of torch")
    if importlib.util.find_spec("liger_kernel") is None:
        raise StageError("kernels: Liger's are not installed; pip install 'llm-factuality-harness[liger]'")


def load_base(base_dir: Path, *, bf16: bool) -> Any:
    """Load a causal language model for training.

    On a GPU the frozen base is held in bf16 when computing in bf16 and attends through SDPA. On a CPU it
    stays in fp32 under autocast, and attention is computed in the open: the backward pass of the fused kernel
    takes longer there than everything it saves.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    keep_kernels()
    on_gpu = torch.cuda.is_available()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(base_dir),
            dtype=torch.bfloat16 if bf16 and on_gpu else torch.float32,
            attn_implementation="sdpa" if on_gpu else "eager",
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    model.requires_grad_(False)
    return model
