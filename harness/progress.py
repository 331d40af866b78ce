"""Live progress of a run: stages, jobs in work, items, rate, time left and what was found in the cache."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from harness.executor import Event
from harness.jobs import JobKind
from harness.plan import Plan

STAGES: dict[JobKind, str] = {
    "base": "pre-train",
    "sample": "sample",
    "judge": "judge samples",
    "train": "train",
    "join": "join adapters",
    "generate": "generate",
    "score": "score",
}


class Display:
    """Shows events on a terminal as bars, elsewhere as one line a finished job; nothing when `quiet`."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._live = console.is_terminal and not quiet
        self._labels: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._stages: dict[str, TaskID] = {}
        self._running: dict[str, TaskID] = {}
        self._ended: set[str] = set()
        self._cached: Counter[str] = Counter()
        self._start = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[remark]}", style="dim"),
            console=console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def announce(self, plan: Plan) -> None:
        """Say what is to be done and what of it is done already."""
        self._labels = {job.key: job.label for job in plan.jobs}
        self._kinds = {job.key: job.kind for job in plan.jobs}
        counts = Counter(job.kind for job in plan.jobs)
        cached = sum(job.done() for job in plan.jobs)
        if not self._quiet:
            self._console.print(
                f"{len(plan.jobs)} jobs ({', '.join(f'{STAGES[kind]} {count}' for kind, count in counts.items())}), "
                f"{cached} of them in the cache",
                highlight=False,
            )
        for kind, count in counts.items():
            self._stages[kind] = self._progress.add_task(f"[bold]{STAGES[kind]}", total=count, remark="")

    def listen(self, event: Event) -> None:
        """Take in an event of the executor."""
        kind, label = self._kinds[event.job], self._labels[event.job]
        if event.state in ("started", "progress") and event.job not in self._ended:
            if event.job not in self._running:
                self._running[event.job] = self._progress.add_task("  " + label, total=None, remark="")
            if event.state == "progress":
                self._progress.update(
                    self._running[event.job], completed=event.done, total=event.total, remark=event.remark
                )
        elif event.state in ("done", "cached", "failed", "skipped"):
            self._ended.add(event.job)
            if event.job in self._running:
                self._progress.remove_task(self._running.pop(event.job))
            self._progress.advance(self._stages[kind])
            if event.state == "cached":
                self._cached[kind] += 1
                self._progress.update(self._stages[kind], remark=f"{self._cached[kind]} cached")
            elif not self._live and not self._quiet:
                took = f" in {event.seconds:.1f} s" if event.state == "done" else ""
                elapsed = time.monotonic() - self._start
                self._console.print(f"[{elapsed:6.1f} s] {event.state}: {label}{took}", highlight=False, markup=False)
