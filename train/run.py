"""Train one stage: from a description and some folders to an adapter folder."""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from train.sampling import Workbench
from train.stages import Stage

if TYPE_CHECKING:
    from train.encode import EncodedRows
    from train.plan import Plan

Kernels = Literal["torch", "liger"]

STAGE_FILE = "stage.json"
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class StageReport:
    """What training a stage took and how it went.

    `tokens` counts the tokens read, padding left out; `seconds` is wall time of training, all attempts
    together. `losses` is the loss of each update in nats a token (lambda's term included); `truncated` counts
    rows cut at the recipe's `max_length`; `resumed_at` is the update that the last attempt started from.
    `device` is the name of what the last attempt ran on and `peak_memory_mb` the most memory it took there, in MB, as
    `train.hardware` tells them; in reports from before they were recorded, "" and 0.
    """

    updates: int
    tokens: int
    seconds: float
    loss: float
    losses: tuple[float, ...]
    truncated: int = 0
    resumed_at: int = 0
    precision: str = "fp32"
    device: str = ""
    peak_memory_mb: int = 0


def run_stage(
    stage: Stage,
    *,
    base_dir: Path,
    adapter_dirs: Mapping[str, Path],
    out_dir: Path,
    base_fingerprint: str,
    checkpoint_dir: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    workbench: Workbench | None = None,
    kernels: Kernels = "torch",
) -> StageReport:
    """Train the adapter of `stage` on the base in `base_dir` and write it to `out_dir`.

    `adapter_dirs` maps the fingerprint of each needed stage to its adapter folder. Derived examples or pairs must
    have been filled in; an `rl` stage needs a `workbench`. `out_dir` becomes a peft
    folder with `stage.json` beside the weights; it holds this stage's adapter only and appears whole or not
    at all. If it is there already, made by the same stage on the same base, nothing is trained. With
    `checkpoint_dir` the run saves itself every `checkpoint_seconds` and resumes from the newest whole
    checkpoint; on a CPU the weights are then bit for bit those of an uninterrupted run. `progress` is called
    with (update, updates, loss). `kernels` chooses Liger's for norms, rotations and MLPs on an NVIDIA GPU, for
    stages that are neither `dpo` nor `rl`; the weights are the same up to rounding.

    Several processes started by `accelerate launch` or torchrun train together (`train.launch`); the main one
    writes. Raises StageError, EncodingError or AdapterError for input that cannot be trained on.
    """
    fingerprint = stage.fingerprint(base_fingerprint)
    if (out_dir / STAGE_FILE).is_file():
        return _report_of(out_dir, fingerprint)
    from train.distributed import require_supported
    from train.hardware import require_liger, watch_memory

    require_supported(os.environ)
    if kernels == "liger":
        require_liger()
    watch_memory()
    if stage.kind in ("dpo", "rl"):
        folders = _folders([need for need in (stage.start, stage.verifier) if need], adapter_dirs, base_fingerprint)
        return _tune_responses(
            stage, folders, base_dir, out_dir, base_fingerprint, checkpoint_dir, progress, workbench
        )  # fmt: skip

    from transformers import AutoTokenizer

    from train import checkpoint
    from train.hardware import device_name, load_base, peak_memory_mb, uses_bf16
    from train.lora import add_adapters, save_adapter
    from train.trainer import StageTrainer

    tokenizer = AutoTokenizer.from_pretrained(str(base_dir))
    encoded = encode_stage(stage, tokenizer)
    plan = plan_stage(stage, encoded, base_fingerprint)
    knowledge = _folders(stage.needs, adapter_dirs, base_fingerprint)

    bf16 = uses_bf16(stage.recipe.precision)
    base = load_base(base_dir, bf16=bf16)
    switch = add_adapters(base, stage.recipe, stage.seed, knowledge, frozen_dropout=stage.frozen_dropout)

    losses: list[float] = []
    resumed = checkpoint.newest_checkpoint(checkpoint_dir, fingerprint) if checkpoint_dir else None
    spent = 0.0
    if resumed:
        losses += resumed[1].losses
        spent = resumed[1].seconds
        checkpoint.restore_weights(resumed[0], switch.model)
    started = time.monotonic()
    saved_at = started
    staging = out_dir.with_name(f".{out_dir.name}.partial-{os.getpid()}")

    def after_update(update: int, loss: float) -> None:
        nonlocal saved_at
        losses.append(loss)
        if not trainer.is_world_process_zero():
            return
        if progress:
            progress(update, plan.updates, loss)
        now = time.monotonic()
        if checkpoint_dir and update < plan.updates and now - saved_at >= checkpoint_seconds:
            state = checkpoint.Progress(update, spent + now - started, tuple(losses))
            checkpoint.save_checkpoint(checkpoint_dir, fingerprint, state, switch.model, trainer.create_optimizer())
            saved_at = now

    trainer = StageTrainer(
        switch,
        plan,
        encoded.rows,
        recipe=stage.recipe,
        seed=stage.seed,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        bf16=bf16,
        scratch_dir=staging / "scratch",
        on_update=after_update,
        done=len(losses),
        kernels=kernels,
    )
    try:
        if resumed:
            checkpoint.restore_optimiser(resumed[0], trainer.create_optimizer())
        # The Trainer collects garbage first: searching all that torch loaded can outlast a small stage.
        gc.freeze()
        trainer.train()
        report = StageReport(
            updates=plan.updates,
            tokens=sum(
                len(encoded.rows[i].ids) for batch in plan.micro_batches for branch in batch for i in branch.rows
            ),
            seconds=spent + time.monotonic() - started,
            loss=losses[-1],
            losses=tuple(losses),
            truncated=encoded.truncated,
            resumed_at=resumed[1].updates if resumed else 0,
            precision="bf16" if bf16 else "fp32",
            device=device_name(),
            peak_memory_mb=peak_memory_mb(),
        )
        if trainer.is_world_process_zero():
            shutil.rmtree(staging, ignore_errors=True)
            save_adapter(switch.model, staging, base_dir)
            _describe(stage, staging, report, base_fingerprint)
            _publish(staging, out_dir, fingerprint)
            for leftover in out_dir.parent.glob(f".{out_dir.name}.partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if checkpoint_dir:
                shutil.rmtree(checkpoint_dir, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
    finally:
        gc.unfreeze()
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _tune_responses(
    stage: Stage,
    folders: Mapping[str, Path],
    base_dir: Path,
    out_dir: Path,
    base_fingerprint: str,
    checkpoint_dir: Path | None,
    progress: Callable[[int, int, float], None] | None,
    workbench: Workbench | None,
) -> StageReport:
    """Train a stage that compares or rewards whole responses (`dpo`, `rl`), through TRL."""
    from train.hardware import device_name, peak_memory_mb

    staging = out_dir.with_name(f".{out_dir.name}.partial-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        if stage.kind == "dpo":
            from train.dpo import train_dpo

            report = train_dpo(stage, base_dir, folders, staging, checkpoint_dir, progress)
        else:
            from train.rl import train_rl

            report = train_rl(stage, base_dir, folders, staging, checkpoint_dir, progress, workbench)
        report = replace(report, device=device_name(), peak_memory_mb=peak_memory_mb())
        _describe(stage, staging, report, base_fingerprint)
        _publish(staging, out_dir, stage.fingerprint(base_fingerprint))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _describe(stage: Stage, folder: Path, report: StageReport, base_fingerprint: str) -> None:
    """Write what the adapter is beside its weights."""
    import torch

    described = stage.label() | {
        "fingerprint": stage.fingerprint(base_fingerprint),
        "base_fingerprint": base_fingerprint,
        "needs": [need.fingerprint(base_fingerprint) for need in stage.needs],
        "torch": torch.__version__,
        "report": asdict(report),
    }
    (folder / STAGE_FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def plan_stage(stage: Stage, encoded: EncodedRows, base_fingerprint: str) -> Plan:
    """The plan of a stage of any kind over its encoded rows."""
    from train.knowledge import plan_knowledge
    from train.sft import plan_sft
    from train.skill import plan_mixed, plan_multi_version

    match stage.kind:
        case "knowledge":
            return plan_knowledge(stage, encoded.rows)
        case "sft":
            return plan_sft(stage, encoded.rows)
        case "skill_mixed":
            return plan_mixed(stage, encoded.rows, base_fingerprint)
        case "skill_multi_version":
            return plan_multi_version(stage, encoded.rows, base_fingerprint)
        case "dpo" | "rl":
            raise ValueError(f"stage {stage.name!r} ({stage.kind}) has no plan of rows; it samples or compares")


def encode_stage(stage: Stage, tokenizer: Any) -> EncodedRows:
    """The token sequences of a stage. Raises StageError where it has no rows, EncodingError for faulty ones."""
    from train.encode import encode_examples, encode_texts
    from train.plan import StageError

    if stage.kind == "knowledge":
        encoded = encode_texts(stage.texts, tokenizer, stage.recipe.max_length)
    else:
        encoded = encode_examples(stage.examples, tokenizer, stage.template, stage.recipe.max_length)
    if not encoded.rows:
        field = "texts" if stage.kind == "knowledge" else "examples"
        raise StageError(f"{field}: stage {stage.name!r} ({stage.kind}) has nothing to train on; give it some rows")
    return encoded


def _folders(needs: Sequence[Stage], adapter_dirs: Mapping[str, Path], base_fingerprint: str) -> dict[str, Path]:
    """The adapter folders of the stages that are needed, by fingerprint."""
    from train.plan import StageError

    folders = {}
    for need in needs:
        key = need.fingerprint(base_fingerprint)
        if key not in adapter_dirs:
            raise StageError(f"adapter_dirs: the adapter of {need.name!r} ({key[:12]}) is missing; train it first")
        folders[key] = adapter_dirs[key]
    return folders


def _publish(staging: Path, out_dir: Path, fingerprint: str) -> None:
    """Rename the finished folder; a process that trained the same stage may have been faster."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.replace(out_dir)
    except OSError:
        _report_of(out_dir, fingerprint)


def _report_of(out_dir: Path, fingerprint: str) -> StageReport:
    from train.plan import StageError

    path = out_dir / STAGE_FILE
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        report, found = described["report"], described["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{path}: not a stage description ({error}); delete the folder and train again") from error
    if found != fingerprint:
        raise StageError(f"{path}: holds the adapter of another stage ({found[:12]}); choose another folder")
    return StageReport(**report | {"losses": tuple(report["losses"])})
