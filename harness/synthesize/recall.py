"""Whether a knowledge adapter holds its facts: statements broken off before their value, finished greedily.

    python -m harness.synthesize.recall FOLDER --task popqa --base BASE --adapter ADAPTER [--version 1] [--real]

The share of values that the model writes next. Prerequisite learning rests on facts that are known before the skill
is learnt; 0.9 is what this project asks for. The statements serve for passage adapters, too. `harness run` measures
the same of every knowledge adapter under a skill stage (harness/recall.py), and puts the folder of each into its
manifest (`jobs`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.backends.decoding import Decoding, Request
from harness.data.files import Record, read_jsonl
from harness.data.source import DataError
from harness.synthesize.output import CONFIGS, knowledge_name, read_manifest

if TYPE_CHECKING:
    from harness.backends.backend import Backend

ENOUGH = 0.9
# Greedy; a value is a name, a date or a few words.
DECODING = Decoding(24, ("\n",))


@dataclass(frozen=True, slots=True)
class Cloze:
    """The beginning of a statement, without the space at its end, and the value that it breaks off before."""

    subject: str
    beginning: str
    value: str


def clozes(folder: Path, task: str, *, fake: bool = True, version: int | None = None) -> tuple[Cloze, ...]:
    """Of each fact the first statement that ends in its value. Raises DataError where the folder has none."""
    names = read_manifest(folder)["tasks"].get(task, {}).get("files", {})
    split = "test" if task == "grounding" else "train_fake" if fake else "train_real"
    rows, texts = (
        f"{CONFIGS.get(task, task)}_{part}.jsonl"
        for part in (f"skill/{split}", f"knowledge/{knowledge_name('statement', fake, version)}")
    )
    if rows not in names or texts not in names:
        raise DataError(f"{folder} has no {texts} for task '{task}'; it has {', '.join(names) or 'nothing'}")
    statements: dict[str, list[str]] = {}
    for record in read_jsonl(folder / texts):
        statements.setdefault(record.text("subject"), []).append(record.text("text"))
    found: dict[tuple[str, str], Cloze] = {}
    for record in read_jsonl(folder / rows):
        if record.count("version") == version:
            for fact in record.records("facts"):
                _add(found, fact, statements.get(fact.text("subject"), []))
    return tuple(found.values())


def _add(found: dict[tuple[str, str], Cloze], fact: Record, statements: Sequence[str]) -> None:
    subject, value = fact.text("subject"), fact.text("value")
    for text in statements:
        beginning = text.removesuffix(f" {value}.")
        if beginning != text and (subject, fact.text("relation")) not in found:
            found[subject, fact.text("relation")] = Cloze(subject, beginning, value)


def recall(backend: Backend, asked: Sequence[Cloze], adapter: Path | None) -> float:
    """The share of values that the base with the adapter (or alone) writes next, letter case aside."""
    requests = [Request(id_, beginning) for id_, beginning in prompts(asked)]
    answers: dict[str, str] = {}
    for batch in backend.generate(requests, DECODING, adapter):
        answers |= {one.id: one.text for one in batch}
    return count_right(asked, answers) / len(asked)


def prompts(asked: Sequence[Cloze]) -> tuple[tuple[str, str], ...]:
    """What a model is asked to go on with, as (id, text) pairs."""
    return tuple((str(i), cloze.beginning) for i, cloze in enumerate(asked))


def count_right(asked: Sequence[Cloze], answers: Mapping[str, str]) -> int:
    """How many answers (by the ids of `prompts`) begin with the value, letter case aside."""
    return sum(answers[str(i)].strip().casefold().startswith(c.value.casefold()) for i, c in enumerate(asked))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one adapter and print its recall."""
    from harness.backends.opening import open_backend

    parser = argparse.ArgumentParser(description="The recall of a knowledge adapter on what `harness synthesize` made.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="popqa", choices=sorted(CONFIGS))
    parser.add_argument("--base", required=True, help="the folder of the base")
    parser.add_argument("--adapter", type=Path, help="the folder of the adapter; the base alone without")
    parser.add_argument("--version", type=int, help="of facts in several versions")
    parser.add_argument("--real", action="store_true", help="the real rows instead of the fictitious ones")
    parser.add_argument("--backend", default="transformers")
    words = parser.parse_args(arguments)
    asked = clozes(words.folder, words.task, fake=not words.real, version=words.version)
    share = recall(open_backend(words.backend, words.base), asked, words.adapter)
    verdict = "enough" if share >= ENOUGH else f"less than {ENOUGH}: more epochs or a higher rate"
    print(f"recall {share:.3f} of {len(asked)} facts ({verdict})")


if __name__ == "__main__":
    main()
