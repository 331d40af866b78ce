"""Recall in a run: which adapters are asked for what, what the answers come to, and that it stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness import pipeline, recall
from harness.executor import JobsFailed
from harness.jobs import Generate, Job, PretrainBase, TrainAdapter
from harness.options import resolve
from harness.paths import write_lines
from harness.plan import Plan, StandIn, plan_run
from harness.recall import MOST, Measured, Recall
from harness.run_options import RunOptions
from harness.store import RunFolder
from harness.synthesize.command import SynthesizeOptions, synthesize
from harness.synthesize.recall import DECODING, ENOUGH, Cloze, prompts
from harness.synthesize.rules import Sizes
from tests.synthetic_folder import make_folder

SMALL = Sizes(entities=30, held_out=8, real=25, paraphrases=6)
FAKE = "popqa-knowledge-statement-fake"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SynthesizeOptions:
    """Fictitious PopQA and HotpotQA beside a small data folder, in a home of its own."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("harness.plan._shots", lambda data, count, seed: ())
    monkeypatch.setattr("harness.plan.base_of", lambda options, world, source: (None, tmp_path / "base", "base"))
    options = SynthesizeOptions(source=make_folder(tmp_path / "data"), out=tmp_path / "made", sizes=SMALL)
    synthesize(options)
    synthesize(replace(options, task="hotpotqa"))
    return options


def run_options(
    made: SynthesizeOptions, suite: str = "shortqa", models: str = "sft,prereq_tune", **popqa: object
) -> RunOptions:
    """A run over statement and passage adapters; `popqa` are further options of that task."""
    options = resolve(suite=suite, preset="smol", models=models, data=made.source, fictitious=made.out, limit=5)
    own = {"formats": "both", "knowledge_changes": {"passage": {"epochs": 2}}}
    own_options = options.preset.options | {"popqa": own | popqa, "hotpotqa": own}
    return replace(options, preset=options.preset.model_copy(update={"options": own_options}))


def jobs_of(plan: Plan) -> list[Job]:
    return [one.job for found in plan.recalls.values() for one in found]


# --- planning ----------------------------------------------------------------------------------------------


def test_every_knowledge_adapter_under_a_skill_stage_is_asked_for_its_facts(made: SynthesizeOptions) -> None:
    plan = plan_run(run_options(made))
    of_popqa = {one.adapter: one for one in plan.recalls["popqa"]}
    assert set(of_popqa) == {
        f"popqa-knowledge-{form}-{kind}" for form in ("statement", "passage") for kind in ("fake", "real")
    }
    assert [(len(one.asked), one.of) for one in of_popqa.values()] == [(25, 25), (25, 25), (30, 30), (30, 30)]
    # The real rows of HotpotQA have no facts.
    assert [one.adapter for one in plan.recalls["hotpotqa"]] == [
        "hotpotqa-knowledge-statement-fake", "hotpotqa-knowledge-passage-fake",
    ]  # fmt: skip
    one = of_popqa[FAKE]
    trained = next(job for job in plan.jobs if job.key == one.key)
    assert isinstance(trained.payload, TrainAdapter) and trained.payload.stage.name == FAKE
    asked = one.job.payload
    assert isinstance(asked, Generate) and asked.adapter == trained.out and asked.decoding == DECODING
    assert asked.prompts == prompts(one.asked) and one.job.needs == (trained.key,)
    assert not any(prompt.endswith(cloze.value) for (_, prompt), cloze in zip(asked.prompts, one.asked, strict=True))


def test_adapters_of_versions_are_told_apart(made: SynthesizeOptions, tmp_path: Path) -> None:
    several = replace(made, out=tmp_path / "several", sizes=replace(SMALL, versions=2))
    synthesize(several)
    synthesize(replace(several, task="hotpotqa"))
    found = [one for one in plan_run(run_options(several)).recalls["popqa"] if "fake" in one.adapter]
    assert [one.words for one in found] == [
        f"{form}, fictitious, version {version}" for version in (1, 2) for form in ("statement", "passage")
    ]
    first, second = (one.asked for one in found[::2])
    assert [one.subject for one in first] == [one.subject for one in second]
    assert all(one.value != two.value for one, two in zip(first, second, strict=True))


