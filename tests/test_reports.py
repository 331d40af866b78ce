"""Leaderboard, figure and HTML report: what they say, that they repeat to the byte, that nothing runs in them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from factscore_mod.outputs import response_to_json
from factscore_mod.records import Claim, Evidence, Judgement, Passage, ScoredClaim, ScoredResponse, Sentence, Verdict
from harness import published
from harness.errors import UserError
from harness.metrics.longform import LongformScore, curve
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import RunSummary, summarise_longform, summarise_short_qa
from harness.registry import ModelSpec, Suite, Task
from harness.reports import curves, drawing, html, leaderboard
from tests.test_metrics_longform import LETTERS

LEVELS = {"base": 0.55, "prereq_tune": 0.6, "sft": 0.5, "mine": 0.2}
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'|"


def task(name: str, metric: str, published: tuple[str, ...] = ()) -> Task:
    return Task(name, name.capitalize(), metric, "mixed", lambda row: None, 9, published=published)  # type: ignore[arg-type, return-value]


PERSONS = task("persons", "longform", ("table1_main", "persons_accuracy", "persons_claims"))
POPQA = task("popqa", "short_qa", ("table1_main", "short_qa_accuracy"))


def long_scores(model: str, worlds: int) -> list[LongformScore]:
    rng = np.random.default_rng([len(model), worlds])
    scores = []
    for world in range(worlds):
        for i in range(40):
            verdicts: tuple[Verdict, ...] = tuple(
                "unparsed" if rng.random() < 0.03 else "supported" if rng.random() < LEVELS[model] else "not_supported"
                for _ in range(rng.integers(0, 8))
            )
            scores.append(LongformScore(f"p{i}", f"Person {i}", world, i, False, verdicts, False))
    return scores


def qa_scores(model: str, worlds: int) -> list[QaScore]:
    rng = np.random.default_rng([len(model), worlds, 1])
    right = rng.random(60) < LEVELS[model]
    return [
        QaScore(f"q{i}", f"s{i}", "bridge" if i % 2 else "comparison", 1, 0, ok, ok, ok, float(ok), False, False, "x")
        for i, ok in enumerate(map(bool, right))
    ]


def summary(worlds: int = 1, date: str = "2026-01-01") -> RunSummary:
    long = {("persons", model): long_scores(model, worlds) for model in LEVELS}
    qa = {("popqa", model): qa_scores(model, worlds) for model in LEVELS}
    return leaderboard.make_summary(
        suite=Suite("all", "All of it", ("persons", "popqa"), "accuracy", (4, 8)),
        tasks=[PERSONS, POPQA],
        models=[ModelSpec(name, method=name) for name in [*LEVELS, "rl"]],
        estimates={
            "persons": {model: summarise_longform(scores, (4, 8)) for (_, model), scores in long.items()},
            "popqa": {model: summarise_short_qa(scores) for (_, model), scores in qa.items()},
        },
        qa=qa,
        longform=long,
        exclusions={("popqa", "rl"): "not defined for short answers"},
        metadata={"preset": "tiny", "judge": "rules", "limit": None},
        context={"command": "harness run --suite all", "date": date, "hardware": "2 x CPU"},
    )


def table_rows(markdown: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    lines = markdown.split(heading, 1)[1].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# --- published figures ---------------------------------------------------------------------------------------


def test_published_figures_and_gaps() -> None:
    assert published.figure("table1_main", "prereq_tune", "persons_accuracy") == 45.30
    assert published.figure("table1_main", "rl", "short_qa_accuracy") is None
    assert published.figure("table1_main", "base", "persons_accuracy") is None
    assert published.figure("popqa_original", "sft") == 36.90
    with pytest.raises(KeyError, match="no column 'colour'"):
        published.figure("table1_main", "sft", "colour")
    assert published.order(["zeta", "prereq_tune", "base", "alpha", "sft"]) == [
        "base", "sft", "prereq_tune", "zeta", "alpha",
    ]  # fmt: skip
    assert set(published.rows("table1_main")) | {"base"} == set(published.MODEL_ORDER)


# --- leaderboard ---------------------------------------------------------------------------------------------


def test_rows_come_in_the_papers_order_with_its_figure_beside_ours() -> None:
    run = summary()
    rows = table_rows(leaderboard.render(run), "## Persons\n")
    header, body = rows[0], rows[2:]
    assert [row[1] for row in body] == ["base", "sft", "prereq_tune", "mine"]
    ours = {row[1]: dict(zip(header, row, strict=True)) for row in body}
    assert ours["prereq_tune"][published.LABEL] == "45.3 (16.0 claims)"
    assert ours["base"][published.LABEL] == "–" == ours["mine"][published.LABEL]
    estimate = run.tasks[0].models["sft"]["accuracy"]
    assert None not in (estimate.value, estimate.low, estimate.high)
    shown = f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"  # type: ignore[operator]
    assert ours["sft"]["accuracy, % [95 %]"] == shown
    assert ours["sft"]["n"] == str(estimate.n)


def test_the_page_says_what_a_reader_needs() -> None:
    text = leaderboard.render(summary())
    for needed in (
        "harness run --suite all", "2026-01-01", "2 x CPU", "preset: `tiny`", "No row for rl: not defined",
        "Against sft", "p (Holm)", "p (McNemar)", "smallest detectable", "clustered by entity", "Denominators",
        "Abstentions", "bridge, %", "F1@4, %", "arXiv 2410.19290",
    ):  # fmt: skip
        assert needed in text, needed
    assert "limit" not in text.split("## ")[0]  # nothing was limited


def test_several_worlds_are_shown_one_by_one() -> None:
    text = leaderboard.render(summary(worlds=3))
    assert "World by world" in text and "over 3 worlds" in text and "| world 2 |" in text
    assert "World by world" not in leaderboard.render(summary())


def test_models_are_compared_with_the_baseline_and_ranked() -> None:
    persons = summary().tasks[0]
    compared = [c.model for c in persons.comparisons if c.metric == "accuracy"]
    assert compared == ["base", "prereq_tune", "mine"]
    assert persons.ranks["mine"] > persons.ranks["prereq_tune"] == 1
    by_model = {c.model: c for c in persons.comparisons if c.metric == "accuracy"}
    mine = by_model["mine"]
    assert mine.value is not None and mine.high is not None and mine.high < 0
    assert mine.p_holm is not None and mine.p_holm < 0.05


def test_a_headline_that_a_task_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="headline 'claims' is no metric of task 'popqa'"):
        leaderboard.make_summary(
            suite=Suite("mine", "Mine", ("popqa",), "claims"), tasks=[POPQA], models=[], estimates={}, qa={},
            longform={}, exclusions={}, metadata={}, context={},
        )  # fmt: skip


def test_cells_cannot_break_the_table() -> None:
    run = summary()
    odd = {"a|b\n<script>": run.tasks[0].models["sft"]}
    broken = RunSummary("t", {}, (type(run.tasks[0])("persons", "Persons", "longform", "accuracy", odd),))
    line = next(line for line in leaderboard.render(broken).splitlines() if "a\\|b" in line)
    assert "&lt;script>" in line


def test_metrics_json_repeats_to_the_byte_whatever_the_day() -> None:
    first, second = summary(date="2026-01-01").to_json(), summary(date="2027-12-31").to_json()
    assert first == second
    body = json.loads(first)
    assert "2 x CPU" not in first and "harness run" not in first
    assert body["tasks"]["persons"]["order"] == ["base", "sft", "prereq_tune", "mine"]
    estimate = body["tasks"]["persons"]["models"]["sft"]["accuracy"]
    assert {"value", "low", "high", "n", "of", "unit", "method", "per_world"} <= set(estimate)


def test_terminal_tables_fit_eighty_columns() -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    for table in leaderboard.tables(summary()):
        console.print(table)
    text = console.export_text()
    assert "…" not in text and "prereq_tune" in text and "45.3" in text


def test_a_run_without_answers_still_reports() -> None:
    run = leaderboard.make_summary(
        suite=Suite("s", "Nothing", ("persons",), "accuracy"),
        tasks=[PERSONS],
        models=[ModelSpec("sft", method="sft")],
        estimates={},
        qa={},
        longform={},
        exclusions={("persons", "sft"): "the base was rejected"},
        metadata={},
        context={},
    )
    assert "the base was rejected" in leaderboard.render(run)
    assert leaderboard.tables(run) == []
    assert "No model was scored" in html.render(run, [])


TUNED = [
    {"task": "persons", "method": "prereq_tune", "learning_rate": 0.5, "epochs": 1.0},
    {"task": "popqa", "method": "sft", "learning_rate": 1.0, "epochs": 0.5},
]


def test_a_tuned_run_shows_which_setting_was_chosen_for_whom() -> None:
    run = summary()
    tuned = replace(run, metadata={**run.metadata, "comparison": "equal tuning", "tuned": TUNED})
    text = leaderboard.render(tuned)
    rows = table_rows(text, "## Chosen settings\n")
    assert rows[0] == ["task", "method", "learning rate ×", "epochs ×"]
    assert rows[2:] == [["Persons", "prereq_tune", "0.5", "1"], ["Popqa", "sft", "1", "0.5"]]
    assert "Factors on the preset's own values, chosen on validation entities of the first world" in text
    facts = next(line for line in text.splitlines() if line.startswith("preset: "))
    assert "tuned" not in facts and "{" not in facts
    assert "Chosen settings" in (page := html.render(tuned, [])) and "&#39;epochs&#39;" not in page
    assert json.loads(tuned.to_json())["metadata"]["tuned"] == TUNED


@pytest.mark.parametrize("metadata", [{}, {"tuned": []}, {"tuned": None}])
def test_a_run_that_was_not_tuned_shows_no_settings(metadata: dict[str, object]) -> None:
    run = replace(summary(), metadata=metadata)
    assert "Chosen settings" not in leaderboard.render(run) + html.render(run, [])


def test_the_terms_of_every_comparison_are_said() -> None:
    for named, words in (
        ("fixed recipe", "One configuration for all methods"),
        ("equal tuning", "Every method had the same budget"),
        (
            "equal updates",
            "Every supervised stage made as many optimiser updates as PREREQ-TUNE's skill stage; DPO and",
        ),
    ):
        text = leaderboard.render(replace(summary(), metadata={"comparison": named}))
        assert f"Comparison: {named}. {words}" in text


# --- figure --------------------------------------------------------------------------------------------------


def drawn(worlds: int = 1) -> dict[str, dict[str, object]]:
    return {"persons": {model: curve(long_scores(model, worlds), 10) for model in LEVELS}}


def test_the_figure_repeats_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        curves.plot(drawn(), tmp_path / f"{name}.png", tmp_path / f"{name}.svg")  # type: ignore[arg-type]
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.fromstring((tmp_path / "a.svg").read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_every_model_is_named_and_has_a_colour_of_its_own() -> None:
    figure = curves.draw(drawn(), titles={"persons": "Persons"})  # type: ignore[arg-type]
    panel = figure.axes[0]
    assert {text.get_text() for text in panel.texts} == set(LEVELS)
    assert len({text.get_color() for text in panel.texts}) == len(LEVELS)
    assert panel.get_title(loc="left") == "Persons"
    assert len(set(drawing.COLOURS.values())) == len(published.MODEL_ORDER)


def test_a_figure_without_claims_says_so() -> None:
    silent = LongformScore("p", "p", 0, 1, True, (), False)
    figure = curves.draw({"persons": {"sft": curve([silent], 5)}}, titles={})
    assert [text.get_text() for text in figure.texts] == ["no judged claims"]


# --- HTML ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags close in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.shown = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


def scored_response(text: str, pattern: str, item_id: str = "p1") -> ScoredResponse:
    half = len(text) // 2
    evidence = Evidence((Passage(ATTACK, f"evidence {ATTACK}", 0),), "exact", ATTACK)
    claims = tuple(
        ScoredClaim(
            Claim(f"claim {i} {ATTACK}", i % 2), evidence, Judgement(LETTERS[c], f"reply {ATTACK}", None, ATTACK)
        )
        for i, c in enumerate(pattern)
    )
    sentences = (Sentence(0, text[:half], 0, half), Sentence(1, text[half:], half, len(text)))
    return ScoredResponse(item_id, ATTACK, text, False, sentences, claims, "exact")


def rows(items: int = 2) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    responses: list[dict[str, object]] = []
    claims: list[dict[str, object]] = []
    for i in range(items):
        for model in ("sft", "mine"):
            common = {"world": 0, "task": "persons", "model": model}
            text = f"First {ATTACK}. Second & last."
            responses.append(
                common
                | {"item_id": f"p{i}", "text": text, "tokens": 3, "finish": "length", "subject": ATTACK}
                | {"prompt": "Question: Generate a biography.\nAnswer:"}
            )
            claims.append(common | {"popularity": i} | response_to_json(scored_response(text, "snue", f"p{i}")))
    responses.append(
        {"world": 0, "task": "popqa", "model": "sft", "item_id": "q0", "text": ATTACK, "tokens": 1, "finish": "stop"}
        | {"subject": "s", "prompt": f"Question: a\nAnswer: b\n\nQuestion: Who {ATTACK}?\nAnswer:", "gold": [ATTACK]}
        | {"scores": {"reference_em": False, "popularity": 3}}
    )
    return responses, claims


def page(tmp_path: Path, items: int = 2, most: int = 30) -> tuple[str, Page]:
    curves.plot(drawn(), tmp_path / "c.png", tmp_path / "c.svg")  # type: ignore[arg-type]
    responses, claims = rows(items)
    text = html.render(
        summary(), html.answers(responses, claims), curve_svg=(tmp_path / "c.svg").read_text(), most_entities=most
    )
    return text, Page(text)


def test_nothing_that_was_written_by_others_runs(tmp_path: Path) -> None:
    text, parsed = page(tmp_path)
    assert parsed.open == []
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form", "a"} & set(parsed.tags)
    assert not [a for a in parsed.attributes if a[1].startswith("on") or a[1] in ("style", "src")]
    assert not [a for a in parsed.attributes if a[1].endswith("href") and not a[2].startswith("#")]
    assert "<script" not in text and "alert(1)" in parsed.shown  # shown as text


def test_the_policy_allows_the_own_style_sheet_alone(tmp_path: Path) -> None:
    text, parsed = page(tmp_path)
    policy = next(v for _, name, v in parsed.attributes if name == "content" and "default-src" in v)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None and text.count("<style") == 1
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org)[a-z]", text.replace("arXiv", ""))


def test_every_claim_stands_beside_its_evidence_and_verdict(tmp_path: Path) -> None:
    _, parsed = page(tmp_path)
    classes = [value for tag, name, value in parsed.attributes if name == "class" and tag == "li"]
    assert classes == ["supported", "not_supported", "unparsed", "error"] * 4
    assert parsed.shown.count("evidence <script>") == 16
    assert parsed.shown.count("judge: reply") == 16
    assert parsed.shown.count("1 of 2 supported, 1 unparsed, 1 error, cut off") == 4
    assert "Who <script>" in parsed.shown and "answer: <script>" in parsed.shown
    ids = {value for tag, name, value in parsed.attributes if tag == "input" and name == "id"}
    assert ids == {f"show-{x}" for x in ("m0", "m1", "supported", "not_supported", "unparsed", "error")}


def test_long_runs_show_a_stated_part(tmp_path: Path) -> None:
    _, parsed = page(tmp_path, items=9, most=3)
    assert "3 of 9, evenly spaced by popularity" in parsed.shown
    assert re.findall(r"(\d+) views a month", parsed.shown) == ["8", "4", "0", "3"]


def test_a_response_is_cut_into_its_sentences_without_loss() -> None:
    scored = scored_response("One here. Two there.", "sn")
    pieces = html.stretches(scored)
    assert "".join(piece.text for piece in pieces) == scored.text
    assert [piece.state for piece in pieces] == ["ok", "bad"]
    assert [p.state for p in html.stretches(scored_response("One here. Two there.", "snns"))] == ["mixed", "mixed"]
    assert [p.state for p in html.stretches(scored_response("One here. Two there.", "u"))] == ["unknown", ""]


def test_the_words_of_a_claim_are_marked_in_its_evidence() -> None:
    pieces = html.marked("Ada Byron was born in 1815 in London.", "Ada Byron came from London in 1815.", "Ada Byron")
    assert "".join(piece.text for piece in pieces) == "Ada Byron was born in 1815 in London."
    assert [piece.text for piece in pieces if piece.state] == ["1815", "London"]
