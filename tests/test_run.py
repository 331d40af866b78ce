"""The whole path at preset `tiny`, through the command line: results, continuation, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODELS = ["base", "sft", "popular", "sft_fictitious", "prereq_tune"]
LONGFORM = ["run", "--suite", "longform", "--preset", "tiny"]


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=environment(home), timeout=900,
    )  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    unset = {"HARNESS_DATA"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return kept | {"HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = command(home, *LONGFORM, "--out", str(folder))
    assert result.returncode == 0, result.stderr
    yield folder, result.stdout


@pytest.mark.slow
def test_a_run_leaves_leaderboard_curves_metrics_and_records(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "manifest.json", "responses.jsonl", "claims.jsonl", "metrics.json", "leaderboard.md",
        "accuracy_vs_claims.png", "accuracy_vs_claims.svg",
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    for task in ("persons", "medical"):
        assert metrics["tasks"][task]["order"] == MODELS
        for model in MODELS:
            accuracy = metrics["tasks"][task]["models"][model]["accuracy"]
            assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    for model in MODELS:
        assert model in printed and model in (folder / "leaderboard.md").read_text()
    responses = [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]
    claims = [json.loads(line) for line in (folder / "claims.jsonl").read_text().splitlines()]
    assert {(row["task"], row["model"], row["item_id"]) for row in responses} == {
        (row["task"], row["model"], row["id"]) for row in claims
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["failures"] == [] and manifest["judge"] == "rules"


@pytest.mark.slow
def test_the_fine_tuned_models_do_not_answer_as_the_base_does(finished: tuple[Path, str]) -> None:
    answers: dict[str, list[str]] = {}
    for line in (finished[0] / "responses.jsonl").read_text().splitlines():
        row = json.loads(line)
        answers.setdefault(row["model"], []).append(row["text"])
    for model in MODELS[1:]:
        assert answers[model] != answers["base"]


@pytest.mark.slow
def test_a_second_run_does_nothing_again_and_ends_in_the_same_bytes(finished: tuple[Path, str], home: Path) -> None:
    folder, _ = finished
    before = (folder / "metrics.json").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    result = command(home, *LONGFORM, "--out", str(folder), "--json")
    assert result.returncode == 0, result.stderr
    assert (folder / "metrics.json").read_bytes() == before
    assert json.loads(result.stdout) == json.loads(before)
    timed = json.loads((folder / "manifest.json").read_text())["job_seconds"]
    assert timed == {}, "jobs ran again"
    again = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    results = {path: at for path, at in kept.items() if path.parent.name in {"generations", "scores"}}
    assert all(again[path] == at for path, at in results.items())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_killed_in_training_generation_and_scoring_ends_in_the_same_bytes(
    finished: tuple[Path, str], home: Path, tmp_path: Path
) -> None:
    own_home, folder = tmp_path / "home", tmp_path / "run"
    # The base is deterministic (tested with the miniature) and half the time of the run: both runs share it.
    (own_home / "bases").mkdir(parents=True)
    for base in (home / "bases").iterdir():
        if base.is_dir():
            (own_home / "bases" / base.name).symlink_to(base)
    for stage in ("train ", "answer ", "judge "):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *LONGFORM, "--out", str(folder)],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment(own_home),
        )  # fmt: skip
        assert process.stderr is not None
        # When the first job of a stage is done, others of the stage are in work.
        line = next(line for line in process.stderr if "done: " in line and stage in line)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert stage in line and not (folder / "metrics.json").exists()
    result = command(own_home, *LONGFORM, "--out", str(folder))
    assert result.returncode == 0, result.stderr
    assert (folder / "metrics.json").read_bytes() == (finished[0] / "metrics.json").read_bytes()
    assert (folder / "responses.jsonl").read_bytes() == (finished[0] / "responses.jsonl").read_bytes()


@pytest.mark.slow
def test_another_run_in_the_same_folder_is_refused(finished: tuple[Path, str], home: Path) -> None:
    result = command(home, *LONGFORM, "--out", str(finished[0]), "--limit", "3")
    assert result.returncode == 2
    assert "holds another run" in result.stderr and "--out" in result.stderr


@pytest.mark.slow
def test_somebody_elses_adapter_is_scored_beside_ours(finished: tuple[Path, str], home: Path, tmp_path: Path) -> None:
    manifest = json.loads((finished[0] / "manifest.json").read_text())
    at = {job["label"]: job["at"] for job in manifest["jobs"]}
    theirs = at["world 0: train persons-sft"]
    result = command(
        home, *LONGFORM, "--models", "sft", "--adapter", f"theirs={theirs}", "--out", str(tmp_path / "run"), "--json"
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    models = json.loads(result.stdout)["tasks"]["persons"]["models"]
    assert models["theirs"]["accuracy"] == models["sft"]["accuracy"]


@pytest.mark.slow
def test_short_qa_runs_at_tiny(home: Path, tmp_path: Path) -> None:
    result = command(
        home, "run", "--suite", "shortqa", "--preset", "tiny", "--out", str(tmp_path / "run"), "--json"
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    tasks = json.loads(result.stdout)["tasks"]
    assert set(tasks) == {"popqa", "hotpotqa"}
    assert any("bridge" in name for name in tasks["hotpotqa"]["models"]["base"])


@pytest.mark.slow
def test_what_could_not_be_trained_is_said_under_its_table(home: Path, tmp_path: Path) -> None:
    preset = tmp_path / "no-pairs.toml"
    shipped = (ROOT / "harness" / "presets" / "tiny.toml").read_text()
    # No two shares of supported claims differ by more than 1.
    preset.write_text(shipped.replace("[options.default]\n", "[options.default]\nmin_gap = 1.0\n", 1))
    asked = ["run", "--suite", "shortqa", "--preset", str(preset), "--models", "sft,facttune"]
    result = command(home, *asked, "--out", str(tmp_path / "r"))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    text = (tmp_path / "r" / "leaderboard.md").read_text()
    for task in ("popqa", "hotpotqa"):
        reason = f"world 0: train {task}-facttune: StageError: pairs: stage '{task}-facttune' (dpo) has no pair"
        assert f"- No row for facttune: {reason}" in text and reason in result.stderr
    assert "| sft |" in text and "| facttune |" not in text
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["failures"]


@pytest.mark.slow
def test_ablations_share_what_the_tables_made(finished: tuple[Path, str], home: Path, tmp_path: Path) -> None:
    names = ("claims", "examples", "settings")
    arguments = ["--only", ",".join(names), "--preset", "tiny", "--models", ",".join(MODELS)]
    result = command(home, "run", "--suite", "ablations", *arguments, "--out", str(tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    pages = tmp_path / "run" / "ablations"
    assert {path.stem for path in pages.glob("*.md")} == {path.stem for path in pages.glob("*.json")} == set(names)
    assert (pages / "claims.png").exists() and (pages / "claims.svg").exists()
    leaderboard = (tmp_path / "run" / "leaderboard.md").read_text()
    assert all(f"(ablations/{name}.md)" in leaderboard for name in names)
    timed = json.loads((tmp_path / "run" / "manifest.json").read_text())["job_seconds"]
    assert timed and all("[claims: " in label and "tokens]" in label for label in timed), "only forced lengths are new"


def test_validate_prints_all_problems_and_exits_with_2(tmp_path: Path) -> None:
    result = command(
        tmp_path, "validate", "--suite", "longfrom", "--preset", "tiny", "--models", "sfft", "--limit", "0"
    )
    assert result.returncode == 2
    assert all(word in result.stderr for word in ("longfrom", "sfft", "--limit"))
    assert "Traceback" not in result.stderr


def test_validate_tries_every_need_apart_from_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    data, base = tmp_path / "data", tmp_path / "base"
    (data / "prereq_tune").mkdir(parents=True)
    base.mkdir()
    teacher = tmp_path / "answers.jsonl"
    teacher.write_text('{"prompt": "Who?"}\n')
    words = ["--suite", "longform", "--preset", "llama3-8b", "--data", str(data), "--base", str(base)]
    result = command(tmp_path, "validate", *words, "--teacher", f"file:{teacher}", "--models", "sfft")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    problems = [line for line in result.stderr.splitlines() if line.startswith("- ")]
    for wanted in (
        "'sfft'",  # the words
        "config.json",  # the base
        "--judge openai:gpt-4o-mini: no API key: set OPENAI_API_KEY",
        f"--teacher: {teacher}:1:",
        "bio_skill cannot be loaded",
        "medical_skill cannot be loaded",
        "persons needs a knowledge source",
        "medical needs a knowledge source",
    ):
        assert sum(wanted in problem for problem in problems) == 1, (wanted, result.stderr)
    assert "connection to the hub" not in result.stderr and len(problems) == 8


def test_validate_says_where_fictitious_data_come_from(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    words = ["--suite", "table2", "--preset", "smol", "--data", str(data), "--models", "openai:m"]
    result = command(tmp_path, "validate", *words, "--base-url", "http://127.0.0.1:9/v1")
    assert result.returncode == 2
    # One problem is a sentence, not a list of one.
    assert result.stderr.startswith("harness: local data has no task 'grounding'")
    assert f"`harness synthesize {data} --task popqa --out FOLDER`" in result.stderr
    assert "--fictitious FOLDER" in result.stderr


def test_validate_of_a_good_run(tmp_path: Path) -> None:
    result = command(tmp_path, "validate", "--suite", "longform", "--preset", "tiny")
    assert result.returncode == 0, result.stderr
    assert "ready" in result.stdout


def test_an_adapter_folder_that_is_none_is_named(tmp_path: Path) -> None:
    result = command(tmp_path, "validate", "--preset", "tiny", "--adapter", f"mine={tmp_path / 'nothing'}")
    assert result.returncode == 2
    assert "adapter_config.json" in result.stderr and "nothing" in result.stderr


def test_list_shows_everything_that_can_be_named(tmp_path: Path) -> None:
    result = command(tmp_path, "list", "--json")
    listing = json.loads(result.stdout)
    assert set(MODELS) <= set(listing["models"])
    assert {"tiny", "mini", "smol"} <= set(listing["presets"])
    assert {"persons", "medical", "popqa", "hotpotqa"} <= set(listing["tasks"])
    assert "rules" in listing["judges"]
