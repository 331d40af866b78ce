"""The paper's tables: whose figure stands where, whether its order holds, and what is said of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import published
from harness.metrics.comparison import compare, rank_models
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import RunSummary, short_qa_metrics, summarise_longform, summarise_short_qa
from harness.records import Row
from harness.registry import MODELS, TASKS, ModelSpec, suites
from harness.reports import html, leaderboard, ordering
from tests.test_metrics_longform import answer

METHODS = ("sft", "popular", "flame", "facttune", "rl", "sft_gpt", "sft_fictitious", "prereq_tune")
PERSONS = TASKS.get("persons").published
POPQA = TASKS.get("popqa").published


def qa(share: Mapping[str, float] | float, items: int = 120, seed: int = 0, worlds: int = 1) -> list[QaScore]:
    """Answers right with a probability (by kind); the same luck for every model, so that pairs are tight."""
    shares = share if isinstance(share, Mapping) else {"": share}
    scores = []
    for world, kind in itertools.product(range(worlds), shares):
        luck = np.random.default_rng([seed, world, len(kind)]).random(items)
        for i in range(items):
            ok = bool(luck[i] < shares[kind])
            scores.append(QaScore(f"{kind}{i}", f"s{i // 3}", kind, 5, world, ok, ok, ok, float(ok), False, False, "x"))
    return scores


def order(task: tuple[str, ...], scores: Mapping[str, Sequence[QaScore]], **options: bool) -> ordering.Ordering:
    kinds = sorted({s.kind for group in scores.values() for s in group} - {""})
    metrics = short_qa_metrics(kinds, 1.0)
    headline = "accuracy[V1]" if kinds else "accuracy"
    found = ordering.order(task, scores, metrics, headline, **options)
    assert found is not None
    return found


# --- what is expected ----------------------------------------------------------------------------------------


def test_every_pair_of_the_main_table_is_the_papers() -> None:
    for task in (PERSONS, TASKS.get("medical").published, POPQA):
        pairs = ordering.expectations(task, METHODS, "accuracy")
        for pair in pairs:
            higher, lower = (published.beside(task, m)["accuracy"] for m in (pair.higher, pair.lower))
            assert pair.printed == pytest.approx(higher - lower) and higher > lower
        models = {m for m in METHODS if "accuracy" in published.beside(task, m)}
        assert {p.lower for p in pairs if p.higher == "prereq_tune"} == models - {"prereq_tune"}
        assert len({(p.higher, p.lower) for p in pairs}) == len(pairs) == 2 * len(models) - 3


def test_the_order_is_that_of_the_rows_that_are_there() -> None:
    models = ["base", "sft", "popular", "sft_fictitious", "prereq_tune", "mine"]
    pairs = [(p.higher, p.lower) for p in ordering.expectations(PERSONS, models, "accuracy")]
    assert pairs == [
        ("prereq_tune", "popular"), ("prereq_tune", "sft"), ("prereq_tune", "sft_fictitious"),
        ("popular", "sft"), ("sft", "sft_fictitious"),
    ]  # fmt: skip
    assert ordering.expectations((), models, "accuracy") == ()
    assert ("popular", "sft") not in [
        (p.higher, p.lower) for p in ordering.expectations(POPQA, models, "accuracy")
    ]  # there, it is the other way


def test_declared_pairs_are_the_papers_too() -> None:
    for name, count in (("grounding", 8), ("memorization", 4)):
        task = TASKS.get(name)
        pairs = ordering.expectations(task.published, task.models, "accuracy")
        assert len(pairs) == count and all(p.printed is not None and p.printed > 20 for p in pairs)
        assert {p.higher for p in pairs} | {p.lower for p in pairs} <= set(task.models)


def test_every_printed_column_stands_beside_a_metric() -> None:
    for name in TASKS.names():
        task = TASKS.get(name)
        for column in task.published[1:]:
            assert column in published.columns(task.published[0]) and column in published.METRIC_OF
        for model in task.models if task.published else ():
            row = published.row_of(task.published[0], model)
            assert model == "base" or row in published.rows(task.published[0])
            assert MODELS.get(model).name == model


# --- verdicts ------------------------------------------------------------------------------------------------


def test_an_order_that_holds() -> None:
    shares = {"prereq_tune": 0.9, "sft": 0.7, "popular": 0.5, "sft_fictitious": 0.3, "base": 0.1}
    found = order(POPQA, {model: qa(share) for model, share in shares.items()})
    assert {p.verdict for p in found.paper} == {"holds"}
    assert found.words.startswith("Nothing is significantly better than prereq_tune here.")
    assert "The paper's order holds here: of 5 pairs that it orders, 5 hold, 0 are the other way" in found.words
    assert "close to the base" not in found.words


def test_a_method_that_beats_the_champion_is_said_first() -> None:
    shares = {"prereq_tune": 0.5, "sft": 0.8, "base": 0.9, "mine": 0.95}
    found = order(POPQA, {model: qa(share) for model, share in shares.items()})
    first = found.words.split(". ")[0]
    assert first.startswith("Better than prereq_tune here: sft (+") and "base (+" in found.words
    assert "mine (+" in found.words.split("The paper's order")[0]
    assert "The paper's order does not hold here throughout" in found.words
    assert "The other way: sft > prereq_tune (+" in found.words
    assert "Below the base: prereq_tune and sft." in found.words


def test_pairs_that_differ_little_in_the_paper_are_said_to_be_out_of_reach() -> None:
    found = order(POPQA, {"prereq_tune": qa(0.5, seed=1), "sft": qa(0.5, seed=2)})
    (pair,) = found.paper
    assert pair.expected.printed == 1.49 and pair.difference.detectable is not None
    assert pair.difference.detectable > 0.0149
    assert "In 1 of these the paper's own difference is smaller than what could be found here." in found.details


def test_nothing_to_tell() -> None:
    found = order(POPQA, {model: qa(0.5) for model in ("base", "sft", "prereq_tune")})
    assert "Whether the paper's order holds cannot be told here: of 1 pair" in found.words
    assert [p.verdict for p in found.paper] == ["undecided"]
    unprinted = order((), {model: qa(0.5) for model in ("sft", "prereq_tune")})
    assert "The paper prints no order of these rows." in unprinted.words
    assert ordering.order(POPQA, {"sft": qa(0.5)}, short_qa_metrics(), "accuracy") is None


@given(st.permutations(["prereq_tune", "sft", "popular", "sft_fictitious"]), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_verdicts_and_words_agree_with_the_numbers(ranking: list[str], seed: int) -> None:
    shares = dict(zip(ranking, (0.9, 0.62, 0.6, 0.2), strict=True))
    found = order(POPQA, {model: qa(share, 60, seed) for model, share in shares.items()})
    for pair in found.paper:
        value, p = pair.difference.value, pair.p_holm
        assert value is not None and p is not None
        assert pair.verdict == ("undecided" if p >= 0.05 else "holds" if value > 0 else "opposite")
    counts = [sum(p.verdict == v for p in found.paper) for v in ("holds", "opposite", "undecided")]
    assert f"{counts[0]} hold" in found.words and f"{counts[2]} cannot be told apart" in found.words
    assert ("The other way:" in found.words) == (counts[1] > 0)
    assert ("Better than prereq_tune" in found.words) == any(
        p.verdict == "opposite" and p.expected.higher == "prereq_tune" for p in found.paper
    )


def test_grounding_holds_when_the_answers_swap_with_the_adapter() -> None:
    scores = {
        "base": qa({"V1": 0.03, "V2": 0.02}, 240),
        "prereq_know1": qa({"V1": 0.95, "V2": 0.02}, 240),
        "prereq_know2": qa({"V1": 0.02, "V2": 0.95}, 240),
        "prereq_tune": qa({"V1": 0.05, "V2": 0.04}, 240),
        "sft": qa({"V1": 0.04, "V2": 0.05}, 240),
    }
    found = order(TASKS.get("grounding").published, scores, ranked=False)
    assert len(found.paper) == 8 and {p.verdict for p in found.paper} == {"holds"}
    assert "better than prereq_tune" not in found.words  # no ranking
    assert "base + skill and SFT-real stay close to the base" in found.words
    assert "base + know_v1 + skill: V1 > V2" in found.details
    swapped = scores | {"prereq_know1": scores["prereq_know2"], "prereq_know2": scores["prereq_know1"]}
    other = order(TASKS.get("grounding").published, swapped, ranked=False)
    assert "The other way: base + know_v1 + skill: V2 > V1" in other.words


def test_grounding_with_one_version_in_the_sample_still_reports() -> None:
    scores = {m: qa({"V1": 0.5}, items=6) for m in TASKS.get("grounding").models}
    run = tables("table2", {"grounding": scores})
    assert run.tasks[0].models["sft"]["accuracy[V1]"].n == 6


# --- memorised entities --------------------------------------------------------------------------------------


def test_an_entity_is_memorised_when_all_its_questions_are_right() -> None:
    right = [(0, "a", 1), (0, "a", 1), (0, "b", 1), (0, "b", 0), (0, "c", 0), (1, "a", 1), (1, "a", 0)]
    scores = [
        QaScore(str(i), subject, "", 1, world, bool(ok), bool(ok), bool(ok), 1.0, False, False, "")
        for i, (world, subject, ok) in enumerate(right)
    ]
    every = summarise_short_qa(scores, 1.0)["memorised_entities"]
    assert every.per_world == ((0, pytest.approx(1 / 3)), (1, 0.0))
    assert every.value == pytest.approx(1 / 6) and every.n == 4 and every.unit == "entity"
    assert "every question about it" in every.of
    half = summarise_short_qa(scores, 0.5)["memorised_entities"]
    assert half.value == pytest.approx((2 / 3 + 1) / 2) and "at least 50 %" in half.of
    assert "memorised_entities" not in summarise_short_qa(scores)


# --- whole tables --------------------------------------------------------------------------------------------


def tables(
    suite: str,
    scores: Mapping[str, Mapping[str, Sequence[QaScore]]],
    exclusions: Mapping[tuple[str, str], str] = {("hotpotqa", "sft"): "was not trained"},
    **metadata: str,
) -> RunSummary:
    """A summary of QA tasks; long-form tasks of the suite get a few answers of their own."""
    models = [m for m in MODELS if m.name in METHODS or m.name == "base"]
    long = {
        (task, m.name): [answer("ssnsn"[: 2 + i % 3] if m.name != "sft" else "nnsnn", f"p{i}") for i in range(12)]
        for task in suites()[suite].tasks
        if TASKS.get(task).metric == "longform"
        for m in models
    }
    estimates: dict[str, dict[str, dict[str, object]]] = {
        task: {model: dict(summarise_short_qa(group)) for model, group in by_model.items()}
        for task, by_model in scores.items()
    }
    for (task, model), group in long.items():
        estimates.setdefault(task, {})[model] = dict(summarise_longform(group, (4, 8)))
    return leaderboard.make_summary(
        suite=suites()[suite],
        tasks=[TASKS.get(name) for name in suites()[suite].tasks],
        models=models,
        estimates=estimates,  # type: ignore[arg-type]
        qa={(task, model): group for task, by_model in scores.items() for model, group in by_model.items()},
        longform=long,
        exclusions=exclusions,
        metadata=metadata,
        context={},
    )


@cache
def everything() -> RunSummary:
    names = ("base", "sft", "popular", "sft_fictitious", "prereq_tune")
    return tables(
        "all",
        {
            "popqa": {m: qa(0.2 + 0.1 * i) for i, m in enumerate(names)},
            "hotpotqa": {m: qa({"bridge": 0.3, "comparison": 0.2}, seed=i) for i, m in enumerate(names) if m != "sft"},
            "grounding": {m: qa({"V1": 0.5, "V2": 0.1}, seed=i) for i, m in enumerate(TASKS.get("grounding").models)},
            "memorization": {m: qa(0.5, seed=i) for i, m in enumerate(TASKS.get("memorization").models)},
        },
        comparison="equal tuning",
    )


def test_the_main_table_stands_side_by_side_with_the_papers_figures() -> None:
    text = leaderboard.render(everything())
    side = text.split("## All tasks side by side\n\n")[1].split("\n\n")[0].splitlines()
    head = [cell.strip() for cell in side[0].strip("|").split("|")]
    assert [h for h in head if h != "paper"] == [
        "model", "Persons: accuracy, % [95 %]", "Persons: claims [95 %]", "Medical entities: accuracy, % [95 %]",
        "Medical entities: claims [95 %]", "PopQA: accuracy, % [95 %]", "HotpotQA: accuracy, % [95 %]",
    ]  # fmt: skip
    assert head[-1] != "paper" and head[2] == head[4] == head[6] == head[8] == head[10] == "paper"
    rows = {cells[0]: cells for line in side[2:] if (cells := [c.strip() for c in line.strip("|").split("|")])}
    assert list(rows) == published.order(list(rows))
    assert [rows["sft"][i] for i in (2, 4, 6, 8, 10)] == ["32.7", "20.8", "69.9", "9.2", "46.4"]
    assert rows["sft"][-1] == "–" and "HotpotQA: no row for sft: was not trained" in text
    assert text.index("All tasks side by side") < text.index("## Persons\n")


def test_tables_2_and_3_have_the_papers_rows_in_its_order() -> None:
    text = leaderboard.render(everything())
    grounding = text.split("## Grounding\n\n")[1].split("\n\n")[0].splitlines()
    assert grounding[0] == (
        "| model | V1, % [95 %] | paper: V1, % | V2, % [95 %] | paper: V2, % | abstained, % | n |"
    ), grounding[0]
    names = [line.split("|")[1].strip() for line in grounding[2:]]
    assert names == ["base", "base + know_v1 + skill", "base + know_v2 + skill", "base + skill", "SFT-real"]
    assert "| 94.8 |" in grounding[3] and "| 6.9 |" in grounding[3]
    memorised = text.split("## Memorization\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split("|")[1].strip() for line in memorised[2:]] == [
        "base",
        "sft_fictitious",
        "base + skill",
        "SFT-real",
    ]
    assert "paper: memorised entities, %" in memorised[0] and "| 32.6 |" in memorised[3]
    assert "base + skill is `prereq_tune`" in text and "the rule is ours" in text


def test_a_table_says_on_what_terms_it_compares_and_what_it_could_have_found() -> None:
    run = everything()
    text = leaderboard.render(run)
    assert "Comparison: equal tuning. Every method had the same budget" in text.split("## ")[0]
    assert "One configuration for all methods" in leaderboard.render(tables("shortqa", {}, comparison="fixed recipe"))
    assert "Comparison:" not in leaderboard.render(tables("shortqa", {}))
    for task in run.tasks:
        assert task.ordering is not None and task.ordering.words in text, task.name
    assert text.count("80 % power") >= len(run.tasks) - 1
    page = html.render(run, [])
    assert "All tasks side by side" in page and "Comparison: equal tuning" in page
    assert "pair by pair" in page and "SFT-real" in page


def test_micro_accuracy_supported_claims_and_f1_stand_beside_the_headline() -> None:
    text = leaderboard.render(everything())
    head = text.split("## Persons\n\n")[1].splitlines()[0]
    for name in ("accuracy, %", "micro accuracy, %", "supported claims", "F1@4, %", "F1@8, %", "response rate, %"):
        assert f"| {name}" in head
    assert "area to k = 3, %" in text


def test_the_ordering_is_in_metrics_json() -> None:
    run = everything()
    body = json.loads(run.to_json())
    assert run.to_json() == everything.__wrapped__().to_json()
    pair = body["tasks"]["popqa"]["ordering"]["paper"][0]
    assert {"expected", "difference", "p_holm", "verdict", "detectable_holm"} == set(pair)
    assert body["tasks"]["memorization"]["ranks"] == {} != body["tasks"]["popqa"]["ranks"]


def test_several_worlds_are_paired_within_each() -> None:
    shares = {"prereq_tune": 0.8, "sft": 0.4, "base": 0.4}
    found = order(POPQA, {model: qa(share, 90, worlds=3) for model, share in shares.items()})
    assert "paired on the same items within each of 3 worlds" in found.words
    assert found.paper[0].difference.worlds == 3


def test_a_model_that_lacks_a_world_takes_nothing_from_the_others() -> None:
    shares = {"prereq_tune": 0.55, "sft": 0.4, "base": 0.45}
    whole = {model: qa(share, 60, worlds=3) for model, share in shares.items()}
    partly = whole | {"flame": [score for score in qa(0.2, 60, worlds=3) if score.world == 0]}
    metrics = short_qa_metrics((), 1.0)
    alone, beside = ({c.model: c for c in compare(group, "sft", metrics[:1])} for group in (whole, partly))
    assert beside["prereq_tune"].value == alone["prereq_tune"].value
    assert (beside["prereq_tune"].worlds, beside["flame"].worlds, beside["flame"].n) == (3, 1, 60)
    assert rank_models(partly, metrics[0]) == rank_models(whole, metrics[0]), "it has no rank and counts in no other"
    why = {("popqa", "flame"): "world 1: train popqa-flame: no pair"}
    shown = leaderboard.render(tables("shortqa", {"popqa": partly, "hotpotqa": partly}, exclusions=why))
    assert "flame is compared on what it has: 20 entities of 1 world." in shown
    assert "| – | flame |" in shown and "A row that lacks worlds has no rank" in shown
    assert shown.count("Not every world for flame: world 1: train popqa-flame: no pair") == 1
    assert "PopQA: not every world for flame: world 1: train popqa-flame: no pair" in shown


# --- tasks ---------------------------------------------------------------------------------------------------


def test_versions_of_a_question_are_its_kinds() -> None:
    row = Row(id="x-v2", subject="x", target="y", question="What?", answers=("y",), kind="city", fake=True, version=2)
    assert TASKS.get("grounding").item(row, False).kind == "V2"
    plain = Row(id="x", subject="x", target="y", question="What?", answers=("y",), kind="city")
    assert TASKS.get("popqa").item(plain, False).kind == "city"
    assert TASKS.get("memorization").item(plain, False).prompt == "What?"


def test_knowledge_rows_are_models_but_in_no_default_run() -> None:
    from harness.config import load_preset

    for version in (1, 2):
        model = MODELS.get(f"prereq_know{version}")
        assert model == ModelSpec(
            name=model.name, title=f"base + know_v{version} + skill", method="prereq_tune", knowledge=version
        )
        assert all(model.name not in load_preset(name).preset.models for name in ("tiny", "mini", "smol"))
