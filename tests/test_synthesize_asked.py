"""What `harness synthesize` was asked for beside what it made, and texts that do not name their subject."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from factscore_mod.chat import Reply
from factscore_mod.judges import JudgeOptions
from factscore_mod.mock_server import MockOptions, running_mock
from harness.cli import app
from harness.synthesize.asked import Count
from harness.synthesize.checks import check
from harness.synthesize.command import SynthesizeOptions, synthesize
from harness.synthesize.records import Fact, Made, TaskSet, Text
from harness.synthesize.rules import Sizes
from harness.synthesize.standin import answer
from harness.synthesize.written import read_written
from tests.synthetic_folder import biographies, make_folder

SMALL = Sizes(entities=30, held_out=8, real=25, paraphrases=4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data")


def people(path: Path, count: int) -> Path:
    """So many biographies, and a text that is none."""
    rows = [*biographies()[:count], {"subject": "Nobody", "text": "A text that says nothing of the sort."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def missing(options: SynthesizeOptions) -> dict[str, dict[str, Count]]:
    """What fell short, by task and by what it is; the manifest has to say the same."""
    made = synthesize(options)
    manifest = json.loads((options.out / "manifest.json").read_text(encoding="utf-8"))
    for task, sizes in made.sizes.items():
        counts: dict[str, Any] = manifest["tasks"][task]["counts"]
        assert set(counts) == {one.what for one in sizes}
        for one in sizes:
            assert (counts[one.what]["asked"], counts[one.what]["made"]) == (one.asked, one.made)
            assert counts[one.what].get("reason", "") == one.reason
            assert bool(one.reason) == (one.made < one.asked)
    return {task: {one.what: one for one in sizes if one.made < one.asked} for task, sizes in made.sizes.items()}


# --- asked for and made --------------------------------------------------------------------------------------


def test_what_was_made_in_full_has_no_reason(data: Path, tmp_path: Path) -> None:
    options = SynthesizeOptions(source=data, out=tmp_path / "made", sizes=SMALL)
    assert missing(options) == {"popqa": {}, "grounding": {}}
    manifest = json.loads((options.out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["tasks"]["popqa"]["counts"] == {
        "fictitious subjects": {"asked": 30, "made": 30},
        "real rows": {"asked": 25, "made": 25},
        "statements": {"asked": 220, "made": 220},
        "passages": {"asked": 110, "made": 110},
    }


def test_more_paraphrases_than_wordings(data: Path, tmp_path: Path) -> None:
    options = SynthesizeOptions(source=data, out=tmp_path / "made", sizes=replace(SMALL, paraphrases=100))
    found = missing(options)
    reason = "a fact has 6 wordings"
    assert found["popqa"] == {
        "statements": Count("statements", "--paraphrases", 5500, 330, reason),
        "passages": Count("passages", "--paraphrases", 2750, 330, reason),
    }
    assert found["grounding"]["statements"] == Count("statements", "--paraphrases", 1600, 96, reason)


def test_more_real_rows_than_the_source_can_give(data: Path, tmp_path: Path) -> None:
    options = SynthesizeOptions(source=data, out=tmp_path / "made", sizes=replace(SMALL, real=5000))
    (found,) = missing(options)["popqa"].values()
    assert (found.option, found.asked) == ("--real", 5000)
    assert found.reason.startswith(f"{found.made} training rows have a relation with wordings")
    two_hops = replace(options, task="hotpotqa", out=tmp_path / "two")
    reason = "6 training rows of the source have paragraphs"
    assert missing(two_hops)["hotpotqa"] == {"real rows": Count("real rows", "--real", 5000, 6, reason)}


def test_biographies_that_cannot_be_used(tmp_path: Path) -> None:
    source = people(tmp_path / "people.jsonl", 60)
    sizes = Sizes(entities=70, versions=2, paraphrases=3)
    found = missing(SynthesizeOptions(source=source, out=tmp_path / "made", task="persons", sizes=sizes))
    reason = "60 of 61 biographies state 3 facts that the rules can tell"
    assert found["persons"]["fictitious subjects"] == Count("fictitious subjects", "--entities", 70, 60, reason)
    assert "real rows" not in found["persons"]


def test_what_a_model_did_not_deliver(data: Path, tmp_path: Path) -> None:
    first = biographies()[0]["subject"]

    def faulty(system: str, message: str, as_json: bool) -> str:
        """One entry is not altered; of every fact one statement fewer comes than was asked for."""
        text = answer(system, message, as_json)
        if f"{first}: " in message:
            return text.replace('"name"', '"nom"')
        reply = json.loads(text)
        if "statements" in reply:
            reply["statements"] = [of_fact[:-1] for of_fact in reply["statements"]]
        return json.dumps(reply)

    with running_mock(MockOptions(reply=faulty)) as server:
        options = SynthesizeOptions(
            source=people(tmp_path / "people.jsonl", 8),
            out=tmp_path / "made",
            task="persons",
            judge="openai:gpt-4o-mini",
            sizes=Sizes(entities=20, versions=2, held_out=3, real=5, paraphrases=2),
            engine=JudgeOptions(base_url=server.base_url, api_key="key", concurrency=4),
        )
        persons = missing(options)["persons"]
        popqa = missing(replace(options, task="popqa", source=data, out=tmp_path / "short"))["popqa"]
    assert persons["fictitious subjects"].reason == (
        "the source has 9 entries; left out: 1 times the reply had not the form asked for"
    )
    alike = "the model wrote fewer, or some alike"
    assert persons["statements"].made * 2 == persons["statements"].asked
    assert persons["statements"].reason == alike
    assert set(popqa) == {"statements"} and popqa["statements"].reason == alike


def test_the_command_prints_what_is_missing(data: Path, tmp_path: Path) -> None:
    words = ["synthesize", str(data), "--out", str(tmp_path / "made"), "--task", "hotpotqa", "--entities", "10"]
    result = CliRunner().invoke(app, [*words, "--paraphrases", "100"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "hotpotqa, --real: asked for 500 real rows, made 6: 6 training rows of the source have paragraphs" in lines
    assert "hotpotqa, --paraphrases: asked for 2,000 statements, made 120: a fact has 6 wordings" in lines
    full = CliRunner().invoke(app, [*words, "--real", "6"])
    assert "asked for" not in full.output


# --- texts name their subject --------------------------------------------------------------------------------

FACTS = (Fact("Ada Voss", "place of birth", "Graz", ("Graz",)), Fact("Ada Voss", "role", "poet", ("poet",)))


def written(**changes: object) -> Reply:
    good = {
        "statements": [["Ada Voss was born in Graz."], ["Ada Voss is a poet."]],
        "passages": ["Ada Voss, a poet, was born in Graz."],
        "answer": "Ada Voss is a poet from Graz.",
    }
    return Reply(json.dumps(good | changes))


def test_a_models_passages_and_answer_have_to_name_the_subject() -> None:
    assert read_written(written(), FACTS) is not None
    assert read_written(written(passages=["She was born in Graz and is a poet."]), FACTS) is None
    assert (
        read_written(written(passages=["Ada Voss, a poet, was born in Graz.", "A poet, born in Graz."]), FACTS) is None
    )
    assert read_written(written(answer="She is a poet from Graz."), FACTS) is None
    later = "Ada Voss was born in Graz. She is a poet."
    read = read_written(written(passages=[later], answer=later), FACTS)
    assert read is not None and read.passages == (later,), "once is enough: what follows may say she"


def test_what_is_looked_at_is_the_text_that_is_kept() -> None:
    read = read_written(written(passages=["Ada\n Voss, a poet, was born  in Graz."]), FACTS)
    assert read is not None and read.passages == ("Ada Voss, a poet, was born in Graz.",)
    spaced = tuple(replace(fact, subject="Ada  Voss") for fact in FACTS)
    assert read_written(written(passages=["Ada  Voss, a poet, was born in Graz."]), spaced) is None


def failed(statement: str, passage: str, **changes: object) -> list[str]:
    fact = FACTS[0]
    made = Made("1", fact.subject, "Graz", "Where was Ada Voss born?", ("Graz",), "place of birth", (fact,))
    texts = (Text(fact.subject, statement, "statement"), Text(fact.subject, passage, "passage"))
    row = replace(made, **changes)  # type: ignore[arg-type]
    return [wrong for one in check([TaskSet("popqa", (row,), texts)], (), None) for wrong in one.wrong]


def test_the_check_finds_texts_and_answers_without_the_subject() -> None:
    good = "Ada Voss was born in Graz."
    assert failed(good, f"{good} The family lived in Graz.") == []
    assert failed("She was born in Graz.", good) == [
        "popqa: Ada Voss, place of birth in no statement that names both"
    ]  # fmt: skip
    assert failed(good, "He was born in Graz.") == ["popqa: Ada Voss, place of birth in no passage that names both"]
    assert failed(good, good, question=None, target="Ada Voss was born in Graz.") == []
    for target in ("She was born in Graz.", "Ada Voss was born in Linz."):
        assert failed(good, good, question=None, target=target) == [
            "popqa: Ada Voss, place of birth not in the answer, or without the name"
        ]
