"""What `harness plan` counts beside the tables, whichever models are named, and how it says it."""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli, pipeline, trials
from harness.ablations import prepare
from harness.cli import main
from harness.errors import UserError
from harness.estimate import Estimate, estimate
from harness.jobs import Job
from harness.options import resolve
from harness.parts import TUNING, parts_of
from harness.plan import plan_run
from harness.reports.estimate import remarks, tables
from harness.run_options import RunOptions
from harness.store import RunFolder
from harness.workload import Assumptions, Line


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return tmp_path / "home"


def lines(made: Estimate) -> dict[str, Line]:
    return {line.label: line for line in made.lines}


def printed(made: Estimate) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as caught:
        for table in tables(made):
            console.print(table)
    return caught.get() + "\n".join(remarks(made))


# --- ablations and tuning ------------------------------------------------------------------------------------


def jobs_of_a_run(options: RunOptions) -> dict[str, Job]:
    """By key, as `pipeline.execute` puts them together."""
    plans = [plan_run(options), *(plan for study in prepare(options) for plan in study.plans)]
    return {job.key: job for plan in plans for job in plan.jobs}


@pytest.mark.parametrize(("suite", "only"), [("ablations", None), ("ablations", "format,claims"), ("all", None)])
def test_every_job_of_the_ablations_is_counted_once(suite: str, only: str | None) -> None:
    options = resolve(suite=suite, preset="tiny", only=only)
    parts, missing = parts_of(options)
    jobs = jobs_of_a_run(options)
    assert {job.key for part in parts for job in part.jobs} == jobs.keys() and not missing
    made = estimate(options)
    for kind in ("train", "sample", "generate"):
        counted = sum(line.jobs for line in made.lines if line.kind == kind)
        assert counted == sum(job.kind == kind for job in jobs.values()), kind
    assert any(line.label.endswith("(format)") for line in made.lines)


def test_what_arms_share_with_the_tables_stands_with_the_tables() -> None:
    whole = lines(estimate(resolve(suite="all", preset="tiny", only="format")))
    alone = lines(estimate(resolve(suite="ablations", preset="tiny", only="format")))
    # Of the three formats "both" is what the tables have.
    assert whole["popqa-prereq-tune"].jobs == 1 and whole["popqa-prereq-tune (format)"].jobs == 2
    assert alone["popqa-prereq-tune (format)"].jobs == 3 and "popqa-prereq-tune" not in alone
    assert not any("knowledge" in name for name in whole if name.endswith("(format)"))


def test_answers_of_a_forced_length_are_that_long() -> None:
    found = lines(estimate(resolve(suite="ablations", preset="tiny", only="claims", models="base")))
    # 0.4 and all of 70 tokens, and once the answers' own length; 16 persons.
    own = lines(estimate(resolve(suite="longform", preset="tiny", models="base")))["answer persons"].tokens
    assert found["answer persons (claims)"].tokens == 16 * (28 + 70) + own


def test_ablations_that_are_not_made_are_said_with_the_reason() -> None:
    made = estimate(resolve(suite="ablations", preset="llama3-8b", only="scaling"))
    assert made.left_out["ablation scaling"] == "only the miniature can bound its fictitious subjects"
    # Table and arm leave the same cell out for the same reason: it is said once.
    both = estimate(resolve(suite="all", preset="llama3-8b", models="base,sft_gpt", only="claims"))
    assert "persons, sft_gpt" in both.left_out and "persons, sft_gpt (claims)" not in both.left_out


def test_the_trials_of_tuning_are_those_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = resolve(suite="table2", preset="tiny", worlds=2, tune=True)
    asked: set[str] = set()

    def instead(jobs: Any, *_: Any) -> None:
        asked.update(job.key for job in jobs)
        raise UserError("enough")

    monkeypatch.setattr(trials, "run_jobs", instead)
    with pytest.raises(UserError, match="enough"):
        trials.tune(options, RunFolder(tmp_path / "run"), lambda event: None, lambda plan: None, None, "processes")
    parts, _ = parts_of(options)
    assert {job.key for part in parts if part.within == TUNING for job in part.jobs} == asked

    grid = len(options.preset.tuning.learning_rate) * len(options.preset.tuning.epochs)
    made = estimate(options)
    found = lines(made)
    assert found["popqa-sft (tuning)"].jobs == grid
    # The tables' first world takes the adapter from the trials, the second trains its own.
    assert found["popqa-sft"].jobs == 1
    assert any("--tune" in note for note in made.notes)


# --- what does not depend on the models ----------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "llama3-8b"])
def test_answers_are_as_long_whichever_models_are_named(preset: str) -> None:
    each = []
    alone = ["base", "sft", "sft_gpt", *(["prereq_tune"] if preset == "tiny" else [])]
    for models in (*alone, ",".join(alone)):
        made = estimate(resolve(suite="table1", preset=preset, models=models, teacher="openai:gpt-4o"))
        answers = [line for line in made.lines if line.label.startswith("answer ")]
        each.append({line.label: round(line.tokens / line.rows, 2) for line in answers})
        asked = {one.label: one.tokens_out / one.responses for one in made.calls if one.label.startswith("teacher")}
        for label, length in asked.items():
            assert length == pytest.approx(each[-1][f"answer {label.removeprefix('teacher, ')}"], abs=0.5)
    assert len(each[0]) == 4 and all(found == each[0] for found in each)


