"""Fictitious data by rules: what is made, what the checks find, and how runs read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from factscore_mod.knowledge import Document, build
from factscore_mod.knowledge_format import title_key
from harness.backends.decoding import Generation
from harness.cli import app
from harness.data.fictitious import WithFictitious
from harness.data.local import LocalSource
from harness.data.prereq_tune import PrereqTuneSource
from harness.data.source import DataError, Source
from harness.errors import Problems
from harness.options import resolve
from harness.plan import StandIn, plan_run
from harness.run_options import RunOptions
from harness.synthesize.biographies import tell_facts
from harness.synthesize.checks import check
from harness.synthesize.command import SynthesizeOptions, synthesize
from harness.synthesize.known import known_names
from harness.synthesize.recall import clozes, recall
from harness.synthesize.records import Fact, Made, Seed, TaskSet, Text
from harness.synthesize.rules import Relations, Sizes, apportion, contradict
from harness.synthesize.wordings import say, wordings
from tests.synthetic_folder import VALUES, biographies, files, make_folder

SMALL = Sizes(entities=30, held_out=8, real=25, paraphrases=4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data")


@pytest.fixture
def options(data: Path, tmp_path: Path) -> SynthesizeOptions:
    return SynthesizeOptions(source=data, out=tmp_path / "made", sizes=SMALL)


# --- what is made ------------------------------------------------------------------------------------------


def test_equal_settings_give_equal_bytes_and_another_seed_other_ones(options: SynthesizeOptions) -> None:
    made = synthesize(options)
    assert made.counts["popqa"]["popqa_skill/train_fake.jsonl"] == 30
    assert made.counts["popqa"]["popqa_knowledge/statement_train_fake.jsonl"] == 120
    assert made.counts["popqa"]["popqa_knowledge/passage_train_real.jsonl"] == 50
    assert made.counts["grounding"]["grounding_skill/test.jsonl"] == 16
    first = files(options.out)
    synthesize(options)
    assert files(options.out) == first
    other = replace(options, out=options.out.with_name("other"), seed=1)
    synthesize(other)
    assert files(other.out)["popqa_skill/train_fake.jsonl"] != first["popqa_skill/train_fake.jsonl"]


def test_subjects_are_new_and_values_come_from_training_rows_alone(options: SynthesizeOptions) -> None:
    synthesize(options)
    source = LocalSource(options.source, 0)
    made = WithFictitious(source, options.out)
    known = {title_key(name) for name in known_names(options.source)}
    training = {(row.kind, row.target) for row in source.rows("popqa", "train")}
    rows = (*made.rows("popqa", "fictitious"), *made.rows("grounding", "test"))
    assert all(title_key(row.subject) not in known for row in rows)
    assert {(row.kind, row.target) for row in rows} <= training
    assert all(row.question is not None and row.subject in row.question and row.fake for row in rows)
    assert all(row.answers == (row.target, f"the {row.target}") for row in rows)


def test_every_wording_holds_subject_and_value() -> None:
    for relation, said in wordings().items():
        assert all("{s}" in text and "{v}" in text for text in said.named), relation
        assert all("{v}" in text and "{s}" not in text for text in said.running), relation
        assert len(set(said.named)) == len(said.named)
    assert say("{s} works as a {v}.", "Ann", "actor") == "Ann works as an actor."
    assert say("{s} works as a {v}.", "Ann", "baker") == "Ann works as a baker."


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 999), min_size=1), st.integers(0, 500))
def test_apportioned_numbers_sum_up_and_are_near_their_shares(weights: dict[str, int], total: int) -> None:
    counts = apportion(weights, total)
    assert sum(counts.values()) == total
    whole = sum(weights.values())
    assert all(abs(counts[name] - total * weight / whole) < 1 for name, weight in weights.items())


def test_several_versions_are_numbered_and_contradict_each_other(options: SynthesizeOptions) -> None:
    synthesize(replace(options, sizes=replace(SMALL, versions=3)))
    source = WithFictitious(LocalSource(options.source, 0), options.out)
    rows = source.rows("popqa", "fictitious")
    assert len(rows) == 90
    for subject in {row.subject for row in rows}:
        own = [row for row in rows if row.subject == subject]
        assert [row.version for row in own] == [1, 2, 3]
        assert len({row.target for row in own}) == 3
    labels = [texts.label for texts in source.knowledge_sets("popqa")]
    assert labels[:2] == ["statement-real", "passage-real"]
    assert labels[2:] == [f"{form}-fake-v{v}" for v in (1, 2, 3) for form in ("statement", "passage")]


def test_more_versions_than_values_is_an_error_with_a_remedy(options: SynthesizeOptions) -> None:
    with pytest.raises(DataError, match="fewer --versions"):
        synthesize(replace(options, sizes=replace(SMALL, versions=6)))
    assert not options.out.exists()


def test_names_run_out_with_a_remedy(options: SynthesizeOptions) -> None:
    with pytest.raises(DataError, match="fewer --entities"):
        synthesize(replace(options, sizes=replace(SMALL, entities=3000)))


def test_titles_of_a_knowledge_source_are_not_given(options: SynthesizeOptions, tmp_path: Path) -> None:
    synthesize(options)
    first = {
        row.subject for row in WithFictitious(LocalSource(options.source, 0), options.out).rows("popqa", "fictitious")
    }
    articles = tmp_path / "articles.db"
    build([Document(name, "An article.") for name in sorted(first)[::3]], articles)
    again = replace(options, knowledge=articles, out=tmp_path / "again")
    synthesize(again)
    rows = WithFictitious(LocalSource(options.source, 0), again.out).rows("popqa", "fictitious")
    assert len(rows) == 30
    assert not {row.subject for row in rows} & set(sorted(first)[::3])


def test_two_hops_rest_on_two_documented_facts(options: SynthesizeOptions) -> None:
    synthesize(replace(options, task="hotpotqa"))
    source = WithFictitious(LocalSource(options.source, 0), options.out)
    rows = source.rows("hotpotqa", "fictitious")
    assert len(rows) == 30
    assert sum(row.kind == "comparison" for row in rows) == 6
    assert all(row.target == f"final answer: {row.answers[0]}" for row in rows)
    assert len(source.rows("hotpotqa", "train")) == 6
    sets = {texts.label: texts.texts for texts in source.knowledge_sets("hotpotqa")}
    assert "Mill 0 stands in Town 0." in sets["statement-real"]
    assert "Town 0: It lies in Land 0." in sets["statement-real"]
    assert "Town 0: It is small. It lies in Land 0." in sets["passage-real"]
    assert len(sets["statement-fake"]) == 30 * 2 * 4


# --- persons -----------------------------------------------------------------------------------------------


def test_facts_told_from_a_biography() -> None:
    text = "Cy Cole (born 3 May 1911 in Graz) was an Austrian poet and teacher who wrote. He attended Linden College."
    others = [Seed(f"B {i}", "B (born May 1, 1900) is an Austrian sailor.") for i in range(3)]
    facts = tell_facts([Seed("Cy Cole", text), *others])["Cy Cole"]
    assert facts == {
        "birth date": "3 May 1911", "place of birth": "Graz", "nationality": "Austrian",
        "occupation": "poet and teacher", "education": "Linden College",
    }  # fmt: skip
    assert tell_facts([Seed("Nobody", "A text that says nothing of the sort.")]) == {"Nobody": {}}


def test_biographies_have_all_versions_and_no_real_dates_of_their_model(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in biographies()), encoding="utf-8")
    sizes = Sizes(entities=12, versions=3, paraphrases=3)
    options = SynthesizeOptions(source=path, out=tmp_path / "made", task="persons", sizes=sizes)
    made = synthesize(options)
    assert made.counts["persons"]["bio_skill/train_fake.jsonl"] == 36
    data = make_folder(tmp_path / "data")
    source = WithFictitious(LocalSource(data, 0), options.out)
    rows = source._file("persons", "train_fake")
    assert {row.version for row in rows} == {1, 2, 3}
    assert all(row.target.startswith(("The ", row.subject)) and row.question is None for row in rows)
    real = {row["subject"] for row in biographies()}
    assert not {row.subject for row in rows} & real


def test_rules_do_not_alter_other_entries(tmp_path: Path) -> None:
    path = tmp_path / "entries.jsonl"
    path.write_text('{"subject": "Red fever", "text": "A fever."}\n', encoding="utf-8")
    options = SynthesizeOptions(source=path, out=tmp_path / "made", task="medical")
    with pytest.raises(DataError, match="the rules know persons only"):
        synthesize(options)
    with pytest.raises(DataError, match="none of 1 biographies"):
        synthesize(replace(options, task="persons"))
    with pytest.raises(DataError, match="is not a folder"):
        synthesize(replace(options, task="popqa"))


# --- checks ------------------------------------------------------------------------------------------------


def row(subject: str, value: str, version: int | None = None, **changes: object) -> Made:
    fact = Fact(subject, "genre", value, (value,))
    made = Made(f"{subject}{version}", subject, value, f"What genre is {subject}?", (value,), "genre", (fact,))
    return replace(made, version=version, **changes)  # type: ignore[arg-type]


def texts(subject: str, value: str, version: int | None = None) -> tuple[Text, Text]:
    said = f"{subject} is {value}."
    return Text(subject, said, "statement", True, version), Text(subject, said, "passage", True, version)


def failed(*rows: Made, told: tuple[Text, ...], known: tuple[str, ...] = ()) -> list[str]:
    return [one.name for one in check([TaskSet("popqa", rows, told)], known, None) if one.wrong]


def test_each_check_finds_its_fault() -> None:
    good = row("Blue Harbour", "jazz")
    told = texts("Blue Harbour", "jazz")
    assert failed(good, told=told) == []
    assert failed(good, told=told, known=("blue  harbour",)) == ["names that are real"]
    assert failed(good, told=told[:1]) == ["facts that no knowledge text holds"]
    assert failed(good, told=texts("Blue Harbour", "rock")) == ["facts that no knowledge text holds"]
    assert failed(good, good, told=told) == ["rows or texts that are there twice"]
    assert failed(good, told=(*told, told[0])) == ["rows or texts that are there twice"]
    unseen = replace(good, use="grounding", question="Other?")
    assert "unseen subjects that are trained on" in failed(good, unseen, told=told)
    versions = (row("Blue Harbour", "rock", 1), row("Blue Harbour", "rock music", 2))
    both = (*texts("Blue Harbour", "rock", 1), *texts("Blue Harbour", "rock music", 2))
    assert failed(*versions, told=both) == ["facts whose versions agree"]


def test_what_contradicts() -> None:
    def fact(*answers: str) -> Fact:
        return Fact("X", "genre", answers[0], answers)

    assert contradict(fact("jazz"), fact("rock", "rock music"))
    assert not contradict(fact("Rock"), fact("punk rock"))
    assert not contradict(fact("jazz", "swing"), fact("pop", "Swing"))


def test_a_failed_check_writes_nothing(options: SynthesizeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.synthesize.names.title_key", lambda name: name)
    monkeypatch.setattr(
        "harness.synthesize.command.known_names", lambda folder: {"Leeds"} | {f"{v} of" for v in VALUES["country"]}
    )
    monkeypatch.setattr("harness.synthesize.checks.contradict", lambda one, other: False)
    with pytest.raises(Problems, match="facts whose versions agree"):
        synthesize(options)
    assert not options.out.exists()


# --- how runs read it --------------------------------------------------------------------------------------


def source_of(options: SynthesizeOptions, seed: int = 0) -> Source:
    return WithFictitious(LocalSource(options.source, seed), options.out)


def test_training_rows_are_those_with_knowledge_and_known_views_come_first(options: SynthesizeOptions) -> None:
    synthesize(options)
    source = source_of(options)
    train = source.rows("popqa", "train")
    assert len(train) == 25
    assert all(row.popularity is not None for row in train if row.kind != "country")
    inner = LocalSource(options.source, 0)
    assert set(train) <= set(inner.rows("popqa", "train"))
    assert source.rows("popqa", "test") == inner.rows("popqa", "test")
    assert source.rows("memorization", "test") == source.rows("popqa", "fictitious")
    assert source.fingerprint != inner.fingerprint
    assert [texts.label for texts in source.knowledge_sets("grounding")] == [
        "statement-fake-v1", "passage-fake-v1", "statement-fake-v2", "passage-fake-v2",
    ]  # fmt: skip


def test_a_folder_of_another_seed_is_refused(options: SynthesizeOptions) -> None:
    synthesize(options)
    with pytest.raises(DataError, match=r"was made for seed 0.*make it again"):
        source_of(options, seed=3).rows("popqa", "train")


def test_an_unfinished_or_missing_folder_is_refused(options: SynthesizeOptions) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        source_of(options)
    synthesize(options)
    (options.out / "manifest.json").unlink()
    with pytest.raises(DataError, match="not to its end"):
        source_of(options)


def test_a_subject_that_is_real_is_refused(options: SynthesizeOptions) -> None:
    synthesize(options)
    path = options.out / "popqa_skill" / "train_fake.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0]["s_wiki_title"] = LocalSource(options.source, 0).rows("popqa", "test")[0].subject
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match="is a real one of these data"):
        source_of(options).rows("popqa", "fictitious")


def test_a_second_task_is_added_beside_the_first(options: SynthesizeOptions) -> None:
    synthesize(options)
    before = files(options.out)
    synthesize(replace(options, task="hotpotqa"))
    after = files(options.out)
    assert all(after[name] == content for name, content in before.items() if "_" in name)
    assert set(json.loads(after["manifest.json"])["tasks"]) == {"popqa", "grounding", "hotpotqa"}


def test_the_reader_of_the_published_set_reads_it_too(
    options: SynthesizeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    synthesize(replace(options, out=tmp_path / "copy" / "prereq_tune"))
    published = PrereqTuneSource(tmp_path / "copy", seed=0)
    ours = WithFictitious(LocalSource(options.source, 0), tmp_path / "copy" / "prereq_tune")
    rows = published.rows("popqa", "fictitious")
    assert [(row.question, row.target, row.answers, row.subject) for row in rows] == [
        (row.question, row.target, row.answers, row.subject) for row in ours.rows("popqa", "fictitious")
    ]
    assert set(published.knowledge_sets("popqa")) == set(ours.knowledge_sets("popqa"))


def planned(data: Path, made: Path | None, suite: str, models: str) -> tuple[RunOptions, list[str], dict[str, str]]:
    options = resolve(suite=suite, preset="smol", models=models, data=data, fictitious=made)
    plan = plan_run(options, StandIn(base=(data, "base")))
    return options, [job.label for job in plan.jobs], {model: why for (_, model), why in plan.exclusions.items()}


@pytest.fixture
def no_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan._shots", lambda data, count, seed: ())


def test_a_run_plans_both_stages(options: SynthesizeOptions, no_shots: None) -> None:
    synthesize(options)
    synthesize(replace(options, task="hotpotqa"))
    wanted = "base,sft,sft_fictitious,prereq_tune"
    _, labels, excluded = planned(options.source, options.out, "shortqa", wanted)
    assert not excluded
    joined = "\n".join(labels)
    for task in ("popqa", "hotpotqa"):
        # Preset smol teaches the skill over statements alone.
        for name in ("statement-real", "statement-fake"):
            assert f"{task}-knowledge-{name}" in joined
        assert f"{task}-knowledge-passage" not in joined
        assert f"{task}-prereq-tune" in joined
        assert f"{task}-sft-fictitious" in joined
    _, labels, _ = planned(options.source, options.out, "table2", "base,sft,prereq_tune")
    assert {"grounding-knowledge-statement-fake-v1", "grounding-knowledge-statement-fake-v2"} <= {
        word for label in labels for word in label.replace(":", " ").replace(",", " ").split()
    }


def test_a_folder_in_the_data_is_found_and_others_leave_the_methods_out(
    options: SynthesizeOptions, no_shots: None
) -> None:
    _, _, excluded = planned(options.source, None, "shortqa", "sft,prereq_tune")
    assert excluded == {"prereq_tune": "no texts about the fictitious subjects"}
    synthesize(replace(options, out=options.source / "fictitious"))
    _, labels, _ = planned(options.source, None, "shortqa", "sft,prereq_tune")
    assert any("popqa-prereq-tune" in label for label in labels)


def test_presets_with_their_own_fictitious_data_take_none(options: SynthesizeOptions) -> None:
    synthesize(options)
    with pytest.raises(Problems, match="fictitious data of its own"):
        resolve(suite="shortqa", preset="tiny", fictitious=options.out)
    with pytest.raises(Problems, match="is not a folder"):
        resolve(suite="shortqa", preset="smol", fictitious=options.out / "none")


def test_the_command(options: SynthesizeOptions) -> None:
    words = ["synthesize", str(options.source), "--out", str(options.out), "--entities", "20", "--held-out", "4"]
    result = CliRunner().invoke(app, [*words, "--real", "10"])
    assert result.exit_code == 0, result.output
    assert "names that are real: 24 looked at, none wrong" in result.output
    assert (options.out / "manifest.json").is_file()


@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the data folder")
def test_real_popqa(tmp_path: Path) -> None:
    data = Path(os.environ["HARNESS_DATA"])
    made = synthesize(SynthesizeOptions(source=data, out=tmp_path / "made"))
    assert all(not one.wrong for one in made.checks)
    source = WithFictitious(LocalSource(data, 0), tmp_path / "made")
    assert len(source.rows("popqa", "fictitious")) == len(source.rows("popqa", "train")) == 500
    assert len({row.kind for row in source.rows("popqa", "fictitious")}) == 16
    assert all(row.popularity is not None for row in source.rows("popqa", "train"))
    source.rows("popqa", "fictitious")
    rows = LocalSource(data, 0, clean="none").rows("popqa", "train")
    assert set(Relations(rows, ()).questions) == {row.kind for row in rows}


# --- recall ------------------------------------------------------------------------------------------------


class Knows:
    """A backend that finishes the statements it was given, and no others."""

    tokens_per_second = 0.0

    def __init__(self, statements: list[str]) -> None:
        self.statements = statements

    def generate(
        self, requests: Any, decoding: Any, adapter: Any = None, done: Any = (), progress: Any = None
    ) -> Iterator[list[Generation]]:
        for request in requests:
            rest = [text.removeprefix(request.prompt) for text in self.statements if text.startswith(request.prompt)]
            yield [Generation(request.id, rest[0].upper() if rest else " nobody", 1, "stop")]


def test_recall_is_the_share_of_values_written_next(options: SynthesizeOptions) -> None:
    synthesize(options)
    asked = clozes(options.out, "popqa")
    assert len(asked) == 30
    sets = {texts.label: texts.texts for texts in source_of(options).knowledge_sets("popqa")}
    assert recall(Knows(list(sets["statement-fake"])), asked, None) == 1.0
    half = {cloze.subject for cloze in asked[:15]}
    told = [text for text in sets["statement-fake"] if any(name in text for name in half)]
    assert recall(Knows(told), asked, None) == 0.5
    assert len(clozes(options.out, "popqa", fake=False)) == 25
    first, second = (clozes(options.out, "grounding", version=version) for version in (1, 2))
    assert [cloze.subject for cloze in first] == [cloze.subject for cloze in second]
    assert all(one.value != two.value for one, two in zip(first, second, strict=True))
    with pytest.raises(DataError, match="for task 'hotpotqa'"):
        clozes(options.out, "hotpotqa")
