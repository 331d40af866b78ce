"""`harness knowledge`, `score`, `calibrate` and `mock-judge` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factscore_mod.mock_server import MockOptions, running_mock
from harness.cli import main

ARTICLES = [
    {"title": "Marie Curie", "text": "Marie Curie was a physicist. She was born in Warsaw in 1867."},
    {"title": "Niels Bohr", "text": ["Niels Bohr was a physicist.", "He was born in Copenhagen."]},
]
GENERATIONS = [
    {"topic": "Marie Curie", "output": "Marie Curie was born in Warsaw. Marie Curie was born in 1901."},
    {"topic": "Niels Bohr", "output": "Niels Bohr was a physicist."},
    {"topic": "Niels Bohr", "output": "I'm sorry, but I don't have any information about Niels Bohr."},
]
SECRET = "sk-never-to-be-seen"


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    articles = tmp_path / "articles.jsonl"
    articles.write_text("".join(json.dumps(row) + "\n" for row in ARTICLES))
    assert call("knowledge", "build", articles, "--out", tmp_path / "wiki.db") == 0
    return tmp_path / "wiki.db"


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    path = tmp_path / "generations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GENERATIONS))
    return path


def test_scoring_with_rules(knowledge: Path, generations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("score", generations, "--knowledge", knowledge, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["metrics"]["accuracy_macro"] == 0.75
    assert metrics["metrics"]["response_rate"] == pytest.approx(2 / 3)
    low, high = metrics["intervals"]["accuracy"]
    assert low <= 0.75 <= high
    out = generations.with_name(generations.name + ".scored")
    rows = [json.loads(line) for line in (out / "claims.jsonl").read_text().splitlines()]
    assert [claim["verdict"] for claim in rows[0]["claims"]] == ["supported", "not_supported"]
    assert rows[2]["abstained"]


def test_an_endpoint_judges_a_repeat_sends_nothing_and_the_key_is_nowhere(
    knowledge: Path, generations: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", generations, "--knowledge", knowledge, "--judge", "openai:mock", "--out", tmp_path / "out"]
    with running_mock(MockOptions()) as server:
        url = server.base_url
        assert call(*arguments, "--base-url", url, "--dry-run") == 0
        assert server.stats.requests == 0
        assert call(*arguments, "--base-url", url) == 0
        sent = server.stats.requests
        assert sent > 0
        first = (tmp_path / "out" / "metrics.json").read_bytes()
        assert call(*arguments, "--base-url", url) == 0
        assert server.stats.requests == sent
    assert (tmp_path / "out" / "metrics.json").read_bytes() == first
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    for path in [*tmp_path.rglob("*"), *home.rglob("*")]:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_limit_of_calls_stops_cleanly_and_the_same_command_goes_on(
    knowledge: Path, generations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", generations, "--knowledge", knowledge, "--judge", "openai:mock", "--out", tmp_path / "out"]
    with running_mock(MockOptions()) as server:
        assert call(*arguments, "--base-url", server.base_url, "--max-calls", "1") == 0
        assert "goes on from here" in capsys.readouterr().out
        assert server.stats.requests == 1
        assert call(*arguments, "--base-url", server.base_url) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["complete"]


def test_show_says_how_a_topic_was_found(knowledge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("knowledge", "show", knowledge, "marie curie") == 0
    shown = capsys.readouterr().out
    assert "normalised, Marie Curie" in shown and "Warsaw" in shown
    assert call("knowledge", "show", knowledge, "Nobody At All") == 0
    assert "none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "missing.jsonl", "--knowledge", "{knowledge}"], ["missing.jsonl"]),
        (["score", "{generations}", "--knowledge", "missing.db"], ["missing.db"]),
        (["score", "{generations}", "--knowledge", "{knowledge}", "--judge", "psychic"], ["psychic"]),
        (["score", "{generations}", "--knowledge", "{knowledge}", "--profile", "best"], ["--profile", "modified"]),
        (["score", "{generations}", "--knowledge", "{knowledge}", "--embedder", "x"], ["--embedder", "hybrid"]),
        (["calibrate", "--data", "missing"], ["missing"]),
        (["knowledge", "build", "missing.jsonl", "--out", "out.db"], ["missing.jsonl"]),
        (["mock-judge", "--fault-rate", "2"], ["fault_rate"]),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    arguments: list[str], words: list[str], knowledge: Path, generations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    filled = [word.format(knowledge=knowledge, generations=generations) for word in arguments]
    assert call(*filled) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words) and "Traceback" not in message
