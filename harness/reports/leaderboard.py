"""The leaderboard: markdown for the run folder, a rich table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import published
from harness.errors import UserError
from harness.metrics.longform import Curve, LongformScore, curve
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import (
    COMPARED,
    Comparison,
    Estimate,
    RunSummary,
    TaskSummary,
    compare_longform,
    compare_short_qa,
    longform_metrics,
    rank_models,
    short_qa_metrics,
)
from harness.reports import grids

if TYPE_CHECKING:
    from rich.table import Table

    from harness.registry import ModelSpec, Suite, Task

__all__ = ["RunSummary", "make_summary", "render", "table", "tables"]


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
    every missing (task, model). Models are compared with `baseline`, or with the first row where it is missing.
    With `curve_claims` the curves over the first so many claims become part of the summary. Raises UserError for
    a headline that a task does not have.
    """
    titles = {model.name: model.title or model.name for model in models}
    summaries = []
    for task in tasks:
        rows = estimates.get(task.name, {})
        names = published.order([name for name in titles if name in rows])
        against = baseline if baseline in names else names[0] if names else ""
        metrics = tuple(dict.fromkeys((suite.headline, *COMPARED[task.metric])))
        known = longform_metrics(suite.f1_k) if task.metric == "longform" else short_qa_metrics()
        if suite.headline not in {m.name for m in known}:
            raise UserError(
                f"suite '{suite.name}': headline '{suite.headline}' is no metric of task '{task.name}'; "
                f"choose one of {', '.join(m.name for m in known)}"
            )
        comparisons: tuple[Comparison, ...] = ()
        ranks: dict[str, int] = {}
        curves: dict[str, Curve] = {}
        if task.metric == "longform" and names:
            long = {name: longform[task.name, name] for name in names}
            comparisons = compare_longform(long, against, metrics, suite.f1_k)
            headline = {m.name: m for m in longform_metrics(suite.f1_k)}[suite.headline]
            ranks = rank_models(long, headline)
            curves = {name: curve(scores, curve_claims) for name, scores in long.items()} if curve_claims else {}
        elif names:
            short = {name: qa[task.name, name] for name in names}
            comparisons = compare_short_qa(short, against, metrics)
            ranks = rank_models(short, {m.name: m for m in short_qa_metrics()}[suite.headline])
        summaries.append(
            TaskSummary(
                name=task.name,
                title=task.title,
                family=task.metric,
                headline=suite.headline,
                models={name: rows[name] for name in names},
                titles={name: titles[name] for name in names},
                comparisons=comparisons,
                ranks=ranks,
                exclusions={
                    name: exclusions[task.name, name]
                    for name in published.order(list(titles))
                    if name not in rows and (task.name, name) in exclusions
                },
                published=task.published,
                curves=curves,
            )
        )
    return RunSummary(suite.title, dict(metadata), tuple(summaries), dict(context))


# --- markdown ------------------------------------------------------------------------------------------------


def render(run: RunSummary) -> str:
    """The whole leaderboard as markdown."""
    parts = [f"# {run.title}", " · ".join(f"{key}: `{value}`" for key, value in grids.facts(run.metadata))]
    context = dict(run.context)
    if command := context.pop("command", ""):
        parts.append(f"```\n{command}\n```")
    parts.append(" · ".join(f"{key}: {value}" for key, value in grids.facts(context)))
    for task in run.tasks:
        parts.append(f"## {task.title}")
        for grid in grids.grids(task):
            parts += [f"### {grid.title}" if grid.title else "", _markdown(grid.head, grid.rows)]
            parts.append("\n".join(f"- {note}" for note in grid.notes))
        if task.models:
            listed = "\n".join(f"- {line}" for line in grids.denominators(task))
            parts.append(f"Denominators (*n* is that of the headline):\n\n{listed}")
        else:
            parts += ["No model was scored on this task.", *(f"- {m}: {r}" for m, r in task.exclusions.items())]
    parts += ["## How to read this", "\n".join(f"- {line}" for line in grids.reading(run))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table: names to the left, numbers to the right."""
    align = [":--" if name == "model" else "--:" for name in head]
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
    "token_match": "token match",
    "abstention_rate": "abst. %",
}


def _rich_table(task: TaskSummary) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(
        title=escape(task.title),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=0,
        pad_edge=False,
    )
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
        row.append(escape(grids.cell(task.headline, estimates.get(task.headline), interval=True)))
        if against:
            c = against.get(model)
            row.append(f"{grids.signed(c)}, {grids.p_value(c.p_holm)}" if c and c.p is not None else grids.EMPTY)
        row += [grids.cell(name, estimates.get(name), interval=False) for name in names]
        if task.published:
            row.append(grids.paper(task, model).split(" ")[0])
        row.append(str(estimates[task.headline].n) if task.headline in estimates else grids.EMPTY)
        made.add_row(*row, style="bold" if task.ranks.get(model) == best else "")
    return made
