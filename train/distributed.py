"""Several processes train one stage: what accelerate was told to do, and what is left to do here.

Under DDP (accelerate's default) every process holds everything, and gradients are averaged in the last backward pass of
an update. Under FSDP (version 2) the frozen base alone is sharded. Adapters are small; they stay whole in every
process, so that the optimiser, clipping, checkpoints and the adapter's file are those of one process, and their
gradients are averaged here. Each forward pass of a sharded model is a meeting of all processes: all must make as many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from train.plan import Branch, Plan, StageError

ADAPTERS = r".*\.lora_[AB]"


def require_supported(environ: Mapping[str, str]) -> None:
    """Raise StageError where `accelerate launch` was told what would train something else, or nothing."""

    def says(name: str) -> bool:
        return environ.get(name, "").lower() in ("true", "1", "yes")

    if says("ACCELERATE_USE_DEEPSPEED"):
        raise StageError(
            "accelerate: DeepSpeed wants all parameters of one type and trains a copy of them in bf16; here the frozen "
            "base is in bf16 and adapters are in fp32. Use DDP (ZeRO-2 would shard what LoRA keeps small) or FSDP: "
            "configs/accelerate"
        )
    if (precision := environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        raise StageError(
            f"accelerate: mixed_precision is {precision}, but the precision is the recipe's; "
            "set `mixed_precision: 'no'` in the configuration file"
        )
    if says("ACCELERATE_USE_FSDP") and environ.get("FSDP_VERSION", "1") != "2":
        raise StageError("accelerate: FSDP of version 1 cannot leave adapters whole; set `fsdp_version: 2`")
    if says("ACCELERATE_USE_FSDP") and says("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise StageError(
            "accelerate: with fsdp_cpu_ram_efficient_loading all processes but the first start from empty weights; "
            "set `fsdp_cpu_ram_efficient_loading: false`"
        )


def shards_base(accelerator: Any, model: torch.nn.Module) -> bool:
    """Whether accelerate is going to shard the model; then adapters are kept out of it, and put where they belong.

    Must come before accelerate wraps the model.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return False
    plugin.ignored_modules = ADAPTERS
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(accelerator.device)
    return True


def evened(plan: Plan, index: int, processes: int) -> tuple[Branch, ...]:
    """The branches of a micro-batch, as many as those that the other processes have at the same time.

    What is missing is made up by passes that count nothing.
    """
    branches = plan.micro_batches[index]
    first = index - index % processes
    most = max(len(batch) for batch in plan.micro_batches[first : first + processes])
    return (*branches, *[replace(branches[-1], weight=0.0)] * (most - len(branches)))


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Average the gradients over all processes, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
