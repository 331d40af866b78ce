"""Requests to an OpenAI-compatible endpoint, many at once: OpenAI itself, vLLM, llama.cpp, TGI, Azure and their like.

The official SDK makes the connections (over aiohttp; its default transport slows down as more requests are in
flight), the credentials and the headers. Requests are then sent through its HTTP client as they are: the typed
options that it would build for each of them cost more processor time than everything else in a call together.
Retries are ours, because a rate limit has to stop all workers and not one of them.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from factscore_mod.chat import CallFailed
from factscore_mod.judges.base import JudgeError, JudgeOptions

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

T = TypeVar("T")
Body = Mapping[str, Any]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_LONGEST_BACKOFF = 30.0
_FIRST_BACKOFF = 0.25
_SHORTEST_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class _Connection:
    """The SDK's HTTP client, and what goes with every request."""

    http: AsyncClient
    url: str
    headers: dict[str, str]
    places: asyncio.Semaphore


class Endpoint:
    """Sends requests, many at once, and goes on until each is answered, refused or out of tries.

    `path` is what is asked, below the base URL; `noun` names a good answer in messages.
    """

    def __init__(self, model: str, options: JudgeOptions, *, path: str, noun: str) -> None:
        """Raises JudgeError where OpenAI's own endpoint would be asked without a key."""
        self.model = model
        self.name = f"openai:{model}"
        self.options = options
        self._path = path
        self._noun = noun
        self._key = options.api_key or os.environ.get("OPENAI_API_KEY") or ""
        given = _given(options.base_url)
        if not self._key and given == DEFAULT_BASE_URL:
            raise JudgeError("no API key: set OPENAI_API_KEY, or name another endpoint (base URL) that needs none")
        self._url, self._query, self._host = _split(given)
        self._temperature = True
        self._limit_name = "max_tokens"
        self._resume_at = 0.0
        self._jitter = random.Random("retry jitter")
        self._connection: _Connection | None = None

    @property
    def place(self) -> list[Any]:
        """Where requests go, for cache keys: the URL and its query, without credentials."""
        return [self._url, self._query]

    async def exchange(self, make: Callable[[], tuple[Body, Callable[[Any], T]]]) -> T:
        """One answer. `make` gives the body of the request, anew for every try, and what reads the answer to it.

        Raises CallFailed after the last try, JudgeError where no request can succeed.
        """
        if self._connection is None:
            self._connection = self._connect()
        async with self._connection.places:
            return await self._persist(self._connection, make)

    async def _persist(self, connection: _Connection, make: Callable[[], tuple[Body, Callable[[Any], T]]]) -> T:
        import aiohttp
        import httpx2

        failures = 0
        patience = self.options.patience
        while True:
            patience -= await self._pause(patience)
            body, read = make()
            wait = None
            try:
                response = await self._post(connection, body)
            except httpx2.TimeoutException:
                reason = f"no answer in {self.options.timeout:g} s"
            except (httpx2.HTTPError, aiohttp.ClientError, OSError) as problem:
                reason = f"{type(problem).__name__}: {problem}"
            else:
                if response.status_code != 200:
                    if self._again_at_once(response, body):
                        continue
                    wait, reason = _retry_after(response.headers), f"status {response.status_code}"
                else:
                    try:
                        return read(json.loads(response.content))
                    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:
                        reason = f"the answer is not a {self._noun} ({type(problem).__name__})"
            failures += 1
            if failures >= self.options.attempts:
                raise CallFailed(self._safe(f"given up after {failures} tries: {reason}"))
            await asyncio.sleep(self._backoff(failures) if wait is None else wait * self._jitter.uniform(1, 1.25))

    async def _post(self, connection: _Connection, body: Body) -> Response:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        request = connection.http.build_request("POST", connection.url, content=content, headers=connection.headers)
        return await connection.http.send(request)

    def _again_at_once(self, response: Response, body: Body) -> bool:
        """Whether a refusal is no failure of this request: a rate limit, or an option that is now switched off.

        Raises JudgeError where no request can succeed, and CallFailed where this one cannot.
        """
        status = response.status_code
        code, message = _problem(response)
        if status == 429:
            if code == "insufficient_quota":
                raise JudgeError(f"{self._host}: the quota of this key is used up; raise it and go on")
            self._stop_all(_retry_after(response.headers))
            return True
        if status in (401, 403):
            raise JudgeError(f"{self._host} refused the API key ({status}); set OPENAI_API_KEY to a valid one")
        if status == 404:
            asked = _shown(self._url)
            raise JudgeError(f"{self._host} has no model {self.model!r}, or {asked} is not its base URL (404)")
        if status in (400, 422):
            if not self._do_without(message, body):
                raise CallFailed(self._safe(f"refused by the server: {message}"))
            return True
        return False

    def _do_without(self, message: str, body: Body) -> bool:
        """Switch off what the server says it does not know; whether anything is left to switch off."""
        if "max_completion_tokens" in message and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
        elif "temperature" in message and "temperature" in body:
            self._temperature = False
        else:
            return False
        return True

    def _stop_all(self, wait: float | None) -> None:
        """Let no request start before a rate limit is over."""
        wait = _FIRST_BACKOFF * 4 if wait is None else max(wait, _SHORTEST_PAUSE)
        self._resume_at = max(self._resume_at, time.monotonic() + wait)

    async def _pause(self, patience: float) -> float:
        """Wait until no rate limit is in force; the seconds waited. Raises CallFailed when patience is at its end."""
        start = time.monotonic()
        while (wait := self._resume_at - time.monotonic()) > 0:
            if time.monotonic() - start + wait > patience:
                raise CallFailed(f"rate limited for more than {self.options.patience:g} s")
            await asyncio.sleep(wait + self._jitter.uniform(0, min(0.25 * wait, 1.0)))
        return time.monotonic() - start

    def _backoff(self, failures: int) -> float:
        """Exponential, with full jitter above a floor."""
        longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2**failures)
        return self._jitter.uniform(_FIRST_BACKOFF / 2, longest)

    def _safe(self, text: str) -> str:
        """The text without the key, on one line and of bounded length."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:300]

    def _connect(self) -> _Connection:
        from openai import AsyncOpenAI, DefaultAioHttpClient, Omit

        # Without TLS no certificates are needed, and reading them takes time; trusting none is safe.
        plain = self._url.startswith("http://")
        http = DefaultAioHttpClient(
            timeout=self.options.timeout,
            params=dict(self._query),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
        )
        client = AsyncOpenAI(
            base_url=self._url,
            api_key=self._key or "none",
            default_headers={"api-key": self._key} if self._host.endswith(".azure.com") else {},
            http_client=http,
        )
        headers = {**client.auth_headers, **client.default_headers}
        return _Connection(
            http,
            f"{self._url}/{self._path}",
            {name: value for name, value in headers.items() if not isinstance(value, Omit)},
            asyncio.Semaphore(self.options.concurrency),
        )

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.http.aclose()


def place_of(base_url: str | None) -> list[Any]:
    """Where requests to a base URL, by default the environment's, go: without credentials. Raises JudgeError."""
    url, query, _ = _split(_given(base_url))
    return [url, query]


def _given(base_url: str | None) -> str:
    return base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL


def _split(url: str) -> tuple[str, list[tuple[str, str]], str]:
    """The URL without credentials and query, its query, and its host. Raises JudgeError for what is no URL."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # an impossible host or port; its own message may hold a password
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise JudgeError(f"{_shown(url)!r} is not a base URL; it looks like https://host/v1")
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), parse_qsl(parts.query), host


def _shown(url: str) -> str:
    """A URL for messages: whatever stands before its last `@` may be a password, wherever that sign is."""
    return f"...@{url.rpartition('@')[2]}" if "@" in url else url


def _problem(response: Response) -> tuple[str, str]:
    """The code and the message of an error that a server sent: OpenAI's form where it is that, else its text."""
    text = f"status {response.status_code}: {response.text[:500]}"
    try:
        answer = json.loads(response.content)
    except ValueError:
        return "", text
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return "", text
    return str(error.get("code") or ""), f"status {response.status_code}: {error.get('message') or response.text[:500]}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds named by `retry-after-ms` or `retry-after` (a number or a date), if any."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
