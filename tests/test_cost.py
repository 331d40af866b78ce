"""Prices, estimates and limits."""

from __future__ import annotations

import datetime
import json
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.budget import Budget, BudgetReached
from factscore_mod.command import CLAIMS, METRICS, ScoreOptions, estimate_file, score_file
from factscore_mod.cost import Price, PriceError, PriceTable
from factscore_mod.judges import JudgeOptions
from factscore_mod.mock_server import MockOptions, running_mock
from factscore_mod.outputs import read_responses
from tests.judging import knowledge


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    path = tmp_path / "generations.jsonl"
    rows = [
        {"topic": topic, "output": f"{topic} was born in {year}. {topic} was the author of {year - 1700} letters."}
        for topic, year in (("Ada Lovelace", 1815), ("Marie Curie", 1867), ("Grace Hopper", 1906)) * 4
    ]
    for number, row in enumerate(rows):
        row["output"] += f" This is text number {number}."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_price_says_when_and_where_it_was_checked() -> None:
    rows = tomllib.loads(files("factscore_mod").joinpath("prices.toml").read_text("utf-8"))
    assert rows.pop("mock") == {"input": 0.0, "output": 0.0}
    for model, row in rows.items():
        assert row.keys() == {"input", "output", "checked", "source"}, model
        assert isinstance(row["checked"], datetime.date) and row["source"].startswith("https://")
        assert 0 < row["input"] < row["output"]


def test_prices_by_name_and_dated_name(tmp_path: Path) -> None:
    table = PriceTable()
    assert table.need("gpt-4o-mini").of(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert table.get("gpt-4o-mini-2024-07-18") == table.get("gpt-4o-mini")
    assert table.get("gpt-3.5-turbo-0125") == table.get("gpt-3.5-turbo")
    assert table.get("gpt-4.1-nano-fast") is None and table.get("gpt-4o-audio-preview") is None
    assert table.get("nobody/knows") is None
    with pytest.raises(PriceError, match="nobody/knows"):
        table.need("nobody/knows")
    extra = tmp_path / "prices.toml"
    extra.write_text('["nobody/knows"]\ninput = 1\noutput = 2.5\n["gpt-4o-mini"]\ninput = 9\noutput = 9\n')
    assert PriceTable(extra).need("nobody/knows") == Price(1.0, 2.5)
    assert PriceTable(extra).need("gpt-4o-mini").input == 9
    for broken in ("[x", '["m"]\ninput = "much"\noutput = 1\n', '["m"]\ninput = 1\n', "m = 3\n"):
        extra.write_text(broken)
        with pytest.raises(PriceError, match=r"prices\.toml"):
            PriceTable(extra)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=50), st.integers(0, 20), st.floats(0, 5))
def test_a_budget_is_never_overshot(calls: list[tuple[float, float]], most: int, dollars: float) -> None:
    budget = Budget(most, dollars)
    for highest, share in calls:
        try:
            budget.reserve(highest)
        except BudgetReached:
            continue
        budget.settle(highest, highest * share)
    assert budget.calls <= most and budget.dollars <= dollars + 1e-9


def test_calls_in_flight_count_against_the_money() -> None:
    budget = Budget(None, 1.0)
    budget.reserve(0.6)
    with pytest.raises(BudgetReached, match=r"\$1\.00"):
        budget.reserve(0.6)
    budget.settle(0.6, 0.1)
    budget.reserve(0.6)


def test_a_dry_run_sends_nothing_and_foresees_the_run(generations: Path, tmp_path: Path) -> None:
    with running_mock() as server:
        options = ScoreOptions(
            judge="openai:gpt-4o-mini", cache=tmp_path / "c.sqlite", engine=JudgeOptions(base_url=server.base_url)
        )
        estimate = estimate_file(generations, knowledge(), options)
        assert server.stats.requests == 0
        assert estimate.responses == 12 and estimate.calls == 24
        assert estimate.dollars is not None and estimate.dollars > 0
        result = score_file(generations, knowledge(), tmp_path / "out", options)
        assert result.sent == server.stats.requests == 24
        assert estimate.dollars == pytest.approx(result.dollars, rel=0.5)
        after = estimate_file(generations, knowledge(), options)
        assert after.calls == 0 and after.dollars == 0
        assert [row[0] for row in after.rows()] == ["finished"]


def test_a_dry_run_needs_no_key(generations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert estimate_file(generations, knowledge(), ScoreOptions(judge="openai:gpt-4o-mini")).calls == 24
    assert estimate_file(generations, knowledge(), ScoreOptions(judge="rules")).calls == 0


def test_a_run_stops_at_its_limit_and_goes_on_where_it_was(generations: Path, tmp_path: Path) -> None:
    def options(most: int | None) -> ScoreOptions:
        return ScoreOptions(judge="mock", cache=tmp_path / "c.sqlite", max_calls=most)

    out = tmp_path / "out"
    sent = 0
    for _ in range(10):
        result = score_file(generations, knowledge(), out, options(5))
        assert result.sent <= 5
        sent += result.sent
        if not result.stopped:
            break
        assert "5 calls" in result.stopped
        assert json.loads((out / METRICS).read_text())["complete"] is False
        assert len(list(read_responses(out / CLAIMS))) == len(result.responses)
    assert not result.stopped and sent == 24, "no call was paid twice"
    at_once = score_file(generations, knowledge(), tmp_path / "once", ScoreOptions(judge="mock"))
    assert at_once.sent == 24
    assert (tmp_path / "once" / METRICS).read_bytes() == (out / METRICS).read_bytes()


def test_a_money_limit_needs_a_price_and_holds(generations: Path, tmp_path: Path) -> None:
    with pytest.raises(PriceError, match="no price for model 'unheard-of'"):
        score_file(
            generations,
            knowledge(),
            tmp_path / "out",
            ScoreOptions(
                judge="openai:unheard-of", max_cost=1.0, engine=JudgeOptions(base_url="http://127.0.0.1:9/v1")
            ),
        )
    with running_mock(MockOptions(latency=0.005)) as server:
        limited = ScoreOptions(
            judge="openai:gpt-4o", max_cost=0.02, engine=JudgeOptions(base_url=server.base_url, concurrency=2)
        )
        result = score_file(generations, knowledge(), tmp_path / "out", limited)
    assert result.stopped and 0 < result.dollars <= 0.02


def test_metrics_tell_what_they_were_made_with(generations: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = score_file(
        generations,
        knowledge(),
        tmp_path / "out",
        ScoreOptions(judge="mock", profile="factscore", limit=3),
        progress=lambda done, total, sent, dollars: seen.append((done, total)),
        intervals=lambda scored: {"accuracy_macro": [0.0, 1.0]},
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    metrics = json.loads((tmp_path / "out" / METRICS).read_text())
    assert metrics["complete"] and metrics["profile"]["gamma"] == 10 and metrics["judge"] == "mock"
    assert metrics["cost_of_replies"]["calls"] > 0 and metrics["intervals"]
    assert "penalised_gamma_10" in metrics["metrics"]
    labels = [row[0] for row in result.rows()]
    assert "accuracy (macro)" in labels and "F1@10" in labels
    assert not list((tmp_path / "out").glob("*.part"))
