"""The whole path of a run: plan -> jobs -> responses and scored claims -> metrics -> reports."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import __version__, ablations, recall, tuning
from harness.cells import read_cells
from harness.executor import Event, JobsFailed, run_jobs
from harness.jobs import Job
from harness.layout import visible_gpus
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import summarise_longform, summarise_short_qa
from harness.plan import Cell, Plan, plan_run
from harness.registry import TASKS
from harness.reports import leaderboard
from harness.reports.leaderboard import RunSummary
from harness.run_options import RunOptions
from harness.store import RunFolder
from harness.trials import tune


@dataclass(frozen=True)
class RunResult:
    """What a run ends with."""

    folder: Path
    summary: RunSummary
    seconds: float
    ablations: tuple[ablations.Written, ...] = ()


def execute(
    options: RunOptions,
    folder: RunFolder,
    command: str,
    listen: Callable[[Event], None],
    announce: Callable[[Plan], None] = lambda plan: None,
    workers: int | None = None,
    executor: str = "processes",
) -> RunResult:
    """Do a whole run, continuing whatever was done before, and write the run folder.

    Raises UserError for what the user can mend. When jobs fail, what is finished is kept and reported anyway, with
    the reason for what is missing under its table; then JobsFailed names the failures.
    """
    started = datetime.datetime.now(datetime.UTC)
    # Of what was asked for, which the same command finds again, and not of what tuning chooses.
    fingerprint = options.fingerprint()
    if options.tune:
        options = tune(options, folder, listen, announce, workers or _workers(options), executor)
    tables = plan_run(options)
    studies = ablations.prepare(options)
    # Jobs that several of them need are one job; the tables' cells are all that is reported of the whole plan.
    jobs: dict[str, Job] = {}
    parts = (tables, *(plan for study in studies for plan in study.plans))
    recalls = recall.every(part.recalls for part in parts)
    for job in (*(job for part in parts for job in part.jobs), *(one.job for one in recalls)):
        jobs.setdefault(job.key, job)
    plan = replace(tables, jobs=tuple(jobs.values()))
    announce(plan)
    manifest = _manifest(options, plan, command, started) | {"fingerprint": fingerprint}
    folder.json("manifest.json", manifest)
    failure: JobsFailed | None = None
    reasons: Mapping[str, str] = {}
    timings: dict[str, float] = {}

    def note(event: Event) -> None:
        if event.state == "done":
            timings[event.job] = round(event.seconds, 2)
        listen(event)

    try:
        run_jobs(plan.jobs, workers or _workers(options), note, executor)
    except JobsFailed as error:
        failure, reasons = recall.others(error, recalls), error.reasons
        plan = replace(plan, exclusions={**plan.exclusions, **unfilled(plan.cells, error.reasons)})
    measured = recall.measure(recalls)
    for line in recall.warnings(measured, reasons):
        print(line, file=sys.stderr)
    cells = [cell for cell in plan.cells if cell.done()]
    made = ablations.write(studies, options, folder)
    summary = report(options, plan, cells, folder, manifest, made, measured)
    seconds = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    labels = {job.key: job.label for job in plan.jobs}
    folder.json(
        "manifest.json",
        manifest
        | {
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "job_seconds": {labels[key]: value for key, value in timings.items()},
            "failures": list(failure.problems) if failure else [],
        }
        | ({"recall": recall.records(measured)} if measured else {}),
    )
    if failure:
        raise failure
    return RunResult(folder.path, summary, seconds, made)


def unfilled(cells: Sequence[Cell], reasons: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Why (task, model) has no answers or no scores, in one world or several; `reasons` is by job."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for cell in cells:
        for job in (cell.generate, cell.score):
            if job is not None and job.key in reasons:
                found.setdefault((cell.task, cell.model), {})[reasons[job.key]] = None
    return {where: "; ".join(why) for where, why in found.items()}


def report(
    options: RunOptions,
    plan: Plan,
    cells: list[Cell],
    folder: RunFolder,
    manifest: Mapping[str, Any],
    made: Sequence[ablations.Written] = (),
    measured: Sequence[recall.Measured] = (),
) -> RunSummary:
    """Read the finished cells back, aggregate them and write every file of the run folder but the manifest."""
    response_rows, claim_rows, qa, long = read_cells(cells, options.preset.prompt_template().separator)
    summary = summarise(options, plan, qa, long, manifest)
    held = {one.recall.job.key: one for one in measured}
    notes = {task: (recall.note([held[one.job.key] for one in found]),) for task, found in plan.recalls.items()}
    summary = replace(summary, tasks=tuple(replace(t, notes=notes.get(t.name, ())) for t in summary.tasks))
    folder.lines("responses.jsonl", response_rows)
    if long:
        folder.lines("claims.jsonl", claim_rows)
    folder.text("metrics.json", summary.to_json())
    folder.text("leaderboard.md", leaderboard.render(summary) + ablations.links(made))
    drawn = {task.name: task.curves for task in summary.tasks if task.curves}
    picture = folder.path / "accuracy_vs_claims.svg"
    if drawn:
        from harness.reports import curves

        curves.plot(drawn, picture.with_suffix(".png"), picture, titles={t.name: t.title for t in summary.tasks})
    from harness.reports import html

    curve_svg = picture.read_text(encoding="utf-8") if drawn else ""
    shown = html.answers(response_rows, claim_rows)
    folder.text("report.html", html.render(summary, shown, curve_svg=curve_svg, studies=made))
    return summary


def _workers(options: RunOptions) -> int | None:
    """One where an engine takes most of the machine's memory; else as many as there are cores or GPUs for."""
    return 1 if options.backend == "vllm" and not visible_gpus() else None


