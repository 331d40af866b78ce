"""The leaderboard: markdown for the run folder, a rich table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import published
from harness.metrics.longform import LongformScore
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

if TYPE_CHECKING:
    from rich.table import Table

    from harness.registry import ModelSpec, Suite, Task

__all__ = ["RunSummary", "make_summary", "render", "table", "tables"]

_EMPTY = "–"
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
_ORDER = {
    "longform": (
        "accuracy", "claims", "supported_claims", "accuracy_micro", "accuracy_abstention_zero", "f1_at_*",
        "response_rate", "unparsed_rate", "error_rate", "cut_off_rate",
    ),
    "short_qa": (
        "accuracy", "accuracy[*", "token_match", "strict_em", "f1", "abstention_rate", "cut_off_rate",
    ),
}  # fmt: skip


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
) -> RunSummary:
    """Put the numbers of a run in order and compare its models.

    `estimates` is by task and model, `qa` and `longform` by (task, model), `exclusions` gives the reason for
    every missing (task, model). Models are compared with `baseline`, or with the first row where it is
    missing.
    """
    titles = {model.name: model.title or model.name for model in models}
    summaries = []
    for task in tasks:
        rows = estimates.get(task.name, {})
        names = published.order([name for name in titles if name in rows])
        against = baseline if baseline in names else names[0] if names else ""
        metrics = COMPARED[task.metric]
        if suite.headline not in metrics:
            metrics = (suite.headline, *metrics)
        comparisons: tuple[Comparison, ...] = ()
        ranks: dict[str, int] = {}
        if task.metric == "longform" and names:
            long = {name: longform[task.name, name] for name in names}
            comparisons = compare_longform(long, against, metrics, suite.f1_k)
            headline = {m.name: m for m in longform_metrics(suite.f1_k)}[suite.headline]
            ranks = rank_models(long, headline)
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
            )
        )
    return RunSummary(suite.title, dict(metadata), tuple(summaries), dict(context))


# --- markdown ---------------------------------------------------------------------------------------------


def render(run: RunSummary) -> str:
    """The whole leaderboard as markdown."""
    parts = [f"# {run.title}", _facts(run)]
    for task in run.tasks:
        parts += [f"## {task.title}", *_task_sections(task)]
    parts += ["## How to read this", _footer(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _task_sections(task: TaskSummary) -> list[str]:
    if not task.models:
        return ["No model was scored on this task.", _missing(task)]
    columns = _columns(task)
    main = [name for name in columns if name in _MAIN or name == task.headline or name.startswith("accuracy[")]
    further = [name for name in columns if name not in main]
    return [
        _markdown(*_grid(task, main, paper=True)),
        _missing(task),
        *_paired(task),
        f"### More of the same answers\n\n{_markdown(*_grid(task, further))}" if further else "",
        _per_world(task),
        _denominators(task, columns),
    ]


def _grid(task: TaskSummary, columns: Sequence[str], *, paper: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table; with `paper` also rank, n and the published figure beside the accuracy."""
    head, rows = (["rank", "model"] if paper else ["model"]), []
    for name in columns:
        head.append(_heading(name) + (" [95 %]" if name in _WITH_INTERVAL else ""))
        head += [published.LABEL] if paper and name == "accuracy" and task.published else []
    head += ["n"] if paper else []
    for model, estimates in task.models.items():
        row = [str(task.ranks.get(model, _EMPTY)), model] if paper else [model]
        for name in columns:
            row.append(_cell(name, estimates.get(name), interval=name in _WITH_INTERVAL))
            row += [_paper_cell(task, model)] if paper and name == "accuracy" and task.published else []
        row += [str(estimates[task.headline].n) if task.headline in estimates else _EMPTY] if paper else []
        rows.append(row)
    return head, rows


def _columns(task: TaskSummary) -> list[str]:
    """The metrics that some model has, in the table's order; the headline first."""
    present = {name for estimates in task.models.values() for name in estimates}
    columns = [task.headline] if task.headline in present else []
    for pattern in _ORDER[task.family]:
        if pattern.endswith("*"):
            matching = sorted((n for n in present if n.startswith(pattern[:-1])), key=lambda n: (len(n), n))
            columns += matching if len(matching) <= 4 else []
        elif pattern in present and pattern not in columns:
            columns.append(pattern)
    return columns


def _heading(name: str) -> str:
    if name.startswith("f1_at_"):
        return f"F1@{name.removeprefix('f1_at_')}, %"
    if name.startswith("accuracy["):
        return f"{name[len('accuracy[') : -1]}, %"
    return _NAMES.get(name, name)


def _cell(name: str, estimate: Estimate | None, *, interval: bool) -> str:
    if estimate is None or estimate.value is None:
        return _EMPTY
    scale = 1 if name in _COUNTS else 100
    text = f"{estimate.value * scale:.1f}"
    if interval and estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low * scale:.1f}, {estimate.high * scale:.1f}]"
    return text


