"""Jobs as tasks of Ray: on this machine, or on the cluster that RAY_ADDRESS names.

Ray places a job where its GPUs are free, in a process that sees no others, and runs it again elsewhere where its
process or its machine died. Machines share HARNESS_HOME, through which jobs find each other's results.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import Problems, UserError
from harness.executor import Event, describe, run_job
from harness.jobs import Generate, Job
from harness.layout import gpus_needed, too_few
from harness.paths import home

REMEDY = "pip install -c constraints.txt -e '.[ray]'"
# A job whose process or machine died is begun again so often.
RETRIES = 2
# What goes over to another machine's processes of what is set here.
HANDED_OVER = (
    "HARNESS_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "TOKENIZERS_", "NLTK_", "OPENAI_", "VLLM_", "OMP_", "TORCH_",
    "XDG_CACHE_HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_",
    "REQUESTS_CA_BUNDLE",
)  # fmt: skip
STORE_BYTES = 256 * 2**20  # results are files; through Ray's store pass prompts and rows
ARRIVAL_SECONDS = 90  # network file systems may show another machine's file so much later


def check_installed() -> None:
    """Raises UserError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError(f"--executor ray: Ray is not installed: {REMEDY}, or leave --executor out")


@dataclass(frozen=True)
class _Place:
    """What a worker takes over from the process that handed it a job.

    It goes with the job and not as a runtime environment, which Ray writes to its logs, keys and all.
    """

    environment: Mapping[str, str]
    folder: str
    node: str
    cache: Path


def _run(job: Job, place: _Place, events: Any) -> Event:
    """Run a job in this process of Ray's."""
    import ray

    os.environ.update(place.environment)
    with contextlib.suppress(OSError):
        os.chdir(place.folder)  # paths may be relative to it
    here = ray.get_runtime_context().get_node_id()
    if here != place.node:
        job = replace(job, payload=_swapped(job.payload, place.cache, _cache_of(here, place.cache)))
    return run_job(job, lambda event: events.put.remote(event))


def _cache_of(node: str, cache: Path) -> Path:
    """The reply cache of another machine: SQLite's log cannot be shared over a network file system."""
    return cache.with_name(f"{cache.stem}-{node[:12]}{cache.suffix}")


def _swapped(value: Any, old: Path, new: Path) -> Any:
    """A dataclass with one path in place of another, at whatever depth."""
    if value == old:
        return new
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {
        f.name: other
        for f in fields(value)
        if (other := _swapped(getattr(value, f.name), old, new)) is not getattr(value, f.name)
    }
    return replace(value, **changed) if changed else value


class _Events:
    """Holds what jobs tell until it is asked for."""

    def __init__(self) -> None:
        self._told: list[Event] = []

    def put(self, event: Event) -> None:
        self._told.append(event)

    def drain(self) -> list[Event]:
        told, self._told = self._told, []
        return told