def summarise(
    options: RunOptions,
    plan: Plan,
    qa: Mapping[tuple[str, str], list[QaScore]],
    long: Mapping[tuple[str, str], list[LongformScore]],
    manifest: Mapping[str, Any],
) -> RunSummary:
    """Every number of the run, and what is needed to read them."""
    estimates: dict[str, dict[str, Any]] = {}
    for (task_name, model), qa_scores in qa.items():
        estimates.setdefault(task_name, {})[model] = summarise_short_qa(qa_scores)
    for (task_name, model), long_scores in long.items():
        estimates.setdefault(task_name, {})[model] = summarise_longform(long_scores, options.suite.f1_k)
    return leaderboard.make_summary(
        suite=options.suite,
        tasks=[TASKS.get(name) for name in options.suite.tasks],
        models=options.models,
        estimates=estimates,
        qa=qa,
        longform=long,
        exclusions=plan.exclusions,
        curve_claims=options.preset.scoring.curve_claims,
        metadata={
            key: manifest[key] for key in ("preset", "variant", "worlds", "comparison", "judge", "backend", "limit")
        }
        | ({"tuned": manifest["tuned"]} if manifest["tuned"] else {}),
        context={key: manifest[key] for key in ("command", "date", "hardware", "version")},
    )


def run_id(options: RunOptions) -> str:
    """The name of the run's folder: the same command continues the same run."""
    return f"{options.suite.name}-{options.preset.preset.name}-{options.fingerprint()[:8]}"


def hardware() -> str:
    """The machine in a few words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    gpus = Counter(gpu.model or "GPU" for gpu in visible_gpus())
    devices = [f"{count} x {name}" for name, count in gpus.items()] + [f"{os.cpu_count()} x {model}"]
    return ", ".join([*devices, platform.system()])


def _manifest(options: RunOptions, plan: Plan, command: str, started: datetime.datetime) -> dict[str, Any]:
    def place(job: Job) -> dict[str, str]:
        return {"label": job.label, "kind": job.kind, "key": job.key, "at": str(job.out)}

    return {
        "fingerprint": options.fingerprint(),
        "version": __version__,
        "command": command,
        "date": started.date().isoformat(),
        "started": started.isoformat(timespec="seconds"),
        "hardware": hardware(),
        "python": platform.python_version(),
        "suite": options.suite.name,
        "preset": options.preset.preset.name,
        "variant": options.preset.source.world.get("variant", ""),
        "settings": options.preset.model_dump(mode="json"),
        "models": [model.describe() for model in options.models],
        "worlds": options.worlds,
        "seeds": {"seed": options.seed, "base": options.base_seed, "training": options.training_seed},
        "limit": options.limit,
        "comparison": options.comparison,
        "tuned": tuning.describe(options.settings),
        "teacher": options.teacher,
        "judge": options.judge,
        "backend": options.backend,
        "trust_remote_code": options.trust_remote_code,
        "sources": list(plan.sources),
        "bases": list(plan.bases),
        "jobs": [place(job) for job in plan.jobs],
        "job_counts": dict(Counter(job.kind for job in plan.jobs)),
        "exclusions": [
            {"task": task, "model": model, "reason": reason} for (task, model), reason in plan.exclusions.items()
        ],
    }
