"""`harness compare`: what is paired, what it says, and what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness import cli, stats
from harness.compare import compare_runs, read_run, table, to_json
from harness.errors import UserError
from harness.metrics.short_qa import QaScore

VERDICTS = ("supported", "not_supported")


def write_run(
    folder: Path,
    shares: dict[str, float],
    *,
    seed: int = 0,
    worlds: int = 1,
    items: int = 40,
    tasks: tuple[str, ...] = ("popqa", "persons"),
    draw: int = 0,
    skip: int = 0,
) -> Path:
    """A run folder with these models; `draw` seeds the answers, `skip` leaves the first items out."""
    folder.mkdir(parents=True)
    responses: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    for model, share in shares.items():
        for world in range(worlds):
            rng = np.random.default_rng([draw, seed + world, len(model)])
            for i in range(items):
                luck, counts = rng.random(6), int(rng.integers(2, 7))
                if i < skip:
                    continue
                row = {"model": model, "world": world, "item_id": f"i{i}", "subject": f"w{seed + world} s{i // 2}"}
                row |= {"text": "x", "tokens": 1, "finish": "stop", "prompt": "?"}
                if "popqa" in tasks:
                    ok = bool(luck[0] < share)
                    score = QaScore(
                        f"i{i}", str(row["subject"]), "k", 3, world, ok, ok, ok, float(ok), False, False, "x"
                    )
                    responses.append(row | {"task": "popqa", "gold": ["x"], "scores": asdict(score)})
                if "persons" in tasks:
                    responses.append(row | {"task": "persons"})
                    judged = [{"verdict": VERDICTS[int(value >= share)]} for value in luck[:counts]]
                    common = {"task": "persons", "model": model, "world": world, "id": f"i{i}", "popularity": i}
                    claims.append(common | {"abstained": False, "claims": judged})
    families = {"popqa": "short_qa", "persons": "longform"}
    described = {task: {"family": families[task], "headline": "accuracy"} for task in tasks}
    (folder / "manifest.json").write_text(json.dumps({"seeds": {"seed": seed}}))
    (folder / "metrics.json").write_text(json.dumps({"tasks": described}))
    for name, rows in (("responses", responses), ("claims", claims)):
        if rows:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    first = write_run(tmp_path / "a", {"sft": 0.5, "mine": 0.9}, draw=1)
    second = write_run(tmp_path / "b", {"sft": 0.5, "base": 0.2}, draw=2)
    return first, second


# --- what is paired ------------------------------------------------------------------------------------------


def test_a_run_against_itself_differs_in_nothing(runs: tuple[Path, Path]) -> None:
    run = read_run(runs[0])
    rows = compare_runs(run, run)
    assert [(row.task, row.first, row.second) for row in rows] == [
        ("popqa", "sft", "sft"), ("popqa", "mine", "mine"), ("persons", "sft", "sft"), ("persons", "mine", "mine"),
    ]  # fmt: skip
    for row in rows:
        d = row.difference
        assert (d.value, d.p, d.p_holm, d.n, d.clusters, d.detectable) == (0.0, 1.0, 1.0, 40, 20, None)


def test_equal_models_of_two_runs_and_any_two_models(runs: tuple[Path, Path]) -> None:
    first, second = map(read_run, runs)
    assert {(row.first, row.second) for row in compare_runs(first, second)} == {("sft", "sft")}
    rows = {row.task: row.difference for row in compare_runs(first, second, models=("mine", "base"))}
    turned = {row.task: row.difference for row in compare_runs(second, first, models=("base", "mine"))}
    for task in ("popqa", "persons"):
        d = rows[task]
        assert d.value is not None and d.low is not None and 0.4 < d.value < 1 and d.low > 0
        assert d.p is not None and d.p < 0.01 and turned[task].value == pytest.approx(-d.value)
        assert d.detectable is not None and 0 < d.detectable < 0.4
    assert rows["popqa"].p_mcnemar is not None and rows["persons"].p_mcnemar is None


def test_the_numbers_are_those_of_the_statistics(runs: tuple[Path, Path]) -> None:
    first, second = map(read_run, runs)
    (row,) = [row for row in compare_runs(first, second) if row.task == "popqa"]
    samples = []
    for run in (first, second):
        scores = sorted(run.scores["popqa", "sft"], key=lambda s: s.item_id)  # type: ignore[union-attr]
        samples.append(stats.Sample.of([s.reference_em for s in scores], None, [s.subject for s in scores]))  # type: ignore[union-attr]
    expected = stats.paired(*samples)
    assert (row.difference.value, row.difference.low, row.difference.p) == (expected.value, expected.low, expected.p)
    better, worse = row.difference.better, row.difference.worse
    assert better is not None and worse is not None
    assert row.difference.p_mcnemar == stats.mcnemar_exact(better, worse)


def test_holm_is_over_the_rows(runs: tuple[Path, Path]) -> None:
    run = read_run(write_run(runs[0].parent / "c", {"sft": 0.4, "mine": 0.6, "base": 0.3}, draw=3))
    rows = compare_runs(read_run(runs[0]), run)
    ps = [row.difference.p or 0.0 for row in rows]
    assert len(rows) == 4 and [row.difference.p_holm for row in rows] == pytest.approx(stats.holm(ps))


def test_what_could_be_found_is_told_of_the_strictest_step(runs: tuple[Path, Path]) -> None:
    first, second = map(read_run, runs)
    rows = compare_runs(first, second, models=("mine", "sft"))
    (alone,) = compare_runs(first, replace(second, scores={k: v for k, v in second.scores.items() if k[0] == "popqa"}))
    assert len(rows) == 2 and alone.difference.detectable_holm == alone.difference.detectable
    for row in rows:
        d = row.difference
        assert d.detectable is not None and d.detectable_holm is not None and d.detectable_holm > 1.05 * d.detectable
    shown = table(first, second, rows)
    column = next(c for c in shown.columns if c.header == "detectable (Holm)")
    assert list(column.cells) == [f"{100 * (row.difference.detectable_holm or 0.0):.1f}" for row in rows]
    assert "at 5 % / 2, the strictest step of Holm's correction" in str(shown.caption)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(shown)
    assert "…" not in console.export_text(), "no digit is cut off"


def test_only_the_items_of_both_are_paired(tmp_path: Path) -> None:
    whole = read_run(write_run(tmp_path / "a", {"sft": 0.5}))
    part = read_run(write_run(tmp_path / "b", {"sft": 0.5}, skip=10))
    assert {row.difference.n for row in compare_runs(whole, part)} == {30}


def test_worlds_are_known_by_their_seeds(tmp_path: Path) -> None:
    three = read_run(write_run(tmp_path / "a", {"sft": 0.5}, worlds=3, draw=1))
    later = read_run(write_run(tmp_path / "b", {"sft": 0.6}, worlds=2, seed=1, draw=2))
    rows = compare_runs(three, later)
    assert {row.difference.worlds for row in rows} == {2} and {row.difference.n for row in rows} == {80}
    assert [world for world, _ in rows[0].difference.per_world] == [1, 2]
    apart = read_run(write_run(tmp_path / "c", {"sft": 0.6}, seed=9))
    with pytest.raises(UserError, match=r"popqa: no item is in both runs .*world 0, 1, 2.*world 9"):
        compare_runs(three, apart)


def test_another_metric(runs: tuple[Path, Path]) -> None:
    run = read_run(runs[0])
    rows = compare_runs(run, run, metric="cut_off_rate", models=("mine", "sft"))
    assert {row.difference.metric for row in rows} == {"cut_off_rate"}
    with pytest.raises(UserError, match=r"--metric: 'claims' is no metric of task popqa; choose one of accuracy"):
        compare_runs(run, run, metric="claims")


# --- what is shown -------------------------------------------------------------------------------------------


def test_the_table_and_the_json_say_the_same(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["harness"])
    arguments = ["compare", str(runs[0]), str(runs[1]), "--models", "mine,sft"]
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments, "--json"])
    assert left.value.code in (0, None)
    body = json.loads(capsys.readouterr().out)
    row = body["rows"][0]
    assert {"task", "first", "second", "value", "low", "high", "p", "p_holm", "n", "clusters", "detectable"} <= set(row)
    with pytest.raises(SystemExit):
        cli.main(arguments)
    shown = capsys.readouterr().out
    assert f"{100 * row['value']:+.1f}" in shown and "p (McNemar)" in shown and "detectable" in shown
    first, second = map(read_run, runs)
    rows = compare_runs(first, second, models=("mine", "sft"))
    assert to_json(first, second, rows) == to_json(first, second, compare_runs(first, second, models=("mine", "sft")))
    assert table(first, second, rows).row_count == 2


# --- what is refused -----------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("manifest.json"), ["no manifest.json"]),
        (without("metrics.json"), ["no metrics.json"]),
        (without("responses.jsonl"), ["no responses.jsonl"]),
        (without("claims.jsonl"), ["no claims.jsonl"]),
        (replaced("manifest.json", "seeds", "seed"), ["manifest.json", "seeds.seed"]),
        (replaced("manifest.json", "{", "["), ["manifest.json", "JSON"]),
        (replaced("metrics.json", "family", "families"), ["metrics.json", "family"]),
        (replaced("responses.jsonl", '"item_id"', '"item"'), ["responses.jsonl:1", "item_id"]),
        (replaced("responses.jsonl", '"scores": {', '"scores": {"odd": 1, '), ["responses.jsonl:1", "scores", "odd"]),
        (replaced("responses.jsonl", '"finish": "stop", "prompt": "?", "task": "persons"', '"task": "persons"'),
         ["responses.jsonl:2", "finish"]),
        (replaced("claims.jsonl", '"verdict"', '"verdicts"'), ["claims.jsonl:1", "verdict"]),
        (replaced("claims.jsonl", '"id": "i0"', '"id": "other"'), ["claims.jsonl", "no line for", "responses.jsonl:2"]),
    ],
)  # fmt: skip
def test_what_is_no_run_is_named(change: Callable[[Path], object], words: list[str], tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", {"sft": 0.5}, items=4)
    change(folder)
    with pytest.raises(UserError) as error:
        read_run(folder)
    assert all(word in str(error.value) for word in [*words, str(folder)]), error.value


def test_what_cannot_be_compared_ends_with_status_2(
    tmp_path: Path, runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    only = {name: write_run(tmp_path / name, {"sft": 0.5}, tasks=(name,)) for name in ("popqa", "persons")}
    other = write_run(tmp_path / "other", {"elsewhere": 0.5})
    renamed = write_run(tmp_path / "renamed", {"sft": 0.5})
    text = (renamed / "responses.jsonl").read_text()
    (renamed / "responses.jsonl").write_text(text.replace("w0 s0", "someone"))
    regraded = write_run(tmp_path / "regraded", {"sft": 0.5})
    text = (regraded / "responses.jsonl").read_text()
    (regraded / "responses.jsonl").write_text(text.replace('"gold": ["x"]', '"gold": ["x", "y"]', 1))
    for arguments, words in (
        ([str(runs[0]), str(regraded)], ["popqa, item i0", "'x' or 'y'"]),
        ([str(only["popqa"]), str(only["persons"])], ["no task is in both runs", "popqa", "persons"]),
        ([str(runs[0]), str(other)], ["no model is in both runs", "elsewhere", "--models A,B"]),
        ([str(runs[0]), str(runs[1]), "--models", "mine,nobody"], ["mine", "nobody"]),
        ([str(runs[0]), str(renamed)], ["item i0", "'w0 s0'", "'someone'"]),
        ([str(runs[0]), "--models", "mine"], ["--models", "A,B"]),
        ([str(runs[0])], ["--models A,B"]),
        ([str(runs[0]), str(tmp_path / "nothing")], ["nothing", "no folder"]),
    ):
        with pytest.raises(SystemExit) as left:
            cli.main(["compare", *arguments])
        said = capsys.readouterr().err
        assert left.value.code == 2 and all(word in said for word in words), said
