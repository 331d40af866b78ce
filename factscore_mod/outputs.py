"""What scoring writes: one JSON line a response in `claims.jsonl`, and `metrics.json`.

A line holds the response with its sentences, the passages that were retrieved for any of its claims (each
once), the raw replies of the judge (each once), and the claims, which point at passages and replies by
position. Reading a line back gives the same record, apart from `cached_calls`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factscore_mod.records import (
    Claim,
    Evidence,
    Judgement,
    Passage,
    ScoredClaim,
    ScoredResponse,
    Sentence,
    Usage,
)


class OutputError(ValueError):
    """A file of scored responses cannot be read. The message names file, line and remedy."""


def response_to_json(response: ScoredResponse) -> dict[str, Any]:
    """The response as JSON values.

    How many of its calls came from the cache is left out: that is of one run, and a run that was killed and started
    again must write what an undisturbed one writes.
    """
    usage = asdict(response.usage)
    del usage["cached_calls"]
    passages: dict[Passage, int] = {}
    replies: dict[str, int] = {}
    claims = []
    for scored in response.claims:
        judgement, evidence = scored.judgement, scored.evidence
        claims.append(
            {
                "text": scored.claim.text,
                "sentence": scored.claim.sentence,
                "verdict": judgement.verdict,
                "score": judgement.score,
                "reason": judgement.reason,
                "reply": replies.setdefault(judgement.reply, len(replies)) if judgement.reply else None,
                "found": evidence.found,
                "title": evidence.title,
                "evidence": [passages.setdefault(p, len(passages)) for p in evidence.passages],
            }
        )
    return {
        "id": response.id,
        "topic": response.topic,
        "topic_found": response.topic_found,
        "text": response.text,
        "abstained": response.abstained,
        "sentences": [{"text": s.text, "start": s.start, "end": s.end} for s in response.sentences],
        "passages": [{"title": p.title, "text": p.text, "index": p.index} for p in passages],
        "replies": list(replies),
        "claims": claims,
        "usage": usage,
    }


def response_from_json(row: dict[str, Any]) -> ScoredResponse:
    """The inverse of `response_to_json`, with no call from the cache.

    Raises KeyError, TypeError or IndexError for another row.
    """
    passages = [Passage(p["title"], p["text"], p["index"]) for p in row["passages"]]
    replies = row["replies"]
    claims = []
    for claim in row["claims"]:
        evidence = Evidence(tuple([passages[i] for i in claim["evidence"]]), claim["found"], claim["title"])
        reply = "" if claim["reply"] is None else replies[claim["reply"]]
        judgement = Judgement(claim["verdict"], reply, claim["score"], claim["reason"])
        claims.append(ScoredClaim(Claim(claim["text"], claim["sentence"]), evidence, judgement))
    return ScoredResponse(
        id=row["id"],
        topic=row["topic"],
        text=row["text"],
        abstained=row["abstained"],
        sentences=tuple([Sentence(i, s["text"], s["start"], s["end"]) for i, s in enumerate(row["sentences"])]),
        claims=tuple(claims),
        topic_found=row["topic_found"],
        usage=Usage(**row["usage"]),
    )


def to_line(response: ScoredResponse) -> str:
    """One line of `claims.jsonl`, with its line end."""
    return json.dumps(response_to_json(response), ensure_ascii=False, separators=(",", ":")) + "\n"


def read_responses(path: Path, *, forgive_last_line: bool = False) -> Iterator[ScoredResponse]:
    """The responses of a `claims.jsonl`.

    `forgive_last_line` leaves out a last line that was cut off by a kill. Raises OutputError otherwise.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield response_from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError) as problem:
                if forgive_last_line and not line.endswith(b"\n"):
                    return
                raise OutputError(
                    f"{path}, line {number}: no scored response ({problem!r}); delete the line or score again"
                ) from problem


def write_atomically(path: Path, text: str) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_responses(path: Path, responses: Iterable[ScoredResponse]) -> None:
    """Write a whole `claims.jsonl`, atomically."""
    write_atomically(path, "".join(map(to_line, responses)))


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`, atomically; NaN is refused (it is not JSON)."""
    write_atomically(path, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
