"""Methods that learn from samples, and equal tuning, through the command line at preset `tiny`."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import pipeline, trials
from harness.config import load_preset
from harness.options import resolve
from harness.paths import read_lines
from harness.plan import Plan
from harness.run_options import RunOptions
from harness.store import RunFolder
from harness.tuning import Trial

ROOT = Path(__file__).parent.parent
SAMPLING = ["sft", "flame", "facttune", "rl", "sft_gpt"]
TASKS = ("persons", "medical")
GRID = {"learning_rate": (0.25, 1.0), "epochs": (0.5, 1.0)}


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=580,
        env={**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )  # fmt: skip


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bases are trained once: what is tested here is what is made of them."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def sampled(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A run of the methods that learn from samples, and where each adapter is, by the name of its stage."""
    folder = tmp_path_factory.mktemp("sampled") / "run"
    asked = ["run", "--suite", "longform", "--preset", "tiny", "--models", ",".join(SAMPLING), "--limit", "4"]
    result = run(home, *asked, "--out", str(folder))
    assert result.returncode == 0, result.stderr
    jobs = read(folder / "manifest.json")["jobs"]
    return folder, {job["label"].partition("train ")[2]: Path(job["at"]) for job in jobs if job["kind"] == "train"}


@pytest.mark.slow
def test_methods_that_learn_from_samples_have_rows(sampled: tuple[Path, dict[str, Path]]) -> None:
    folder, _ = sampled
    tasks = read(folder / "metrics.json")["tasks"]
    for name in TASKS:
        assert tasks[name]["order"] == ["base", *SAMPLING] and not tasks[name]["exclusions"]
        assert all(tasks[name]["models"][model]["accuracy"]["n"] == 4 for model in SAMPLING)
    assert read(folder / "manifest.json")["failures"] == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_preference_stages_start_at_ln_2_from_their_own_sft_stage(
    sampled: tuple[Path, dict[str, Path]], task: str
) -> None:
    _, at = sampled
    for method, start in (("flame", f"{task}-flame-sft"), ("facttune", f"{task}-sft")):
        stage, before = read(at[f"{task}-{method}"] / "stage.json"), read(at[start] / "stage.json")
        assert stage["kind"] == "dpo" and stage["pairs"] > 0 and before["kind"] == "sft"
        assert stage["report"]["losses"][0] == pytest.approx(math.log(2), abs=1e-3)
        config, config_before = (read(at[n] / "adapter_config.json") for n in (f"{task}-{method}", start))
        assert (config["r"], config["lora_alpha"]) == (config_before["r"], config_before["lora_alpha"])


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_rl_logs_claims_an_answer_beside_its_adapter(sampled: tuple[Path, dict[str, Path]], task: str) -> None:
    _, at = sampled
    updates = load_preset("tiny").options["default"]["rollouts"]["updates"]
    log = list(read_lines(at[f"{task}-rl"] / "rl_log.jsonl"))
    assert [row["update"] for row in log] == list(range(1, updates + 1))
    assert log[0]["kl"] == 0 and all(row["claims"] > 0 and row["tokens"] > 0 for row in log)
    assert {"reward", "objective", "malformed", "true"} <= log[0].keys()
    stage = read(at[f"{task}-rl"] / "stage.json")
    assert stage["report"]["losses"] == [-row["objective"] for row in log]
    assert read(at[f"{task}-rl-verifier"] / "stage.json")["examples"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_sft_gpt_learns_other_answers_to_the_same_prompts(sampled: tuple[Path, dict[str, Path]], task: str) -> None:
    folder, at = sampled
    own, taught = (read(at[f"{task}-{name}"] / "stage.json") for name in ("sft", "sft-gpt"))
    assert 0 < taught["examples"] <= own["examples"] and taught["recipe"] == own["recipe"]
    answers = {m: [r["text"] for r in read_lines(folder / "responses.jsonl") if r["model"] == m] for m in SAMPLING}
    assert answers["sft_gpt"] != answers["sft"]


# --- equal tuning --------------------------------------------------------------------------------------------


def tune(home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    preset = folder.with_name("tiny-grid.toml")
    shipped = (ROOT / "harness" / "presets" / "tiny.toml").read_text(encoding="utf-8")
    preset.write_text(shipped + "\n[tuning]\n" + "".join(f"{name} = {list(GRID[name])}\n" for name in GRID))
    asked = ["run", "--suite", "shortqa", "--preset", str(preset), "--models", "sft,popular", "--tune", "--limit", "12"]
    result = run(home, *asked, "--out", str(folder))
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def tuned(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "run"
    tune(home, folder)
    return folder


def where(row: dict[str, Any]) -> tuple[str, str]:
    return row["task"], row["method"]


@pytest.mark.slow
def test_every_setting_is_tried_on_validation_entities_and_the_best_is_taken(tuned: Path) -> None:
    record, manifest = read(tuned / "tuning.json"), read(tuned / "manifest.json")
    settings = set(itertools.product(GRID["learning_rate"], GRID["epochs"]))
    cells = {(task, method) for task in ("popqa", "hotpotqa") for method in ("sft", "popular")}
    tried: dict[tuple[str, str], dict[tuple[float, float], float]] = {cell: {} for cell in cells}
    for trial in record["trials"]:
        tried[where(trial)][trial["setting"]["learning_rate"], trial["setting"]["epochs"]] = trial["score"]
    assert len(record["trials"]) == len(cells) * len(settings)
    chosen = {where(row): (row["learning_rate"], row["epochs"]) for row in record["chosen"]}
    assert chosen.keys() == cells
    for cell, scores in tried.items():
        assert set(scores) == settings
        assert scores[chosen[cell]] == max(scores.values()), cell
    # Validation entities, all of them: `--limit` is of test items alone.
    asked = {trial["task"]: trial["n"] for trial in record["trials"]}
    assert asked["popqa"] > 12 and 0 < asked["hotpotqa"] < 12
    assert max(tried["popqa", "sft"].values()) > min(tried["popqa", "sft"].values())
    assert manifest["tuned"] == record["chosen"] and manifest["comparison"] == "equal tuning"


@pytest.mark.slow
def test_the_reported_models_are_trained_as_was_chosen(tuned: Path) -> None:
    record, manifest = read(tuned / "tuning.json"), read(tuned / "manifest.json")
    at = {job["label"].partition("train ")[2]: Path(job["at"]) for job in manifest["jobs"] if job["kind"] == "train"}
    preset = load_preset("tiny")
    for row in record["chosen"]:
        recipe = read(at[f"{row['task']}-{row['method']}"] / "stage.json")["recipe"]
        plain = preset.recipes["default"]["sft"] | preset.recipes.get(row["task"], {}).get("sft", {})
        assert recipe["learning_rate"] == pytest.approx(plain["learning_rate"] * row["learning_rate"])
        assert recipe["epochs"] == pytest.approx(plain["epochs"] * row["epochs"])
    text = (tuned / "leaderboard.md").read_text(encoding="utf-8")
    assert "Comparison: equal tuning." in text and "chosen on validation entities" in text
    assert "comparison: `equal tuning`" in text
    tasks = read(tuned / "metrics.json")["tasks"]
    assert all(tasks[task]["models"][model]["accuracy"]["n"] == 12 for task in tasks for model in ("sft", "popular"))


def test_a_run_that_was_killed_right_after_tuning_goes_on_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(options: RunOptions) -> Plan:
        if options.settings and options.split == "test":
            raise KeyboardInterrupt
        return Plan((), (), {}, (), ())

    for module in (pipeline, trials):
        monkeypatch.setattr(module, "plan_run", planned)
    monkeypatch.setattr(trials, "_trials", lambda plan, setting, options: [Trial("popqa", "sft", setting, 0.5, 0, 4)])
    options = resolve(suite="shortqa", preset="tiny", models="sft", tune=True)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute(options, folder, "harness run --tune", lambda event: None)
    folder.check(options.fingerprint(), resume=True)


@pytest.mark.slow
def test_tuning_again_repeats_nothing(tuned: Path, home: Path) -> None:
    kept = ("tuning.json", "metrics.json", "responses.jsonl")
    before = [(tuned / name).read_bytes() for name in kept]
    made = {p: p.stat().st_mtime_ns for kind in ("adapters", "generations") for p in (home / kind).rglob("*")}
    result = tune(home, tuned)
    assert [(tuned / name).read_bytes() for name in kept] == before
    assert read(tuned / "manifest.json")["job_seconds"] == {} and " done: " not in result.stderr
    again = {p: p.stat().st_mtime_ns for kind in ("adapters", "generations") for p in (home / kind).rglob("*")}
    assert again == made