class RayPool:
    """Tasks in a cluster's processes, as many at a time as it has cores and GPUs for."""

    def __init__(self, jobs: Sequence[Job], workers: int | None) -> None:
        """Connect, or start Ray on this machine. Raises UserError where that, or a job, is not possible there."""
        import ray

        self._running: dict[Any, tuple[Job, int]] = {}
        with contextlib.ExitStack() as stack:
            # Ray tells of workers that died on standard output, which is for results.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            if ray.is_initialized():
                stack.callback(self._cancel)
            else:
                stack.callback(ray.shutdown)  # with it end the tasks, and a Ray that was started here
                connect()
            self._begin(jobs, workers)
            self._end = stack.pop_all()

    def _begin(self, jobs: Sequence[Job], workers: int | None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._workers = workers
        nodes = [node for node in ray.nodes() if node["Alive"]]
        most = max((int(node["Resources"].get("GPU", 0)) for node in nodes), default=0)
        self._needs = {job.key: gpus_needed(job) if most else 0 for job in jobs}
        needed = max(self._needs.values(), default=0)
        if needed > most:
            raise UserError(too_few(needed, most, "the largest machine of the Ray cluster has"))
        node = ray.get_runtime_context().get_node_id()
        self._here = NodeAffinitySchedulingStrategy(node, soft=False)
        if len(nodes) > 1:
            _check_home([node["NodeID"] for node in nodes])
        environment = {name: value for name, value in os.environ.items() if name.startswith(HANDED_OVER)}
        environment["HARNESS_HOME"] = str(home().absolute())
        place = _Place(environment, str(Path.cwd()), node, home() / "judge_cache.sqlite")
        self._place = ray.put(place)
        self._events: Any = ray.remote(_Events).options(num_cpus=0, scheduling_strategy=self._here).remote()
        self._task = ray.remote(_run)
        # Jobs without GPUs get processes of their own: one that has once looked and found none would find none later.
        self._blind = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if most else None
        self._count()

    def _count(self) -> None:
        """What the cluster has now; machines come and go."""
        import ray

        there = ray.cluster_resources()
        self._cores, self._gpus = max(1, int(there.get("CPU", 0))), int(there.get("GPU", 0))

    def has_room(self, job: Job) -> bool:
        """Whether the cluster has cores and GPUs for one more, as far as its own jobs go."""
        if not self._running:
            return True
        used = sum(gpus for _, gpus in self._running.values())
        there = len(self._running) < (self._workers or self._cores)
        return there and (not self._needs[job.key] or used + self._needs[job.key] <= self._gpus)

    def start(self, job: Job) -> None:
        """Hand the job to Ray with what it needs."""
        gpus = self._needs[job.key]
        # Served models are asked from one machine: through one cache, and within one limit on requests in flight.
        served = isinstance(job.payload, Generate) and job.payload.backend == "openai"
        task = self._task.options(
            name=job.label, num_cpus=1, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False,
            scheduling_strategy=self._here if served else "DEFAULT", runtime_env=None if gpus else self._blind,
        )  # fmt: skip
        self._running[task.remote(job, self._place, self._events)] = job, gpus

    def wait(self, seconds: float) -> list[Event]:
        """What happened. A job that Ray gave up, after all its retries, has failed."""
        import ray

        if not self._running:
            return []
        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        told: list[Event] = ray.get(self._events.drain.remote())
        for reference in ended:
            job, _ = self._running.pop(reference)
            try:
                event: Event = ray.get(reference)
            except ray.exceptions.RayError as error:
                event = Event(job.key, "failed", remark=_given_up(error))
            told.append(_arrived(job, event))
        self._count()
        return told

    def close(self) -> None:
        """End the tasks; leave the cluster, or end the one started here."""
        self._end.close()

    def _cancel(self) -> None:
        import ray

        for reference in self._running:
            ray.cancel(reference, force=True)


def connect(**local: Any) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine alone, with `local` settings of its own.

    Raises UserError where neither can be done.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address and address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS: {address} is a client's address, and results could not be read from here; "
            "start the command on a machine of the cluster with RAY_ADDRESS=auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if not address:
        # "local" and not Ray's default, which joins whatever cluster was started last on this machine.
        settings |= {"address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES} | local
    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises bare ones, too
        raise UserError(
            f"--executor ray: Ray cannot be used at {address or 'this machine'} ({describe(error).splitlines()[0]}); "
            "unset RAY_ADDRESS to use this machine alone, or start a cluster with `ray start --head` and set "
            "RAY_ADDRESS=auto. Ray gives its processes half a minute to start, so a machine may also be too busy"
        ) from error


def look_for(token: Path) -> str:
    """What keeps this machine from sharing the folder of a file that another machine wrote; empty where it can."""
    if not token.is_file():
        return f"does not see {token.parent} as it is where the command was started"
    if not os.access(token.parent, os.W_OK):
        return f"cannot write to {token.parent}"
    return ""


def _check_home(nodes: Sequence[str]) -> None:
    """Every machine must see this one's HARNESS_HOME; Problems names those that do not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    home().mkdir(parents=True, exist_ok=True)
    token = home().absolute() / f".shared-{uuid.uuid4().hex}"
    token.write_text("")
    look = ray.remote(look_for)
    try:
        answers = {
            node: look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                token
            )
            for node in nodes
        }
        wrong = []
        for node, answer in answers.items():
            try:
                found = ray.get(answer)
            except ray.exceptions.RayError as error:
                found = f"cannot run jobs of this package: {_given_up(error)}"
            if found:
                wrong.append(f"the cluster's machine {_name(node)} {found}")
    finally:
        token.unlink()
    if wrong:
        raise Problems([*wrong, "set HARNESS_HOME to a folder that all machines of the cluster share"])


def _name(node: str) -> str:
    import ray

    return next((str(one["NodeManagerHostname"]) for one in ray.nodes() if one["NodeID"] == node), node)


def _given_up(error: BaseException) -> str:
    """Why Ray gave a job up, in a line; what failed on the way to the job itself is the cause."""
    cause = getattr(error, "cause", None)
    return (describe(cause) if isinstance(cause, BaseException) else describe(error)).strip().splitlines()[0]


def _arrived(job: Job, event: Event) -> Event:
    """The event, once the result of a finished job is seen here, too."""
    until = time.monotonic() + ARRIVAL_SECONDS
    while event.state == "done" and not job.done():
        if time.monotonic() > until:
            missing = f"its result is not at {job.out} here: set HARNESS_HOME to a folder that all machines share"
            return Event(job.key, "failed", remark=missing)
        with contextlib.suppress(OSError):
            os.listdir(job.out.parent)  # noqa: PTH208 - makes network file systems look anew
        time.sleep(0.5)
    return event
