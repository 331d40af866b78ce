"""What a run needs beside its words: base, data, knowledge source, judge and teacher, each tried apart from the others.

A plan stops at the first thing that is not there. Here the others are looked at as well, so that a user mends all of
them in one go. Nothing is trained or asked, and no weights are fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from harness.bases import look_for_base, make_source, teacher_of
from harness.data.hub import at_once
from harness.data.source import Source
from harness.errors import Problems, UserError
from harness.paths import home
from harness.records import Split
from harness.registry import JUDGES, TASKS, Task
from harness.run_options import RunOptions


def tried(*attempts: Callable[[], object]) -> list[str]:
    """What is wrong with each of them, every problem once."""
    problems: list[str] = []
    for attempt in attempts:
        try:
            attempt()
        except Problems as error:
            problems += error.problems
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def needs_judge(options: RunOptions) -> bool:
    """Whether one of the suite's tasks has long answers, whose claims are judged."""
    return any(task.metric == "longform" for task in _tasks(options))


def unasked(options: RunOptions, judged: bool) -> list[str]:
    """What keeps the judge (where answers are `judged`) or the teacher behind an endpoint from being asked.

    As far as it can be told without asking.
    """
    from factscore_mod.judges import JudgeError, JudgeOptions, make_engine

    problems = []
    for option, name in (("--judge", options.judge if judged else ""), ("--teacher", options.teacher)):
        if name and name.startswith("openai:"):
            try:
                make_engine(name, JudgeOptions())
            except JudgeError as error:
                problems.append(f"{option} {name}: {error}")
    return problems


def lacking(options: RunOptions) -> list[str]:
    """What of the base, the judge, the teacher, the data and the knowledge sources is not there or is malformed."""
    attempts: list[Callable[[], object]] = []
    if options.base is not None or options.preset.base.kind == "pretrained":
        attempts += [partial(look_for_base, options)] if not all(model.served for model in options.models) else []
    attempts += [partial(look_for_base, replace(options, base=model.base)) for model in options.models if model.base]
    attempts += [partial(_judge, options), partial(_teacher, options)]
    # A folder that is none was named with the words of the command, and there is nothing to read.
    if options.data is None or options.data.is_dir():
        attempts.append(partial(_data, options))
    return tried(*attempts)


def _tasks(options: RunOptions) -> list[Task]:
    known = TASKS.names()
    return [TASKS.get(name) for name in options.suite.tasks if name in known]


def _judge(options: RunOptions) -> None:
    from factscore_mod.judges import JudgeError, make_judge
    from factscore_mod.profiles import get_profile

    kind = options.judge.partition(":")[0]
    # Endpoints are looked at by `unasked`, and an unknown name by whoever read the words of the command.
    if kind in JUDGES and not options.judge.startswith("openai:") and needs_judge(options):
        try:
            make_judge(options.judge, profile=get_profile(options.preset.scoring.profile))
        except JudgeError as error:
            raise UserError(f"--judge {options.judge}: {error}") from error


def _teacher(options: RunOptions) -> None:
    if options.teacher is None:
        return
    if options.teacher.startswith("file:"):
        teacher_of(options, 0)
    elif not options.teacher.startswith("openai:"):
        look_for_base(replace(options, base=options.teacher), "--teacher")


def _data(options: RunOptions) -> None:
    source = make_source(options, 0)
    with at_once():
        problems = tried(*(partial(_of_task, options, source, task) for task in _tasks(options)))
    if problems:
        raise Problems(problems)


def _of_task(options: RunOptions, source: Source, task: Task) -> None:
    """The rows of a task and of what its models are trained on, and its knowledge source, tried apart."""
    rows = tried(partial(source.rows, task.name, options.split))
    attempts: list[Callable[[], object]] = []
    if not rows:
        if not source.rows(task.name, options.split):
            return  # the task is left out of the run
        trained = task.trained_on or task.name
        splits: tuple[Split, ...] = ("train", "fictitious", "validation")
        attempts += [partial(source.rows, trained, split) for split in splits]
        attempts.append(partial(source.knowledge_sets, trained))
    # Without a folder, public sets have neither the rows of long-form tasks nor what these are verified against.
    said = bool(rows) and options.data is None and options.preset.source.kind == "real"
    if task.metric == "longform" and not said:
        attempts.append(partial(source.knowledge_source, task.name, home()))
    if problems := [*rows, *tried(*attempts)]:
        raise Problems(problems)