def _paper_cell(task: TaskSummary, model: str) -> str:
    """The printed accuracy, and the printed number of claims where the paper gives one."""
    where, *columns = task.published
    figures = [published.figure(where, model, column) for column in columns]
    if not figures or figures[0] is None:
        return _EMPTY
    text = f"{figures[0]:.1f}"
    return f"{text} ({figures[1]:.1f} claims)" if len(figures) > 1 and figures[1] is not None else text


def _denominators(task: TaskSummary, columns: Sequence[str]) -> str:
    """What each column is a share or mean of, once a table: the denominators are the same in every row."""
    lines: dict[str, list[str]] = {}
    for name in columns:
        estimate = next(e[name] for e in task.models.values() if name in e)
        lines.setdefault(estimate.of, []).append(_heading(name).removesuffix(", %"))
    said = "\n".join(f"- {', '.join(names)}: {of}." for of, names in lines.items())
    return f"Denominators (*n* is that of the headline):\n\n{said}"


def _missing(task: TaskSummary) -> str:
    return "\n".join(f"- No row for `{model}`: {reason}" for model, reason in task.exclusions.items())


def _paired(task: TaskSummary) -> list[str]:
    """Each model against the baseline: headline in full, the other metrics as differences."""
    headline = [c for c in task.comparisons if c.metric == task.headline]
    if not headline:
        return []
    others = list(dict.fromkeys(c.metric for c in task.comparisons if c.metric != task.headline))
    by_model = {(c.metric, c.model): c for c in task.comparisons}
    exact = any(c.p_mcnemar is not None for c in headline)
    head = ["model", f"{_points(task.headline)} [95 %]", "p", "p (Holm)"]
    head += ["better / worse", "p (McNemar)"] if exact else []
    head += ["smallest detectable"] + [f"{_points(name)} [95 %]" for name in others]
    rows = []
    for c in headline:
        row = [c.model, _difference(c), _p(c.p), _p(c.p_holm)]
        row += [f"{c.better} / {c.worse}", _p(c.p_mcnemar)] if exact else []
        row.append(_EMPTY if c.detectable is None else f"{c.detectable * _scale(c.metric):.1f}")
        row += [_difference(by_model[name, c.model]) for name in others]
        rows.append(row)
    first = headline[0]
    title = f"### Against `{first.baseline}`, paired on the same {first.clusters} entities"
    how = first.method if first.worlds == 1 else f"t over {first.worlds} worlds or over entities, the weaker"
    notes = (
        f"Model minus `{first.baseline}` ({how}). p (Holm) is corrected over the rows; *smallest detectable* is "
        "the true difference that this comparison would find 4 times out of 5."
    )
    if exact:
        notes += " p (McNemar) is exact and takes the questions as independent."
    return [title, _markdown(head, rows), notes]


def _per_world(task: TaskSummary) -> str:
    """The headline in each world, where there are several."""
    headlines = [e[task.headline] for e in task.models.values() if task.headline in e]
    worlds = sorted({world for estimate in headlines for world, _ in estimate.per_world})
    if len(worlds) < 2:
        return ""
    rows = []
    for model, estimates in task.models.items():
        values = dict(estimates[task.headline].per_world) if task.headline in estimates else {}
        scale = _scale(task.headline)
        rows.append([model, *(f"{values[w] * scale:.1f}" if w in values else _EMPTY for w in worlds)])
    head = ["model", *(f"world {w}" for w in worlds)]
    return f"### World by world: {_heading(task.headline)}\n\n{_markdown(head, rows)}"


def _facts(run: RunSummary) -> str:
    facts = {key: value for key, value in run.metadata.items() if value not in ("", None, [], ())}
    lines = [" · ".join(f"{key}: `{_value(value)}`" for key, value in facts.items())]
    context = dict(run.context)
    if command := context.pop("command", ""):
        lines.append(f"```\n{command}\n```")
    lines.append(" · ".join(f"{key}: {_value(value)}" for key, value in context.items() if value))
    return "\n\n".join(line for line in lines if line)


def _footer(run: RunSummary) -> str:
    headlines = [e[task.headline] for task in run.tasks for e in task.models.values() if task.headline in e]
    worlds = max((estimate.worlds for estimate in headlines), default=1)
    families = {task.family for task in run.tasks}
    lines = [_SEVERAL_WORLDS.format(worlds=worlds, df=worlds - 1) if worlds > 1 else _ONE_WORLD]
    lines += [_LONGFORM] if "longform" in families else []
    lines += [_SHORT_QA] if "short_qa" in families else []
    lines.append(_RANK)
    if any(task.published for task in run.tasks):
        lines.append(_PAPER)
    return "\n".join(f"- {line}" for line in lines)


