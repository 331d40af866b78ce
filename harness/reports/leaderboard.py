"""The leaderboard: markdown for the run folder, a rich table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import published
from harness.errors import UserError
from harness.metrics.comparison import COMPARED, compare, rank_models
from harness.metrics.longform import Curve, LongformScore, common_range, curve
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import (
    Estimate,
    Metric,
    RunSummary,
    S,
    TaskSummary,
    kinds,
    longform_metrics,
    short_qa_metrics,
)
from harness.reports import grids, reading
from harness.reports.ordering import order
from harness.reports.overview import overview

if TYPE_CHECKING:
    from rich.table import Table

    from harness.registry import ModelSpec, Suite, Task

__all__ = ["RunSummary", "make_summary", "markdown_table", "render", "table", "tables"]


def make_summary(
    *,
    suite: Suite,
    tasks: Sequence[Task],
    models: Sequence[ModelSpec],
    estimates: Mapping[str, Mapping[str, Mapping[str, Estimate]]],
    qa: Mapping[tuple[str, str], Sequence[QaScore]],
    longform: Mapping[tuple[str, str], Sequence[LongformScore]],
    exclusions: Mapping[tuple[str, str], str],
    metadata: Mapping[str, Any],
    context: Mapping[str, Any],
    baseline: str = "sft",
    curve_claims: int | None = None,
) -> RunSummary:
    """Put the numbers of a run in order and compare its models.

    `estimates` is by task and model, `qa` and `longform` by (task, model), `exclusions` gives the reason for
    every (task, model) that is missing, or has not every world. Models are compared with `baseline`, or with the
    first row where it is missing. With `curve_claims` the curves over the first so many claims become part of the
    summary. Tasks that are trained on another's data make a point instead of a ranking: their rows have no ranks.
    Raises UserError for a headline that a task does not have.
    """
    titles = {model.name: model.title or model.name for model in models}
    summaries = []
    for task in tasks:
        rows = estimates.get(task.name, {})
        wanted = task.models or published.order(list(titles))
        names = [name for name in wanted if name in rows]
        known: tuple[Metric[Any], ...]
        curves: dict[str, Curve] = {}
        if task.metric == "longform":
            scores: dict[str, Sequence[Any]] = {name: longform[task.name, name] for name in names}
            end = common_range(scores.values())
            known = longform_metrics(suite.f1_k, end)
            curves = {name: curve(group, curve_claims) for name, group in scores.items()} if curve_claims else {}
        else:
            scores = {name: qa[task.name, name] for name in names}
            asked = kinds([s for group in scores.values() for s in group])
            known = short_qa_metrics(_with_headline(asked, suite.headline_of(task.name)), task.memorised_at)
        summary = TaskSummary(
            name=task.name,
            title=task.title,
            family=task.metric,
            headline=suite.headline_of(task.name),
            models={name: {**rows[name], **_further(known, rows[name], scores[name])} for name in names},
            titles={name: titles.get(name, name) for name in names},
            exclusions={name: exclusions[task.name, name] for name in wanted if (task.name, name) in exclusions},
            published=task.published,
            curves=curves,
        )
        _require_headline(suite, summary, known)
        summaries.append(_compared(summary, scores, known, baseline, ranked=not task.trained_on) if names else summary)
    return RunSummary(suite.title, dict(metadata), tuple(summaries), dict(context))


def _further(known: Sequence[Metric[S]], have: Mapping[str, Estimate], scores: Sequence[S]) -> dict[str, Estimate]:
    """What one model's answers alone do not tell: metrics that depend on which models stand beside it."""
    return {metric.name: metric.estimate(scores) for metric in known if metric.name not in have}


def _with_headline(asked: Sequence[str], headline: str) -> list[str]:
    """The kinds of question, and that of a headline such as `accuracy[V1]` though no question be of it."""
    kind = headline[len("accuracy[") : -1] if headline.startswith("accuracy[") else ""
    return [*asked, kind] if kind and kind not in asked else list(asked)


def _require_headline(suite: Suite, task: TaskSummary, known: Sequence[Metric[Any]]) -> None:
    """UserError for a headline that the task does not have."""
    names = [metric.name for metric in known]
    if task.headline not in names:
        raise UserError(
            f"suite '{suite.name}': headline '{task.headline}' is no metric of task '{task.name}'; "
            f"choose one of {', '.join(names)}"
        )


def _compared(
    task: TaskSummary,
    scores: Mapping[str, Sequence[S]],
    known: Sequence[Metric[S]],
    baseline: str,
    *,
    ranked: bool,
) -> TaskSummary:
    """The summary with its models compared; `ranked` says that a higher score is a better one."""
    by_name = {metric.name: metric for metric in known}
    printed: list[str] = [published.METRIC_OF[column] for column in task.published[1:]]
    area: list[str] = [name for name in by_name if name.startswith("area_to_")]
    wanted = [task.headline, *COMPARED[task.family], *area] if ranked else [task.headline, *printed]
    against = baseline if baseline in scores else next(iter(scores))
    return replace(
        task,
        comparisons=compare(scores, against, [by_name[name] for name in dict.fromkeys(wanted) if name in by_name]),
        ranks=rank_models(scores, by_name[task.headline]) if ranked else {},
        ordering=order(task.published, scores, known, task.headline, ranked=ranked),
    )


