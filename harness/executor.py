"""Runs jobs, each when what it needs is there: which may start, in what order, and what a failure costs.

Where they run is a pool's business: processes of this machine (`executor_processes`), or tasks of Ray
(`executor_ray`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from filelock import FileLock

from harness.errors import Problems, UserError
from harness.jobs import Job

Listener = Callable[["Event"], None]
REPORT_SECONDS = 0.2
EXECUTORS = ("processes", "ray")


@dataclass(frozen=True)
class Event:
    """Something happened to a job. `state` is started, progress, done, cached, failed or skipped."""

    job: str
    state: str
    done: int = 0
    total: int = 0
    remark: str = ""
    seconds: float = 0.0


class JobsFailed(Problems):
    """Some jobs have no result. `reasons` says why, by job: its own failure, or that of a job it needs."""

    def __init__(self, failures: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        super().__init__(failures.values())
        self.reasons = dict(reasons)


class Pool(Protocol):
    """Where jobs run, beside each other and in other processes than this."""

    def has_room(self, job: Job) -> bool:
        """Whether the job would run at once; a pool that runs nothing has room for any."""

    def start(self, job: Job) -> None:
        """Run the job by `run_job`."""

    def wait(self, seconds: float) -> list[Event]:
        """What happened meanwhile; returns when a job has ended, or after so many seconds.

        Every job ends in one event, done or failed. A job whose process died is tried again first.
        """

    def close(self) -> None:
        """End the processes; what they had begun is taken up by the next run."""


def check_executor(name: str) -> None:
    """Raises UserError where there is no such executor, or where it is not installed."""
    if name not in EXECUTORS:
        raise UserError(f"--executor: '{name}' is not one of {', '.join(EXECUTORS)}")
    if name == "ray":
        from harness.executor_ray import check_installed

        check_installed()


def run_jobs(jobs: Iterable[Job], workers: int | None, listen: Listener, executor: str = "processes") -> None:
    """Run the jobs that are not done yet, at most `workers` at a time; returns when all are.

    `None` workers are as many as the pool has cores and GPUs for. When a job fails, the jobs that need it are
    skipped and the others still run, so that nothing already begun is lost; then JobsFailed is raised with every
    failure. Raises UserError where the executor cannot be used.
    """
    by_key = {job.key: job for job in jobs}
    for job in by_key.values():
        if job.done():
            listen(Event(job.key, "cached"))
    waiting = {key: job for key, job in by_key.items() if not job.done()}
    if not waiting:
        return
    height = _heights(by_key)
    failures: dict[str, str] = {}
    reasons: dict[str, str] = {}
    running: set[str] = set()
    pool = _open(executor, tuple(waiting.values()), workers)
    try:
        while waiting or running:
            for job in sorted(waiting.values(), key=lambda job: -height[job.key]):
                if lost := [reasons[need] for need in job.needs if need in reasons]:
                    reasons[job.key] = lost[0]
                    listen(Event(waiting.pop(job.key).key, "skipped"))
                elif not any(need in waiting or need in running for need in job.needs) and pool.has_room(job):
                    running.add(waiting.pop(job.key).key)
                    pool.start(job)
            for event in pool.wait(REPORT_SECONDS):
                if event.state in ("done", "failed"):
                    running.remove(event.job)
                if event.state == "failed":
                    failures[event.job] = reasons[event.job] = f"{by_key[event.job].label}: {event.remark}"
                listen(event)
    finally:
        pool.close()
    if failures:
        raise JobsFailed(failures, reasons)


def run_job(job: Job, tell: Listener) -> Event:
    """Run a job in this process and return how it ended; `tell` hears of its progress.

    A lock keeps two runs from doing the same job. It is the kernel's (flock) and goes with the process that holds
    it. An exception of the job is its end, in words: not every exception survives the way to another process.
    """
    last = 0.0

    def report(done: int, total: int, remark: str) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            tell(Event(job.key, "progress", done, total, remark))

    start = time.monotonic()
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(job.out.with_name(f".{job.out.name}.lock")):
            if not job.done():
                tell(Event(job.key, "started"))
                job.payload.run(job.out, report)
    except Exception as error:
        return Event(job.key, "failed", remark=describe(error), seconds=time.monotonic() - start)
    return Event(job.key, "done", seconds=time.monotonic() - start)


def describe(error: BaseException) -> str:
    """An exception in words."""
    return f"{type(error).__name__}: {error}"


def worker_defaults() -> None:
    """Settings that libraries read when a worker loads them, where they are not set."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads fight over a core
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")  # see train.hardware.keep_kernels
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # workers' own bars would tear the display


def _open(executor: str, jobs: Sequence[Job], workers: int | None) -> Pool:
    check_executor(executor)
    worker_defaults()
    if executor == "ray":
        from harness.executor_ray import RayPool

        return RayPool(jobs, workers)
    from harness.executor_processes import ProcessPool

    return ProcessPool(jobs, workers)


def _heights(jobs: dict[str, Job]) -> dict[str, int]:
    """The length of the longest chain of jobs that wait for each job; long chains go first."""
    height = dict.fromkeys(jobs, 0)
    for _ in jobs:
        changed = False
        for job in jobs.values():
            for need in job.needs:
                if need in height and height[need] < height[job.key] + 1:
                    height[need] = height[job.key] + 1
                    changed = True
        if not changed:
            break
    return height
