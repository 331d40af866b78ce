"""Jobs as tasks of Ray: the rules of the scheduler hold, and a worker that dies in mid-job costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import executor_ray
from harness.errors import Problems, UserError
from harness.executor import Event, check_executor, run_jobs
from harness.jobs import Job, Score
from harness.paths import read_lines
from tests.test_executor import See, count, job

ray = pytest.importorskip("ray")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ.pop("RAY_ADDRESS", None)
    executor_ray.connect(num_cpus=3, num_gpus=2, object_store_memory=100 * 2**20)  # Ray believes in the GPUs
    yield
    ray.shutdown()


def test_jobs_run_after_what_they_need_and_only_once(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "c", ("a", "b")), job(tmp_path, "a"), job(tmp_path, "b", ("a",))]
    events: list[Event] = []
    run_jobs(jobs, None, events.append, "ray")
    assert (tmp_path / "c").read_text() == "a+a"
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c"]
    assert [event.job for event in events if event.state == "done"] == ["a", "b", "c"]
    assert {event.job for event in events if event.state == "started"} == {"a", "b", "c"}
    run_jobs(jobs, None, events.append, "ray")
    assert len((tmp_path / "log").read_text().split()) == 3


def test_a_failure_costs_only_what_depends_on_it_and_is_not_tried_again(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "bad", fails=True), job(tmp_path, "child", ("bad",)), job(tmp_path, "other")]
    events: list[Event] = []
    with pytest.raises(Problems, match="bad: RuntimeError: no luck") as caught:
        run_jobs(jobs, 1, events.append, "ray")
    assert len(caught.value.problems) == 1
    assert (tmp_path / "other").exists() and not (tmp_path / "child").exists()
    assert {event.job for event in events if event.state == "skipped"} == {"child"}
    assert len([event for event in events if event.job == "bad" and event.state == "started"]) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_killed_in_mid_job_is_tried_again_and_goes_on_where_it_was(tmp_path: Path) -> None:
    run_jobs([count(tmp_path, "whole", 0), count(tmp_path, "killed", 1)], 2, lambda event: None, "ray")
    assert len(list(read_lines(tmp_path / "killed.died"))) == 1
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_job_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="killed: WorkerCrashedError"):
        run_jobs([count(tmp_path, "killed", 99), count(tmp_path, "whole", 0)], 2, lambda event: None, "ray")
    assert len(list(read_lines(tmp_path / "killed.died"))) == 1 + executor_ray.RETRIES
    assert (tmp_path / "whole").exists()


def test_jobs_get_the_gpus_they_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_ray, "gpus_needed", lambda job: int(job.kind == "train"))
    jobs = [Job(n, "train", n, tmp_path / n, See(tmp_path / other)) for n, other in (("a", "b"), ("b", "a"))]
    jobs.append(Job("c", "score", "c", tmp_path / "c", See(tmp_path / "c")))
    run_jobs(jobs, None, lambda event: None, "ray")
    assert sorted((tmp_path / name).read_text() for name in "ab") == ["0", "1"]
    assert (tmp_path / "c").read_text() == ""

    monkeypatch.setattr(executor_ray, "gpus_needed", lambda job: 4)
    with pytest.raises(UserError, match="needs 4 GPUs and the largest machine of the Ray cluster has 2"):
        run_jobs([job(tmp_path, "large")], None, lambda event: None, "ray")


def test_a_machine_that_does_not_share_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    assert "does not see" in executor_ray.look_for(token)
    token.write_text("")
    assert executor_ray.look_for(token) == ""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    nodes = [node["NodeID"] for node in ray.nodes()]
    executor_ray._check_home(nodes)
    monkeypatch.setattr(executor_ray, "look_for", lambda token: f"does not see {token.parent}")
    with pytest.raises(Problems, match=r"machine .* does not see") as caught:
        executor_ray._check_home(nodes)
    assert len(caught.value.problems) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_another_machine_keeps_replies_of_its_own(tmp_path: Path) -> None:
    cache = tmp_path / "judge_cache.sqlite"
    payload = Score(tmp_path / "answers", (), tmp_path / "wiki.db", "rules", "modified", cache)
    moved = executor_ray._swapped(payload, cache, executor_ray._cache_of("0123456789abcdef", cache))
    assert moved.cache == tmp_path / "judge_cache-0123456789ab.sqlite"
    assert moved.knowledge == payload.knowledge and moved.generations == payload.generations


def test_what_keeps_ray_from_being_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'slurm' is not one of processes, ray"):
        check_executor("slurm")
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    with pytest.raises(UserError, match="RAY_ADDRESS=auto"):
        executor_ray.connect()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '\.\[ray\]'"):
        check_executor("ray")


@pytest.mark.slow
def test_a_run_on_ray_ends_in_the_same_bytes(tmp_path: Path) -> None:
    def run(executor: str) -> bytes:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HARNESS_", "RAY_"))}
        subprocess.run(
            [
                sys.executable, "-m", "harness.cli", "run", "--suite", "shortqa", "--preset", "tiny", "--models",
                "sft", "--limit", "20", "--executor", executor, "--out", str(tmp_path / executor), "--quiet",
            ],
            cwd=ROOT, env=environment | {"HARNESS_HOME": str(tmp_path / f"home-{executor}")}, check=True, timeout=600,
        )  # fmt: skip
        return (tmp_path / executor / "metrics.json").read_bytes()

    assert run("ray") == run("processes")