_SEVERAL_WORLDS = (
    "Scores are means over {worlds} worlds, each counting the same. Intervals are 95 %, the wider of two: "
    "the t-interval over worlds ({df} degrees of freedom; it speaks of further worlds like these, and is "
    "wide with few) and the one over entities given these worlds. Paired differences are taken within each "
    "world, and are what tells models apart."
)
_ONE_WORLD = (
    "Intervals are 95 %, clustered by entity: they speak of further entities like these, not of another"
    " base model, another training seed or other data. Shares have Wilson's interval at the effective "
    "sample size, counts a t-interval."
)
_LONGFORM = (
    "Accuracy of a long answer is the supported share of its judged claims; the headline is the mean "
    "over answers. Claims whose verdict could not be read (*unparsed*) or obtained (*errors*) are in no"
    " accuracy and have rates of their own. Abstentions are left out of the headline and of micro "
    "accuracy, and count as 0 in *abstentions as 0* and in F1@K."
)
_SHORT_QA = (
    "Accuracy of short answers is alias containment, as the reference implementation computes it; "
    "*token match* asks for whole tokens and reads the first answer only, *exact match* and *F1* are "
    "SQuAD's. Abstentions count as wrong."
)
_RANK = (
    "Rank is 1 + the number of models that are significantly better (paired, 5 %, Holm over all pairs):"
    " models that cannot be told apart from the best share rank 1."
)
_PAPER = (
    f"*{published.LABEL}* is another base model on other data, beside ours for its order, not its level."
    f" {published.source()}"
)


# --- terminal ---------------------------------------------------------------------------------------------


def tables(run: RunSummary) -> list[Table]:
    """One table a task for the terminal, with the columns that matter most."""
    return [_rich_table(task) for task in run.tasks if task.models]


def table(run: RunSummary) -> Table:
    """All tasks of a run under each other in one table."""
    from rich.table import Table

    outer = Table.grid()
    outer.add_column()
    for inner in tables(run):
        outer.add_row(inner)
    return outer


def _rich_table(task: TaskSummary) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    wanted = {
        "longform": ("claims", "response_rate", "unparsed_rate"),
        "short_qa": ("accuracy[bridge]", "accuracy[comparison]", "token_match", "abstention_rate"),
    }[task.family]
    columns = [name for name in _columns(task) if name in wanted and name != task.headline]
    made = Table(title=escape(task.title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    made.add_column("rank", justify="right")
    made.add_column("model", no_wrap=True)
    made.add_column(f"{_heading(task.headline)} [95 %]".replace("[", "\\["), justify="right", no_wrap=True)
    against = {c.model: c for c in task.comparisons if c.metric == task.headline}
    if against:
        baseline = next(iter(against.values())).baseline
        made.add_column(f"vs {escape(baseline)}, p (Holm)", justify="right", no_wrap=True)
    for name in columns:
        made.add_column(escape(_heading(name)), justify="right")
    if task.published:
        made.add_column("paper (8B)", justify="right", style="dim")
    made.add_column("n", justify="right")
    best = min(task.ranks.values(), default=0)
    for model, estimates in task.models.items():
        row = [str(task.ranks.get(model, _EMPTY)), escape(model)]
        row.append(escape(_cell(task.headline, estimates.get(task.headline), interval=True)))
        if against:
            c = against.get(model)
            row.append(_EMPTY if c is None or c.value is None else f"{_signed(c)}, {_p(c.p_holm)}")
        row += [_cell(name, estimates.get(name), interval=False) for name in columns]
        if task.published:
            row.append(_paper_cell(task, model).split(" ")[0])
        row.append(str(estimates[task.headline].n) if task.headline in estimates else _EMPTY)
        made.add_row(*row, style="bold" if task.ranks.get(model) == best else "")
    return made


# --- small pieces -----------------------------------------------------------------------------------------


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; the first text column is left-aligned, numbers are right-aligned."""
    align = [":--" if name in ("model", "") else "--:" for name in head]
    lines = [head, align, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _scale(metric: str) -> int:
    return 1 if metric in _COUNTS else 100


def _points(metric: str) -> str:
    return _heading(metric).replace(", %", ", points")


def _signed(c: Comparison) -> str:
    return _EMPTY if c.value is None else f"{c.value * _scale(c.metric):+.1f}"


def _difference(c: Comparison) -> str:
    if c.value is None or c.low is None or c.high is None:
        return _EMPTY
    scale = _scale(c.metric)
    return f"{_signed(c)} [{c.low * scale:+.1f}, {c.high * scale:+.1f}]"


def _p(p: float | None) -> str:
    if p is None:
        return _EMPTY
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _value(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)
