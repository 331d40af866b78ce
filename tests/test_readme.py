"""The README is true: its commands parse and run (at the smallest preset), its figures are the committed ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
HARNESS = sorted(
    {
        command.strip()
        for text in [block for language, block in FENCED if language == "bash"] + re.findall(r"`([^`\n]+)`", README)
        for line in text.splitlines()
        for command in re.split(r"&&", line)
        if re.match(r"(\.venv/bin/)?harness \w", command.strip())
    }
)


def run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_there_are_commands_to_test() -> None:
    assert any(command.endswith("harness run --suite longform") for command in HARNESS)
    assert len(HARNESS) >= 5


@pytest.mark.parametrize("command", HARNESS)
def test_a_harness_command_of_the_readme_is_valid(command: str, home: Path, tmp_path: Path) -> None:
    words = shlex.split(command.removeprefix(".venv/bin/"))[1:]
    if words[0] in ("run", "validate"):
        if "DATA" in words:
            if not os.environ.get("HARNESS_DATA"):
                pytest.skip("needs a data folder")
            if not (Path(os.environ.get("SMOLLM2", "")) / "config.json").is_file():
                pytest.skip("needs SmolLM2 (SMOLLM2=folder)")
            words[words.index("DATA")] = os.environ["HARNESS_DATA"]
            words += ["--base", os.environ["SMOLLM2"]]
            if "--fictitious" in words:
                made = tmp_path / "made"
                result = run(["synthesize", os.environ["HARNESS_DATA"], "--out", str(made)], home)
                assert result.returncode == 0, result.stderr
                words[words.index("made")] = str(made)
        else:
            words += ["--preset", "tiny"]
        if "--adapter" in words:
            pytest.skip("needs an adapter; tests/test_run.py scores one")
        result = run(["validate", *words[1:]], home)
        assert result.returncode == 0 and "ready" in result.stdout, result.stderr
    elif words[0] == "list":
        assert run(words, home).returncode == 0
    else:
        result = run([words[0], *(["build"] if words[0] == "knowledge" else []), "--help"], home)
        assert result.returncode == 0, result.stderr
        options = {word for word in words if word.startswith("--")}
        assert all(option in result.stdout for option in options)


def test_the_set_up_commands_install_what_the_project_declares() -> None:
    set_up = [block for language, block in FENCED if language == "bash" and "pip install" in block]
    assert "pip install -c constraints.txt -e ." in set_up[0] and set_up[0].strip().endswith("--suite longform")
    assert "pip install -c constraints.txt -e '.[dev]'" in set_up[1] and set_up[1].strip().endswith("pytest")
    ci = (ROOT / ".ci" / "run").read_text()
    assert "install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'" in ci


def test_the_library_example_runs(tmp_path: Path) -> None:
    from factscore_mod.knowledge import Document, build

    build(
        [Document("Marie Curie", "Marie Curie was a physicist. She was born in Warsaw in 1867.")], tmp_path / "wiki.db"
    )
    (example,) = [block for language, block in FENCED if language == "python"]
    result = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "supported" in result.stdout


def test_the_shown_leaderboard_and_curve_are_the_committed_ones() -> None:
    shown = README.split("<!-- result -->")[1].split("<!-- /result -->")[0]
    committed = ROOT / "leaderboards" / "mini" / "table1"
    metrics = json.loads((committed / "metrics.json").read_text())
    leaderboard = (committed / "leaderboard.md").read_text()
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(metrics["tasks"]["persons"]["order"])
    assert all(row in leaderboard for row in rows)
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", shown)
    assert (ROOT / picture).is_file()


def test_every_file_that_the_readme_names_is_there() -> None:
    for name in re.findall(r"`((?:docs|leaderboards|scripts|harness|tests)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
