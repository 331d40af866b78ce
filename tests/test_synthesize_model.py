"""Fictitious data by a language model: estimate, budget, resume, faults, and replies that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from factscore_mod.chat import Reply
from factscore_mod.judges import JudgeError, JudgeOptions
from factscore_mod.mock_server import MockOptions, running_mock
from harness.cli import app
from harness.errors import UserError
from harness.synthesize.command import SynthesizeOptions, synthesize
from harness.synthesize.records import Fact
from harness.synthesize.rules import Sizes
from harness.synthesize.standin import answer
from harness.synthesize.written import read_altered, read_written
from tests.synthetic_folder import biographies, files, make_folder

ROOT = Path(__file__).parent.parent
PEOPLE = 8


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in biographies()[:PEOPLE]), encoding="utf-8")
    return path


def options_for(source: Path, out: Path, url: str, task: str = "persons", **changes: object) -> SynthesizeOptions:
    options = SynthesizeOptions(
        source=source,
        out=out,
        task=task,
        judge="openai:gpt-4o-mini",
        sizes=Sizes(entities=10, versions=2 if task == "persons" else 1, held_out=3, real=5, paraphrases=2),
        engine=JudgeOptions(base_url=url, api_key="key", concurrency=4),
        cache=out.parent / f"{out.name}.sqlite",
    )
    return replace(options, **changes)  # type: ignore[arg-type]


def test_the_estimate_is_what_is_spent_and_a_repeat_costs_nothing(people: Path, tmp_path: Path) -> None:
    with running_mock(MockOptions(reply=answer)) as server:
        options = options_for(people, tmp_path / "made", server.base_url)
        estimate = synthesize(replace(options, dry_run=True)).spent
        assert server.stats.requests == 0
        assert not options.out.exists()
        made = synthesize(options)
        assert made.spent == estimate
        assert estimate.calls == PEOPLE * 3
        assert estimate.dollars is not None and estimate.dollars > 0
        assert made.counts["persons"]["bio_skill/train_fake.jsonl"] == PEOPLE * 2
        again = synthesize(options).spent
        assert (again.calls, again.cached) == (0, estimate.calls)
        assert synthesize(replace(options, dry_run=True)).spent.calls == 0


@pytest.mark.parametrize("task", ["persons", "popqa", "hotpotqa"])
def test_a_limit_stops_and_the_same_command_ends_in_the_same_bytes(task: str, people: Path, tmp_path: Path) -> None:
    source = people if task == "persons" else make_folder(tmp_path / "data")
    with running_mock(MockOptions(reply=answer)) as server:
        whole = options_for(source, tmp_path / "whole", server.base_url, task)
        synthesize(whole)
        asked = server.stats.answered
        stopped = options_for(source, tmp_path / "stopped", server.base_url, task)
        with pytest.raises(UserError, match="a higher limit goes on"):
            synthesize(replace(stopped, max_calls=4))
        assert not stopped.out.exists()
        synthesize(stopped)
        assert server.stats.answered == 2 * asked
    assert files(stopped.out) == files(whole.out)


def test_a_killed_command_goes_on_and_ends_in_the_same_bytes(people: Path, tmp_path: Path) -> None:
    with running_mock(MockOptions(reply=answer, latency=0.05)) as server:
        whole = options_for(people, tmp_path / "whole", server.base_url)
        asked = synthesize(whole).spent.calls
        killed = options_for(people, tmp_path / "killed", server.base_url)
        words = ["synthesize", str(people), "--out", str(killed.out), "--task", "persons", "--judge", killed.judge]
        words += ["--versions", "2", "--entities", "10", "--paraphrases", "2", "--held-out", "3", "--real", "5"]
        words += ["--base-url", server.base_url, "--concurrency", "1", "--cache", str(killed.cache)]
        before = server.stats.answered
        environment = {**os.environ, "OPENAI_API_KEY": "key"}
        with subprocess.Popen([sys.executable, "-m", "harness.cli", *words], cwd=ROOT, env=environment) as process:
            deadline = time.monotonic() + 60
            while server.stats.answered < before + 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
        assert not (killed.out / "manifest.json").exists()
        again = synthesize(killed).spent
        assert again.cached >= 4
        assert again.calls == asked - again.cached
    assert files(killed.out) == files(whole.out)


def test_faults_of_the_endpoint_change_nothing(people: Path, tmp_path: Path) -> None:
    with running_mock(MockOptions(reply=answer)) as server:
        synthesize(options_for(people, tmp_path / "calm", server.base_url))
    faults = MockOptions(reply=answer, fault_rate=0.3, faults=("429", "500", "broken_json"), retry_after=0.01, seed=3)
    with running_mock(faults) as server:
        synthesize(options_for(people, tmp_path / "rough", server.base_url))
        assert server.stats.faults
    assert files(tmp_path / "rough") == files(tmp_path / "calm")


def test_what_cannot_be_used_is_left_out_and_counted(people: Path, tmp_path: Path) -> None:
    first = biographies()[0]["subject"]

    def faulty(system: str, message: str, as_json: bool) -> str:
        text = answer(system, message, as_json)
        if f"{first}: " in message:
            return text.replace('"name"', '"nom"')
        return text

    with running_mock(MockOptions(reply=faulty)) as server:
        made = synthesize(options_for(people, tmp_path / "made", server.base_url))
    assert made.left_out == Counter({"the reply had not the form asked for": 1})
    assert made.counts["persons"]["bio_skill/train_fake.jsonl"] == (PEOPLE - 1) * 2
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["tasks"]["persons"]["left_out"] == dict(made.left_out)
    assert [prompt.split("@")[0] for prompt in manifest["tasks"]["persons"]["prompts"]] == [
        "wordings.v1", "alter.v1", "write.v1",
    ]  # fmt: skip


def test_an_engine_that_is_none_and_an_unknown_price(people: Path, tmp_path: Path) -> None:
    options = options_for(people, tmp_path / "made", "http://127.0.0.1:9/v1")
    with pytest.raises(JudgeError, match="no judge"):
        synthesize(replace(options, judge="oracle"))
    with pytest.raises(ValueError, match="no price for model"):
        synthesize(replace(options, judge="openai:mine", max_cost=1.0))


def test_the_command_estimates(people: Path, tmp_path: Path) -> None:
    words = ["synthesize", str(people), "--out", str(tmp_path / "made"), "--task", "persons", "--versions", "2"]
    words += ["--judge", "openai:gpt-4o-mini", "--dry-run", "--cache", str(tmp_path / "cache.sqlite")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"{PEOPLE * 3} calls would be sent" in result.output


# --- what a reply must hold --------------------------------------------------------------------------------

FACTS = (Fact("Ada Voss", "place of birth", "Graz", ("Graz",)), Fact("Ada Voss", "role", "poet", ("poet",)))


def written(**changes: object) -> Reply:
    good = {
        "statements": [["Ada Voss was born in Graz."], ["Ada Voss is a poet."]],
        "passages": ["Ada Voss, a poet, was born in Graz."],
        "answer": "Ada Voss is a poet from Graz.",
    }
    return Reply("Here it is: " + json.dumps(good | changes))


def test_written_replies() -> None:
    read = read_written(written(), FACTS)
    assert read is not None
    assert read.statements == ("Ada Voss was born in Graz.", "Ada Voss is a poet.")
    for changes in (
        {"statements": [["Ada Voss was born in Graz."]]},
        {"statements": [["She was born in Graz."], ["Ada Voss is a poet."]]},
        {"statements": [["Ada Voss was born in Linz."], ["Ada Voss is a poet."]]},
        {"passages": []},
        {"passages": ["Ada Voss is a poet."]},
        {"answer": "Ada Voss."},
        {"answer": None},
    ):
        assert read_written(written(**changes), FACTS) is None, changes
    assert read_written(Reply("I cannot."), FACTS) is None
    assert read_written(Reply("{broken}"), FACTS) is None


def test_altered_replies() -> None:
    def reply(name: object = "Ada Voss", values: object = ("Graz", "Linz")) -> Reply:
        return Reply(json.dumps({"name": name, "facts": [{"relation": "place of birth", "values": values}]}))

    read = read_altered(reply(), "Mary Holt", 2)
    assert read is not None
    assert read.versions == (
        (Fact("Ada Voss", "place of birth", "Graz", ("Graz",)),),
        (Fact("Ada Voss", "place of birth", "Linz", ("Linz",)),),
    )
    assert read_altered(reply(), "Ada Linden", 2) is not None
    assert read_altered(reply(), "Maria Voss", 2) is None
    assert read_altered(reply(values=["Graz"]), "Mary Holt", 2) is None
    assert read_altered(reply(values=["Graz", 7]), "Mary Holt", 2) is None
    assert read_altered(reply(name=""), "Mary Holt", 2) is None
    assert read_altered(Reply("[]"), "Mary Holt", 2) is None
