"""A method from another package is found through its entry point, listed, and run like those that come along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).parent / "plugin"
ROOT = PLUGIN.parent.parent


def harness(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, with the other package installed beside the harness (a folder with its metadata)."""
    path = os.pathsep.join([str(PLUGIN), str(ROOT)])
    environment = {**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *words],
        capture_output=True, text=True, env=environment, check=False, timeout=600,
    )  # fmt: skip


def test_a_method_of_another_package_is_listed_trained_and_ranked(tmp_path: Path) -> None:
    listed = harness(tmp_path, "list", "--json")
    assert json.loads(listed.stdout)["methods"]["brief"].startswith("Brief: An example")
    run = harness(
        tmp_path, "run", "--suite", "shortqa", "--preset", "tiny", "--models", "brief", "--limit", "8", "--json",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    tasks = json.loads(run.stdout)["tasks"]
    assert all({"base", "brief"} <= set(tasks[name]["models"]) for name in ("popqa", "hotpotqa"))


def test_without_the_package_the_name_is_unknown(tmp_path: Path) -> None:
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "validate",
        "--suite",
        "shortqa",
        "--preset",
        "tiny",
        "--models",
        "brief",
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=120)
    assert run.returncode == 2
    assert "no model is called 'brief'" in run.stderr
