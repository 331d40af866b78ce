"""Ablations: what their arms change, what they leave alone, and what is said of their answers."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from baselines.method import NotApplicable
from harness import ablations
from harness.ablations import contrasts
from harness.ablations.ablation import (
    ABLATIONS,
    BUILT_IN,
    Ablation,
    Arm,
    ArmResult,
    Findings,
    ablation,
    asking,
    changes,
    with_method_options,
    with_source,
)
from harness.ablations.controlled import bins
from harness.ablations.examples import median_entity
from harness.ablations.figures import Line, Panel, Picture, Point
from harness.data.certainty import DO_NOT_KNOW, NOT_SURE
from harness.errors import Problems
from harness.jobs import Generate, TrainAdapter, whole_sentences
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.options import resolve
from harness.plan import Plan, plan_run
from harness.run_options import RunOptions
from harness.store import RunFolder

MODELS = "base,sft,popular,sft_fictitious,prereq_tune"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


def options(**changed: Any) -> RunOptions:
    return resolve(**({"suite": "ablations", "preset": "tiny", "models": MODELS} | changed))


def plans(name: str, chosen: RunOptions) -> tuple[tuple[Arm, ...], list[Plan]]:
    arms = ABLATIONS.get(name).arms(chosen)
    return arms, [plan_run(arm.options) for arm in arms]


# --- answers that were never generated -----------------------------------------------------------------------


def long(model: str, supported: float, claims: int, *, n: int = 60, world: int = 0) -> list[LongformScore]:
    """Answers about the same entities whatever the model, each claim supported with this probability."""
    rng = random.Random(f"{model}/{supported}/{world}")
    return [
        LongformScore(
            response_id=f"e{i}",
            subject=f"e{i}",
            world=world,
            popularity=10 * i,
            abstained=False,
            verdicts=tuple("supported" if rng.random() < supported else "not_supported" for _ in range(claims)),
            cut_off=False,
        )
        for i in range(n)
    ]


def short(right: Sequence[bool], answers: Sequence[str] | None = None) -> list[QaScore]:
    return [
        QaScore(
            item_id=f"q{i}", subject=f"e{i}", kind="", popularity=10 ** (1 + i // 20), world=0, reference_em=yes,
            token_match=yes, strict_em=yes, f1=float(yes), abstained=False, cut_off=False,
            answer=answers[i] if answers else "x",
        )
        for i, yes in enumerate(right)
    ]  # fmt: skip


def result(
    arm: Arm,
    qa: Mapping[tuple[str, str], Sequence[QaScore]] | None = None,
    longform: Mapping[tuple[str, str], Sequence[LongformScore]] | None = None,
    claims: Sequence[Mapping[str, Any]] = (),
) -> ArmResult:
    return ArmResult(arm, qa or {}, longform or {}, (), claims, {})


def lines(picture: Picture | None) -> list[list[int]]:
    """How many points each line of each panel has."""
    assert picture is not None
    return [[len(line.points) for line in panel.lines] for panel in picture.panels]


# --- arms ----------------------------------------------------------------------------------------------------


def test_the_suites_name_every_ablation_that_there_is() -> None:
    assert options().suite.ablations == BUILT_IN
    assert resolve(suite="all", preset="tiny", models=MODELS).suite.ablations == BUILT_IN
    assert set(ABLATIONS.names()) == set(BUILT_IN)


def test_only_chooses_ablations_and_names_those_that_there_are() -> None:
    assert options(only="format, claims").suite.ablations == ("format", "claims")
    with pytest.raises(Problems, match="no ablation is called 'claim'; did you mean claims"):
        options(only="claim")
    with pytest.raises(Problems, match="suite longform has no ablations; use --suite ablations"):
        options(suite="longform", only="claims")


def test_what_is_studied_beside_the_tables_does_not_change_which_run_it_is() -> None:
    assert options(only="claims").fingerprint() == options().fingerprint()


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "settings"])
def test_all_arms_share_one_base(name: str) -> None:
    _, made = plans(name, options())
    bases = {job.key for plan in made for job in plan.jobs if job.kind == "base"}
    assert len(bases) == 1
    assert all(plan.cells for plan in made)


def test_the_examples_are_answers_of_the_main_table() -> None:
    chosen = options()
    (examples,) = plans("examples", chosen)[1]
    table = plan_run(resolve(suite="table1", preset="tiny", models=MODELS))
    assert {job.key for job in examples.jobs} <= {job.key for job in table.jobs}


def test_a_forced_length_is_decoded_to_and_cut_and_trains_nothing_anew() -> None:
    chosen = options()
    arms, made = plans("claims", chosen)
    own, *forced = made
    trained = {job.key for job in own.jobs if job.kind == "train"}
    assert len(forced) == 2
    for arm, plan in zip(arms[1:], forced, strict=True):
        assert {job.key for job in plan.jobs if job.kind == "train"} == trained
        for cell in plan.cells:
            assert isinstance(cell.generate.payload, Generate)
            decoding = cell.generate.payload.decoding
            assert decoding.min_new_tokens == decoding.max_new_tokens == arm.x
            assert cell.generate.payload.whole_sentences
    assert [arm.x for arm in arms[1:]] == sorted({arm.x for arm in arms[1:]})
    assert arms[-1].x == chosen.preset.generation.max_new_tokens["persons"]


def test_more_subjects_hold_the_fewer_and_all_of_them_are_the_tables_own() -> None:
    chosen = options()
    arms, made = plans("scaling", chosen)
    table = {job.key for job in plan_run(resolve(suite="table1", preset="tiny", models=MODELS)).jobs}
    for task, whole in (("popqa", 20), ("persons", 12)):
        sizes, before = [], set[str]()
        for arm, plan in zip(arms, made, strict=True):
            if arm.series != task:
                continue
            cell = next(cell for cell in plan.cells if cell.model == "sft_fictitious")
            stage = next(job.payload for job in plan.jobs if job.out == cell.adapter)
            assert isinstance(stage, TrainAdapter)
            subjects = {example.subject for example in stage.stage.examples if example.fake}
            assert before <= subjects and len(subjects) == arm.x
            before = subjects
            sizes.append(len(subjects))
        assert sizes == sorted(sizes) and sizes[-1] == whole
    full = [plan for arm, plan in zip(arms, made, strict=True) if arm.x in (20, 12) and not changes(chosen, arm)]
    assert len(full) == 2 and all(job.key in table for plan in full for job in plan.jobs)


def test_formats_change_the_knowledge_adapters_alone() -> None:
    arms, made = plans("format", options())
    for arm, plan in zip(arms, made, strict=True):
        stages = [job.payload.stage for job in plan.jobs if isinstance(job.payload, TrainAdapter)]
        known = {stage.format for stage in stages if stage.kind == "knowledge"}
        assert known == ({"statement", "passage"} if arm.label == "both" else {arm.label})


def test_decomposition_compares_statements_of_the_same_biographies() -> None:
    texts = []
    for plan in plans("decomposition", options())[1]:
        stages = [job.payload.stage for job in plan.jobs if isinstance(job.payload, TrainAdapter)]
        assert {stage.format for stage in stages if stage.kind == "knowledge"} == {"statement"}
        texts.append([stage.texts for stage in stages if stage.kind == "knowledge"])
    assert texts[0] != texts[1]
    assert sum(map(len, texts[0])) > sum(map(len, texts[1])), "a sentence holds several facts"


def test_cleaned_questions_are_among_the_original_ones() -> None:
    original, cleaned = ({item.id for item in plan.cells[0].items} for plan in plans("popqa_cleaning", options())[1])
    assert cleaned < original


def test_an_arm_says_what_it_changes() -> None:
    chosen = options()
    changed = with_source(asking(chosen, ("popqa",)), fictitious_subjects=3)
    assert changes(chosen, Arm("three", "three", 3, changed)) == {"source.options.fictitious_subjects": 3}


def test_where_a_preset_lacks_what_is_varied_the_reason_is_given(tmp_path: Path) -> None:
    chosen = resolve(suite="ablations", preset="smol", models="sft", base=str(tmp_path))
    for name in ("scaling", "decomposition", "controlled"):
        with pytest.raises(NotApplicable):
            ABLATIONS.get(name).arms(chosen)
    chosen = resolve(suite="ablations", preset="llama3-8b", models="sft", base=str(tmp_path))
    with pytest.raises(NotApplicable, match="cleaned state alone"):
        ABLATIONS.get("popqa_cleaning").arms(chosen)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("was born in 1909. They joined", "was born in 1909."),
        ("was born in 1909.", "was born in 1909."),
        ("was born in 1909. He said “so.” They", "was born in 1909. He said “so.”"),
        ("was born in", ""),
        ("", ""),
    ],
)
def test_a_forced_answer_ends_with_its_last_whole_sentence(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept


# --- findings ------------------------------------------------------------------------------------------------


def test_claims_tests_at_equal_length_and_draws_both_kinds() -> None:
    chosen = options()
    arms = ABLATIONS.get("claims").arms(chosen)
    quality = {"base": 0.6, "sft": 0.3, "prereq_tune": 0.8}
    results = [
        result(arm, longform={("persons", m): long(m, q, 4 if arm.x is None else 8) for m, q in quality.items()})
        for arm in arms
    ]
    findings = ABLATIONS.get("claims").render(chosen, results)
    assert "Holds: prereq_tune > base" in findings.summary and "prereq_tune > sft" in findings.summary
    assert "k = 1 to 4" in findings.body and "k = 1 to 8" in findings.body
    assert findings.numbers["forced"][f"sft/{arms[-1].label}"]["claims"].value == 8
    assert lines(findings.picture) == [[4, 4, 4], [2, 2, 2]]


def test_format_puts_the_paper_beside_and_tests_its_order() -> None:
    chosen = options()
    arms = ABLATIONS.get("format").arms(chosen)
    results = []
    for arm in arms:
        good = arm.label == "statement"
        qa = {("popqa", "prereq_tune"): short([i % 4 != 0 if good else i % 4 == 0 for i in range(100)])}
        results.append(result(arm, qa, {("persons", "prereq_tune"): long(arm.label, 0.5, 6)}))
    findings = ABLATIONS.get("format").render(chosen, results)
    assert "47.91" in findings.body and "38.75" in findings.body
    assert "PopQA: 1 of 3 pairs as in the paper, 1 the other way" in findings.summary
    assert lines(findings.picture) == [[3], [3]]


def test_scaling_tests_more_against_fewer_with_and_without() -> None:
    chosen = options()
    arms = ABLATIONS.get("scaling").arms(chosen)
    results = []
    for arm in arms:
        grows = 0.4 + 0.5 * (arm.x or 0) / 20
        cells = {"prereq_tune": grows, "sft_fictitious": 0.3}
        rng = random.Random(arm.label)
        results.append(
            result(arm, {("popqa", m): short([rng.random() < q for _ in range(300)]) for m, q in cells.items()})
            if arm.series == "popqa"
            else result(arm, longform={("persons", m): long(f"{m}{arm.x}", q, 6) for m, q in cells.items()})
        )
    findings = ABLATIONS.get("scaling").render(chosen, results)
    assert "prereq_tune on 20 > prereq_tune on" in findings.summary.split("Not told apart")[0]
    assert lines(findings.picture) == [[2, 2], [2, 2]]


def test_decomposition_says_which_is_better() -> None:
    chosen = options()
    arms = ABLATIONS.get("decomposition").arms(chosen)
    results = [
        result(arm, longform={("persons", "prereq_tune"): long("x", 0.9 if "rules" in arm.label else 0.4, 6)})
        for arm in arms
    ]
    findings = ABLATIONS.get("decomposition").render(chosen, results)
    assert findings.summary.startswith("Accuracy: Holds: decomposed by rules > split into sentences")
    assert lines(findings.picture) == [[6, 6]]


def test_popqa_cleaning_pairs_the_shared_questions() -> None:
    chosen = options()
    arms = ABLATIONS.get("popqa_cleaning").arms(chosen)
    rng = random.Random(3)
    results = []
    for arm in arms:
        size = 200 if arm.label == "original" else 150
        share = {"sft": 0.3, "popular": 0.3, "sft_fictitious": 0.2, "prereq_tune": 0.6}
        results.append(
            result(arm, {("popqa", m): short([rng.random() < q for _ in range(size)]) for m, q in share.items()})
        )
    findings = ABLATIONS.get("popqa_cleaning").render(chosen, results)
    assert "37.50" in findings.body and "47.91" in findings.body
    shared = findings.numbers["shared/tests"]
    assert len(shared) == 4 and all(test["difference"].clusters == 150 for test in shared)
    assert lines(findings.picture) == [[2, 2, 2, 2]]


def test_controlled_reads_the_classes_by_popularity() -> None:
    chosen = options()
    (arm,) = ABLATIONS.get("controlled").arms(chosen)
    said, right = [], []
    for i in range(120):
        # The less popular, the less certain; right where certain, wrong where unsure.
        form = (DO_NOT_KNOW, NOT_SURE + "x", "x")[i // 40]
        said.append(form)
        right.append(form == "x")
    answers = {("popqa_controlled", "prereq_tune"): short(right, said)}
    findings = ABLATIONS.get("controlled").render(chosen, [result(arm, answers)])
    assert findings.summary.startswith("certainty grows with popularity, ρ = 0.9")
    assert "Holds: right when certain > right when unsure" in findings.summary
    first, last = findings.numbers["bins"][0], findings.numbers["bins"][-1]
    assert first["shares"]["unknown"].value == 1 and last["shares"]["certain"].value == 1
    assert lines(findings.picture) == [[6, 6, 6], [2, 2]]


def test_bins_are_about_equal_and_keep_equal_popularity_together() -> None:
    scores = short([True] * 200)
    made = bins(scores, 10, 20)
    assert [len(group) for group in made] == [20] * 10
    assert [len(group) for group in bins(scores, 10, 60)] == [80, 60, 60]
    assert sum(map(len, bins(scores[:5], 10, 20))) == 5
    places = [{s.popularity for s in group} for group in bins(scores, 7, 1)]
    assert all(not a & b for i, a in enumerate(places) for b in places[i + 1 :])


def test_settings_show_the_presets_sizes_beside_the_papers() -> None:
    chosen = options()
    findings = ABLATIONS.get("settings").render(chosen, ())
    assert findings.numbers["real"]["persons"] == {"train": 16, "validation": 4, "test": 16}
    assert findings.numbers["synthetic"]["persons"]["knowledge_versions"] == 2
    assert findings.numbers["recipes"]["popqa"]["skill"]["lora_r"] == 8
    assert "10613" in findings.body and "5, 10, 20, 30, ..., 80" in findings.body


def test_examples_take_the_entity_of_median_popularity_in_the_first_world() -> None:
    rows = [
        {"world": world, "id": f"e{i}", "popularity": popularity, "model": model}
        for world in (1, 0)
        for i, popularity in enumerate((5, 50, 20, 10))
        for model in ("sft", "base")
    ]
    assert median_entity(rows) == (0, "e3", 10.0)
    assert median_entity([]) is None


# --- pages ---------------------------------------------------------------------------------------------------


def test_a_page_a_record_and_a_picture_are_written_and_linked(tmp_path: Path) -> None:
    chosen = options(only="settings")
    picture = Picture((Panel("P", "x", "y", (Line("a", (Point(0, 0.5, 0.4, 0.6), Point(1, 0.7))),)),))
    study = Ablation(
        "toy", "A toy", "figure 0", "Nothing.", lambda _: (), lambda *_: Findings("so.", "body", {"x": 1 / 3}, picture)
    )
    folder = RunFolder(tmp_path / "run")
    made = ablations.write([ablations.Study(study), ablations.Study(study, missing="no data")], chosen, folder)
    assert [one.page for one in made] == ["ablations/toy.md", ""]
    text = (folder.path / "ablations" / "toy.md").read_text()
    assert text.startswith("# A toy\n") and "toy.png" in text
    assert f"harness run --suite ablations --only toy --preset tiny --models {MODELS}\n" in text
    record = json.loads((folder.path / "ablations" / "toy.json").read_text())
    assert record["numbers"] == {"x": 0.333333} and record["preset"] == "tiny"
    assert (folder.path / "ablations" / "toy.png").exists() and (folder.path / "ablations" / "toy.svg").exists()
    before = {path: path.read_bytes() for path in (folder.path / "ablations").iterdir()}
    ablations.write([ablations.Study(study)], chosen, folder)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert ablations.write([], chosen, folder) == made[:1], "an earlier command's page is still named"
    links = ablations.links(made)
    assert "[A toy](ablations/toy.md) (figure 0): so." in links and "A toy: not made: no data." in links
    assert ablations.links(()) == ""


def test_somebody_elses_ablation_runs_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    ABLATIONS.names()
    monkeypatch.setattr(ABLATIONS, "_entries", dict(ABLATIONS._entries))

    @ablation("dropout", title="Dropout", paper="nothing", about="", render=lambda *_: Findings("", ""))
    def arms(options: RunOptions) -> tuple[Arm, ...]:
        asked = asking(options, ("persons",), ("prereq_tune",))
        return tuple(
            Arm(str(on), "", None, with_method_options(asked, ("persons",), frozen_dropout=on)) for on in (True, False)
        )

    assert isinstance(arms, Ablation)
    (study,) = ablations.prepare(options(only="dropout"))
    first, second = (plan.cells[0].adapter for plan in study.plans)
    assert first != second and list(changes(options(), study.arms[1])) == ["options.persons.frozen_dropout"]


def test_an_ablation_in_which_no_method_is_defined_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = options(only="format")
    nothing = Plan((), (), {("popqa", "prereq_tune"): "no texts about the fictitious subjects"}, (), ())
    monkeypatch.setattr("harness.ablations.engine.plan_run", lambda *_: nothing)
    (study,) = ablations.prepare(chosen)
    assert study.missing == "no texts about the fictitious subjects" and not study.plans


def test_an_ablation_without_all_of_its_answers_is_not_written(tmp_path: Path) -> None:
    chosen = options(only="examples")
    (study,) = ablations.prepare(chosen)
    (made,) = ablations.write([study], chosen, RunFolder(tmp_path / "run"))
    assert made.page == "" and "cells have no answers" in made.summary
    assert not (tmp_path / "run").exists()


def test_a_pair_with_an_arm_that_has_no_answers_is_left_out() -> None:
    pairs = contrasts.test(
        [("a", "b"), ("a", "c")], {"a": long("a", 0.9, 5), "b": long("b", 0.2, 5)}, contrasts.accuracy_of("persons")
    )
    assert [contrasts.sides(pair) for pair in pairs] == ["a > b"]
    assert contrasts.words(pairs).startswith("Holds: a > b (+")
    assert contrasts.words(()) == "There is nothing to compare."
