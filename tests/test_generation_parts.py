"""Lists of prompts that are answered in parts: the same address and the same bytes as in one piece."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.backends.decoding import Decoding
from harness.config import parse_preset
from harness.jobs import Generate, Job, JoinAnswers, in_parts
from harness.options import resolve
from harness.plan import plan_run
from tests.test_backend_transformers import REQUESTS, save_base


def job(base: Path, out: Path, decoding: Decoding) -> Job:
    prompts = tuple((request.id, request.prompt) for request in REQUESTS)
    return Job("k", "generate", "answer", out, Generate(str(base), prompts, decoding, 2, "auto"), ("base",))


def run(job: Job) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    job.payload.run(job.out, lambda done, total, remark: told.append((done, total)))
    return told


@pytest.mark.parametrize("decoding", [Decoding(8), Decoding(8, temperature=1.0, seed=3)])
def test_parts_make_the_bytes_of_the_whole(tmp_path: Path, decoding: Decoding) -> None:
    base = save_base(tmp_path / "base")
    whole = job(base, tmp_path / "whole.jsonl", decoding)
    run(whole)
    *parts, joined = in_parts(job(base, tmp_path / "joined.jsonl", decoding), 4)
    assert [part.label for part in parts] == [f"answer (part {k} of 4)" for k in (1, 2, 3, 4)]
    assert len({part.key for part in parts} | {"k"}) == 5
    assert {part.needs for part in parts} == {("base",)}
    assert (joined.key, joined.needs) == ("k", ("base", *(part.key for part in parts)))
    for part, share in reversed(list(zip(parts, (3, 3, 3, 2), strict=True))):
        told = run(part)
        assert told[0] == (0, share) and told[-1][0] in (1, 2, 3, 4)
        assert part.done() and not joined.done()
    run(joined)
    assert joined.out.read_bytes() == whole.out.read_bytes()
    # The parts are gone, and not wanted again.
    assert not any(part.out.exists() for part in parts)
    assert all(part.done() for part in parts)


def test_a_part_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    part = in_parts(job(base, tmp_path / "joined.jsonl", Decoding(8)), 2)[0]
    run(part)
    content = part.out.read_bytes()
    batches = part.out.with_suffix(".part")
    batches.write_bytes(b"".join(content.splitlines(keepends=True)[2:]))
    part.out.unlink()
    assert run(part)[0] == (4, 6)
    assert part.out.read_bytes() == content


def test_what_is_one_batch_or_served_stays_whole(tmp_path: Path) -> None:
    whole = job(tmp_path, tmp_path / "out", Decoding(8))
    assert len(in_parts(whole, 99)) == 6 + 1
    assert in_parts(whole, 1) == [whole]
    for change in ({"batch_size": 11}, {"backend": "openai"}):
        other = replace(whole, payload=replace(whole.payload, **change))  # type: ignore[type-var]
        assert in_parts(other, 4) == [other]


def test_a_run_in_parts_has_the_cells_and_addresses_of_one_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    options = resolve(suite="shortqa", preset="tiny", models="base,facttune")
    generation = options.preset.generation
    engine = generation.engine.model_copy(update={"data_parallel": 3})
    preset = options.preset.model_copy(update={"generation": generation.model_copy(update={"engine": engine})})
    spread = replace(options, preset=preset)
    assert spread.fingerprint() == options.fingerprint()
    one, many = plan_run(options), plan_run(spread)
    assert [(cell.generate.key, cell.generate.out) for cell in one.cells] == [
        (cell.generate.key, cell.generate.out) for cell in many.cells
    ]
    whole = {j.key for j in one.jobs}
    assert whole < {j.key for j in many.jobs}
    parts = [j for j in many.jobs if j.key not in whole]
    assert {j.kind for j in parts} == {"generate", "sample"}
    assert all(isinstance(j.payload, Generate) and j.payload.part[1] in (2, 3) for j in parts)
    assert sum(isinstance(j.payload, JoinAnswers) for j in many.jobs) == len({j.part_of for j in parts})


def test_a_preset_says_how_many_parts() -> None:
    text = """
    preset = {name = "p", description = "d", minutes = 1, models = ["base"]}
    source = {kind = "miniature"}
    base = {kind = "miniature"}
    generation = {engine = {data_parallel = 2, tensor_parallel = 4}}
    """
    assert parse_preset(text, "p").generation.engine.data_parallel == 2
