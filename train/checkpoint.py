"""Checkpoints of a stage in training: the trained adapter, its optimiser moments and a few numbers.

Nothing else decides the rest of a run: data order, adapter draws and dropout masks are functions of (seed,
micro-batch), the learning rate is one of the update. Frozen adapters are read from their own folders again.
A checkpoint is a folder `update-N`, written under another name and renamed, so one that is there is whole.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from train.lora import WEIGHTS_FILE, restore_trained_weights, trained_weights

OPTIMISER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: updates done, seconds spent and the loss of each update."""

    updates: int
    seconds: float
    losses: tuple[float, ...]


def save_checkpoint(
    folder: Path, fingerprint: str, progress: Progress, model: PeftModel, optimiser: torch.optim.Optimizer
) -> None:
    """Write the newest checkpoint below `folder` and remove the older ones."""
    target = folder / f"update-{progress.updates:09d}"
    staging = folder / f".{target.name}.partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file(trained_weights(model), staging / WEIGHTS_FILE)
    save_file(_moments(optimiser), staging / OPTIMISER_FILE)
    state = {
        "fingerprint": fingerprint,
        "updates": progress.updates,
        "seconds": progress.seconds,
        "losses": progress.losses,
    }
    (staging / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    staging.replace(target)
    for old in folder.glob("update-*"):
        if old.name < target.name:
            shutil.rmtree(old, ignore_errors=True)


def newest_checkpoint(folder: Path, fingerprint: str) -> tuple[Path, Progress] | None:
    """The newest whole checkpoint of the stage with this fingerprint; others are passed over."""
    for candidate in sorted(folder.glob("update-*"), reverse=True):
        try:
            state = json.loads((candidate / STATE_FILE).read_text(encoding="utf-8"))
            if state["fingerprint"] == fingerprint:
                return candidate, Progress(state["updates"], state["seconds"], tuple(state["losses"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def restore_weights(checkpoint: Path, model: PeftModel) -> None:
    """Put the saved adapter back."""
    restore_trained_weights(model, load_file(checkpoint / WEIGHTS_FILE))


def restore_optimiser(checkpoint: Path, optimiser: torch.optim.Optimizer) -> None:
    """Put the saved moments back, on the devices of their parameters."""
    saved = load_file(checkpoint / OPTIMISER_FILE)
    for group in optimiser.param_groups:
        for index, parameter in enumerate(group["params"]):
            optimiser.state[parameter] = {name: saved[f"{index}.{name}"].to(parameter.device) for name in MOMENTS}


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": optimiser.state[parameter][name].detach().cpu().contiguous()
        for group in optimiser.param_groups
        for index, parameter in enumerate(group["params"])
        for name in MOMENTS
    }
