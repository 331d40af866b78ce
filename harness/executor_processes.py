"""Jobs in processes of this machine: one a core, or one a GPU where there are some."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from harness.executor import Event, describe, run_job
from harness.jobs import Job
from harness.layout import gpus_needed, lay_out, visible_gpus

# A job whose process died is begun again so often. It goes on where it was, and a lack of memory may be over.
RETRIES = 1
DIED = "its worker process died (out of memory?); start the same command again"

_events: Any = None  # the worker's end of the event queue


def _start_worker(events: Any, devices: Any, parent: int) -> None:
    """Make this process a worker: it sees the GPUs that it takes from `devices`, and leaves with its parent."""
    global _events
    _events = events
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()  # read when torch first asks for a GPU

    def leave_with_parent() -> None:
        # A parent that was killed cannot stop its workers; they must not go on writing beside its successor's.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _run(job: Job) -> Event:
    return run_job(job, _events.put)


class ProcessPool:
    """Workers that keep what they have loaded, so that jobs which follow each other share a model."""

    def __init__(self, jobs: Sequence[Job], workers: int | None) -> None:
        """Lay workers out for these jobs. Raises UserError where a job needs more GPUs than there are."""
        gpus = visible_gpus()
        memory = min((gpu.memory for gpu in gpus if gpu.memory), default=None)
        self._needs = {job.key: gpus_needed(job, memory) if gpus else 0 for job in jobs}
        layout = lay_out(list(self._needs.values()), [gpu.name for gpu in gpus], os.cpu_count() or 1, workers)
        self._at_a_time = layout.at_a_time
        on_gpus = sum(need > 0 for need in self._needs.values())
        self._gpus = _Lane(min(len(layout.devices), on_gpus), layout.devices)
        others = min(layout.others, len(jobs) - on_gpus)
        self._others = _Lane(others, ("",) * others if gpus else None)

    def has_room(self, job: Job) -> bool:
        """Whether the job would run at once."""
        lane = self._lane(job)
        return lane.has_room() and len(self._gpus.running) + len(self._others.running) < self._at_a_time

    def start(self, job: Job) -> None:
        """Give the job to a worker that sees the GPUs it needs."""
        self._lane(job).start(job)

    def wait(self, seconds: float) -> list[Event]:
        """What happened; a job whose process died is begun again once, with those beside it that it took along."""
        wait([*self._gpus.running, *self._others.running], timeout=seconds, return_when=FIRST_COMPLETED)
        return self._gpus.happened() + self._others.happened()

    def close(self) -> None:
        """Let workers end after what they are at."""
        self._gpus.close()
        self._others.close()

    def _lane(self, job: Job) -> _Lane:
        return self._gpus if self._needs[job.key] else self._others


class _Lane:
    """Workers that are alike but for their GPUs."""

    def __init__(self, workers: int, devices: Sequence[str] | None) -> None:
        """`devices` are the values of CUDA_VISIBLE_DEVICES, one a worker; None leaves it as it is."""
        self._workers = workers
        self._devices = devices
        self._died: Counter[str] = Counter()
        self._made: _Processes | None = None
        self.running: dict[Future[Event], Job] = {}

    def has_room(self) -> bool:
        return len(self.running) < self._workers

    def start(self, job: Job) -> None:
        self._made = self._made or _Processes.spawn(self._workers, self._devices)
        try:
            future = self._made.pool.submit(_run, job)
        except BrokenProcessPool as error:  # a worker died since we looked
            future = Future()
            future.set_exception(error)
        self.running[future] = job

    def happened(self) -> list[Event]:
        found: list[Event] = []
        while self._made is not None and not self._made.events.empty():
            found.append(self._made.events.get())
        broken: list[Job] = []
        for future in [future for future in self.running if future.done()]:
            job = self.running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                broken.append(job)
            else:
                found.append(Event(job.key, "failed", remark=describe(error)) if error else future.result())
        if broken:
            found += self._begin_again(broken)
        return found

    def _begin_again(self, jobs: list[Job]) -> list[Event]:
        """Other workers for jobs whose own are gone: with one of them, a pool ends all."""
        jobs += self.running.values()
        self.running.clear()
        self.close()
        self._died.update(job.key for job in jobs)
        for job in jobs:
            if self._died[job.key] <= RETRIES:
                self.start(job)
        return [Event(job.key, "failed", remark=DIED) for job in jobs if self._died[job.key] > RETRIES]

    def close(self) -> None:
        if self._made is not None:
            self._made.pool.shutdown(wait=False, cancel_futures=True)
            self._made = None


@dataclass(frozen=True)
class _Processes:
    """Worker processes and the queue of what they tell."""

    pool: ProcessPoolExecutor
    events: Any

    @classmethod
    def spawn(cls, workers: int, devices: Sequence[str] | None) -> _Processes:
        """Spawned, not forked: a child must not inherit what torch and its threads hold."""
        context = multiprocessing.get_context("spawn")
        events = context.Queue()
        free = context.Queue() if devices is not None else None
        for device in (devices or ())[:workers]:
            if free is not None:
                free.put(device)
        return cls(ProcessPoolExecutor(workers, context, _start_worker, (events, free, os.getpid())), events)
