"""Jobs between stages: judging samples, asking teachers, and what training asks while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factscore_mod.mock_server import running_mock
from harness.errors import UserError
from harness.paths import read_lines, write_lines
from harness.sampling import (
    AskTeacher,
    Bench,
    Judges,
    JudgeSamples,
    TeacherFile,
    read_judged,
    read_samples,
    teacher_question,
)
from tests.judging import knowledge
from train.rows import Example
from train.sampling import JudgedClaim, Judging, Measure, Sample, Sampling
from train.template import PromptTemplate

PEOPLE = (
    Example("Tell me about Ada Lovelace.", "was born in 1815.", "Ada Lovelace", prefill="Ada Lovelace"),
    Example("Tell me about Nobody Atall.", "was born in 1900.", "Nobody Atall", prefill="Nobody Atall"),
)
QUESTIONS = (Example("Where was she born?", "London", "Ada Lovelace", answers=("London", "Greater London")),)


def ignore(done: int, total: int, remark: str) -> None:
    """Progress that nobody watches."""


def judge(
    folder: Path, prompts: tuple[Example, ...], measure: Measure, texts: dict[str, str]
) -> list[tuple[float | None, tuple[JudgedClaim, ...]]]:
    samples = folder / "samples.jsonl"
    write_lines(samples, ({"id": i, "text": text, "tokens": 3, "finish": "stop"} for i, text in texts.items()))
    sampling = Sampling(name="s", prompts=prompts, seed=0, max_new_tokens=8)
    judges = Judges(task="persons", knowledge=knowledge())
    job = JudgeSamples(
        samples, prompts, Judging(samples=sampling, measure=measure), judges, "no base", PromptTemplate()
    )
    job.run(folder / "judged.jsonl", ignore)
    judged = read_judged(folder / "judged.jsonl")
    assert [one.sample for one in judged] == read_samples(samples)
    return [(one.score, one.claims) for one in judged]


def test_samples_are_scored_claim_by_claim_with_the_prefill_before_them(tmp_path: Path) -> None:
    texts = {
        "0-0": " was born in London in 1815. She was a French painter.",
        "0-1": " was born in London.",
        "0-2": "",
        "1-0": " was born in 1900.",
    }
    (mixed, claims), (right, _), (empty, none), (unknown, said) = judge(tmp_path, PEOPLE, "fs", texts)
    assert mixed is not None
    assert 0 < mixed < 1
    assert claims[0].text.startswith("Ada Lovelace was born")
    assert {claim.supported for claim in claims} == {True, False}
    assert right == 1
    assert (empty, none) == (None, ())
    assert unknown is None  # nobody has written about the subject: that is not the answer's fault
    assert said


def test_short_answers_are_right_or_wrong_as_a_whole(tmp_path: Path) -> None:
    texts = {"0-0": " London", "0-1": " Paris", "0-2": " I don't know.", "0-3": " in greater london, I think"}
    assert [score for score, _ in judge(tmp_path, QUESTIONS, "match", texts)] == [1.0, 0.0, 0.0, 1.0]


def test_the_bench_gives_claims_and_marks_answers() -> None:
    bench = Bench(Judges(task="persons", knowledge=knowledge()))
    (claims, none) = bench.claims(["Ada Lovelace was born in London. She was a painter.", ""], ["Ada Lovelace"] * 2)
    assert len(claims) == 2
    assert all("Ada Lovelace" in claim for claim in claims)
    assert none == ()
    assert bench.matches(["London", "Rome", "I do not know."], QUESTIONS * 3) == [True, False, None]
    with pytest.raises(UserError, match="no knowledge source"):
        Bench(Judges(task="popqa")).claims(["text"], ["subject"])


def test_a_teacher_may_be_a_file_that_answers_by_prompt_or_by_subject(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    rows = [{"prompt": PEOPLE[0].prompt, "text": "By prompt."}, {"subject": "Nobody Atall", "text": "By subject."}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    TeacherFile(file, PEOPLE).run(tmp_path / "out.jsonl", ignore)
    assert read_samples(tmp_path / "out.jsonl") == [Sample(0, "By prompt.", "stop"), Sample(1, "By subject.", "stop")]
    TeacherFile(file, PEOPLE[1:]).run(tmp_path / "one.jsonl", ignore)
    assert [sample.text for sample in read_samples(tmp_path / "one.jsonl")] == ["By subject."]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{}", "answers.jsonl:1.*`prompt`"), ("nonsense", ":1"), ('{"subject": "X", "text": "y"}', "none")],
)
def test_a_file_that_cannot_teach_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        TeacherFile(file, PEOPLE).run(tmp_path / "out.jsonl", ignore)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_teacher_may_be_an_endpoint_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "anything")
    with running_mock() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        job = AskTeacher("teacher", PEOPLE, 64, tmp_path / "cache.sqlite")
        job.run(tmp_path / "first.jsonl", ignore)
        sent = server.stats.as_json()["requests"]
        job.run(tmp_path / "again.jsonl", ignore)
        assert server.stats.as_json()["requests"] == sent == len(PEOPLE)
    assert [row["id"] for row in read_lines(tmp_path / "first.jsonl")] == ["0-0", "1-0"]
    assert (tmp_path / "first.jsonl").read_text() == (tmp_path / "again.jsonl").read_text()
    assert "about 6 words" in teacher_question(PEOPLE[0])