# --- markdown ------------------------------------------------------------------------------------------------


def render(run: RunSummary) -> str:
    """The whole leaderboard as markdown."""
    parts = [
        f"# {run.title}",
        reading.comparison(run),
        " · ".join(f"{key}: `{value}`" for key, value in grids.facts(run.metadata)),
    ]
    context = dict(run.context)
    if command := context.pop("command", ""):
        parts.append(f"```\n{command}\n```")
    parts.append(" · ".join(f"{key}: {value}" for key, value in grids.facts(context)))
    for grid in filter(None, (grids.chosen(run), overview(run))):
        parts += [f"## {grid.title}", markdown_table(grid.head, grid.rows)]
        parts.append("\n".join(f"- {note}" for note in grid.notes))
    for task in run.tasks:
        parts.append(f"## {task.title}")
        for grid in grids.grids(task):
            parts += [f"### {grid.title}" if grid.title else "", markdown_table(grid.head, grid.rows)]
            parts.append("\n".join(f"- {note}" for note in grid.notes))
        if task.models:
            listed = "\n".join(f"- {line}" for line in grids.denominators(task))
            parts.append(f"Denominators (*n* is that of the headline):\n\n{listed}")
        else:
            parts += ["No model was scored on this task.", *(f"- {m}: {r}" for m, r in task.exclusions.items())]
    parts += ["## How to read this", "\n".join(f"- {line}" for line in reading.reading(run))]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[str] = grids.WORDS) -> str:
    """A pipe table: columns of `words` to the left, numbers to the right."""
    align = [":--" if name in words else "--:" for name in head]
    lines = [[_escape(name) for name in head], align, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# --- terminal ------------------------------------------------------------------------------------------------


def tables(run: RunSummary) -> list[Table]:
    """One table a task for the terminal, with the columns that matter most."""
    return [_rich_table(task) for task in run.tasks if task.models]


def table(run: RunSummary) -> Table:
    """The tables of all tasks under each other, as one."""
    from rich.table import Table

    outer = Table.grid()
    outer.add_column()
    for inner in tables(run):
        outer.add_row(inner)
    return outer


#: Short headers, so that a table fits into 80 columns.
_ON_TERMINAL = {
    "claims": "claims",
    "response_rate": "resp. %",
    "unparsed_rate": "unp. %",
    "accuracy[bridge]": "bridge %",
    "accuracy[comparison]": "comp. %",
    "accuracy[V1]": "V1 %",
    "accuracy[V2]": "V2 %",
    "memorised_entities": "mem. ent. %",
    "token_match": "token match",
    "abstention_rate": "abst. %",
}


def _rich_table(task: TaskSummary) -> Table:
    from rich.markup import escape

    made = _empty_table(task)
    if not task.ranks:
        grid = grids.scores(task, grids.printed_metrics(task))
        for name in grid.head:
            made.add_column(escape(name), justify="left" if name in grids.WORDS else "right")
        for cells in grid.rows:
            made.add_row(*map(escape, cells))
        return made
    against = {c.model: c for c in task.comparisons if c.metric == task.headline}
    names = [name for name in grids.columns(task) if name in _ON_TERMINAL and name != task.headline]
    if "accuracy[bridge]" in names:
        names.remove("token_match")
    made.add_column("#", justify="right", no_wrap=True)
    made.add_column("model", no_wrap=True)
    made.add_column(escape(grids.heading(task.headline).replace(", ", " ") + " [95 %]"), justify="right", no_wrap=True)
    if against:
        made.add_column(escape(f"vs {next(iter(against.values())).baseline}, p"), justify="right", no_wrap=True)
    for name in names:
        made.add_column(_ON_TERMINAL[name].replace(" ", "\n"), justify="right", no_wrap=True)
    if task.published:
        made.add_column("paper\n(8B)", justify="right", style="dim", no_wrap=True)
    made.add_column("n", justify="right", no_wrap=True)
    best = min(task.ranks.values(), default=0)
    for model, estimates in task.models.items():
        row = [str(task.ranks.get(model, grids.EMPTY)), escape(model)]
        row.append(escape(grids.cell(task.headline, estimates.get(task.headline), with_interval=True)))
        if against:
            c = against.get(model)
            row.append(f"{grids.signed(c)}, {grids.p_value(c.p_holm)}" if c and c.p is not None else grids.EMPTY)
        row += [grids.cell(name, estimates.get(name), with_interval=False) for name in names]
        if task.published:
            row.append(grids.printed(task, model, task.headline))
        row.append(str(estimates[task.headline].n) if task.headline in estimates else grids.EMPTY)
        made.add_row(*row, style="bold" if task.ranks.get(model) == best else "")
    return made


def _empty_table(task: TaskSummary) -> Table:
    """A table with its title, and under it what can be said of the paper's order."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    return Table(
        title=escape(task.title),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=0 if task.ranks else (0, 1),
        pad_edge=False,
        caption=escape(task.ordering.words) if task.ordering else None,
        caption_justify="left",
        caption_style="dim",
    )
