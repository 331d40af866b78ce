"""Every name that a data folder knows: subjects, answers, aliases and titles. No made-up subject may bear one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from harness.data import local
from harness.data.files import Record, read_jsonl, read_names


def known_names(folder: Path) -> set[str]:
    """The names in the files that are there. Raises DataError where one is malformed."""
    names: set[str] = set()
    for record in _records(folder, local.POPQA):
        names |= {record.text("subj"), record.text("obj"), *record.listed("possible_answers")}
        for field in ("s_aliases", "o_aliases", "s_wiki_title", "o_wiki_title"):
            names |= set(_listed(record.values.get(field)))
    for name in (local.HOTPOTQA_TRAIN, local.HOTPOTQA_TEST):
        for record in _records(folder, name):
            names.add(record.text("answer"))
            names |= {title for title, _ in _paragraphs(record)}
    for name in (*local.PERSON_LISTS, local.PERSON_DEV):
        if (folder / name).is_file():
            names |= set(read_names(folder / name))
    for record in _records(folder, local.PERSON_PASSAGES):
        names |= {passage.text("title") for passage in record.records("passages")}
    for record in _records(folder, local.PERSON_VIEWS):
        names.add(record.text("name"))
    for record in _records(folder, local.MEDICAL):
        names |= {record.text("entity"), *(document.text("focus") for document in record.records("docs"))}
    return {name for name in names if name.strip()}


def _records(folder: Path, name: str) -> Iterator[Record]:
    if (folder / name).is_file():
        yield from read_jsonl(folder / name)


def _listed(value: object) -> list[str]:
    """The texts of a field that is a text, or a text with a JSON list in it; aliases may be anything else, too."""
    if not isinstance(value, str):
        return []
    try:
        inside = json.loads(value)
    except json.JSONDecodeError:
        return [value]
    return [entry for entry in inside if isinstance(entry, str)] if isinstance(inside, list) else [value]


def _paragraphs(record: Record) -> list[tuple[str, list[str]]]:
    """The paragraphs of a HotpotQA row in its full form: titles and sentences; none in the simplified form."""
    context = record.values.get("context")
    if not isinstance(context, list):
        return []
    return [(str(entry[0]), [str(sentence) for sentence in entry[1]]) for entry in context if len(entry) == 2]
