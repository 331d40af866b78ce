"""Presets are validated as a whole, and names are looked up with help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.config import load_preset, parse_preset, preset_names
from harness.errors import Problems, UserError
from harness.options import check, read, resolve
from harness.plan import plan_run
from harness.registry import METHODS, MODELS, TASKS, read_models, suites

SMALL = """
[preset]
name = "small"
description = "For tests."
minutes = 1
models = ["base", "sft"]
[source]
kind = "miniature"
[base]
kind = "miniature"
[recipes.default.sft]
learning_rate = 1e-3
epochs = 2
[recipes.multi_version.sft]
epochs = 3
[recipes.persons.sft]
rank = 4
"""


def test_a_task_recipe_overrides_its_mode_and_the_default() -> None:
    preset = parse_preset(SMALL, "small.toml")
    persons = preset.recipes_for("persons", "multi_version").sft
    assert (persons.rank, persons.epochs, persons.learning_rate) == (4, 3, 1e-3)
    popqa = preset.recipes_for("popqa", "mixed").sft
    assert (popqa.epochs, popqa.learning_rate) == (2, 1e-3)


def test_a_task_that_only_tests_changes_the_recipes_of_what_it_tests() -> None:
    more = "\n[recipes.popqa.skill]\nepochs = 5\n[recipes.memorization.skill]\nepochs = 7\n"
    preset = parse_preset(SMALL + more, "small.toml")
    assert preset.recipes_for("popqa", "mixed").skill.epochs == 5
    assert preset.recipes_for("popqa", "mixed", tested="memorization").skill.epochs == 7
    assert preset.recipes_for("popqa", "mixed", tested="grounding").skill.epochs == 5


def test_all_problems_of_a_preset_are_reported_at_once() -> None:
    broken = SMALL.replace('kind = "miniature"\n[base]', 'kind = "moon"\n[base]').replace("minutes = 1", "minutes = -1")
    with pytest.raises(Problems) as caught:
        parse_preset(broken, "broken.toml")
    text = str(caught.value)
    assert "broken.toml: source.kind" in text and "broken.toml: preset.minutes" in text


def test_an_unknown_recipe_field_names_file_table_and_field() -> None:
    with pytest.raises(Problems, match=r"broken.toml: recipes.persons.*'ranks'"):
        parse_preset(SMALL.replace("rank = 4", "ranks = 4"), "broken.toml")


def test_every_preset_that_comes_with_the_package_loads_and_names_known_models() -> None:
    assert {"tiny", "mini", "smol"} <= set(preset_names())
    for name in preset_names():
        preset = load_preset(name)
        assert preset.preset.name == name
        for model in preset.preset.models:
            MODELS.get(model)
        for task in TASKS:
            preset.recipes_for(task.name, task.skill_mode)


def test_every_suite_names_known_tasks() -> None:
    for suite in suites().values():
        assert {TASKS.get(name).name for name in suite.tasks} == set(suite.tasks)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean prereq_tune"):
        MODELS.get("prereqtune")
    assert set(METHODS.names()) <= set(MODELS.names())


def test_all_problems_of_a_command_line_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(Problems) as caught:
        resolve(
            suite="longfrom", preset="tiny", models="sft,sfft", data=tmp_path / "none", judge="psychic",
            adapters=["half"], worlds=0, variant="strange",
        )  # fmt: skip
    text = str(caught.value)
    for word in ("longfrom", "sfft", "none", "psychic", "half", "--seeds", "strange"):
        assert word in text


def test_several_problems_are_a_list_and_one_is_a_sentence() -> None:
    assert str(Problems(["No base.", "No key."])) == "- No base.\n- No key."
    assert str(Problems(["No base."])) == "No base."


def test_words_that_are_wrong_keep_no_other_problem_back(tmp_path: Path) -> None:
    options, wrong = read(suite="shortqa", preset="tiny", models="sfft", teacher=f"file:{tmp_path / 'none'}")
    assert options is not None and len(wrong) == 1 and "sfft" in wrong[0]
    assert [problem.split(":")[0] for problem in check(options, wrong)] == ["--teacher"]
    options, wrong = read(suite="longfrom", preset="tiny")
    assert options is None and len(wrong) == 1 and "longfrom" in wrong[0]


def test_a_plan_is_drawn_before_anything_else_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that can start costs no second reading of its data."""

    def never(options: object) -> list[str]:
        raise AssertionError("looked at")

    monkeypatch.setattr("harness.options.lacking", never)
    assert check(resolve(suite="shortqa", preset="tiny", models="sft")) == []


def test_list_is_as_wide_as_the_other_commands_and_help_names_every_preset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(SystemExit):
        main(["list"])
    assert 120 < max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= 140
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in preset_names()) and "unless all are served" in shown


def test_base_is_always_among_the_models_and_first() -> None:
    options = resolve(suite="longform", preset="tiny", models="prereq_tune,sft")
    assert [model.name for model in options.models] == ["base", "sft", "prereq_tune"]


def test_a_model_is_one_toml_table(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.mine]\ntitle = "Mine"\nadapter = "adapters/{task}"\n[models.mine.shots]\npopqa = 3\n')
    (mine,) = read_models(path)
    assert mine.adapter == "adapters/{task}" and mine.shots == {"popqa": 3}
    path.write_text('[models.mine]\nadaptor = "adapters"\n')
    with pytest.raises(UserError, match=r"models.toml: \[models.mine\] has unknown field 'adaptor'"):
        read_models(path)
    path.write_text('[models.mine]\ntitle = "neither"\n')
    with pytest.raises(UserError, match="one of `method`, `adapter` and `served`"):
        read_models(path)


def test_memorization_is_trained_for_longer_in_the_miniature_and_sft_is_not() -> None:
    def adapters(suite: str) -> dict[str, str]:
        plan = plan_run(resolve(suite=suite, preset="mini", models="sft,sft_fictitious,prereq_tune"))
        return {cell.model: str(cell.adapter) for cell in plan.cells if cell.task in ("popqa", "memorization")}

    main, memorised = adapters("shortqa"), adapters("table3")
    assert main["sft"] == memorised["sft"]
    assert main["sft_fictitious"] != memorised["sft_fictitious"]
    assert main["prereq_tune"] != memorised["prereq_tune"]


def test_a_preset_bounds_the_test_rows_of_a_task_and_limit_bounds_them_further() -> None:
    def asked(limit: int | None, bound: int | None) -> dict[str, list[str]]:
        options = resolve(suite="shortqa", preset="tiny", models="base", limit=limit)
        rows = {} if bound is None else {"popqa": bound}
        source = options.preset.source.model_copy(update={"test_rows": rows})
        options = replace(options, preset=options.preset.model_copy(update={"source": source}))
        return {cell.task: [item.id for item in cell.items] for cell in plan_run(options).cells}

    whole = asked(None, None)
    assert asked(None, 5) == whole | {"popqa": asked(5, None)["popqa"]}
    assert {task: len(ids) for task, ids in asked(3, 5).items()} == {"popqa": 3, "hotpotqa": 3}
    assert len(asked(8, 5)["popqa"]) == 5
