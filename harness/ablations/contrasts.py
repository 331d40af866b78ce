"""Pairs of arms put to the test: the expectation, the paired difference, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.comparison import judge
from harness.metrics.summary import Expectation, Metric, OrderedPair, S, longform_metrics, short_qa_metrics
from harness.registry import TASKS
from harness.reports.grids import DETECTABLE, EMPTY, about_detectable, interval, p_value
from harness.reports.leaderboard import markdown_table

_VERDICTS = {"holds": "holds", "opposite": "the other way", "undecided": "not told apart"}
HOLM = "Holm's correction is over the rows of the table, at 5 %."


def test(
    pairs: Sequence[tuple[str, str] | tuple[str, str, float | None]],
    scores: Mapping[str, Sequence[S]],
    metric: Metric[S],
) -> tuple[OrderedPair, ...]:
    """Test that the first of each pair scores higher, on the items that both have; Holm's correction over all.

    A pair may carry the paper's difference in points. Pairs with an arm that has no answers are left out.
    """
    expected = [Expectation(p[0], p[1], metric.name, p[2] if len(p) > 2 else None) for p in pairs]
    there = [e for e in expected if scores.get(e.higher) and scores.get(e.lower)]
    named = {name: scores[name] for e in there for name in (e.higher, e.lower)}
    return judge(there, named, [metric]) if there else ()


def table(pairs: Sequence[OrderedPair], *, paper: bool = False) -> str:
    """The tests as a markdown table; with `paper`, its printed differences in a column of their own.

    Under it stands what could have been found.
    """
    head = ["pair", "here", "difference, points [95 %]", "p", "p (Holm)", DETECTABLE]
    rows = []
    for pair in pairs:
        d, printed = pair.difference, pair.expected.printed
        row = [
            sides(pair), _VERDICTS[pair.verdict], interval(d.value, d.low, d.high, 100), p_value(d.p),
            p_value(pair.p_holm), EMPTY if pair.detectable_holm is None else f"{100 * pair.detectable_holm:.1f}",
        ]  # fmt: skip
        rows.append([*row, *([EMPTY if printed is None else f"{printed:+.1f}"] if paper else [])])
    shown = markdown_table([*head, *(["paper, points"] if paper else [])], rows)
    return f"{shown}\n\n{about_detectable(len(rows))}" if rows else shown


def sides(pair: OrderedPair) -> str:
    """What a pair says, as in "a > b"."""
    e = pair.expected
    higher, lower = e.higher, e.lower
    if higher == lower:
        higher, lower = e.metric, e.lower_metric
    return f"{higher} > {lower}"


def words(pairs: Sequence[OrderedPair]) -> str:
    """The verdicts in a sentence or a few, each with its difference, interval and corrected p."""
    if not pairs:
        return "There is nothing to compare."
    said = []
    headings = {"holds": "Holds", "opposite": "The other way round", "undecided": "Not told apart"}
    for verdict, beginning in headings.items():
        found = [pair for pair in pairs if pair.verdict == verdict]
        if found:
            said.append(f"{beginning}: {'; '.join(f'{sides(pair)} ({figures(pair)})' for pair in found)}.")
    return " ".join(said)


def figures(pair: OrderedPair) -> str:
    """Difference, interval and corrected p of a pair, in points."""
    d = pair.difference
    if d.value is None or d.low is None:
        return "too few items"
    p = pair.p_holm if pair.p_holm is not None else 1.0
    return f"{interval(d.value, d.low, d.high, 100)}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def how(pairs: Sequence[OrderedPair]) -> str:
    """The test behind the words, and how many entities it is over."""
    return f"Differences are paired on the same items of {entities(pairs)}, {_over(pairs)}. {HOLM}"


def how_apart(pairs: Sequence[OrderedPair]) -> str:
    """The test behind the words where the two sides are different questions, with nothing to pair but the entity."""
    return (
        f"The two are different questions; their difference is clustered by entity ({entities(pairs)}, {_over(pairs)})."
    )


def entities(pairs: Sequence[OrderedPair]) -> str:
    """How many entities stand behind the tests, such as "270 entities"; those of several worlds are counted in each."""
    found = [pair.difference.clusters for pair in pairs] or [0]
    least, most = min(found), max(found)
    return f"{most} entities" if least == most else f"{least} to {most} entities"


def _over(pairs: Sequence[OrderedPair]) -> str:
    worlds = max((pair.difference.worlds for pair in pairs), default=1)
    if worlds > 1:
        return f"within each of {worlds} worlds, t over worlds or over entities, the weaker"
    return "bootstrap over entities"


def record(pairs: Sequence[OrderedPair]) -> list[dict[str, Any]]:
    """The tests for the record."""
    return [
        {"pair": sides(p), "metric": p.expected.metric, "paper": p.expected.printed, "difference": p.difference,
         "p_holm": p.p_holm, "verdict": p.verdict, "detectable_holm": p.detectable_holm}
        for p in pairs
    ]  # fmt: skip


def accuracy_of(task: str) -> Metric[Any]:
    """The headline of a task: the mean supported share of long answers, alias containment of short ones."""
    metrics: Sequence[Metric[Any]] = longform_metrics() if TASKS.get(task).metric == "longform" else short_qa_metrics()
    return metric_named(metrics, "accuracy")


def metric_named(metrics: Sequence[Metric[S]], name: str) -> Metric[S]:
    """The metric of that name; KeyError without one."""
    return {metric.name: metric for metric in metrics}[name]
