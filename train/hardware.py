"""What the machine can do well, and loading a base accordingly."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any, Literal

KERNELS_KEPT = "4096"
CPUINFO = Path("/proc/cpuinfo")


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
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def require_liger() -> None:
    """Raise StageError where Liger's kernels cannot run."""
    import torch

    from train.plan import StageError

    if not torch.cuda.is_available():
        raise StageError("kernels: Liger's run on an NVIDIA GPU, and torch sees none here; use those of torch")
    if importlib.util.find_spec("liger_kernel") is None:
        raise StageError("kernels: Liger's are not installed; pip install 'llm-factuality-harness[liger]'")


def device_name() -> str:
    """What this process trains on, as its maker calls it: "NVIDIA H100 80GB HBM3", "AMD EPYC, 1 thread".

    Where several processes train together (WORLD_SIZE) their number stands before it: "8 x NVIDIA H100 80GB HBM3".
    """
    import torch

    own = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name(torch.get_num_threads())
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return f"{processes} x {own}" if processes > 1 else own


def cpu_name(threads: int) -> str:
    """This machine's processor and so many threads of it. Does not load torch."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = next(filter(None, models), "") or platform.processor() or platform.machine()
    return f"{model}, {threads} thread{'s' * (threads > 1)}"


def watch_memory() -> None:
    """Count a GPU's peak memory from here on. That of a process on a CPU cannot be set back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> int:
    """The most memory in use at a time so far, in MB (10^6 bytes).

    On a GPU what torch held there for tensors since `watch_memory`; on a CPU all that the process has held in memory
    since it was started, so that earlier work of the same process counts.
    """
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most * (1 if sys.platform == "darwin" else 1024) / 1e6)  # Linux tells KiB, macOS bytes


def load_base(base_dir: Path, *, bf16: bool) -> Any:
    """Load a causal language model for training.

    On a GPU the frozen base is held in bf16 when computing in bf16 and attends through SDPA. On a CPU it
    stays in fp32 under autocast, and attention is computed in the open: the backward pass of the fused kernel
    takes longer there than everything it saves.
    """
    import torch
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