def test_strengths_are_told_apart(made: SynthesizeOptions) -> None:
    found = plan_run(run_options(made, knowledge_strengths={"statement-fake": [3, 5]})).recalls["popqa"]
    words = [one.words for one in found if one.adapter.startswith(FAKE)]
    assert words == ["statement, fictitious, 3 epochs", "statement, fictitious, 5 epochs"]
    assert len({one.job.key for one in found}) == len(found)


def test_recall_changes_no_address_and_nothing_waits_for_it(
    made: SynthesizeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = run_options(made)
    plan = plan_run(options)
    own = {job.key for job in jobs_of(plan)}
    assert len(own) == 6
    assert not own & {key for job in plan.jobs for key in (job.key, *job.needs)}
    monkeypatch.setattr("harness.plan.recalls_of", lambda *_: ())
    without = plan_run(options)
    assert without == replace(plan, recalls={})


def test_its_address_changes_with_the_adapter_and_with_what_is_asked(made: SynthesizeOptions) -> None:
    options = run_options(made)
    before = {one.adapter: one.job.key for one in plan_run(options).recalls["popqa"]}
    assert {one.adapter: one.job.key for one in plan_run(options).recalls["popqa"]} == before
    longer = {name: dict(stages) for name, stages in options.preset.recipes.items()}
    longer["popqa"] = {"knowledge": {"epochs": 9}}
    trained = plan_run(replace(options, preset=options.preset.model_copy(update={"recipes": longer})))
    after = {one.adapter: one.job.key for one in trained.recalls["popqa"]}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "statement" in name}  # passages have epochs of their own
    rows = made.out / "popqa_skill" / "train_fake.jsonl"
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join(lines[:-1]), encoding="utf-8")
    fewer = {one.adapter: one for one in plan_run(options).recalls["popqa"]}
    assert fewer[FAKE].of == 29 and fewer[FAKE].job.key != before[FAKE]


def test_models_without_a_skill_stage_and_data_without_facts_are_not_asked(
    made: SynthesizeOptions, tmp_path: Path
) -> None:
    assert plan_run(run_options(made, models="sft,sft_fictitious")).recalls == {}
    miniature = resolve(suite="shortqa", preset="tiny", models="prereq_tune")
    assert plan_run(miniature, StandIn(base=(tmp_path, "base"))).recalls == {}
    rows = made.out / "popqa_skill" / "train_fake.jsonl"
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    rows.write_text("".join(json.dumps(row | {"facts": None}) + "\n" for row in lines), encoding="utf-8")
    found = plan_run(run_options(made)).recalls["popqa"]
    assert all("real" in one.adapter for one in found), "what cannot be asked stops no run"


def test_tables_of_the_same_adapters_share_the_answers(made: SynthesizeOptions) -> None:
    table = plan_run(run_options(made, suite="table2", models="sft,prereq_tune"))
    popqa = plan_run(run_options(made)).recalls["popqa"]
    assert [one.job.key for one in table.recalls["grounding"]] == [one.job.key for one in popqa]
    both = recall.every([table.recalls, {"popqa": popqa}])
    assert [one.job.key for one in both] == [one.job.key for one in popqa]


