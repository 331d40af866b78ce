"""Runs jobs in worker processes, as many at a time as there are cores, each when what it needs is there."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from filelock import FileLock

from harness.errors import Problems
from harness.jobs import Job

Listener = Callable[["Event"], None]
REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Event:
    """Something happened to a job. `state` is started, progress, done, cached, failed or skipped."""

    job: str
    state: str
    done: int = 0
    total: int = 0
    remark: str = ""
    seconds: float = 0.0


_events: Any = None  # the worker's end of the event queue


def _start_worker(events: Any, parent: int) -> None:
    global _events
    _events = events

    def leave_with_parent() -> None:
        # A parent that was killed cannot stop its workers; they must not go on writing beside its successor's.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _run(job: Job) -> float:
    """Run a job in this worker; returns the seconds it took. A lock keeps two runs from doing the same job."""
    last = 0.0

    def report(done: int, total: int, remark: str) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            _events.put(Event(job.key, "progress", done, total, remark))

    job.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with FileLock(job.out.with_name(f".{job.out.name}.lock")):
        if not job.done():
            _events.put(Event(job.key, "started"))
            job.payload.run(job.out, report)
    return time.monotonic() - start


def run_jobs(jobs: Iterable[Job], workers: int, listen: Listener) -> None:
    """Run the jobs that are not done yet; returns when all are.

    When a job fails, the jobs that need it are skipped and the others still run, so that nothing already begun
    is lost; then Problems is raised with every failure.
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

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a worker loads torch; two threads fight over a core
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # workers' own bars would tear the display
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    pool = ProcessPoolExecutor(
        min(workers, len(waiting)), mp_context=context, initializer=_start_worker, initargs=(events, os.getpid())
    )
    running: dict[Future[float], Job] = {}
    try:
        while waiting or running:
            for job in sorted(waiting.values(), key=lambda job: -height[job.key]):
                if any(need in failures for need in job.needs):
                    failures[job.key] = ""
                    listen(Event(waiting.pop(job.key).key, "skipped"))
                elif len(running) < workers and all(
                    need not in waiting and need not in {other.key for other in running.values()} for need in job.needs
                ):
                    running[pool.submit(_run, waiting.pop(job.key))] = job
            finished, _ = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_COMPLETED)
            while not events.empty():
                listen(events.get())
            for future in finished:
                job = running.pop(future)
                try:
                    listen(Event(job.key, "done", seconds=future.result()))
                except BrokenProcessPool as error:
                    raise Problems(
                        [f"{job.label}: its worker process died (out of memory?); start the same command again"]
                    ) from error
                except Exception as error:
                    failures[job.key] = f"{job.label}: {type(error).__name__}: {error}"
                    listen(Event(job.key, "failed", remark=str(error)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        raise Problems(message for message in failures.values() if message)


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
