"""Jobs run when what they need is there, once, and a failure costs only what depends on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.executor import Event, JobsFailed, run_jobs
from harness.jobs import Job, Report
from harness.paths import append_lines, read_lines


@dataclass(frozen=True)
class Write:
    """Writes the names of the results it needs and adds a line to a log of all runs."""

    log: Path
    reads: tuple[Path, ...] = ()
    fails: bool = False
    seconds: float = 0.0

    def run(self, out: Path, report: Report) -> None:
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("no luck")
        text = "+".join(path.read_text() for path in self.reads) or out.name
        with self.log.open("a") as file:
            file.write(out.name + "\n")
        report(1, 1, "")
        out.write_text(text)


@dataclass(frozen=True)
class See:
    """Writes which GPUs this process may see, once the job beside it has begun."""

    beside: Path

    def run(self, out: Path, report: Report) -> None:
        out.with_suffix(".mine").write_text("")
        until = time.monotonic() + 60
        while not self.beside.with_suffix(".mine").exists() and time.monotonic() < until:
            time.sleep(0.02)
        out.write_text(os.environ["CUDA_VISIBLE_DEVICES"])


@dataclass(frozen=True)
class Count:
    """Counts to ten and keeps each number; kills its own process half-way, as often as it is told."""

    deaths: int

    def run(self, out: Path, report: Report) -> None:
        part, died = out.with_suffix(".part"), out.with_suffix(".died")
        for number in range(len(list(read_lines(part))), 10):
            append_lines(part, [{"number": number}])
            if number >= 4 and len(list(read_lines(died))) < self.deaths:
                append_lines(died, [{"process": os.getpid()}])
                os.kill(os.getpid(), signal.SIGKILL)
        report(10, 10, "")
        out.write_text(" ".join(str(row["number"]) for row in read_lines(part)))


def count(folder: Path, name: str, deaths: int) -> Job:
    return Job(name, "train", name, folder / name, Count(deaths))


def job(folder: Path, name: str, needs: tuple[str, ...] = (), fails: bool = False, seconds: float = 0.0) -> Job:
    payload = Write(folder / "log", tuple(folder / need for need in needs), fails, seconds)
    return Job(name, "train", name, folder / name, payload, needs)


def test_jobs_run_after_what_they_need_and_only_once(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "c", ("a", "b")), job(tmp_path, "a"), job(tmp_path, "b", ("a",))]
    events: list[Event] = []
    run_jobs(jobs, workers=2, listen=events.append)
    assert (tmp_path / "c").read_text() == "a+a"
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c"]
    assert [event.job for event in events if event.state == "done"] == ["a", "b", "c"]

    events.clear()
    run_jobs(jobs, workers=2, listen=events.append)
    assert {event.state for event in events} == {"cached"}
    assert len((tmp_path / "log").read_text().split()) == 3


def test_a_failure_costs_only_what_depends_on_it(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "bad", fails=True), job(tmp_path, "child", ("bad",)), job(tmp_path, "other")]
    events: list[Event] = []
    with pytest.raises(JobsFailed, match="bad: RuntimeError: no luck") as caught:
        run_jobs(jobs, workers=1, listen=events.append)
    assert caught.value.problems == ("bad: RuntimeError: no luck",)
    assert caught.value.reasons == dict.fromkeys(("bad", "child"), "bad: RuntimeError: no luck")
    assert (tmp_path / "other").exists() and not (tmp_path / "child").exists()
    assert {event.job for event in events if event.state == "skipped"} == {"child"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_killed_in_mid_job_is_replaced_once(tmp_path: Path) -> None:
    jobs = [count(tmp_path, "whole", 0), count(tmp_path, "killed", 1), job(tmp_path, "child", ("killed",))]
    run_jobs(jobs, 2, lambda event: None)
    assert len(list(read_lines(tmp_path / "killed.died"))) == 1
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert (tmp_path / "child").exists()

    jobs = [count(tmp_path, "hopeless", 99), job(tmp_path, "orphan", ("hopeless",)), job(tmp_path, "other")]
    with pytest.raises(JobsFailed, match="hopeless: its worker process died") as caught:
        run_jobs(jobs, 1, lambda event: None)
    assert len(caught.value.problems) == 1
    assert len(list(read_lines(tmp_path / "hopeless.died"))) == 2
    assert (tmp_path / "other").exists() and not (tmp_path / "orphan").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_workers_of_a_killed_run_do_not_write_on(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from harness.executor import run_jobs\n"
        "from tests.test_executor import job\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    run_jobs([job(folder, 'slow', seconds=4)], 1, lambda event: print(event.state, flush=True))\n"
    )
    main = tmp_path / "main.py"
    main.write_text(script)
    root = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, str(main), str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().strip() == "started"
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(5.5)
    assert not (tmp_path / "slow").exists()