def test_an_engine_has_room_for_the_knowledge_adapter(made: SynthesizeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(replace(run_options(made), backend="vllm"))
    ranks = {job.payload.engine["highest_rank"] for job in plan.jobs if isinstance(job.payload, Generate)}
    asked = {job.payload.engine["highest_rank"] for job in jobs_of(plan) if isinstance(job.payload, Generate)}
    assert (ranks, asked) == ({16}, {32})


def test_at_most_so_many_facts_are_asked_whatever_their_order() -> None:
    facts = [Cloze(f"Subject {i}", f"Subject {i} is", f"value {i}") for i in range(3 * MOST)]
    drawn = recall.draw(facts)
    assert len(drawn) == MOST == 200
    assert set(recall.draw(facts[::-1])) == set(drawn)
    assert [facts.index(one) for one in drawn] == sorted(facts.index(one) for one in drawn)
    assert recall.draw(facts[:7]) == tuple(facts[:7])


# --- words -------------------------------------------------------------------------------------------------


def measured(words: str, right: int | None, world: int = 0, facts: int = 100) -> Measured:
    asked = tuple(Cloze(f"S{i}", f"S{i} is", "x") for i in range(facts))
    payload = PretrainBase({}, {}, 0, 0)
    job = Job(f"{words}{world}", "generate", f"world {world}: popqa, recall of {words}", Path("nowhere"), payload)
    return Measured(Recall("popqa", world, f"popqa-{words}", words, f"key of {words}", asked, 500, job), right)


def test_enough_is_said_without_a_warning() -> None:
    assert ENOUGH == 0.9
    found = [measured("statement, fictitious", 97), measured("passage, fictitious", 90)]
    assert recall.note(found) == (
        "Knowledge recall before the skill stage: statement, fictitious 0.97 of 100 facts; "
        "passage, fictitious 0.90 of 100 facts."
    )
    assert recall.warnings(found, {}) == []
    assert recall.records(found)[0] == {
        "world": 0, "adapter": "popqa-statement, fictitious", "key": "key of statement, fictitious",
        "share": 0.97, "facts": 100, "of": 500,
    }  # fmt: skip


def test_too_little_is_warned_of_with_the_remedy() -> None:
    found = [measured("statement, fictitious", 97), measured("passage, fictitious", 89)]
    text = recall.note(found)
    assert "Warning: below 0.9: passage, fictitious. " in text
    (line,) = recall.warnings(found, {})
    assert line.startswith("warning: world 0: popqa-passage, fictitious holds 0.89 of 100 facts, below 0.9: ")
    for words in (text, line):
        assert "give [recipes.popqa.knowledge] of the preset more epochs or a higher learning_rate" in words


def test_a_share_just_below_enough_does_not_read_as_enough() -> None:
    found = [measured("passage, fictitious", 179, facts=200)]
    assert "passage, fictitious 0.89 of 200 facts. Warning: below 0.9" in recall.note(found)
    assert "holds 0.89 of 200 facts, below 0.9" in recall.warnings(found, {})[0]


def test_worlds_are_pooled_and_one_that_is_low_is_named() -> None:
    found = [measured("statement, real", 99), measured("statement, real", 85, world=1)]
    text = recall.note(found)
    assert "statement, real 0.92 of 200 facts in 2 worlds. Warning: below 0.9: statement, real." in text
    assert len(recall.warnings(found, {})) == 1


def test_what_was_not_measured_is_said_with_the_reason() -> None:
    one = measured("statement, real", None)
    assert recall.note([one]) == "Knowledge recall before the skill stage: statement, real not measured."
    assert recall.records([one])[0]["share"] is None
    reasons = {one.recall.job.key: "out of\n  memory"}
    assert recall.warnings([one], reasons) == [
        "warning: the recall of world 0: popqa-statement, real was not measured: out of memory"
    ]


def test_a_failure_of_a_recall_alone_is_no_failure_of_the_run() -> None:
    one = measured("statement, real", None).recall
    failed = JobsFailed({one.job.key: "recall: broken"}, {one.job.key: "recall: broken"})
    assert recall.others(failed, [one]) is None
    both = JobsFailed(
        {"train": "train: broken", one.job.key: "recall: broken"},
        {"train": "train: broken", "answer": "train: broken", one.job.key: "recall: broken"},
    )
    kept = recall.others(both, [one])
    assert kept is not None
    assert kept.problems == ("train: broken",)
    assert kept.reasons == {"train": "train: broken", "answer": "train: broken"}
    trained = JobsFailed({"train": "train: broken"}, {"train": "train: broken", one.job.key: "train: broken"})
    kept = recall.others(trained, [one])
    assert kept is not None and kept.problems == ("train: broken",)


# --- in a run ----------------------------------------------------------------------------------------------

Answers = Callable[[Recall], list[str] | None]


def run(made: SynthesizeOptions, out: Path, monkeypatch: pytest.MonkeyPatch, answers: Answers | None) -> dict[str, str]:
    """A run whose jobs leave made-up answers; those of a recall for which there are none fail. Its files."""
    options = run_options(made)
    by_key = {one.job.key: one for found in plan_run(options).recalls.values() for one in found}
    if answers is None:
        monkeypatch.setattr("harness.plan.recalls_of", lambda *_: ())

    def run_jobs(jobs: Iterable[Job], *_: object) -> None:
        reasons: dict[str, str] = {}
        for job in jobs:
            if isinstance(job.payload, Generate):
                found = by_key.get(job.key)
                texts = ["nothing"] * len(job.payload.prompts) if found is None else answers and answers(found)
                if texts is None:
                    reasons[job.key] = f"{job.label}: broken"
                    continue
                ids = [id_ for id_, _ in job.payload.prompts]
                rows = zip(ids, texts or (), strict=True)
                write_lines(job.out, ({"id": i, "text": text, "tokens": 1, "finish": "stop"} for i, text in rows))
        if reasons:
            raise JobsFailed(reasons, reasons)

    monkeypatch.setattr("harness.pipeline.run_jobs", run_jobs)
    pipeline.execute(options, RunFolder(out), "harness run", lambda event: None)
    return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir() if path.suffix != ".png"}


