"""A model behind an OpenAI-compatible endpoint as a judge, over chat completions (see `endpoint.py`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from factscore_mod.chat import Ask, Form, Reply, Token
from factscore_mod.judges.base import JudgeError, JudgeOptions
from factscore_mod.judges.endpoint import Body, Endpoint
from factscore_mod.replies import verdict_alternatives

_ABOUT_SCHEMA = re.compile(r"response_format|json_schema|structured|grammar|guided", re.IGNORECASE)


class OpenAIEngine(Endpoint):
    """Asks for replies in the form that a server can hold, and without what it says it does not know."""

    def __init__(self, model: str, options: JudgeOptions) -> None:
        """Raises JudgeError where OpenAI's own endpoint would be asked without a key."""
        super().__init__(model, options, path="chat/completions", noun="chat completion")
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

    async def send(self, ask: Ask) -> Reply:
        """One reply. Raises CallFailed after the last try, JudgeError where no request can succeed."""

        def make() -> tuple[Body, Callable[[Any], Reply]]:
            body, form = self._body(ask)
            return body, lambda answer: _read(answer, form)

        return await self.exchange(make)

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

    def _do_without(self, message: str, body: Body) -> bool:
        if super()._do_without(message, body):
            return True
        if "logprobs" in message and "logprobs" in body:
            self._logprobs = False
        elif _ABOUT_SCHEMA.search(message) and "response_format" in body:
            if self.options.structured == "json_schema":
                raise JudgeError(f"{self._host} does not take JSON schemas; use structured output `auto` or `off`")
            self._schema = False
        else:
            return False
        return True


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
        tokens=tuple(
            Token(token["token"], verdict_alternatives(_pairs(token.get("top_logprobs")))) for token in content
        ),
    )


def _pairs(alternatives: Any) -> list[tuple[str, float]]:
    return [(row["token"], float(row["logprob"])) for row in alternatives or []]
