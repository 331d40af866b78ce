"""GPUs are shared out to workers as jobs need them, told without torch."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from harness import layout, pipeline
from harness.backends.decoding import Decoding
from harness.errors import UserError
from harness.executor_processes import ProcessPool
from harness.jobs import Generate, Job, JoinAdapters, PretrainBase, Score
from harness.layout import Gpu, Layout, fewest, gpus_needed, lay_out, parse_gpus, visible_gpus
from harness.sampling import AskTeacher, Judges, JudgeSamples
from tests.test_executor import Write
from train.sampling import Judging, Sampling
from train.template import PromptTemplate

GIB = 2**30


def job(payload: Any) -> Job:
    return Job("key", "generate", "label", Path("out"), payload)


@pytest.mark.parametrize(
    ("needs", "gpus", "cores", "workers", "expected"),
    [
        ([1, 1, 0], 0, 8, None, Layout((), 8, 8)),
        ([1, 1, 0], 0, 8, 3, Layout((), 3, 3)),
        ([1, 1, 0], 1, 8, None, Layout(("0",), 7, 8)),
        ([1, 1, 0], 4, 16, None, Layout(("0", "1", "2", "3"), 12, 16)),
        ([1, 2, 0], 4, 16, None, Layout(("0,1", "2,3"), 14, 16)),
        ([2], 5, 16, None, Layout(("0,1", "2,3"), 14, 16)),  # one is left over
        ([1], 2, 1, None, Layout(("0", "1"), 1, 3)),
        ([1], 2, 16, 3, Layout(("0", "1", "0"), 3, 3)),  # more workers than GPUs were asked for
        ([1], 4, 16, 2, Layout(("0", "1"), 2, 2)),
        ([0, 0], 4, 16, None, Layout((), 16, 16)),
    ],
)
def test_layouts(needs: list[int], gpus: int, cores: int, workers: int | None, expected: Layout) -> None:
    assert lay_out(needs, [str(i) for i in range(gpus)], cores, workers) == expected


def test_no_gpu_is_given_twice_by_default() -> None:
    for gpus in range(1, 9):
        for most in range(1, gpus + 1):
            made = lay_out([most, 1], [f"GPU-{i}" for i in range(gpus)], 16)
            given = [name for share in made.devices for name in share.split(",")]
            assert len(given) == len(set(given)) == gpus // most * most


def test_too_few_gpus_are_said_with_the_remedy() -> None:
    with pytest.raises(UserError, match="needs 4 GPUs and this machine has 2; lower tensor_parallel"):
        lay_out([1, 4], ["0", "1"], 16)


GENERATE = Generate("base", (), Decoding(8), 4, "auto")
JUDGING = Judging(samples=Sampling(name="s", prompts=(), seed=0, max_new_tokens=8), measure="fs")
SAMPLES = JudgeSamples(Path("samples"), (), JUDGING, Judges("persons"), "base", PromptTemplate())


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (PretrainBase({}, {}, 0, 0), 1),
        (JoinAdapters(Path("base"), ()), 0),
        (GENERATE, 1),
        (replace(GENERATE, backend="openai"), 0),
        (replace(GENERATE, backend="vllm"), 1),
        (replace(GENERATE, backend="vllm", engine={"tensor_parallel": 4}), 4),
        (Score(Path("g"), (), Path("k"), "rules", "modified", Path("c")), 0),
        (Score(Path("g"), (), Path("k"), "openai:gpt-4o-mini", "modified", Path("c")), 0),
        (Score(Path("g"), (), Path("k"), "local:model", "modified", Path("c")), 1),
        (SAMPLES, 0),
        (replace(SAMPLES, judges=Judges("persons", judge="nli:model")), 1),
        (replace(SAMPLES, judging=replace(JUDGING, measure="match")), 0),
        (replace(SAMPLES, judging=replace(JUDGING, measure="mc")), 1),
        (AskTeacher("model", (), 8, Path("c")), 0),
        (Write(Path("log")), 0),
    ],
)
def test_what_a_job_needs(payload: Any, expected: int) -> None:
    assert gpus_needed(job(payload), 80 * GIB) == expected


def test_an_engine_gets_as_many_gpus_as_hold_its_weights(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(16 * GIB)  # sparse
    vllm = replace(GENERATE, base=str(tmp_path), backend="vllm")
    assert [gpus_needed(job(vllm), memory * GIB) for memory in (80, 24, 12, 8)] == [1, 2, 4, 4]
    assert gpus_needed(job(vllm), None) == 1
    assert [fewest(100, memory) for memory in (100, 99, 50, 49, 13, 12)] == [1, 2, 2, 4, 8, 16]


def test_the_drivers_list_is_read() -> None:
    listing = "0, 81559\n1, 81559\n"
    assert parse_gpus(listing) == [Gpu("0", 81559 * 2**20), Gpu("1", 81559 * 2**20)]
    assert parse_gpus("0, [N/A]\n") == [Gpu("0")]
    assert parse_gpus("0, 81559, NVIDIA H100 80GB HBM3\n") == [Gpu("0", 81559 * 2**20, "NVIDIA H100 80GB HBM3")]
    assert parse_gpus("No devices were found\n") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["0", "1"]), ("1", ["1"]), ("1,0", ["1", "0"]), ("", []), ("-1", []), ("0,-1,1", ["0"]),
        ("GPU-8932f937", ["GPU-8932f937"]),
    ],
)  # fmt: skip
def test_visible_gpus(value: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_nvidia_smi", lambda: [Gpu("0", GIB), Gpu("1", GIB)])
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0")
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert [gpu.name for gpu in visible_gpus()] == expected
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cpu")
    assert visible_gpus() == []


def test_workers_see_their_own_gpus_and_other_jobs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import executor_processes
    from tests.test_executor import See

    monkeypatch.setattr(executor_processes, "visible_gpus", lambda: [Gpu("3"), Gpu("5")])
    monkeypatch.setattr(executor_processes, "gpus_needed", lambda job, memory: int(job.kind == "train"))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    jobs = [Job(n, "train", n, tmp_path / n, See(tmp_path / other)) for n, other in (("a", "b"), ("b", "a"))]
    jobs.append(Job("c", "score", "c", tmp_path / "c", See(tmp_path / "c.mine")))
    pool = ProcessPool(jobs, None)
    try:
        for one in jobs:
            assert pool.has_room(one)
            pool.start(one)
        assert not any(pool.has_room(one) for one in jobs)
        ended: list[str] = []
        while len(ended) < 3:
            ended += [event.job for event in pool.wait(1) if event.state == "done"]
    finally:
        pool.close()
    assert sorted((tmp_path / name).read_text() for name in "ab") == ["3", "5"]
    assert (tmp_path / "c").read_text() == ""


def test_a_run_says_on_which_gpus_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "visible_gpus", lambda: [Gpu("0", GIB, "NVIDIA H100"), Gpu("1", GIB, "NVIDIA H100")])
    assert pipeline.hardware().startswith("2 x NVIDIA H100, ")
