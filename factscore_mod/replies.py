"""Reading a judge's reply strictly: what is not exactly in the form asked for is not read at all.

Only two places can hold verdicts: a JSON object that is the whole reply, or the last line. Text that a model
quotes from a response or from evidence can be in neither.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from factscore_mod.chat import Reply
from factscore_mod.records import Verdict

CLAIMS_SCHEMA: dict[str, Any] = {
    "name": "claims",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {
            "claims": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"sentence": {"type": "integer"}, "claim": {"type": "string"}},
                    "required": ["sentence", "claim"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["claims"],
        "additionalProperties": False,
    },
}

VERDICTS_SCHEMA: dict[str, Any] = {
    "name": "verdicts",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {
            "verdicts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "claim": {"type": "integer"},
                        "verdict": {"type": "string", "enum": ["supported", "not_supported"]},
                    },
                    "required": ["claim", "verdict"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["verdicts"],
        "additionalProperties": False,
    },
}

_VERDICT_LETTERS = ("s", "n", "t", "f")
_CODE_BLOCK = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)
_CLAIM_LINE = re.compile(r"\s*(\d{1,5})\s*\|\s*(\S.*?)\s*")
_VERDICT_LINE = re.compile(r"VERDICTS:((?: +\d{1,5}=[SN])+)\s*")
_LETTERS: dict[str, Verdict] = {"S": "supported", "N": "not_supported"}
_JSON_VERDICT = re.compile(r'"claim"\s*:\s*(\d{1,5})\s*,\s*"verdict"\s*:\s*"(?=(?:not_)?supported")')


def parse_claims(reply: Reply, numbers: Collection[int]) -> list[tuple[int, str]] | None:
    """Pairs of sentence number and claim; `None` where the reply is cut off, malformed or names another sentence."""
    if reply.finish == "length":
        return None
    pairs: list[tuple[Any, Any]]
    if reply.form == "json":
        rows = _json_list(reply.text, "claims")
        if rows is None or not all(row.keys() == {"sentence", "claim"} for row in rows):
            return None
        pairs = [(row["sentence"], row["claim"]) for row in rows]
    else:
        matches = [_CLAIM_LINE.fullmatch(line) for line in reply.text.splitlines()]
        pairs = [(int(match[1]), match[2]) for match in matches if match]
        if not pairs:
            return None
    for number, claim in pairs:
        if type(number) is not int or number not in numbers or not isinstance(claim, str):
            return None
    return [(number, " ".join(claim.split())) for number, claim in pairs if claim.strip()]


def parse_verdicts(reply: Reply, size: int) -> dict[int, Verdict]:
    """Verdicts by claim number from 1 to `size`, as many as can be read; contradictions are left out."""
    if reply.form == "json":
        rows = _json_list(reply.text, "verdicts") if reply.finish != "length" else None
        if rows is None or not all(row.keys() == {"claim", "verdict"} for row in rows):
            return {}
        pairs = [(row["claim"], row["verdict"]) for row in rows]
        if not all(type(n) is int and v in ("supported", "not_supported") for n, v in pairs):
            return {}
    else:
        match = _VERDICT_LINE.fullmatch(_last_line(reply.text))
        if match is None:
            return {}
        pairs = [(int(n), _LETTERS[v]) for n, v in (item.split("=") for item in match[1].split())]
    verdicts: dict[int, Verdict] = {}
    contradicted: set[int] = set()
    for number, verdict in pairs:
        if verdicts.setdefault(number, verdict) != verdict:
            contradicted.add(number)
    return {n: v for n, v in verdicts.items() if 1 <= n <= size and n not in contradicted}


def verdict_scores(reply: Reply, size: int) -> dict[int, float]:
    """The probability of `supported` against `not_supported` by claim number, where the reply has log-probabilities."""
    if not reply.tokens:
        return {}
    if reply.form == "json":
        places = [(int(match[1]), match.end()) for match in _JSON_VERDICT.finditer(reply.text)]
    else:
        start = reply.text.rstrip().rfind("\n") + 1
        line = re.finditer(r" (\d{1,5})=(?=[SN])", reply.text[start:])
        places = [(int(match[1]), start + match.end()) for match in line]
    scores = ((number, _share(reply, place, "s", "n")) for number, place in places)
    return {number: score for number, score in scores if score is not None and 1 <= number <= size}


def verdict_alternatives(pairs: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Those alternatives of a token that could begin a verdict; the others are of no use and would fill the cache."""
    return tuple(
        (text, logprob)
        for text, logprob in pairs
        if math.isfinite(logprob) and text.strip(" \t\n\"'=:").lower().startswith(_VERDICT_LETTERS)
    )


def true_false_score(reply: Reply) -> float | None:
    """The probability of `True` against `False` at the word that decides, where the reply has log-probabilities."""
    text = reply.text.lower()
    place = max(text.find("true"), text.find("false"))
    return _share(reply, place, "t", "f") if place >= 0 else None


def _share(reply: Reply, place: int, yes: str, no: str) -> float | None:
    """P(yes) / (P(yes) + P(no)) among the alternatives of the token that covers a character of the reply.

    Some engines (vLLM) list the token that ends the turn as well: the tokens may spell more than the text, not less.
    """
    if not "".join(token.text for token in reply.tokens).startswith(reply.text):
        return None
    end = 0
    for token in reply.tokens:
        end += len(token.text)
        if place < end:
            mass = {yes: 0.0, no: 0.0}
            for text, logprob in token.alternatives:
                first = text.lstrip(" \t\n\"'=:").lower()[:1]
                if first in mass:
                    mass[first] += math.exp(logprob)
            both = mass[yes] + mass[no]
            return mass[yes] / both if both else None
    return None


def _json_list(text: str, key: str) -> list[dict[str, Any]] | None:
    """The list under the only key of a JSON object that is the whole text (or one code block that is)."""
    text = text.strip()
    block = _CODE_BLOCK.fullmatch(text)
    try:
        value = json.loads(block[1] if block else text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    rows = value.get(key) if isinstance(value, dict) and value.keys() == {key} else None
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different; anything else is refused."""
    pairs = list(pairs)
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
