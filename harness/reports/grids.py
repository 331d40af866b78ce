"""The tables of a leaderboard as rows of text, for the markdown, the terminal and the HTML report alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import published
from harness.metrics.summary import Comparison, Estimate, Family, RunSummary, TaskSummary

EMPTY = "–"
_NAMES = {
    "accuracy": "accuracy, %",
    "accuracy_micro": "micro accuracy, %",
    "accuracy_abstention_zero": "abstentions as 0, %",
    "claims": "claims",
    "supported_claims": "supported claims",
    "response_rate": "response rate, %",
    "unparsed_rate": "unparsed, %",
    "error_rate": "errors, %",
    "cut_off_rate": "cut off, %",
    "token_match": "token match, %",
    "strict_em": "exact match, %",
    "f1": "F1, %",
    "abstention_rate": "abstained, %",
    "memorised_entities": "memorised entities, %",
    "claims_popularity": "claims ~ popularity, ρ",
}
#: Names of columns of words, which stand to the left.
WORDS = ("model", "pair", "here", "task", "method")
#: Metrics that are no shares: shown as they are, and not as percentages and points.
NO_SHARES = ("claims", "supported_claims", "claims_popularity")
#: The first table (and F1@K); the other columns stand in a second one.
_MAIN = (
    "accuracy", "accuracy_micro", "claims", "supported_claims", "response_rate", "unparsed_rate", "token_match",
    "abstention_rate", "memorised_entities",
)  # fmt: skip
#: Columns with an interval in every cell, beside accuracies by kind and areas; the others show the number alone.
_WITH_INTERVAL = (
    "accuracy", "accuracy_micro", "claims", "supported_claims", "token_match", "strict_em", "memorised_entities",
    "claims_popularity",
)  # fmt: skip
_ORDER: dict[Family, tuple[str, ...]] = {
    "longform": (
        "accuracy", "claims", "supported_claims", "accuracy_micro", "f1_at_*", "response_rate", "unparsed_rate",
        "accuracy_abstention_zero", "area_to_*", "claims_popularity", "error_rate", "cut_off_rate",
    ),
    "short_qa": (
        "accuracy", "memorised_entities", "accuracy[*", "token_match", "strict_em", "f1", "abstention_rate",
        "cut_off_rate",
    ),
}  # fmt: skip
#: Shares of right answers over the questions of all kinds.
_OVER_ALL_ANSWERS = ("accuracy", "token_match", "strict_em", "f1")
#: More kinds of question than this are in `metrics.json` only.
_MOST_KINDS = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its title (may be empty), header, rows, and notes that belong under it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def grids(task: TaskSummary) -> list[Grid]:
    """Every table of a task: scores, the paper's order, paired differences, further scores, and the worlds."""
    if not task.models:
        return []
    names = columns(task)
    main = [name for name in names if _is_main(task, name)]
    further = [name for name in names if name not in main]
    made = [scores(task, main), *ordering(task), *paired(task)]
    if further:
        head = ("model", *(_heading_with_interval(name) for name in further))
        rows = tuple((label(task, m), *(cell(n, e.get(n)) for n in further)) for m, e in task.models.items())
        made.append(Grid("More of the same answers", head, rows))
    return [*made, *per_world(task)]


def scores(task: TaskSummary, names: Sequence[str]) -> Grid:
    """Rank, model, the given metrics with the paper's figures beside them, and n; the notes say how it turned out."""
    beside = _paper_columns(task)
    head = ["rank", "model"] if task.ranks else ["model"]
    for name in names:
        head += [_heading_with_interval(name), *([beside[name]] if name in beside else [])]
    rows = []
    for model, estimates in task.models.items():
        row = [str(task.ranks.get(model, EMPTY))] if task.ranks else []
        row.append(label(task, model))
        for name in names:
            row.append(cell(name, estimates.get(name)))
            if name in beside:
                row.append(paper(task, model) if beside[name] == published.LABEL else printed(task, model, name))
        rows.append((*row, str(estimates[task.headline].n) if task.headline in estimates else EMPTY))
    notes = [f"{task.ordering.words} {task.ordering.details}".strip()] if task.ordering else []
    notes += detectable(task)
    renamed = [f"{label(task, m)} is `{m}`" for m in task.models if label(task, m) != m]
    notes += [f"{'; '.join(renamed)}."] if renamed else []
    notes += task.notes
    notes += [f"{'Not every world' if m in task.models else 'No row'} for {m}: {why}" for m, why in missing(task)]
    return Grid("", (*head, "n"), tuple(rows), tuple(notes))


