"""Fictitious data from `harness synthesize` beside real data: rows, knowledge texts, and what tests the skill."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from factscore_mod.knowledge_format import title_key
from harness.data.files import Record, read_jsonl
from harness.data.source import DataError, Source
from harness.paths import digest
from harness.records import Row, Split
from harness.synthesize.output import CONFIGS, PROMPTS, knowledge_name, read_manifest
from train.rows import KnowledgeFormat, KnowledgeSet

FORMATS: tuple[KnowledgeFormat, ...] = ("statement", "passage")
# Where a data folder may hold fictitious data.
FOLDER = "fictitious"


class WithFictitious:
    """A source of real data with the fictitious data of a folder (docs/synthesize.md) as a `Source`.

    Where the folder has knowledge texts of real rows, the training rows are these ones and no others, so that every
    method learns from the same rows and none is without its knowledge. `grounding` and `memorization` come from the
    folder alone; everything that it has not is the inner source's.
    """

    def __init__(self, inner: Source, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder; make it with `harness synthesize SOURCE --out FOLDER`")
        self._inner = inner
        self._tasks = read_manifest(self.folder)["tasks"]
        made = "; ".join(f"{task} by {about['generator']}, seed {about['seed']}" for task, about in self._tasks.items())
        self.name = f"{inner.name}; fictitious data in {self.folder.name}: {made}"
        self._rows: dict[tuple[str, Split], tuple[Row, ...]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the inner source and of every file of the folder that is read."""
        hashes = {}
        for task in self._tasks.values():
            for name in task["files"]:
                with self._path(name).open("rb") as stream:
                    hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest(["fictitious", self._inner.fingerprint, hashes])

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """The rows of one split. Raises DataError (see `Source`), also where the folder was made for other splits."""
        if (task, split) not in self._rows:
            self._rows[task, split] = self._read(task, split)
        return self._rows[task, split]

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """Statements and passages: of each version, or fictitious and real."""
        if task not in self._tasks:
            return () if task in ("grounding", "memorization") else self._inner.knowledge_sets(task)
        split: Split = "test" if task == "grounding" else "fictitious"
        versions = sorted({row.version for row in self.rows(task, split) if row.version is not None})
        made: list[tuple[bool, int | None]] = [(True, version) for version in versions] or [(True, None)]
        sets = []
        for fake, version in ((False, None), *made):
            for form in FORMATS:
                name = f"{CONFIGS[task]}_knowledge/{knowledge_name(form, fake, version)}.jsonl"
                if name in self._tasks[task]["files"]:
                    texts = tuple(record.text("text") for record in read_jsonl(self._path(name)))
                    sets.append(KnowledgeSet(form, fake, version, texts))
        return tuple(sets)

    def knowledge_source(self, task: str, home: Path) -> Path:
        """That of the inner source."""
        return self._inner.knowledge_source(task, home)

    def _read(self, task: str, split: Split) -> tuple[Row, ...]:
        if task == "memorization":
            self._need("popqa", task)
            return self.rows("popqa", "fictitious") if split in ("test", "fictitious") else ()
        if task == "grounding":
            self._need(task, task)
            return self._file(task, "test") if split in ("test", "fictitious_test") else ()
        if task not in self._tasks:
            return self._inner.rows(task, split)
        if split == "fictitious":
            made = self._file(task, "train_fake")
            self._check_names(task, made)
            return made
        if split == "train":
            return self._real(task)
        return self._inner.rows(task, split)

    def _need(self, task: str, wanted: str) -> None:
        if task not in self._tasks:
            raise DataError(
                f"{self.folder}: holds nothing for task '{wanted}', only for {', '.join(self._tasks)}; make it with "
                f"`harness synthesize SOURCE --out {self.folder} --task popqa`"
            )

    def _file(self, task: str, split: str) -> tuple[Row, ...]:
        name = f"{CONFIGS[task]}_skill/{split}.jsonl"
        if name not in self._tasks[task]["files"]:
            return ()
        return tuple(_row(task, record) for record in read_jsonl(self._path(name)))

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _real(self, task: str) -> tuple[Row, ...]:
        """The inner source's training rows that have knowledge texts; all of them where none has."""
        rows = self._inner.rows(task, "train")
        wanted = {row.question for row in self._file(task, "train_real")}
        if not wanted:
            return rows
        chosen = tuple(row for row in rows if row.question in wanted)
        if missing := wanted - {row.question for row in chosen}:
            raise DataError(
                f"{self.folder}: {len(missing)} of {len(wanted)} real rows of {task} are no training rows here, such "
                f"as {min(map(str, missing))!r}: it was made for seed {self._tasks[task]['seed']} or for other data; "
                "make it again with this run's --seed and data folder"
            )
        return chosen

    def _check_names(self, task: str, made: tuple[Row, ...]) -> None:
        """No fictitious subject may be one that is tested or learnt as a real one."""
        names = {title_key(row.subject): row.subject for row in made}
        splits: tuple[Split, ...] = ("train", "validation", "test")
        for split in splits:
            for row in self._inner.rows(task, split):
                if title_key(row.subject) in names:
                    raise DataError(
                        f"{self.folder}: the fictitious subject {row.subject!r} of {task} is a real one of these data; "
                        "make the folder again from them"
                    )


def _row(task: str, record: Record) -> Row:
    messages = list(record.records("messages"))
    if len(messages) != 2:
        raise record.fault("messages", f"has {len(messages)} messages, a question and an answer are expected")
    short = task not in PROMPTS
    return Row(
        id=record.text("id"),
        subject=record.text("s_wiki_title"),
        target=messages[1].text("content"),
        question=messages[0].text("content") if short else None,
        answers=record.texts("possible_answers") if short else (),
        kind=record.text("type"),
        fake=record.count("fake") == 1,
        version=record.count("version"),
    )
