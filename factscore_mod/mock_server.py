"""A deterministic OpenAI-compatible server on the loopback interface, with latency and faults at will.

    with running_mock(MockOptions(latency=0.05, fault_rate=0.3)) as server:
        scorer = FactScorer("openai:mock", source, options=JudgeOptions(base_url=server.base_url))

It answers as `judges/mock.py` does. Whether a request meets a fault, and which, depends on its text, on how often it
was seen before and on the seed, and on nothing else. `GET /stats` tells what was asked and what went wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from factscore_mod.cost import estimate_tokens
from factscore_mod.judges.mock import answer

Fault = Literal["429", "500", "timeout", "cut", "broken_json", "broken_reply"]
FAULTS: tuple[Fault, ...] = ("429", "500", "timeout", "cut", "broken_json", "broken_reply")
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_MOST_BODY = 64 * 2**20


@dataclass(frozen=True, slots=True)
class MockOptions:
    """How the server behaves.

    latency: seconds before each answer. fault_rate: the share of requests that meet one of `faults`.
    retry_after: seconds named in the header of a 429. stall: seconds that a `timeout` hangs before it is cut.
    structured, logprobs: whether the server has these; a request for one it has not is refused with 400.
    api_key: the only key accepted; `None` accepts every key and none.
    reply: makes the reply from system and user message instead of the built-in stand-in.
    """

    latency: float = 0.0
    fault_rate: float = 0.0
    faults: tuple[Fault, ...] = FAULTS
    retry_after: float = 0.2
    stall: float = 60.0
    seed: int = 0
    structured: bool = True
    logprobs: bool = True
    api_key: str | None = None
    reply: Callable[[str, str, bool], str] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for rates outside [0, 1] and for unknown faults."""
        if not 0 <= self.fault_rate <= 1:
            raise ValueError(f"fault_rate must be between 0 and 1, not {self.fault_rate}")
        unknown = sorted(set(self.faults) - set(FAULTS))
        if unknown or not self.faults:
            raise ValueError(f"faults must be some of {', '.join(FAULTS)}, not {', '.join(unknown) or 'none'}")


@dataclass(slots=True)
class Stats:
    """What a server was asked. `at_once` is the most requests it had in hand at any time."""

    requests: int = 0
    answered: int = 0
    at_once: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "requests": self.requests,
            "answered": self.answered,
            "at_once": self.at_once,
            "faults": dict(sorted(self.faults.items())),
        }


class MockServer:
    """The server; `start` and `stop` belong to the running event loop."""

    def __init__(self, options: MockOptions | None = None) -> None:
        self.options = options or MockOptions()
        self.stats = Stats()
        self.in_hand = 0
        self._seen: Counter[bytes] = Counter()
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()

    @property
    def base_url(self) -> str:
        """What to give as `base_url`. Raises RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("the mock server is not running")
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def start(self, port: int = 0) -> None:
        """Listen on the loopback interface; port 0 takes a free one. Raises OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=2048)

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._open):
                connection.close()
            await self._server.wait_closed()

    def fault(self, body: bytes) -> Fault | None:
        """The fault that this request meets this time, if any."""
        if not self.options.fault_rate:
            return None
        digest = hashlib.sha256(body).digest()
        self._seen[digest] += 1
        draw = hashlib.sha256(f"{self.options.seed} {self._seen[digest]} ".encode() + digest).digest()
        if int.from_bytes(draw[:8], "big") / 2**64 >= self.options.fault_rate:
            return None
        return self.options.faults[draw[8] % len(self.options.faults)]

    def refusal(self, request: dict[str, Any]) -> str | None:
        """Why a request is answered with 400, if it is."""
        if not isinstance(request.get("messages"), list) and not isinstance(request.get("prompt"), str):
            return "neither 'messages' nor a 'prompt'"
        if "response_format" in request and not self.options.structured:
            return "'response_format' is not supported by this server"
        if request.get("logprobs") and not self.options.logprobs:
            return "'logprobs' is not supported by this server"
        return None

    def reply(self, request: dict[str, Any], broken: bool) -> bytes:
        """The body of a good answer; `broken` cuts the model's text in half. A text completion's prompt is `user`."""
        plain = "prompt" in request
        turns = [{"role": "user", "content": request["prompt"]}] if plain else request["messages"]
        texts = {m.get("role"): str(m.get("content", "")) for m in turns if isinstance(m, dict)}
        system, user = texts.get("system", ""), texts.get("user", "")
        as_json = "response_format" in request or "guided_json" in request or "structured_outputs" in request
        text = (self.options.reply or _answer)(system, user, as_json)
        if broken:
            text = text[: len(text) // 2]
        prompt_tokens, completion_tokens = estimate_tokens(system + user), estimate_tokens(text)
        written = {"text": text} if plain else {"message": {"role": "assistant", "content": text}}
        choice: dict[str, Any] = {"index": 0, **written, "finish_reason": "stop"}
        if request.get("logprobs"):
            choice["logprobs"] = {"content": _logprobs(text)}
        return json.dumps(
            {
                "id": "cmpl-mock" if plain else "chatcmpl-mock",
                "object": "text_completion" if plain else "chat.completion",
                "created": 0,
                "model": request.get("model", "mock"),
                "choices": [choice],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": completion_tokens,
                    "total_tokens": prompt_tokens + completion_tokens,
                },
            }
        ).encode()