def missing(task: TaskSummary) -> list[tuple[str, str]]:
    """Each model without a row, or without some of its worlds, and why; a reason of several lines becomes one."""
    return [(model, " ".join(reason.split())) for model, reason in task.exclusions.items()]


def detectable(task: TaskSummary) -> list[str]:
    """The smallest differences from the baseline that the headline could have shown."""
    rows = [c for c in task.comparisons if c.metric == task.headline]
    found = [c.detectable_holm for c in rows if c.detectable_holm is not None]
    if not found:
        return []
    least, most = (f(found) * _scale(task.headline) for f in (min, max))
    one = f"{least:.1f}" == f"{most:.1f}"
    span = f"{least:.1f} points" if one else f"{least:.1f} to {most:.1f} points, depending on the row"
    return [
        f"Smallest difference from {label(task, rows[0].baseline)} that is found 4 times out of 5 "
        f"(80 % power, {strictest(len(rows))}): {span}."
    ]


def strictest(tests: int) -> str:
    """The level of the strictest step of Holm's correction over so many tests, in words."""
    return "5 % level" if tests < 2 else f"at 5 % / {tests}, the strictest step of Holm's correction"


#: The column beside a verdict that is corrected over the rows.
DETECTABLE = "smallest detectable (Holm)"
_VERDICTS = {"holds": "holds", "opposite": "the other way", "undecided": "not told apart"}


def ordering(task: TaskSummary) -> list[Grid]:
    """The pairs that the paper orders, each with its test here."""
    if task.ordering is None or not task.ordering.paper:
        return []
    rows = []
    for pair in task.ordering.paper:
        e, d = pair.expected, pair.difference
        scale = _scale(e.metric)
        rows.append(
            (
                f"{_side(task, e.higher, e.metric)} > {_side(task, e.lower, e.lower_metric or e.metric)}",
                _VERDICTS[pair.verdict],
                interval(d.value, d.low, d.high, scale),
                p_value(d.p),
                p_value(pair.p_holm),
                points(e.metric, pair.detectable_holm),
                EMPTY if e.printed is None else f"{e.printed:+.1f}",
            )
        )
    head = ("pair", "here", "difference, points [95 %]", "p", "p (Holm)", DETECTABLE, "paper, points")
    return [Grid("The paper's order, pair by pair", head, tuple(rows), (about_detectable(len(rows)),))]


def about_detectable(tests: int) -> str:
    """What stands in the column `DETECTABLE` of a table of so many tests."""
    return (
        f"Smallest detectable: the true difference that such a test finds 4 times out of 5 (80 % power, "
        f"{strictest(tests)})."
    )


def _side(task: TaskSummary, model: str, metric: str) -> str:
    """A row, and what is read of it where that is not the accuracy."""
    what = "" if metric == "accuracy" else heading(metric).removesuffix(", %")
    return f"{label(task, model)}, {what}" if what else label(task, model)


