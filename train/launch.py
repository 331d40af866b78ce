"""One stage in processes of its own on this machine, several of them started by `accelerate launch`.

`launch_stage` does what `run_stage` does. It writes the stage and its folders to a JSON file, starts the processes on
it (`python -m train.launch FILE` in each) and reads from their output how far they are. What only decided the stage's
fingerprint does not cross over: the fingerprint does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from train.plan import StageError
from train.rows import Example, plain
from train.run import Kernels, StageReport, run_stage
from train.sampling import Preference
from train.stages import Recipe, Stage
from train.template import PromptTemplate

LAUNCHED = ("knowledge", "sft", "skill_mixed", "skill_multi_version")
"""The kinds of stages that can be launched. Others rest on samples that one process holds."""

PROGRESS = "stage progress: "
FAULT_FILE = "fault.txt"
SHOWN_LINES = 30
# Stages of which only these matter, because their adapters are there already.
_NEED_FIELDS = ("name", "kind", "seed", "format", "fake", "version")


@dataclass(frozen=True, slots=True)
class Launch:
    """How many processes train a stage together, one a GPU, and the file that tells accelerate how.

    The file is one of `accelerate config` (`configs/accelerate` has some); without one it is DDP. `kernels` are those
    of `run_stage`: Liger's replace functions of transformers for the whole process, so they get one of their own.
    """

    processes: int = 1
    config_file: str | None = None
    kernels: Kernels = "torch"


@dataclass(frozen=True, kw_only=True)
class _Sent(Stage):
    """A stage as it arrives, with the fingerprint that it had where it was described in full."""

    told: str

    def fingerprint(self, base_fingerprint: str) -> str:
        return self.told


def launch_stage(
    stage: Stage,
    launch: Launch,
    *,
    base_dir: Path,
    adapter_dirs: Mapping[str, Path],
    out_dir: Path,
    base_fingerprint: str,
    checkpoint_dir: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> StageReport:
    """Train the adapter of `stage` in several processes; the arguments are those of `run_stage`.

    Raises StageError, with what the first process to fail said, where one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "stage.json")
        content = {
            "stage": stage_to_json(stage, base_fingerprint),
            "base_dir": str(base_dir.absolute()),
            "adapter_dirs": {print_: str(path.absolute()) for print_, path in adapter_dirs.items()},
            "out_dir": str(out_dir.absolute()),
            "base_fingerprint": base_fingerprint,
            "checkpoint_dir": str(checkpoint_dir.absolute()) if checkpoint_dir else None,
            "kernels": launch.kernels,
            "parent": os.getpid(),
        }
        job.write_text(json.dumps(content), encoding="utf-8")
        ended, said = _run(_command(launch, job), progress)
        if ended:
            fault = job.with_name(FAULT_FILE)
            told = fault.read_text(encoding="utf-8") if fault.is_file() else "\n".join(said)
            raise StageError(f"stage {stage.name!r} in {launch.processes} processes: {told}")
    return run_stage(
        stage, base_dir=base_dir, adapter_dirs=adapter_dirs, out_dir=out_dir, base_fingerprint=base_fingerprint
    )


def stage_to_json(stage: Stage, base_fingerprint: str) -> dict[str, Any]:
    """A stage that is filled in, as JSON values; of the stages that it needs, what tells them apart."""
    own = {
        f.name: plain(getattr(stage, f.name))
        for f in fields(Stage)
        if f.name not in ("needs", "start", "verifier", "derived", "rollouts")
    }
    needs = [
        {name: getattr(need, name) for name in _NEED_FIELDS} | {"told": need.fingerprint(base_fingerprint)}
        for need in stage.needs
    ]
    return own | {"needs": needs, "told": stage.fingerprint(base_fingerprint)}


def stage_from_json(content: Mapping[str, Any]) -> Stage:
    """The stage that `stage_to_json` described, as far as training goes."""
    recipe = content["recipe"] | {"target_modules": tuple(content["recipe"]["target_modules"])}
    read = {
        "recipe": Recipe(**recipe),
        "template": PromptTemplate(**content["template"]),
        "examples": tuple(_example(row) for row in content["examples"]),
        "pairs": tuple(Preference(**pair | {"example": _example(pair["example"])}) for pair in content["pairs"]),
        "texts": tuple(content["texts"]),
        "needs": tuple(_Sent(**need, recipe=Recipe()) for need in content["needs"]),
    }
    return _Sent(**{**content, **read})


def _example(row: Mapping[str, Any]) -> Example:
    return Example(**{**row, "answers": tuple(row["answers"])})


def _command(launch: Launch, job: Path) -> list[str]:
    module = ["-m", "train.launch", str(job)]
    if launch.processes == 1:
        return [sys.executable, *module]
    settings = ["--config_file", launch.config_file] if launch.config_file else ["--multi_gpu"]
    settings += ["--num_processes", str(launch.processes), "--num_machines", "1", "--main_process_port", "0"]
    if not launch.config_file:
        settings += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *settings, *module]


def _run(command: list[str], progress: Callable[[int, int, float], None] | None) -> tuple[int, list[str]]:
    """Run the processes to their end; their status and the last lines that they wrote."""
    said: deque[str] = deque(maxlen=SHOWN_LINES)
    root = str(Path(__file__).parent.parent)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    # Threads of several processes would fight over the cores.
    environ.setdefault("OMP_NUM_THREADS", "1")
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as processes:
        assert processes.stdout is not None
        try:
            for line in processes.stdout:
                if line.startswith(PROGRESS):
                    update, updates, loss = json.loads(line.removeprefix(PROGRESS))
                    if progress:
                        progress(update, updates, loss)
                else:
                    said.append(line.rstrip())
        except BaseException:
            processes.terminate()
            raise
    return processes.returncode, list(said)


def main(job: Path) -> None:
    """What each process does."""
    content = json.loads(job.read_text(encoding="utf-8"))
    _leave_with(content["parent"])
    try:
        run_stage(
            stage_from_json(content["stage"]),
            base_dir=Path(content["base_dir"]),
            adapter_dirs={print_: Path(path) for print_, path in content["adapter_dirs"].items()},
            out_dir=Path(content["out_dir"]),
            base_fingerprint=content["base_fingerprint"],
            checkpoint_dir=Path(content["checkpoint_dir"]) if content["checkpoint_dir"] else None,
            progress=lambda *done: print(PROGRESS + json.dumps(done), flush=True),
            kernels=content["kernels"],
        )
    except Exception as error:
        # The first to fail says why; others fail because it is gone.
        with suppress(FileExistsError), job.with_name(FAULT_FILE).open("x", encoding="utf-8") as file:
            file.write(f"{type(error).__name__}: {error}")
        raise


def _leave_with(parent: int) -> None:
    """End this process when the one that launched the stage is gone: nobody waits for the result."""

    def watch() -> None:
        while True:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(1)
            except PermissionError:
                return
            time.sleep(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
