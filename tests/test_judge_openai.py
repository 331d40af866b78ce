"""The OpenAI-compatible judge against a server that misbehaves in every way it can."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factscore_mod.chat import Ask, CallFailed
from factscore_mod.judges import JudgeError, JudgeOptions, make_judge
from factscore_mod.judges.openai import OpenAIEngine
from factscore_mod.mock_server import FAULTS, MockOptions, running_mock
from factscore_mod.outputs import to_line
from factscore_mod.records import ScoredResponse
from factscore_mod.scorer import FactScorer
from tests.judging import knowledge

TEXT = "Ada Lovelace was born in London in 1815. She was a French painter."
VERIFY = Ask("verify", "p@1", "system", "user", choices=("True", "False"), max_tokens=5)


def score(
    server_options: MockOptions | None = None, responses: int = 1, profile: str = "modified", **options: Any
) -> tuple[list[ScoredResponse], dict[str, Any]]:
    """Scored responses and what the server saw."""
    with running_mock(server_options) as server:
        settings = JudgeOptions(**{"base_url": server.base_url, "timeout": 5.0, **options})
        scorer = FactScorer("openai:test-model", knowledge(), profile=profile, options=settings)
        texts = [f"{TEXT} This is text number {i}." for i in range(responses)]
        return scorer.score(["Ada Lovelace"] * responses, texts), server.stats.as_json()


def ask_once(server_options: MockOptions | None = None, ask: Ask = VERIFY, **options: Any) -> str:
    """The text of one reply."""

    async def run(url: str) -> str:
        engine = OpenAIEngine("m", JudgeOptions(**{"base_url": url, "timeout": 2.0, **options}))
        try:
            return (await engine.send(ask)).text
        finally:
            await engine.aclose()

    with running_mock(server_options) as server:
        return asyncio.run(run(server.base_url))


@pytest.mark.parametrize("profile", ["modified", "factscore"])
def test_the_whole_path(profile: str) -> None:
    [scored], stats = score(profile=profile)
    by_text = {c.claim.text: c.judgement.verdict for c in scored.claims}
    assert by_text["Ada Lovelace was born in London in 1815."] == "supported"
    assert by_text["She was a French painter."] == "not_supported"
    assert scored.usage.calls == stats["requests"] and scored.usage.prompt_tokens > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_loses_nothing(fault: str) -> None:
    clean, _ = score(responses=12)
    faulty, stats = score(
        MockOptions(fault_rate=0.4, faults=(fault,), retry_after=0.02, stall=0.5, seed=1),
        12,
        timeout=0.3,  # type: ignore[arg-type]
    )
    assert stats["faults"][fault] > 0
    assert [r.claims for r in faulty] == [r.claims for r in clean]


def test_thirty_percent_of_all_faults_lose_nothing() -> None:
    clean, _ = score(responses=40, profile="factscore")
    faulty, stats = score(
        MockOptions(fault_rate=0.3, retry_after=0.05, stall=1.0), 40, profile="factscore", timeout=0.5
    )
    assert sum(stats["faults"].values()) > 20
    assert [[c.judgement.verdict for c in r.claims] for r in faulty] == [
        [c.judgement.verdict for c in r.claims] for r in clean
    ]


def test_a_wrong_key_fails_at_once_with_one_clear_error() -> None:
    start = time.monotonic()
    with pytest.raises(JudgeError, match="refused the API key") as caught:
        score(MockOptions(api_key="right"), 30, api_key="sk-wrong-and-secret")
    assert time.monotonic() - start < 10
    assert "sk-wrong-and-secret" not in str(caught.value)


def test_no_key_and_no_endpoint_fail_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(JudgeError, match="OPENAI_API_KEY"):
        make_judge("openai:gpt-4o-mini")
    with pytest.raises(JudgeError, match="not a base URL"):
        make_judge("openai:m", options=JudgeOptions(base_url="localhost:8000"))


def test_a_missing_model_or_path_is_one_clear_error() -> None:
    with running_mock() as server, pytest.raises(JudgeError, match="no model 'm'"):
        engine = OpenAIEngine("m", JudgeOptions(base_url=server.base_url.replace("/v1", "/v2")))
        asyncio.run(engine.send(VERIFY))


def test_the_key_is_in_no_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = "sk-" + "abc123" * 6
    caplog.set_level(logging.DEBUG)
    cache = tmp_path / "c.sqlite"
    with running_mock(MockOptions(api_key=secret, fault_rate=0.5, faults=("500",))) as server:
        options = JudgeOptions(base_url=server.base_url, api_key=secret, attempts=2)
        scorer = FactScorer("openai:m", knowledge(), options=options, cache=cache)
        scored = scorer.score(["Ada Lovelace"] * 8, [f"{TEXT} {i}" for i in range(8)])
    assert scored[0].claims
    assert secret not in repr(options) and secret not in scorer.fingerprint
    assert secret not in "".join(map(to_line, scored))
    assert secret not in caplog.text
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes()
    assert secret not in json.dumps(OpenAIEngine("m", options).settings)


def test_credentials_in_the_url_are_left_out() -> None:
    engine = OpenAIEngine("m", JudgeOptions(base_url="https://user:hidden@host.example/v1/?api-version=3"))
    assert engine.settings["base_url"] == "https://host.example/v1"
    assert engine.settings["query"] == [("api-version", "3")]
    assert "hidden" not in json.dumps(engine.settings)


def test_a_server_without_schemas_is_asked_for_lines() -> None:
    with_schema, _ = score(responses=3)
    without, stats = score(MockOptions(structured=False), 3)
    assert [[c.judgement.verdict for c in r.claims] for r in without] == [
        [c.judgement.verdict for c in r.claims] for r in with_schema
    ]
    assert without[0].claims[0].judgement.reply.startswith("VERDICTS:")
    assert stats["requests"] <= 2 * 3 + 3
    with pytest.raises(JudgeError, match="JSON schemas"):
        score(MockOptions(structured=False), structured="json_schema")


def test_guided_and_switched_off_output() -> None:
    for structured, start in (("guided", "{"), ("off", "VERDICTS"), ("json_schema", "{")):
        [scored], _ = score(structured=structured)
        assert scored.claims[0].judgement.reply.startswith(start)


def test_log_probabilities_are_kept_where_offered_and_given_up_where_not() -> None:
    for profile in ("modified", "factscore"):
        [scored], _ = score(logprobs=True, profile=profile)
        assert [c.judgement.score for c in scored.claims] == [1.0, 0.0] + [0.0] * (len(scored.claims) - 2)
        [scored], _ = score(MockOptions(logprobs=False), logprobs=True, profile=profile)
        assert scored.claims[0].judgement.score is None
        assert scored.claims[0].judgement.verdict == "supported"


def test_a_rate_limit_stops_all_workers_for_as_long_as_it_says() -> None:
    calls: list[float] = []

    def note(system: str, user: str, as_json: bool) -> str:
        calls.append(time.monotonic())
        return "True"

    async def run(url: str) -> list[str]:
        engine = OpenAIEngine("m", JudgeOptions(base_url=url, concurrency=8))
        engine._stop_all(0.4)
        start = time.monotonic()
        try:
            replies = await asyncio.gather(*[engine.send(VERIFY) for _ in range(24)])
        finally:
            await engine.aclose()
        assert min(calls) - start >= 0.39
        return [reply.text for reply in replies]

    with running_mock(MockOptions(reply=note)) as server:
        assert asyncio.run(run(server.base_url)) == ["True"] * 24


def test_patience_ends() -> None:
    start = time.monotonic()
    with pytest.raises(CallFailed, match="rate limited"):
        ask_once(MockOptions(fault_rate=1.0, faults=("429",), retry_after=0.2), patience=0.7)
    assert time.monotonic() - start < 5


def test_retry_after_is_honoured() -> None:
    start = time.monotonic()
    _, stats = score(MockOptions(fault_rate=0.6, faults=("429",), retry_after=0.3), 3, concurrency=1)
    assert stats["faults"]["429"] > 0
    assert time.monotonic() - start >= 0.3 * stats["faults"]["429"]


def test_tries_end_and_the_reason_is_kept() -> None:
    for fault, reason in (("500", "status 500"), ("broken_json", "not a chat completion|Error")):
        with pytest.raises(CallFailed, match=f"after 3 tries: .*({reason})"):
            ask_once(MockOptions(fault_rate=1.0, faults=(fault,)), attempts=3)  # type: ignore[arg-type]


def test_a_dead_server_is_an_error_verdict_and_no_crash() -> None:
    scorer = FactScorer(
        "openai:m", knowledge(), options=JudgeOptions(base_url="http://127.0.0.1:9/v1", attempts=2, timeout=1)
    )
    [scored] = scorer.score(["Ada Lovelace"], [TEXT])
    assert {c.judgement.verdict for c in scored.claims} == {"error"}
    assert len(scored.claims) == 2


def test_hundreds_of_requests_are_in_flight_together() -> None:
    _, stats = score(MockOptions(latency=0.3), 120, concurrency=120)
    assert stats["at_once"] > 100
    _, stats = score(MockOptions(latency=0.01), 30, concurrency=4)
    assert stats["at_once"] <= 4


@pytest.mark.parametrize(
    ("message", "gone"),
    [
        ("Unsupported parameter: 'max_tokens', use 'max_completion_tokens' instead", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0", "temperature"),
        ("logprobs are not supported with this model", "logprobs"),
        ("Invalid parameter: 'response_format' of type 'json_schema' is not supported", "response_format"),
    ],
)
def test_parameters_that_a_model_does_not_know_are_dropped(message: str, gone: str) -> None:
    engine = OpenAIEngine("m", JudgeOptions(base_url="http://host/v1", logprobs=True))
    ask = Ask("verify", "p", "s", "u", "j", "l", schema={"name": "n", "schema": {}}, logprobs=True)
    body, form = engine._body(ask)
    assert gone in body and form == "json"
    assert engine._do_without(message, body)
    body, form = engine._body(ask)
    assert gone not in body
    assert not engine._do_without("something else is wrong", body)


def test_zero_temperature_is_sent_as_zero() -> None:
    body, _ = OpenAIEngine("m", JudgeOptions(base_url="http://host/v1", temperature=0.0))._body(VERIFY)
    assert body["temperature"] == 0.0


@pytest.mark.parametrize(
    "reply", [lambda s, u, j: "", lambda s, u, j: "[]", lambda s, u, j: "{" * 50_000, lambda s, u, j: "null"]
)
def test_senseless_replies_are_unparsed(reply: Callable[[str, str, bool], str]) -> None:
    [scored], _ = score(MockOptions(reply=reply))
    assert {c.judgement.verdict for c in scored.claims} == {"unparsed"}
    assert len(scored.claims) == 3


def test_key_organisation_and_query_go_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-7")

    async def request(url: str) -> tuple[str, dict[str, str]]:
        engine = OpenAIEngine("m", JudgeOptions(base_url=url, api_key="k"))
        connection = engine._connect()
        try:
            made = connection.http.build_request("POST", connection.url, headers=connection.headers)
            return str(made.url), dict(made.headers)
        finally:
            await connection.http.aclose()

    url, headers = asyncio.run(request("https://name.openai.azure.com/openai/v1?api-version=2025-01-01"))
    assert url == "https://name.openai.azure.com/openai/v1/chat/completions?api-version=2025-01-01"
    assert headers["authorization"] == "Bearer k" and headers["api-key"] == "k"
    assert headers["openai-organization"] == "org-7" and headers["content-type"] == "application/json"


def test_what_is_not_http_is_tried_again_and_given_up() -> None:
    async def run() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"220 mail ready\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        engine = OpenAIEngine("m", JudgeOptions(base_url=f"http://127.0.0.1:{port}/v1", attempts=2, timeout=5))
        try:
            await engine.send(VERIFY)
        finally:
            await engine.aclose()
            server.close()

    with pytest.raises(CallFailed, match="after 2 tries"):
        asyncio.run(run())


def test_a_rate_limit_of_no_seconds_still_ends() -> None:
    with pytest.raises(CallFailed, match="rate limited"):
        ask_once(MockOptions(fault_rate=1.0, faults=("429",), retry_after=0.0), patience=0.3)
