"""A model behind an OpenAI-compatible endpoint: OpenAI itself, vLLM, llama.cpp, TGI, Azure and their like.

The official SDK sends the requests, over aiohttp (with httpx it slows down as more requests are in flight) and
through its generic `post` (which skips the building of typed objects and halves the processor time of a call).
Retries are ours, because a rate limit has to stop all workers and not one of them.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from factscore_mod.chat import Ask, CallFailed, Form, Reply, Token
from factscore_mod.judges.base import JudgeError, JudgeOptions

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_LONGEST_BACKOFF = 30.0
_FIRST_BACKOFF = 0.25
_VERDICT_LETTERS = ("s", "n", "t", "f")
_ABOUT_SCHEMA = re.compile(r"response_format|json_schema|structured|grammar|guided", re.IGNORECASE)


class OpenAIEngine:
    """Sends requests, many at once, and goes on until each is answered, refused or out of tries."""

    def __init__(self, model: str, options: JudgeOptions) -> None:
        """Raises JudgeError where OpenAI's own endpoint would be asked without a key."""
        self.model = model
        self.name = f"openai:{model}"
        self.options = options
        self._key = options.api_key or os.environ.get("OPENAI_API_KEY") or ""
        given = options.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        if not self._key and given == DEFAULT_BASE_URL:
            raise JudgeError("no API key: set OPENAI_API_KEY, or name another endpoint (base URL) that needs none")
        self._url, self._query, self._host = _split(given)
        self.settings: Mapping[str, Any] = {
            "base_url": self._url,
            "query": self._query,
            "temperature": options.temperature,
            "seed": options.seed,
            "structured": options.structured,
            "logprobs": options.logprobs,
        }
        self._schema = options.structured in ("auto", "json_schema")
        self._logprobs = options.logprobs
        self._temperature = True
        self._limit_name = "max_tokens"
        self._resume_at = 0.0
        self._jitter = random.Random("retry jitter")
        self._client: AsyncOpenAI | None = None
        self._places: asyncio.Semaphore | None = None

    async def send(self, ask: Ask) -> Reply:
        """One reply. Raises CallFailed after the last try, JudgeError where no request can succeed."""
        if self._client is None or self._places is None:
            self._client, self._places = self._connect(), asyncio.Semaphore(self.options.concurrency)
        async with self._places:
            return await self._persist(self._client, ask)

    async def _persist(self, client: AsyncOpenAI, ask: Ask) -> Reply:
        import openai

        failures = 0
        patience = self.options.patience
        while True:
            patience -= await self._pause(patience)
            body, form = self._body(ask)
            try:
                answer = await client.post("/chat/completions", cast_to=object, body=body)
                return _read(answer, form)
            except openai.RateLimitError as problem:
                if getattr(problem, "code", None) == "insufficient_quota":
                    raise JudgeError(f"{self._host}: the quota of this key is used up; raise it and go on") from None
                self._stop_all(_retry_after(problem.response.headers))
                continue
            except (openai.AuthenticationError, openai.PermissionDeniedError) as problem:
                raise JudgeError(
                    f"{self._host} refused the API key ({problem.status_code}); set OPENAI_API_KEY to a valid one"
                ) from None
            except openai.NotFoundError:
                raise JudgeError(
                    f"{self._host} has no model {self.model!r}, or {self._url} is not its base URL (404)"
                ) from None
            except (openai.BadRequestError, openai.UnprocessableEntityError) as problem:
                if not self._do_without(problem.message, body):
                    raise CallFailed(self._safe(f"refused by the server: {problem.message}")) from None
                continue
            except openai.APIStatusError as problem:
                wait, reason = _retry_after(problem.response.headers), f"status {problem.status_code}"
            except openai.APITimeoutError:
                wait, reason = None, f"no answer in {self.options.timeout:g} s"
            except openai.OpenAIError as problem:
                wait, reason = None, f"{type(problem).__name__}: {problem}"
            except (ValueError, KeyError, TypeError, IndexError) as problem:
                wait, reason = None, f"the answer is not a chat completion ({type(problem).__name__})"
            failures += 1
            if failures >= self.options.attempts:
                raise CallFailed(self._safe(f"given up after {failures} tries: {reason}"))
            await asyncio.sleep(self._backoff(failures) if wait is None else wait * self._jitter.uniform(1, 1.25))

    def _body(self, ask: Ask) -> tuple[dict[str, Any], Form]:
        guided = self.options.structured == "guided"
        form: Form = "json" if ask.schema is not None and (self._schema or guided) else "line"
        messages = [{"role": "system", "content": ask.system}, {"role": "user", "content": ask.message(form)}]
        body: dict[str, Any] = {"model": self.model, "messages": messages, self._limit_name: ask.max_tokens}
        if self._temperature:
            body["temperature"] = self.options.temperature
        if self.options.seed is not None:
            body["seed"] = self.options.seed
        if ask.logprobs and self._logprobs:
            body |= {"logprobs": True, "top_logprobs": 5}
        if ask.schema is not None and guided:
            body |= {"guided_json": ask.schema["schema"], "structured_outputs": {"json": ask.schema["schema"]}}
        elif form == "json":
            body["response_format"] = {"type": "json_schema", "json_schema": ask.schema}
        if ask.choices and guided:
            body |= {"guided_choice": list(ask.choices), "structured_outputs": {"choice": list(ask.choices)}}
        return body, form

    def _do_without(self, message: str, body: Mapping[str, Any]) -> bool:
        """Switch off what the server says it does not know; whether anything is left to switch off."""
        if "max_completion_tokens" in message and "max_tokens" in body:
            self._limit_name = "max_completion_tokens"
        elif "temperature" in message and "temperature" in body:
            self._temperature = False
        elif "logprobs" in message and "logprobs" in body:
            self._logprobs = False
        elif _ABOUT_SCHEMA.search(message) and "response_format" in body:
            if self.options.structured == "json_schema":
                raise JudgeError(f"{self._host} does not take JSON schemas; use structured output `auto` or `off`")
            self._schema = False
        else:
            return False
        return True

    def _stop_all(self, wait: float | None) -> None:
        """Let no request start before a rate limit is over."""
        wait = _FIRST_BACKOFF * 4 if wait is None else wait
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

    def _connect(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        headers = {"api-key": self._key} if self._host.endswith(".azure.com") else {}
        return AsyncOpenAI(
            base_url=self._url,
            api_key=self._key or "none",
            default_query=dict(self._query),
            default_headers=headers,
            timeout=self.options.timeout,
            max_retries=0,
            http_client=DefaultAioHttpClient(timeout=self.options.timeout),
        )

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client, self._places = self._client, None, None
        if client is not None:
            await client.close()


def _split(url: str) -> tuple[str, list[tuple[str, str]], str]:
    """The URL without credentials and query, its query, and its host. Raises JudgeError for what is no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeError(f"{url!r} is not a base URL; it looks like https://host/v1")
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), parse_qsl(parts.query), parts.hostname


def _read(answer: Any, form: Form) -> Reply:
    """The reply in a chat completion. Raises KeyError, TypeError or IndexError where it is not one."""
    choice = answer["choices"][0]
    usage = answer.get("usage") or {}
    content = (choice.get("logprobs") or {}).get("content") or []
    return Reply(
        text=choice["message"].get("content") or "",
        form=form,
        finish=str(choice.get("finish_reason") or "stop"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        tokens=tuple(Token(token["token"], _alternatives(token)) for token in content),
    )


def _alternatives(token: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Those alternatives that could begin a verdict; the others are of no use and would fill the cache."""
    pairs = ((row["token"], float(row["logprob"])) for row in token.get("top_logprobs") or [])
    return tuple(pair for pair in pairs if pair[0].strip(" \t\n\"'=:").lower().startswith(_VERDICT_LETTERS))


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