def paired(task: TaskSummary) -> list[Grid]:
    """Each model against the baseline: the headline in full, the other metrics as differences."""
    headline = [c for c in task.comparisons if c.metric == task.headline]
    if not headline:
        return []
    others = list(dict.fromkeys(c.metric for c in task.comparisons if c.metric != task.headline))
    by_model = {(c.metric, c.model): c for c in task.comparisons}
    exact = any(c.p_mcnemar is not None for c in headline)
    head = ["model", f"{_points(task.headline)} [95 %]", "p", "p (Holm)"]
    head += ["better / worse", "p (McNemar)"] if exact else []
    head += [DETECTABLE, *(f"{_points(name)} [95 %]" for name in others)]
    rows = []
    for c in headline:
        row = [label(task, c.model), difference(c), p_value(c.p), p_value(c.p_holm)]
        row += [f"{c.better} / {c.worse}", p_value(c.p_mcnemar)] if exact else []
        row.append(points(c.metric, c.detectable_holm))
        row += [difference(by_model[name, c.model]) for name in others]
        rows.append(tuple(row))
    first = max(headline, key=lambda c: (c.worlds, c.clusters))
    how = first.method if first.worlds < 2 else f"t over {first.worlds} worlds or over entities, the weaker"
    notes = [
        f"Model minus {label(task, first.baseline)} ({how}). p (Holm) is corrected over the rows. "
        f"{about_detectable(len(headline))}"
    ]
    if exact:
        notes.append("p (McNemar) is exact and takes the questions as independent.")
    notes += [
        f"{label(task, c.model)} is compared on what it has: {c.clusters} entities"
        + (f" of {c.worlds} world{'' if c.worlds == 1 else 's'}." if first.worlds > 1 else ".")
        for c in headline
        if c.clusters < first.clusters
    ]
    title = f"Against {label(task, first.baseline)}, paired on the same {first.clusters} entities"
    return [Grid(title, tuple(head), tuple(rows), tuple(notes))]


def per_world(task: TaskSummary) -> list[Grid]:
    """The headline in each world, where there are several."""
    headlines = {m: dict(e[task.headline].per_world) for m, e in task.models.items() if task.headline in e}
    worlds = sorted({world for values in headlines.values() for world in values})
    if len(worlds) < 2:
        return []
    scale = _scale(task.headline)
    rows = tuple(
        (label(task, model), *(f"{values[w] * scale:.1f}" if w in values else EMPTY for w in worlds))
        for model, values in headlines.items()
    )
    head = ("model", *(f"world {w}" for w in worlds))
    return [Grid(f"World by world: {heading(task.headline)}", head, rows)]


def columns(task: TaskSummary) -> list[str]:
    """The metrics that some model has, in the table's order; the headline first."""
    present = {name for estimates in task.models.values() for name in estimates if not _says_nothing(task, name)}
    found = [task.headline] if task.headline in present else []
    for pattern in _ORDER[task.family]:
        if pattern.endswith("*"):
            matching = sorted((n for n in present if n.startswith(pattern[:-1])), key=lambda n: (len(n), n))
            found += [n for n in matching if n not in found] if len(matching) <= _MOST_KINDS else []
        elif pattern in present and pattern not in found:
            found.append(pattern)
    return found


def denominators(task: TaskSummary) -> list[str]:
    """What each column is a share or mean of, once a table: it is the same in every row."""
    said: dict[str, list[str]] = {}
    for name in columns(task):
        estimate = next(e[name] for e in task.models.values() if name in e)
        said.setdefault(estimate.of, []).append(heading(name).removesuffix(", %"))
    return [f"{', '.join(names)}: {of}." for of, names in said.items()]


def printed_metrics(task: TaskSummary) -> list[str]:
    """The metrics that the paper's table has, in its order; the headline where it has none."""
    return [published.METRIC_OF[column] for column in task.published[1:]] or [task.headline]


def _paper_columns(task: TaskSummary) -> dict[str, str]:
    """Metric -> header of the paper's column beside it; claims stand with the accuracy."""
    measured = printed_metrics(task) if task.published else []
    if "claims" in measured or len(measured) == 1:
        return {measured[0]: published.LABEL}
    return {name: f"paper: {heading(name)}" for name in measured}


def _is_main(task: TaskSummary, name: str) -> bool:
    """Whether a metric stands in the first table."""
    return name in _MAIN or name == task.headline or name.startswith(("accuracy[", "f1_at_"))


def _says_nothing(task: TaskSummary, name: str) -> bool:
    """Whether a metric is over questions of contradicting versions, of which no model can answer more than half."""
    return name in _OVER_ALL_ANSWERS and re.fullmatch(r"accuracy\[V\d+\]", task.headline) is not None


def facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries of `metadata` or `context` that say something, as text; chosen settings have a table (`chosen`)."""
    return [(k, plain(v)) for k, v in mapping.items() if v not in ("", None, [], ()) and k != "tuned"]


def chosen(run: RunSummary) -> Grid | None:
    """The settings that `--tune` chose for each method and task; None where nothing was tuned."""
    tuned = run.metadata.get("tuned") or ()
    titles = {task.name: task.title for task in run.tasks}
    rows = [
        (titles.get(one["task"], one["task"]), one["method"], f"{one['learning_rate']:g}", f"{one['epochs']:g}")
        for one in tuned
    ]
    head = ("task", "method", "learning rate ×", "epochs ×")
    return Grid("Chosen settings", head, tuple(rows), (_CHOSEN,)) if rows else None


_CHOSEN = (
    "Factors on the preset's own values, chosen on validation entities of the first world; of a method's stages its "
    "last one is tuned."
)


# --- cells ---------------------------------------------------------------------------------------------------


def heading(name: str) -> str:
    """A metric's name in a header."""
    if name.startswith("f1_at_"):
        return f"F1@{name.removeprefix('f1_at_')}, %"
    if name.startswith("area_to_"):
        return f"area to k = {name.removeprefix('area_to_')}, %"
    if name.startswith("accuracy["):
        return f"{name[len('accuracy[') : -1]}, %"
    return _NAMES.get(name, name)


def cell(name: str, estimate: Estimate | None, *, with_interval: bool | None = None) -> str:
    """A number, with its interval where the metric shows one (or as told)."""
    if estimate is None or estimate.value is None:
        return EMPTY
    scale, digits = _scale(name), 2 if name == "claims_popularity" else 1
    text = f"{estimate.value * scale:.{digits}f}"
    wanted = _has_interval(name) if with_interval is None else with_interval
    if wanted and estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low * scale:.{digits}f}, {estimate.high * scale:.{digits}f}]"
    return text


def label(task: TaskSummary, model: str) -> str:
    """What a row is called in this table: the paper's words where it uses other ones than its methods' names."""
    return published.label(task.published, model)


def printed(task: TaskSummary, model: str, metric: str) -> str:
    """The paper's figure beside one of a model's metrics."""
    figure = published.beside(task.published, model).get(metric)
    return EMPTY if figure is None else f"{figure:.1f}"


def paper(task: TaskSummary, model: str) -> str:
    """The printed accuracy, and the printed number of claims where the paper gives one."""
    figures = published.beside(task.published, model)
    if "accuracy" not in figures:
        return EMPTY
    text = f"{figures['accuracy']:.1f}"
    return f"{text} ({figures['claims']:.1f} claims)" if "claims" in figures else text


def difference(c: Comparison) -> str:
    """A signed difference with its interval."""
    if c.value is None or c.low is None or c.high is None:
        return EMPTY
    return interval(c.value, c.low, c.high, _scale(c.metric))


def interval(value: float | None, low: float | None, high: float | None, scale: int) -> str:
    """A signed number with its interval; an empty cell without them."""
    if value is None or low is None or high is None:
        return EMPTY
    return f"{value * scale:+.1f} [{low * scale:+.1f}, {high * scale:+.1f}]"


def signed(c: Comparison) -> str:
    """A signed difference, in points for shares."""
    return EMPTY if c.value is None else f"{c.value * _scale(c.metric):+.1f}"


def points(metric: str, value: float | None) -> str:
    """A number without a sign, in points for shares."""
    return EMPTY if value is None else f"{value * _scale(metric):.1f}"


def p_value(p: float | None) -> str:
    """A p-value to three digits."""
    if p is None:
        return EMPTY
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def plain(value: Any) -> str:
    """A value of the metadata as text."""
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)


def _heading_with_interval(name: str) -> str:
    return heading(name) + (" [95 %]" if _has_interval(name) else "")


def _has_interval(name: str) -> bool:
    return name in _WITH_INTERVAL or name.startswith(("accuracy[", "area_to_"))


def _scale(name: str) -> int:
    return 1 if name in NO_SHARES else 100


def _points(name: str) -> str:
    return heading(name).replace(", %", ", points")
