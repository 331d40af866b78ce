"""Readers of labelled sets: claims with evidence and a label, and biographies with human atomic facts.

The folder's layout and where each set can be had are described in docs/calibration.md. Files are JSON lines, plain
or gzipped. A set's mapping from its own labels to supported and not supported is in its reader's docstring.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factscore_mod.bm25 import ArticleIndex
from factscore_mod.lexicon import fold
from factscore_mod.records import Evidence, Passage
from factscore_mod.tokens import words

#: Passages of the person's page that a claim of the automatic labels is verified against.
PASSAGES_PER_CLAIM = 5


class CalibrationError(ValueError):
    """A labelled set is unknown, missing or not in the expected form."""


@dataclass(frozen=True, slots=True)
class LabelledClaim:
    """A claim with its evidence. Claims of one `cluster` share a text or an article and are not independent."""

    cluster: str
    topic: str
    claim: str
    evidence: Evidence
    supported: bool


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """A sentence of a biography with the atomic facts that annotators found in it."""

    text: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelledResponse:
    """A biography; `sentences` is None where annotators marked that the model abstained."""

    topic: str
    text: str
    sentences: tuple[LabelledSentence, ...] | None


def wikibio(data: Path) -> Iterator[LabelledClaim]:
    """WikiBio GPT-3 (Manakul et al. 2023): whole sentences; `accurate` is supported, `minor` and `major` are not."""
    for row in _rows(data, "wikibio_gpt3/wikibio_gpt3.jsonl"):
        evidence = Evidence((Passage(row["title"], row["wiki_bio_text"], 0),), "exact", row["title"])
        for text, label in zip(row["gpt3_sentences"], row["annotation"], strict=True):
            yield LabelledClaim(row["title"], row["title"], text, evidence, label == "accurate")


def wice(data: Path) -> Iterator[LabelledClaim]:
    """WiCE dev claims (Kamoi et al. 2023) against the cited page: `supported`; partially counts as not supported."""
    for row in _rows(data, "verifier/wice_claim_dev.jsonl"):
        evidence = Evidence((Passage("", "\n".join(row["evidence"]), 0),), "search")
        title = row["meta"]["claim_title"]
        yield LabelledClaim(title, "", row["claim"], evidence, row["label"] == "supported")


def factcheckgpt(data: Path) -> Iterator[LabelledClaim]:
    """Factcheck-GPT (Wang et al. 2024), each claim with each snippet: `completely-support`, all else is not."""
    for row in _rows(data, "verifier/factcheckgpt_claim_evidence_stance.jsonl"):
        evidence = Evidence((Passage("", row["evidence"], 0),), "search")
        yield LabelledClaim(row["claim"], "", row["claim"], evidence, row["stance"] == "completely-support")


def factscore_auto(data: Path) -> Iterator[LabelledClaim]:
    """FActScore's automatic labels on ChatGPT's claims, with BM25's passages of the person's own page: `T`.

    Persons without a page of their own name among the passages are left out: their claims could only be judged
    against somebody else's page.
    """
    pages = {
        row["name"]: tuple(
            Passage(passage["title"], passage["text"], index)
            for index, passage in enumerate(
                passage for passage in row["passages"] if _same_title(passage["title"], row["name"])
            )
        )
        for row in _rows(data, "wiki_passages/bio500_retrieved_passages.jsonl")
    }
    for row in _rows(data, "factscore_auto/factscore_auto_claims.jsonl"):
        passages = pages.get(row["topic"], ())
        if not passages:
            continue
        index = ArticleIndex([words(passage.text) for passage in passages])
        for claim in row["claims"]:
            best = index.top(words(claim["message"]), PASSAGES_PER_CLAIM)
            order = [0, *(position for position in best if position)][:PASSAGES_PER_CLAIM]
            evidence = Evidence(tuple(passages[position] for position in order), "exact", passages[0].title)
            yield LabelledClaim(row["topic"], row["topic"], claim["message"], evidence, claim["annotation"] == "T")


def biographies(data: Path) -> Iterator[LabelledResponse]:
    """FActScore's human labels (Min et al. 2023) on biographies by three models."""
    for model in ("InstructGPT", "ChatGPT", "PerplexityAI"):
        for row in _rows(data, f"factscore/{model}.jsonl"):
            annotations = row["annotations"]
            sentences = None
            if annotations is not None:
                sentences = tuple(
                    LabelledSentence(part["text"], tuple(f["text"] for f in part["human-atomic-facts"] or ()))
                    for part in annotations
                )
            yield LabelledResponse(row["topic"], row["output"], sentences)


CLAIM_SETS: dict[str, Callable[[Path], Iterator[LabelledClaim]]] = {
    "wikibio": wikibio,
    "wice": wice,
    "factcheckgpt": factcheckgpt,
    "factscore_auto": factscore_auto,
}

#: The files that each set is read from, without the ending `.gz` that they may have.
FILES: dict[str, tuple[str, ...]] = {
    "wikibio": ("wikibio_gpt3/wikibio_gpt3.jsonl",),
    "wice": ("verifier/wice_claim_dev.jsonl",),
    "factcheckgpt": ("verifier/factcheckgpt_claim_evidence_stance.jsonl",),
    "factscore_auto": (
        "factscore_auto/factscore_auto_claims.jsonl",
        "wiki_passages/bio500_retrieved_passages.jsonl",
    ),
    "factscore_abstention": tuple(f"factscore/{m}.jsonl" for m in ("InstructGPT", "ChatGPT", "PerplexityAI")),
    "factscore_decomposition": tuple(f"factscore/{m}.jsonl" for m in ("InstructGPT", "ChatGPT", "PerplexityAI")),
}


def has_set(data: Path, name: str) -> bool:
    """Whether all files of a set are in the folder."""
    return all(_find(data, file) is not None for file in FILES[name])


def _same_title(title: str, name: str) -> bool:
    return fold(title.replace("_", " ")) == fold(name.replace("_", " "))


def _find(data: Path, name: str) -> Path | None:
    return next((path for path in (data / f"{name}.gz", data / name) if path.is_file()), None)


def _rows(data: Path, name: str) -> Iterator[dict[str, Any]]:
    path = _find(data, name)
    if path is None:
        raise CalibrationError(
            f"{data / name}[.gz] is missing; docs/calibration.md says where the set can be had, "
            "or leave it out with --sets"
        )
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise CalibrationError(f"{path}:{number}: not JSON ({error.msg}); restore the file") from error
            if not isinstance(row, dict):
                raise CalibrationError(f"{path}:{number}: expected a JSON object; restore the file")
            yield row
