"""`harness run --suite all --preset tiny`: every table and every figure out of one command, from nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baselines import methods
from harness.ablations.ablation import BUILT_IN
from harness.registry import suites

ROOT = Path(__file__).parent.parent
PICTURED = {"claims", "scaling", "format", "decomposition", "popqa_cleaning", "controlled"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all") / "run"
    result = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "--suite", "all", "--preset", "tiny", "--quiet", "--out", folder],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HARNESS_HOME": str(folder.parent / "home"), "OMP_NUM_THREADS": "1"},
        timeout=580,
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_tables_1_2_and_3_have_every_row(run: Path) -> None:
    tasks = json.loads((run / "metrics.json").read_text())["tasks"]
    assert list(suites()["all"].tasks) == ["persons", "medical", "popqa", "hotpotqa", "grounding", "memorization"]
    assert set(tasks) == set(suites()["all"].tasks)
    every = {method.name for method in methods()}
    for name in ("persons", "medical", "popqa", "hotpotqa"):
        assert set(tasks[name]["order"]) | set(tasks[name]["exclusions"]) == every, name
        assert set(tasks[name]["exclusions"]) <= {"flame"}, tasks[name]["exclusions"]
    assert tasks["grounding"]["order"] == ["base", "prereq_know1", "prereq_know2", "prereq_tune", "sft"]
    assert tasks["memorization"]["order"] == ["base", "sft_fictitious", "prereq_tune", "sft"]
    text = (run / "leaderboard.md").read_text()
    assert text.count("pair by pair") >= 5 and "paper (Llama-3-8B)" in text
    assert (run / "accuracy_vs_claims.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_other_figure_and_table_has_a_page(run: Path, name: str) -> None:
    place = run / "ablations"
    page, numbers = (place / f"{name}.md").read_text(), json.loads((place / f"{name}.json").read_text())
    assert f"harness run --suite ablations --only {name}" in page and "not made" not in page
    assert numbers["name"] == name and numbers["summary"]
    assert (place / f"{name}.png").is_file() == (name in PICTURED)
    assert f"(ablations/{name}.md)" in (run / "leaderboard.md").read_text()
