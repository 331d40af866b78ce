"""Which GPUs a job needs, which there are, and how the workers of one machine share them.

Nothing here loads torch: the process that hands out GPUs must not hold one itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.jobs import JUDGES_IN_PROCESS, Generate, Job, PretrainBase, Score, TrainAdapter


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: what CUDA_VISIBLE_DEVICES calls it, its memory in bytes (None: not known) and its maker's name."""

    name: str
    memory: int | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Workers with GPUs of their own, by their value of CUDA_VISIBLE_DEVICES, and workers that see none.

    Without GPUs all jobs are for the latter. `at_a_time` is the most jobs that run in both together.
    """

    devices: tuple[str, ...]
    others: int
    at_a_time: int


def gpus_needed(job: Job, memory: int | None = None) -> int:
    """How many GPUs a job uses where there are some, each of so many bytes (None: not known).

    What trains a model or asks one in its own process needs one, an engine as many as it spreads the base over.
    """
    from harness.sampling import JudgeSamples

    match job.payload:
        case TrainAdapter(launch=launch):
            return launch.processes if launch else 1
        case PretrainBase():
            return 1
        case Generate(backend=backend, base=base, engine=engine):
            return _backend(backend, base, engine, memory)
        case JudgeSamples(judging=judging, judges=judges) if judging.measure in ("match", "fs"):
            return _judge(judges.judge) if judging.measure == "fs" else 0
        case JudgeSamples(backend=backend, base=base, engine=engine):
            return _backend(backend, base, engine, memory)
        case Score(judge=judge):
            return _judge(judge)
        case _:
            return 0


def _judge(name: str) -> int:
    return int(name.partition(":")[0] in JUDGES_IN_PROCESS)


def _backend(name: str, base: str, engine: Mapping[str, Any], memory: int | None) -> int:
    if name != "vllm":
        return 0 if name == "openai" else 1
    from harness.backends.vllm import ROOM, EngineSettings

    settings = EngineSettings(**engine)
    if settings.tensor_parallel is not None:
        return settings.tensor_parallel
    weights = sum(path.stat().st_size for path in Path(base).glob("*.safetensors"))
    return fewest(weights * ROOM, memory and memory * settings.memory_share)


def fewest(needed: float, memory: float | None) -> int:
    """As few GPUs, a power of two of them, as hold so many bytes; one where the memory of each is not known."""
    count = 1
    while memory and needed > memory * count:
        count *= 2
    return count


def lay_out(needs: Sequence[int], gpus: Sequence[str], cores: int, workers: int | None = None) -> Layout:
    """The workers for jobs that each need so many GPUs.

    Every worker gets as many GPUs as the most that a job needs, so that any of them can do any job; GPUs are shared
    only where more workers are asked for than there are GPUs for. Jobs that need none run beside them on the cores
    that are left. Raises UserError where a job needs more GPUs than there are.
    """
    most = max(needs, default=0)
    if not gpus or not most:
        return Layout((), workers or cores, workers or cores)
    if most > len(gpus):
        raise UserError(too_few(most, len(gpus), "this machine has"))
    shares = [",".join(gpus[start : start + most]) for start in range(0, len(gpus) - most + 1, most)]
    devices = tuple(shares[worker % len(shares)] for worker in range(workers or len(shares)))
    others = workers or max(1, cores - len(devices))
    return Layout(devices, others, workers or len(devices) + others)


def too_few(needed: int, there: int, where: str) -> str:
    """The message for a job that needs more GPUs than it can be given."""
    return (
        f"a job needs {needed} GPUs and {where} {there}; "
        "lower tensor_parallel in [generation.engine] or processes in [training] of the preset, or leave it out"
    )


def visible_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that this process may use; none where torch is a build for processors.

    CUDA_VISIBLE_DEVICES decides where it is set, as it does for CUDA itself: what stands behind a -1 is not seen.
    """
    try:
        if "+cpu" in metadata.version("torch"):
            return []
    except metadata.PackageNotFoundError:
        return []
    there = _nvidia_smi()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return there
    names = [name.strip() for name in chosen.split(",")]
    end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    known = {gpu.name: gpu for gpu in there}
    return [known.get(name, Gpu(name)) for name in names[:end]] if there else []


def _nvidia_smi() -> list[Gpu]:
    """The driver's own list, by index; empty where there is no driver, or none that answers."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index,memory.total,name", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(listing: str) -> list[Gpu]:
    """GPUs from lines `index, MiB, name`; the memory of some devices is not told (`[N/A]`)."""
    gpus = []
    for line in listing.splitlines():
        index, memory, model = (part.strip() for part in f"{line},,".split(",")[:3])
        if index.isdigit():
            gpus.append(Gpu(index, int(memory) * 2**20 if memory.isdigit() else None, model))
    return gpus