def knows_all(one: Recall) -> list[str]:
    return [f" {cloze.value.upper()}." for cloze in one.asked]


def knows_statements(one: Recall) -> list[str]:
    return [
        f" {cloze.value}" if "statement" in one.adapter or i % 2 else " nobody" for i, cloze in enumerate(one.asked)
    ]


def test_a_run_says_its_recall_under_the_table_and_in_the_manifest(
    made: SynthesizeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = run(made, tmp_path / "run", monkeypatch, knows_statements)
    popqa, hotpotqa = files["leaderboard.md"].split("\n## ")[-3:-1]
    assert (
        "- Knowledge recall before the skill stage: statement, real 1.00 of 25 facts; passage, real 0.48 of 25 facts; "
        "statement, fictitious 1.00 of 30 facts; passage, fictitious 0.50 of 30 facts. "
        "Warning: below 0.9: passage, real; passage, fictitious. "
    ) in popqa
    assert "give [recipes.hotpotqa.knowledge] of the preset more epochs" in hotpotqa
    assert "Knowledge recall before the skill stage: statement, real 1.00" in files["report.html"]
    manifest = json.loads(files["manifest.json"])
    found = {entry["adapter"]: entry for entry in manifest["recall"]}
    assert (found[FAKE]["share"], found[FAKE]["facts"], found[FAKE]["of"]) == (1.0, 30, 30)
    assert found["popqa-knowledge-passage-real"]["share"] == 0.48
    assert found[FAKE]["key"] in {job["key"] for job in manifest["jobs"] if job["kind"] == "train"}
    assert manifest["failures"] == []
    error = capsys.readouterr().err
    assert error.count("warning: ") == 3
    assert "warning: world 0: popqa-knowledge-passage-real holds 0.48 of 25 facts, below 0.9: give " in error


def test_a_run_that_knows_enough_warns_of_nothing(
    made: SynthesizeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = run(made, tmp_path / "run", monkeypatch, knows_all)
    assert "statement, fictitious 1.00 of 30 facts" in files["leaderboard.md"]
    assert "Warning" not in files["leaderboard.md"] and capsys.readouterr().err == ""


def test_a_recall_that_fails_stops_no_run(
    made: SynthesizeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = run(made, tmp_path / "run", monkeypatch, lambda one: None if one.adapter == FAKE else knows_all(one))
    assert "statement, fictitious not measured; passage, fictitious 1.00" in files["leaderboard.md"]
    assert json.loads(files["manifest.json"])["failures"] == []
    error = capsys.readouterr().err
    assert f"warning: the recall of world 0: {FAKE} was not measured: world 0: popqa, recall of" in error


def test_without_recall_the_files_are_as_they_were(
    made: SynthesizeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(files: Mapping[str, str]) -> tuple[dict[str, object], dict[str, object]]:
        return json.loads(files["metrics.json"]), json.loads(files["manifest.json"])

    with_it, manifest_with = plain(run(made, tmp_path / "with", monkeypatch, knows_all))
    files = run(made, tmp_path / "without", monkeypatch, None)
    without, manifest = plain(files)
    assert '"notes"' not in files["metrics.json"] and "recall" not in manifest
    tasks = with_it["tasks"]
    assert isinstance(tasks, dict)
    for task in tasks.values():
        assert task.pop("notes")
    assert with_it == without
    assert set(manifest_with) == {*manifest, "recall"}
    assert manifest["fingerprint"] == manifest_with["fingerprint"]
