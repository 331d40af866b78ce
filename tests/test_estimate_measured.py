"""Estimates against what was trained: rows and tokens to the digit, rates of equal devices, hours within a factor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config import load_preset
from harness.estimate import Estimate, assumed, estimate
from harness.jobs import TrainAdapter
from harness.options import resolve
from harness.plan import plan_run
from harness.registry import Suite
from harness.reports.estimate import remarks
from harness.run_options import RunOptions
from harness.shape import Shape
from harness.workload import DEVICES, Assumptions, Line
from train.hardware import cpu_name

HERE = cpu_name(threads=1)
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As workers train."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(training_seed: int = 0) -> RunOptions:
    suite = Suite("two", "Two tasks", ("persons", "hotpotqa"), "accuracy")
    options = resolve(suite="longform", preset="tiny", models="sft,prereq_tune")
    return replace(options, suite=suite, training_seed=training_seed)


def lines(made: Estimate) -> dict[str, Line]:
    return {line.label: line for line in made.lines}


# --- the miniature, against what is then trained -------------------------------------------------------------


def test_updates_and_tokens_are_those_that_are_then_trained_and_hours_follow_their_rate(one_thread: None) -> None:
    from harness.data.miniature_base import BaseConfig, new_model
    from harness.data.miniature_tokenizer import build_tokenizer
    from harness.data.miniature_world import WorldConfig, build_world

    options = tiny()
    before = lines(estimate(options))
    plan = plan_run(options)
    # A base of fresh weights: what it knows changes neither rows nor tokens.
    tokenizer = build_tokenizer(build_world(WorldConfig.from_dict(options.preset.source.world), options.seed))
    base = Path(plan.bases[0])
    new_model(BaseConfig.from_dict(options.preset.base.settings), tokenizer).save_pretrained(base)
    tokenizer.save_pretrained(base)
    trained: dict[str, tuple[int, int]] = {}
    seconds = 0.0
    for job in plan.jobs:
        if isinstance(job.payload, TrainAdapter):
            job.payload.run(job.out, lambda done, total, remark: None)
            report = json.loads((job.out / "stage.json").read_text())["report"]
            name = job.payload.stage.name.removesuffix("-v1").removesuffix("-v2")
            updates, tokens = trained.get(name, (0, 0))
            trained[name] = (updates + report["updates"], tokens + report["tokens"])
            seconds += report["seconds"]
    planned = {name: (line.updates, line.tokens) for name, line in before.items() if line.kind == "train"}
    assert planned == trained and len(planned) == 10
    assert all(line.exact and line.basis == "estimated" for line in before.values() if line.kind == "train")

    after = lines(estimate(options))
    assert all(after[name].ready == after[name].jobs and after[name].seconds == 0 for name in trained)
    # Another seed trains anew on the same base: its speed on this processor is known now, that of a GPU is not.
    again = estimate(tiny(training_seed=1), Assumptions(device="cpu"))
    assert all(lines(again)[name].basis == "measured" for name in trained)
    assert sum(lines(again)[name].seconds for name in trained) == pytest.approx(seconds, rel=0.1)
    assert any(remark.startswith("measured: ") for remark in remarks(again))
    elsewhere = lines(estimate(tiny(training_seed=1), Assumptions(device="h100")))
    assert all(elsewhere[name].basis == "estimated" for name in trained)


# --- whose rate counts ---------------------------------------------------------------------------------------


def leave_report(home: Path, **report: Any) -> None:
    """A trained SFT stage of tiny's base, 1,000 tokens in 10 seconds."""
    folder = home / "adapters" / str(len(list((home / "adapters").glob("*"))))
    folder.mkdir(parents=True)
    base = Path(plan_run(tiny()).bases[0]).name
    report = {"tokens": 1000, "seconds": 10} | report
    content = {"kind": "sft", "base_fingerprint": f"{base}-and-more", "report": report}
    (folder / "stage.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("device", "name", "counts"),
    [
        ("cpu", HERE, True),
        ("cpu", cpu_name(threads=2), False),
        ("cpu", "Another CPU, 1 thread", False),
        ("cpu", H100, False),
        ("cpu", None, False),
        ("h100", H100, True),
        ("h100", "NVIDIA H100 PCIe", False),
        ("h100", f"8 x {H100}", False),
        ("h100", "NVIDIA H200", False),
        ("h100", HERE, False),
        ("h100", None, False),
        ("h200", "NVIDIA H200", True),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
    ],
)
def test_a_rate_counts_for_an_equal_device_alone(home: Path, device: str, name: str | None, counts: bool) -> None:
    leave_report(home, **({} if name is None else {"device": name}))
    line = lines(estimate(tiny(), assumed(tiny(), device)))["persons-sft"]
    assert line.basis == ("measured" if counts else "estimated")
    if counts:
        assert line.seconds == pytest.approx(line.tokens / 100)


def test_a_resumed_stage_and_an_unreadable_one_say_nothing_about_speed(home: Path) -> None:
    leave_report(home, device=HERE, resumed_at=3)
    leave_report(home, device=HERE, tokens=None)
    assert lines(estimate(tiny(), Assumptions(device="cpu")))["persons-sft"].basis == "estimated"
    leave_report(home, device=HERE, resumed_at=0)
    assert lines(estimate(tiny(), Assumptions(device="cpu")))["persons-sft"].basis == "measured"


# --- estimated hours against measured ones -------------------------------------------------------------------

# How far an estimate by operations may be from what was measured on a core that had nothing else to do.
FACTOR = 4
# Figures of docs/paper-recipe.md, tokens a second of one core. Six worlds of the miniature lie between its two.
MINIATURE_SFT = (2600, 6400)
SMOLLM2_135M = {"sft": 62, "knowledge": 178}
SMOLLM2_SHAPE = Shape(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, head_dim=64, tie_word_embeddings=True,
)  # fmt: skip


@pytest.mark.parametrize("measured", MINIATURE_SFT)
def test_hours_on_the_miniature_are_within_the_factor(measured: float) -> None:
    made = lines(estimate(resolve(suite="longform", preset="mini", models="sft"), Assumptions(device="cpu")))
    line = made["persons-sft"]
    assert 1 / FACTOR < line.tokens / line.seconds / measured < FACTOR


@pytest.mark.parametrize(("kind", "measured"), SMOLLM2_135M.items())
def test_hours_on_smollm2_are_within_the_factor(kind: str, measured: float) -> None:
    assert SMOLLM2_SHAPE.parameters == 134_515_008
    recipes = load_preset("smol").recipes_for("popqa", "mixed")
    recipe = recipes.knowledge if kind == "knowledge" else recipes.sft
    tokens, length = 10_000, 40
    targets = tokens if kind == "knowledge" else tokens // 4  # about; a prompt has none
    trained = SMOLLM2_SHAPE.adapter_parameters(recipe.rank, recipe.target_modules)
    use = Assumptions(device="cpu")
    flops = SMOLLM2_SHAPE.training_flops(tokens, targets, tokens * length, trained)
    estimated = tokens / (flops / (DEVICES["cpu"][0] * use.mfu))
    assert 1 / FACTOR < estimated / measured < FACTOR