def _answer(system: str, user: str, as_json: bool) -> str:
    return answer(system, user, as_json=as_json)


def _logprobs(text: str) -> list[dict[str, Any]]:
    """The text as tokens of one character, each almost certain, and the end of the turn as vLLM lists it."""
    tokens = [*text, "<|im_end|>"]
    return [{"token": t, "logprob": -0.01, "top_logprobs": [{"token": t, "logprob": -0.01}]} for t in tokens]


class _Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; requests are answered one after the other."""

    def __init__(self, server: MockServer) -> None:
        self.server = server
        self.data = bytearray()
        self.transport: asyncio.Transport | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.server._open.discard(self)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.busy:
            self._next()

    def _next(self) -> None:
        """Take a whole request from the buffer, if there is one."""
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = bytes(self.data[:end]).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
        length = int(headers.get("content-length", "0"))
        if length > _MOST_BODY:
            self.close()
            return
        if len(self.data) < end + 4 + length:
            return
        body = bytes(self.data[end + 4 : end + 4 + length])
        del self.data[: end + 4 + length]
        self.busy = True
        method, path, *_ = [*first.split(" "), "", ""]
        self._route(method, path.split("?")[0], headers, body)

    def _route(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        options, stats = self.server.options, self.server.stats
        if method == "GET" and path == "/stats":
            self._send(200, json.dumps(stats.as_json()).encode())
        elif method == "GET" and path == "/v1/models":
            self._send(200, b'{"object": "list", "data": [{"id": "mock", "object": "model"}]}')
        elif method != "POST" or path not in ("/v1/chat/completions", "/v1/completions"):
            self._send(404, _error(f"no {method} {path}", "not_found"))
        elif options.api_key is not None and headers.get("authorization") != f"Bearer {options.api_key}":
            self._send(401, _error("Incorrect API key provided", "invalid_api_key"))
        else:
            stats.requests += 1
            self.server.in_hand += 1
            stats.at_once = max(stats.at_once, self.server.in_hand)
            loop = asyncio.get_running_loop()
            loop.call_later(options.latency, self._answer, body)

    def _answer(self, body: bytes) -> None:
        options, stats = self.server.options, self.server.stats
        fault = self.server.fault(body)
        if fault == "timeout":
            stats.faults[fault] += 1
            asyncio.get_running_loop().call_later(options.stall, self._give_up)
            return
        self.server.in_hand -= 1
        try:
            request = json.loads(body)
            refusal = self.server.refusal(request) if isinstance(request, dict) else "the body is not an object"
        except ValueError:
            refusal = "the body is not JSON"
        if refusal is not None:
            self._send(400, _error(refusal, "invalid_request_error"))
            return
        if fault is not None:
            stats.faults[fault] += 1
        if fault == "429":
            wait = f"retry-after-ms: {options.retry_after * 1000:.0f}\r\nretry-after: {options.retry_after:.3f}\r\n"
            self._send(429, _error("Rate limit reached", "rate_limit_exceeded"), wait)
        elif fault == "500":
            self._send(500, _error("The server had an error", "server_error"))
        elif fault == "cut":
            self._send(200, self.server.reply(request, False), cut=True)
        elif fault == "broken_json":
            good = self.server.reply(request, False)
            self._send(200, good[: len(good) // 2])
        else:
            stats.answered += fault is None
            self._send(200, self.server.reply(request, fault == "broken_reply"))

    def _give_up(self) -> None:
        self.server.in_hand -= 1
        self.close()

    def _send(self, status: int, body: bytes, extra: str = "", cut: bool = False) -> None:
        if self.transport is None:
            return
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Internal Server Error')}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        )
        if cut:
            self.transport.write(head.encode() + body[: len(body) // 2])
            self.transport.close()
            return
        self.transport.write(head.encode() + body)
        self.busy = False
        if self.data:
            self._next()


def _error(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


@contextmanager
def running_mock(options: MockOptions | None = None) -> Iterator[MockServer]:
    """A server in a thread of its own for as long as the context lasts."""
    server = MockServer(options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def serve_mock(
    options: MockOptions | None = None, *, port: int = 0, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until interrupted. `ready` is called with the base URL. Raises ValueError where the port is taken."""

    async def serve() -> None:
        server = MockServer(options)
        try:
            await server.start(port)
        except OSError as problem:
            raise ValueError(f"port {port} cannot be used ({problem}); choose another one") from problem
        if ready is not None:
            ready(server.base_url)
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()

    asyncio.run(serve())
