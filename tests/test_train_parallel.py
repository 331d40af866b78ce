"""Two processes train what one trains: the same draws, the same losses, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import make_tiny_base
from train.rows import Example
from train.run import run_stage
from train.stages import Recipe, Stage

BASE = "base"
WORDS = ["Question", ":", "Answer", "who", "?", ".", *(f"w{i}" for i in range(30))]
# Some of the six updates reach the clipping threshold: Adam alone would hide gradients of the wrong scale.
RECIPE = Recipe(
    rank=4, alpha=8, dropout=0.1, learning_rate=1e-2, batch_size=8, micro_batch_size=2, precision="fp32", epochs=3,
    max_grad_norm=1.4,
)  # fmt: skip
# Four micro-batches an update, of one to three branches each: processes hold different numbers of branches.
KNOWLEDGE = tuple(
    Stage(
        name=f"knowledge-{fake}", kind="knowledge", recipe=RECIPE, seed=0, format="statement", fake=fake,
        texts=tuple(f"w{i} w{(i * 7 + fake) % 30} ." for i in range(8)),
    )
    for fake in (True, False)
)  # fmt: skip
SKILL = Stage(
    name="skill",
    kind="skill_mixed",
    recipe=RECIPE,
    seed=1,
    examples=tuple(
        Example(f"who w{i} ?", " ".join(f"w{j}" for j in range(i, i + 1 + i % 3)), f"s{i}", fake=i % 3 == 0)
        for i in range(16)
    ),
    needs=KNOWLEDGE,
)


def train(folder: Path, base: Path, adapters: Path) -> tuple[float, ...]:
    dirs = {need.fingerprint(BASE): adapters / need.name for need in KNOWLEDGE}
    return run_stage(SKILL, base_dir=base, adapter_dirs=dirs, out_dir=folder, base_fingerprint=BASE).losses


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", WORDS)
    for need in KNOWLEDGE:
        run_stage(need, base_dir=base, adapter_dirs={}, out_dir=tmp_path / need.name, base_fingerprint=BASE)
    losses = train(tmp_path / "one", base, tmp_path)
    root = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__, str(tmp_path)],
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
        capture_output=True,
    )
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
    reported = json.loads((tmp_path / "two" / "stage.json").read_text())["report"]["losses"]
    assert reported == pytest.approx(losses, rel=1e-4)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    train(root / "two", root / "base", root)
    assert torch.distributed.get_world_size() == 2
