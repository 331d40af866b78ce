"""Served models: what is asked, what is kept, and what happens when the server fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from factscore_mod.mock_server import MockOptions, MockServer, running_mock
from harness.backends.decoding import Decoding, Generation, Request
from harness.backends.openai import OpenAIBackend, Served
from harness.backends.weights import BackendError
from harness.errors import Problems, UserError
from harness.estimate import estimate
from harness.executor import run_jobs
from harness.jobs import Generate
from harness.options import resolve
from harness.paths import read_lines
from harness.plan import plan_run
from harness.registry import ModelSpec, read_models, served_model

REQUESTS = [Request(f"r{i}", f"Question: number {i}?\nAnswer:") for i in range(40)]


def echo(system: str, user: str, as_json: bool) -> str:
    return f" {user.split()[-2]} it is.\nAnother line"


@dataclass
class Asked:
    """A server, and the bodies that it was sent."""

    server: MockServer
    bodies: list[dict[str, object]] = field(default_factory=list)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asked]:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running_mock(MockOptions(reply=echo)) as server:
        seen = Asked(server)
        reply = server.reply

        def note(request: dict[str, object], broken: bool) -> bytes:
            seen.bodies.append(request)
            return reply(request, broken)

        server.reply = note  # type: ignore[method-assign]
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield seen


def answers(backend: OpenAIBackend, decoding: Decoding, **options: object) -> dict[str, Generation]:
    return {g.id: g for batch in backend.generate(REQUESTS, decoding, **options) for g in batch}  # type: ignore[arg-type]


def test_prompts_are_sent_as_they_are_and_answers_end_at_the_stop_string(asked: Asked) -> None:
    backend = OpenAIBackend("m")
    got = answers(backend, Decoding(max_new_tokens=9, stop=("\n",)))
    assert len(got) == len(asked.bodies) == len(REQUESTS)
    assert got["r3"] == Generation("r3", " 3? it is.", got["r3"].tokens, "stop")
    assert asked.bodies[0].keys() == {"model", "prompt", "max_tokens", "temperature", "stop"}
    assert {body["prompt"] for body in asked.bodies} == {request.prompt for request in REQUESTS}
    assert asked.bodies[0]["temperature"] == 0
    assert backend.tokens_per_second > 0


def test_a_chat_is_one_user_message(asked: Asked) -> None:
    answers(OpenAIBackend("m", Served(chat=True)), Decoding(9))
    assert sorted(str(body["messages"]) for body in asked.bodies) == sorted(
        str([{"role": "user", "content": request.prompt}]) for request in REQUESTS
    )


def test_every_sampled_request_has_a_seed_of_its_own_that_is_the_same_next_time(asked: Asked) -> None:
    decoding = Decoding(9, temperature=0.7, top_p=0.9, seed=4, min_new_tokens=2)
    answers(OpenAIBackend("m"), decoding)
    first = {body["prompt"]: body["seed"] for body in asked.bodies}
    assert len(set(first.values())) == len(REQUESTS)
    assert {body["top_p"] for body in asked.bodies} == {0.9} and {body["min_tokens"] for body in asked.bodies} == {2}
    asked.bodies.clear()
    answers(OpenAIBackend("other"), decoding)
    assert {body["prompt"]: body["seed"] for body in asked.bodies} == first


def test_nothing_is_asked_twice(asked: Asked) -> None:
    decoding = Decoding(9)
    first = answers(OpenAIBackend("m"), decoding)
    again = OpenAIBackend("m")
    assert answers(again, decoding) == first
    assert again.tokens_per_second == 0
    assert len(asked.bodies) == len(REQUESTS)
    for other in (
        answers(OpenAIBackend("other"), decoding),
        answers(OpenAIBackend("m"), Decoding(8)),
        answers(OpenAIBackend("m", Served(chat=True)), decoding),
    ):
        assert other.keys() == first.keys()
    assert len(asked.bodies) == 4 * len(REQUESTS)
    few = answers(OpenAIBackend("third"), decoding, done={r.id for r in REQUESTS[5:]})
    assert sorted(few) == ["r0", "r1", "r2", "r3", "r4"]


def test_faults_are_tried_again_and_change_nothing(asked: Asked, tmp_path: Path) -> None:
    clean = answers(OpenAIBackend("m", cache=tmp_path / "clean.sqlite"), Decoding(9))
    kinds = ("429", "500", "cut", "broken_json")
    # The latency keeps requests open long enough to be counted together, however slow this process is.
    faults = MockOptions(reply=echo, latency=0.1, fault_rate=0.3, faults=kinds, retry_after=0.01)
    with running_mock(faults) as server:
        served = Served(base_url=server.base_url)
        assert answers(OpenAIBackend("m", served, tmp_path / "faulty.sqlite"), Decoding(9)) == clean
        assert sum(server.stats.faults.values()) > 5
        assert server.stats.at_once > 20


def test_a_server_that_gives_up_ends_the_job_and_what_was_answered_stays(asked: Asked, tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"
    with running_mock(MockOptions(reply=echo, fault_rate=0.5, faults=("500",))) as server:
        url = server.base_url
        served = Served(base_url=url, concurrency=1, attempts=1)
        got: list[Generation] = []
        with pytest.raises(BackendError, match=r"openai:m: .*given up after 1 tries"):
            for batch in OpenAIBackend("m", served, cache).generate(REQUESTS, Decoding(9)):
                got += batch
        before = server.stats.requests
        assert before < len(REQUESTS)
        patient = Served(base_url=url, concurrency=1)
        whole = answers(OpenAIBackend("m", patient, cache), Decoding(9), done={g.id for g in got})
        assert server.stats.answered == len(REQUESTS)
    assert whole.keys() | {g.id for g in got} == {r.id for r in REQUESTS}


def test_a_caller_that_stops_early_stops_the_asking(asked: Asked) -> None:
    asked.server.options = MockOptions(reply=echo, latency=0.02)
    answering = OpenAIBackend("m", Served(concurrency=2)).generate(REQUESTS, Decoding(9))
    next(answering)
    answering.close()  # type: ignore[attr-defined]
    assert len(asked.bodies) < len(REQUESTS) / 2


@pytest.mark.parametrize(
    ("served", "message"),
    [(Served(base_url="no url"), "not a base URL"), (Served(base_url="https://api.openai.com/v1"), "OPENAI_API_KEY")],
)
def test_an_endpoint_that_cannot_be_is_named_before_anything_is_sent(
    served: Served, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BackendError, match=message):
        OpenAIBackend("m", served)


def test_adapters_are_refused(asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="serve it there"):
        answers(OpenAIBackend("m"), Decoding(9), adapter=tmp_path)


# --- in a run ------------------------------------------------------------------------------------------------


def test_a_run_of_served_models_needs_no_base(asked: Asked) -> None:
    options = resolve(suite="shortqa", preset="tiny", models="openai:one,openai-chat:two")
    assert [model.name for model in options.models] == ["openai:one", "openai-chat:two"]
    plan = plan_run(options)
    assert {job.kind for job in plan.jobs} == {"generate"}
    assert plan.bases == ()
    run_jobs(plan.jobs, 1, lambda event: None)
    by_model = {cell.model: cell for cell in plan.cells if cell.task == "popqa"}
    rows = list(read_lines(by_model["openai:one"].generate.out))
    assert [row["id"] for row in rows] == [item.id for item in by_model["openai:one"].items]
    one = by_model["openai:one"].prompts[0]
    assert one.startswith("Question: ") and one.endswith("Answer:")
    assert by_model["openai-chat:two"].prompts[0] == one.removeprefix("Question: ").removesuffix("\nAnswer:")
    asked.bodies.clear()
    run_jobs(plan_run(options).jobs, 1, lambda event: None)
    assert asked.bodies == []


def test_the_base_stands_beside_served_models_where_it_is_named(asked: Asked) -> None:
    options = resolve(suite="shortqa", preset="tiny", models="base,openai:one")
    assert [model.name for model in options.models] == ["base", "openai:one"]
    kinds = [job.kind for job in plan_run(options).jobs]
    assert kinds.count("base") == 1 and "train" not in kinds
    backends = {job.payload.backend for job in plan_run(options).jobs if isinstance(job.payload, Generate)}
    assert backends == {"transformers", "openai"}


def test_a_trained_method_and_a_served_model_share_a_table_with_the_base(asked: Asked) -> None:
    options = resolve(suite="shortqa", preset="tiny", models="sft,openai:one")
    assert [model.name for model in options.models] == ["base", "sft", "openai:one"]


def test_backend_openai_takes_every_name_for_a_served_one(asked: Asked) -> None:
    options = resolve(suite="shortqa", preset="tiny", models="one,sft", backend="openai")
    assert [model.served for model in options.models] == ["one", "sft"]
    with pytest.raises(Problems, match="name the served models"):
        resolve(suite="shortqa", preset="tiny", backend="openai")


def test_the_address_of_served_answers_knows_the_endpoint_but_not_its_credentials(asked: Asked) -> None:
    def keys(url: str | None) -> list[str]:
        options = resolve(suite="shortqa", preset="tiny", models="openai:one", base_url=url)
        assert "secret" not in json.dumps([model.describe() for model in options.models])
        return [options.fingerprint(), *(job.key for job in plan_run(options).jobs)]

    assert keys("http://here:1/v1") != keys("http://there:1/v1")
    assert keys("http://user:secret@here:1/v1") == keys("http://here:1/v1")
    assert keys(None) == keys(asked.server.base_url)


def test_what_cannot_be_meant_is_named() -> None:
    with pytest.raises(Problems, match="no model is served"):
        resolve(suite="shortqa", preset="tiny", models="sft", base_url="http://here:1/v1")
    with pytest.raises(UserError, match="openai:NAME"):
        served_model("openai:")
    with pytest.raises(UserError, match="one of `method`, `adapter` and `served`"):
        ModelSpec(name="both", method="sft", served="x")


def test_a_served_model_can_stand_in_a_models_file(tmp_path: Path, asked: Asked) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.big]\nserved = "vendor/big"\nbase_url = "http://here:1/v1"\nchat = true\n')
    (model,) = read_models(path)
    assert (model.served, model.base_url, model.chat) == ("vendor/big", "http://here:1/v1", True)
    options = resolve(suite="shortqa", preset="tiny", models="big", models_file=path)
    assert [model.name for model in options.models] == ["big"]


def test_a_plan_counts_the_calls_to_served_models(asked: Asked) -> None:
    made = estimate(resolve(suite="shortqa", preset="tiny", models="openai:gpt-4o-mini"))
    calls = {one.label: one for one in made.calls}
    popqa = calls["answer popqa"]
    assert popqa.calls == popqa.responses > 0
    assert popqa.tokens_in > popqa.calls and popqa.tokens_out > 0
    assert not made.lines