def test_with_served_models_alone_there_is_no_base() -> None:
    for preset in ("tiny", "llama3-8b"):
        made = estimate(resolve(suite="longform", preset=preset, models="openai:gpt-4o-mini,openai-chat:mine"))
        assert not made.lines and not any(made.disk.values())
        said = printed(made)
        assert "base" not in said.lower() and "All models are served" in said
        assert {(one.label, one.model) for one in made.calls} >= {
            ("answer persons", "openai:gpt-4o-mini"), ("answer persons", "openai:mine")
        }  # fmt: skip
    served = {one.model: one.dollars for one in made.calls if one.label == "answer persons"}
    assert served["openai:mine"] is None and served["openai:gpt-4o-mini"]


# --- options of a run ----------------------------------------------------------------------------------------


def test_plan_takes_every_option_that_changes_what_a_run_does() -> None:
    how = {"out", "resume", "workers", "executor", "quiet", "trust_remote_code"}
    run, plan = (set(inspect.signature(command).parameters) for command in (cli.run, cli.plan))
    assert run - plan == how
    assert plan - run == {"device", "mfu", "download"}


def test_adapters_and_models_of_a_file_are_counted(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_text("")
    models = tmp_path / "models.toml"
    models.write_text(
        f'[models.twice]\nmethod = "sft"\nshots = {{ persons = 2 }}\n'
        f'[models.elsewhere]\nmethod = "sft"\nbase = "{tmp_path}/no-such-base"\n'
    )
    named = "base,sft,twice,elsewhere"
    options = resolve(suite="longform", preset="tiny", models=named, adapters=[f"mine={adapter}"], models_file=models)
    made = estimate(options)
    # base, sft, twice (the same adapter, other prompts) and mine.
    assert lines(made)["answer persons"].jobs == 4 and lines(made)["persons-sft"].jobs == 1
    assert "no-such-base is not a folder here" in made.left_out["elsewhere"]


def test_a_missing_base_is_said_with_the_command_that_gets_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(UserError, match=r"python -m harness\.data\.smollm2"):
        estimate(resolve(suite="shortqa", preset="smol", data=data))


# --- words ---------------------------------------------------------------------------------------------------


def test_the_table_says_whose_hours_and_leaves_out_what_is_nothing() -> None:
    options = resolve(suite="longform", preset="tiny", models="base")
    said = printed(estimate(options, Assumptions(device="cpu")))
    assert "hours of one core of a CPU at 35% of its peak" in said and "0.0 MB" not in said
    assert "~ marks what is not known beforehand" in said
    assert "hours of one H100 at 35% of its peak" in printed(estimate(options, Assumptions(device="h100")))
    ablation = estimate(resolve(suite="ablations", preset="tiny", only="format"))
    assert "popqa-prereq-tune (format)" in printed(ablation)


def test_rows_that_lose_their_end_are_said_with_their_stage(caplog: pytest.LogCaptureFixture) -> None:
    options = resolve(suite="longform", preset="tiny", models="sft")
    recipes = dict(options.preset.recipes)
    recipes["default"] = recipes["default"] | {"sft": recipes["default"]["sft"] | {"max_length": 44}}
    short = replace(options, preset=options.preset.model_copy(update={"recipes": recipes}))
    with caplog.at_level(logging.WARNING):
        made = estimate(short)
    cut = lines(made)["persons-sft"].truncated
    assert 0 < cut <= 16 and not caplog.records
    told = f"persons-sft: {cut} of 16 rows are longer than the recipe's max_length and lose their end."
    assert told in remarks(made)
    assert not any("max_length" in remark for remark in remarks(estimate(options)))


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plan", "--suite", "longform", "--preset", "tiny", "--json"])
    assert left.value.code == 0
    read = json.loads(capsys.readouterr().out)
    assert read["totals"]["device_hours"] > 0 and read["assumptions"]["mfu"] == 0.35
    assert {line["label"] for line in read["lines"]} >= {"pre-train", "persons-sft", "answer medical"}
    with pytest.raises(SystemExit):
        main(["plan", "--suite", "longform", "--preset", "tiny"])
    printed = capsys.readouterr().out
    assert "persons-prereq-tune" in printed and "Disk" in printed
    # The rules judge costs nothing: no table of calls.
    assert len(tables(estimate(resolve(suite="longform", preset="tiny")))) == 1


def test_the_banner_of_a_run_claims_no_time_for_other_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def instead(*_: Any) -> None:
        raise UserError("enough")

    monkeypatch.setattr(pipeline, "execute", instead)
    with pytest.raises(SystemExit):
        main(["run", "--suite", "table1", "--preset", "tiny", "--seeds", "3", "--out", str(tmp_path / "run")])
    said = " ".join(capsys.readouterr().err.split())
    assert "3 worlds. The first default longform run of this preset takes about 1.5 min (two cores);" in said
    assert "`harness plan`" in said
