"""The trials of `--tune`: every method at every setting of the grid, tried on the first world's validation entities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from harness import tuning
from harness.cells import read_cells
from harness.executor import Event, JobsFailed, run_jobs
from harness.metrics.summary import Metric, S, longform_metrics, short_qa_metrics
from harness.plan import Plan, plan_run
from harness.registry import METHODS, TASKS, Suite
from harness.run_options import RunOptions
from harness.store import RunFolder


def tune(
    options: RunOptions,
    folder: RunFolder,
    listen: Callable[[Event], None],
    announce: Callable[[Plan], None],
    workers: int | None,
    executor: str,
) -> RunOptions:
    """Spend every method's tuning budget; the options with the settings that were best.

    `tuning.json` in the run folder records every trial. A trial that failed is no candidate, and its reason stands
    there; a method without any keeps the preset's recipe.
    """
    plans = [(setting, plan_run(trial)) for setting, trial in trial_runs(options)]
    jobs = {job.key: job for _, plan in plans for job in plan.jobs}
    announce(replace(plans[0][1], jobs=tuple(jobs.values())))
    failures: tuple[str, ...] = ()
    try:
        run_jobs(jobs.values(), workers, listen, executor)
    except JobsFailed as error:
        failures = error.problems
    trials = [trial for setting, plan in plans for trial in _trials(plan, setting, options)]
    chosen = tuning.best(trials)
    record = {"trials": [asdict(trial) for trial in trials], "chosen": tuning.describe(chosen)}
    folder.json("tuning.json", record | ({"failures": list(failures)} if failures else {}))
    return replace(options, settings=chosen)


def trial_runs(options: RunOptions) -> list[tuple[tuning.Setting, RunOptions]]:
    """What is run for each setting of the grid: every method that tunes anything, on what the suite trains for."""
    trained = {TASKS.get(name).trained_on or name for name in options.suite.tasks}
    suite = replace(options.suite, tasks=tuple(name for name in TASKS.names() if name in trained))
    models = tuple(m for m in options.models if m.method and m.knowledge is None and METHODS.get(m.method).tunes)
    tuned = [(task, str(model.method)) for task in suite.tasks for model in models]
    trial = replace(options, suite=suite, models=models, worlds=1, split="validation", limit=None, tune=False)
    grid = tuning.grid(options.preset.tuning.learning_rate, options.preset.tuning.epochs)
    return [(setting, replace(trial, settings=dict.fromkeys(tuned, setting))) for setting in grid]


def _trials(plan: Plan, setting: tuning.Setting, options: RunOptions) -> list[tuning.Trial]:
    done = [cell for cell in plan.cells if cell.done()]
    _, _, qa, long = read_cells(done, options.preset.prompt_template().separator)
    method = {model.name: model.method or model.name for model in options.models}
    trials = []
    for (task, model), scores in qa.items():
        value = _headline(short_qa_metrics(), options.suite, task).estimate(scores).value or 0.0
        trials.append(tuning.Trial(task, method[model], setting, value, 0.0, len(scores)))
    for (task, model), answers in long.items():
        value = _headline(longform_metrics(), options.suite, task).estimate(answers).value or 0.0
        claims = sum(len(answer.verdicts) for answer in answers) / len(answers)
        trials.append(tuning.Trial(task, method[model], setting, value, claims, len(answers)))
    return trials


def _headline(metrics: Sequence[Metric[S]], suite: Suite, task: str) -> Metric[S]:
    """The suite's headline; accuracy where that is of a task that only tests, as `accuracy[V1]` is."""
    known = {metric.name: metric for metric in metrics}
    return known.get(suite.headline_of(task), known["accuracy"])
