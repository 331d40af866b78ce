"""Adding up what calls cost."""

from __future__ import annotations

from collections.abc import Iterable

from factscore_mod.records import Usage


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of usages, field by field."""
    calls = cached = prompt = completion = 0
    dollars = 0.0
    for usage in usages:
        calls += usage.calls
        cached += usage.cached_calls
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        dollars += usage.dollars
    return Usage(calls, cached, prompt, completion, dollars)
