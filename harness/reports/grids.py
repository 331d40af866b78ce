"""The tables of a leaderboard as rows of text, for the markdown, the terminal and the HTML report alike."""

from __future__ import annotations

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
}
_COUNTS = ("claims", "supported_claims")
#: The first table; the other columns stand in a second one.
_MAIN = ("accuracy", "claims", "response_rate", "unparsed_rate", "token_match", "abstention_rate")
#: Columns with an interval in every cell; the others show the number alone.
_WITH_INTERVAL = (
    "accuracy", "accuracy_micro", "claims", "supported_claims", "token_match", "strict_em",
    "accuracy[bridge]", "accuracy[comparison]",
)  # fmt: skip
_ORDER: dict[Family, tuple[str, ...]] = {
    "longform": (
        "accuracy", "claims", "supported_claims", "accuracy_micro", "accuracy_abstention_zero", "f1_at_*",
        "response_rate", "unparsed_rate", "error_rate", "cut_off_rate",
    ),
    "short_qa": (
        "accuracy", "accuracy[*", "token_match", "strict_em", "f1", "abstention_rate", "cut_off_rate",
    ),
}  # fmt: skip
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
    """Every table of a task: scores, paired differences, further scores, and the worlds one by one."""
    if not task.models:
        return []
    names = columns(task)
    main = [name for name in names if name in _MAIN or name == task.headline or name.startswith("accuracy[")]
    further = [name for name in names if name not in main]
    made = [scores(task, main), *paired(task)]
    if further:
        head = ("model", *(_heading_with_interval(name) for name in further))
        rows = tuple((m, *(cell(n, e.get(n)) for n in further)) for m, e in task.models.items())
        made.append(Grid("More of the same answers", head, rows))
    return [*made, *per_world(task)]


def scores(task: TaskSummary, names: Sequence[str]) -> Grid:
    """Rank, model, the given metrics with the paper's figure beside the accuracy, and n."""
    head = ["rank", "model"]
    for name in names:
        head.append(_heading_with_interval(name))
        if name == "accuracy" and task.published:
            head.append(published.LABEL)
    rows = []
    for model, estimates in task.models.items():
        row = [str(task.ranks.get(model, EMPTY)), model]
        for name in names:
            row.append(cell(name, estimates.get(name)))
            if name == "accuracy" and task.published:
                row.append(paper(task, model))
        rows.append((*row, str(estimates[task.headline].n) if task.headline in estimates else EMPTY))
    missing = tuple(f"No row for {model}: {reason}" for model, reason in task.exclusions.items())
    return Grid("", (*head, "n"), tuple(rows), missing)


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
    head += ["smallest detectable", *(f"{_points(name)} [95 %]" for name in others)]
    rows = []
    for c in headline:
        row = [c.model, difference(c), p_value(c.p), p_value(c.p_holm)]
        row += [f"{c.better} / {c.worse}", p_value(c.p_mcnemar)] if exact else []
        row.append(EMPTY if c.detectable is None else f"{c.detectable * _scale(c.metric):.1f}")
        row += [difference(by_model[name, c.model]) for name in others]
        rows.append(tuple(row))
    first = headline[0]
    how = first.method if first.worlds < 2 else f"t over {first.worlds} worlds or over entities, the weaker"
    notes = [
        f"Model minus {first.baseline} ({how}). p (Holm) is corrected over the rows. Smallest detectable: the true "
        "difference that this comparison would find 4 times out of 5."
    ]
    if exact:
        notes.append("p (McNemar) is exact and takes the questions as independent.")
    title = f"Against {first.baseline}, paired on the same {first.clusters} entities"
    return [Grid(title, tuple(head), tuple(rows), tuple(notes))]


def per_world(task: TaskSummary) -> list[Grid]:
    """The headline in each world, where there are several."""
    headlines = {m: dict(e[task.headline].per_world) for m, e in task.models.items() if task.headline in e}
    worlds = sorted({world for values in headlines.values() for world in values})
    if len(worlds) < 2:
        return []
    scale = _scale(task.headline)
    rows = tuple(
        (model, *(f"{values[w] * scale:.1f}" if w in values else EMPTY for w in worlds))
        for model, values in headlines.items()
    )
    head = ("model", *(f"world {w}" for w in worlds))
    return [Grid(f"World by world: {heading(task.headline)}", head, rows)]


def columns(task: TaskSummary) -> list[str]:
    """The metrics that some model has, in the table's order; the headline first."""
    present = {name for estimates in task.models.values() for name in estimates}
    found = [task.headline] if task.headline in present else []
    for pattern in _ORDER[task.family]:
        if pattern.endswith("*"):
            matching = sorted((n for n in present if n.startswith(pattern[:-1])), key=lambda n: (len(n), n))
            found += matching if len(matching) <= _MOST_KINDS else []
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


def facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries of `metadata` or `context` that say something, as text."""
    return [(k, plain(v)) for k, v in mapping.items() if v not in ("", None) and v != [] and v != ()]


def reading(run: RunSummary) -> list[str]:
    """How to read the tables: intervals, denominators, abstentions, ranks, the paper's column."""
    headlines = [e[task.headline] for task in run.tasks for e in task.models.values() if task.headline in e]
    worlds = max((estimate.worlds for estimate in headlines), default=1)
    families = {task.family for task in run.tasks}
    lines = [_SEVERAL_WORLDS.format(worlds=worlds, df=worlds - 1) if worlds > 1 else _ONE_WORLD]
    lines += [_LONGFORM] if "longform" in families else []
    lines += [_SHORT_QA] if "short_qa" in families else []
    lines.append(_RANK)
    if any(task.published for task in run.tasks):
        lines.append(_PAPER)
    return lines


_SEVERAL_WORLDS = (
    "Scores are means over {worlds} worlds, each counting the same. Intervals are 95 %, the wider of two: "
    "the t-interval over worlds ({df} degrees of freedom; it speaks of further worlds like these, and is "
    "wide with few) and the one over entities given these worlds. Paired differences are taken within each "
    "world, and are what tells models apart."
)
_ONE_WORLD = (
    "Intervals are 95 %, clustered by entity: they speak of further entities like these, not of another "
    "base model, another training seed or other data. Shares have Wilson's interval at the effective "
    "sample size, counts a t-interval."
)
_LONGFORM = (
    "Accuracy of a long answer is the supported share of its judged claims; the headline is the mean over "
    "answers. Claims whose verdict could not be read (unparsed) or obtained (errors) are in no accuracy "
    "and have rates of their own. Abstentions are left out of the headline and of micro accuracy, and "
    "count as 0 in “abstentions as 0” and in F1@K."
)
_SHORT_QA = (
    "Accuracy of short answers is alias containment, as the reference implementation computes it; token "
    "match asks for whole tokens and reads the first answer only, exact match and F1 are SQuAD's. "
    "Abstentions count as wrong."
)
_RANK = (
    "Rank is 1 + the number of models that are significantly better (paired, 5 %, Holm over all pairs): "
    "models that cannot be told apart from the best share rank 1."
)
_PAPER = (
    f"{published.LABEL} is another base model on other data, shown for its order, not its level. {published.source()}"
)


# --- cells ---------------------------------------------------------------------------------------------------


def heading(name: str) -> str:
    """A metric's name in a header."""
    if name.startswith("f1_at_"):
        return f"F1@{name.removeprefix('f1_at_')}, %"
    if name.startswith("accuracy["):
        return f"{name[len('accuracy[') : -1]}, %"
    return _NAMES.get(name, name)


def cell(name: str, estimate: Estimate | None, *, interval: bool | None = None) -> str:
    """A number, with its interval where the metric shows one (or as told)."""
    if estimate is None or estimate.value is None:
        return EMPTY
    scale = _scale(name)
    text = f"{estimate.value * scale:.1f}"
    wanted = name in _WITH_INTERVAL if interval is None else interval
    if wanted and estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low * scale:.1f}, {estimate.high * scale:.1f}]"
    return text


def paper(task: TaskSummary, model: str) -> str:
    """The printed accuracy, and the printed number of claims where the paper gives one."""
    where, *names = task.published
    figures = [published.figure(where, model, name) for name in names]
    if not figures or figures[0] is None:
        return EMPTY
    text = f"{figures[0]:.1f}"
    return f"{text} ({figures[1]:.1f} claims)" if len(figures) > 1 and figures[1] is not None else text


def difference(c: Comparison) -> str:
    """A signed difference with its interval."""
    if c.low is None or c.high is None:
        return EMPTY
    scale = _scale(c.metric)
    return f"{signed(c)} [{c.low * scale:+.1f}, {c.high * scale:+.1f}]"


def signed(c: Comparison) -> str:
    """A signed difference, in points for shares."""
    return EMPTY if c.value is None else f"{c.value * _scale(c.metric):+.1f}"


def p_value(p: float | None) -> str:
    """A p-value to three digits."""
    if p is None:
        return EMPTY
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def plain(value: Any) -> str:
    """A value of the metadata as text."""
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)


def _heading_with_interval(name: str) -> str:
    return heading(name) + (" [95 %]" if name in _WITH_INTERVAL else "")


def _scale(name: str) -> int:
    return 1 if name in _COUNTS else 100


def _points(name: str) -> str:
    return heading(name).replace(", %", ", points")
