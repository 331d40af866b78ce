"""Two processes train what one trains: the same draws, the same losses, the same weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import make_tiny_base
from train.distributed import evened, require_supported
from train.launch import Launch, launch_stage, stage_from_json, stage_to_json
from train.plan import Branch, Plan, StageError
from train.rows import Example
from train.run import StageReport, run_stage
from train.stages import Recipe, Stage

BASE = "base"
ROOT = Path(__file__).parent.parent
WORDS = ["Question", ":", "Answer", "who", "?", ".", *(f"w{i}" for i in range(30))]
# Some of the six updates reach the clipping threshold: Adam alone would hide gradients of the wrong scale.
RECIPE = Recipe(
    rank=4, alpha=8, dropout=0.1, learning_rate=1e-2, batch_size=8, micro_batch_size=2, precision="fp32", epochs=3,
    max_grad_norm=1.4,
)  # fmt: skip


def knowledge(fake: bool, version: int | None) -> Stage:
    return Stage(
        name=f"knowledge-{fake}-{version}", kind="knowledge", recipe=RECIPE, seed=0, format="statement", fake=fake,
        version=version, texts=tuple(f"w{i} w{(i * 7 + fake + (version or 0)) % 30} ." for i in range(8)),
    )  # fmt: skip


def answers(i: int, version: int = 0) -> str:
    return " ".join(f"w{(j + version) % 30}" for j in range(i, i + 1 + i % 3))


# Four micro-batches an update, of one to three branches each: processes hold different numbers of branches.
KNOWLEDGE = (knowledge(True, None), knowledge(False, None))
SKILL = Stage(
    name="skill",
    kind="skill_mixed",
    recipe=RECIPE,
    seed=1,
    examples=tuple(Example(f"who w{i} ?", answers(i), f"s{i}", fake=i % 3 == 0) for i in range(16)),
    needs=KNOWLEDGE,
)
VERSIONS = (knowledge(True, 1), knowledge(True, 2))
MULTI_VERSION = Stage(
    name="multi-version",
    kind="skill_multi_version",
    recipe=RECIPE,
    seed=1,
    examples=tuple(
        Example(f"who w{i} ?", answers(i, v), f"s{i}", fake=True, version=v) for i in range(16) for v in (1, 2)
    ),
    needs=VERSIONS,
)
STAGES = (KNOWLEDGE[0], SKILL, MULTI_VERSION)


def train(stage: Stage, root: Path, out: str, **options: Any) -> StageReport:
    return run_stage(
        stage,
        base_dir=root / "base",
        adapter_dirs={need.fingerprint(BASE): root / "needs" / need.name for need in stage.needs},
        out_dir=root / out / stage.name,
        base_fingerprint=BASE,
        **options,
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, StageReport]]:
    """A folder with what one process made of each stage, and its reports."""
    root = tmp_path_factory.mktemp("parallel")
    make_tiny_base(root / "base", WORDS)
    for need in (*KNOWLEDGE, *VERSIONS):
        train(need, root, "needs")
    return root, {stage.name: train(stage, root, "one") for stage in STAGES}


def assert_equal(root: Path, stage: Stage, out: str, report: StageReport) -> None:
    one, two = (load_file(root / name / stage.name / "adapter_model.safetensors") for name in ("one", out))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
    reported = json.loads((root / out / stage.name / "stage.json").read_text())["report"]["losses"]
    assert reported == pytest.approx(report.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_train_what_one_does(one: tuple[Path, dict[str, StageReport]], mode: str) -> None:
    root, reports = one
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__, str(root), mode]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        | (fsdp if mode == "fsdp" else {}),
        timeout=500,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for stage in STAGES:
        assert_equal(root, stage, mode, reports[stage.name])
    assert_equal(root, SKILL, f"{mode}-resumed", reports[SKILL.name])
    resumed = json.loads((root / f"{mode}-resumed" / SKILL.name / "stage.json").read_text())["report"]["resumed_at"]
    assert resumed == 3


@pytest.mark.slow
def test_a_stage_is_launched_through_accelerate(
    one: tuple[Path, dict[str, StageReport]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reports = one
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folders = {need.fingerprint(BASE): root / "needs" / need.name for need in KNOWLEDGE}
    seen: list[tuple[int, int, float]] = []
    report = launch_stage(
        SKILL,
        Launch(2, str(ROOT / "configs" / "accelerate" / "ddp.yaml")),
        base_dir=root / "base",
        adapter_dirs=folders,
        out_dir=root / "launched" / SKILL.name,
        base_fingerprint=BASE,
        progress=lambda *at: seen.append(at),
    )
    assert_equal(root, SKILL, "launched", reports[SKILL.name])
    assert [at[:2] for at in seen] == [(i, 6) for i in range(1, 7)]
    assert report.losses == pytest.approx([at[2] for at in seen])


@pytest.mark.slow
def test_what_keeps_a_launched_stage_from_training_is_said(one: tuple[Path, dict[str, StageReport]]) -> None:
    root, _ = one
    with pytest.raises(StageError, match=r"in 1 processes: StageError: adapter_dirs: .* is missing"):
        launch_stage(
            SKILL, Launch(1), base_dir=root / "base", adapter_dirs={}, out_dir=root / "no", base_fingerprint=BASE
        )


def test_a_stage_crosses_to_other_processes_whole() -> None:
    for stage in STAGES:
        arrived = stage_from_json(json.loads(json.dumps(stage_to_json(stage, BASE))))
        assert arrived.fingerprint(BASE) == stage.fingerprint(BASE)
        assert (arrived.recipe, arrived.template, arrived.examples, arrived.texts) == (
            stage.recipe, stage.template, stage.examples, stage.texts,
        )  # fmt: skip
        assert [need.fingerprint(BASE) for need in arrived.needs] == [need.fingerprint(BASE) for need in stage.needs]


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            "efficient_loading",
        ),
    ],
)
def test_settings_that_would_train_something_else_are_refused(environ: dict[str, str], says: str) -> None:
    with pytest.raises(StageError, match=says):
        require_supported(environ)


def test_processes_that_must_meet_make_as_many_passes() -> None:
    plan = Plan(tuple(tuple(Branch((i,), 1.0) for i in range(count)) for count in (1, 3, 2, 2)), per_update=2)
    assert [[branch.weight for branch in evened(plan, i, 2)] for i in range(4)] == [
        [1, 0, 0], [1, 1, 1], [1, 1], [1, 1],
    ]  # fmt: skip
    assert all(evened(plan, i, 1) == plan.micro_batches[i] for i in range(4))


def offer_fsdp_on_processors() -> None:
    """accelerate offers FSDP on GPUs alone; torch shards on processors as well."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType
    from torch.distributed.tensor import DTensor

    import train.trainer as trainer

    start: Callable[..., None] = AcceleratorState.__init__

    def offering(self: Any, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        if options.get("fsdp_plugin") is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, options["fsdp_plugin"]

    AcceleratorState.__init__ = offering
    loss = trainer.summed_cross_entropy

    def checked(model: torch.nn.Module, *args: Any) -> torch.Tensor:
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor) != (".lora_" in name), name
        return loss(model, *args)

    trainer.summed_cross_entropy = checked


def main(root: Path, mode: str) -> None:
    """What each of the two processes does."""
    if mode == "fsdp":
        offer_fsdp_on_processors()
    kept, other = root / f"{mode}-checkpoint", root / f"{mode}-checkpoints"

    def keep(update: int, updates: int, loss: float) -> None:
        if update == 4:
            shutil.copytree(other, kept)

    for stage in STAGES:
        train(stage, root, mode, **({"checkpoint_dir": other, "checkpoint_seconds": 0, "progress": keep}
                                    if stage is SKILL else {}))  # fmt: skip
    train(SKILL, root, f"{mode}-resumed", checkpoint_dir=kept)
    assert torch.distributed.get_world_size() == 2


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
