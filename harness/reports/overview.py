"""The paper's main table: one row a method, all tasks side by side."""

from __future__ import annotations

from harness import published
from harness.metrics.summary import RunSummary, TaskSummary
from harness.reports import grids

#: The tasks of the table, in the paper's order.
TASKS = ("persons", "medical", "popqa", "hotpotqa")


def overview(run: RunSummary) -> grids.Grid | None:
    """The tasks of the paper's main table in its layout; None where the run has fewer than two of them.

    Every task gives its accuracy with interval, long answers also their claims, and beside each number the paper's
    where it prints one. The notes say in words how each task's order turned out.
    """
    by_name = {task.name: task for task in run.tasks if task.models}
    tasks = [by_name[name] for name in TASKS if name in by_name]
    if len(tasks) < 2:
        return None
    columns = [(task, metric) for task in tasks for metric in _metrics(task)]
    head = ["model"]
    for task, metric in columns:
        head += [_heading(task, metric), *(["paper"] if _prints(task, metric) else [])]
    rows = []
    for model in published.order(list(dict.fromkeys(name for task in tasks for name in task.models))):
        row = [model]
        for task, metric in columns:
            row.append(grids.cell(metric, task.models.get(model, {}).get(metric)))
            if _prints(task, metric):
                row.append(grids.printed(task, model, metric))
        rows.append(tuple(row))
    notes = [f"{task.title}: {task.ordering.words}" for task in tasks if task.ordering]
    notes += [
        f"{task.title}: {'not every world' if model in task.models else 'no row'} for {model}: {why}"
        for task in tasks
        for model, why in grids.missing(task)
    ]
    return grids.Grid("All tasks side by side", tuple(head), tuple(rows), tuple(notes))


def _metrics(task: TaskSummary) -> tuple[str, ...]:
    return (task.headline, "claims") if task.family == "longform" else (task.headline,)


def _prints(task: TaskSummary, metric: str) -> bool:
    return bool(task.published) and metric in grids.printed_metrics(task)


def _heading(task: TaskSummary, metric: str) -> str:
    return f"{task.title}: {grids.heading(metric)} [95 %]"
