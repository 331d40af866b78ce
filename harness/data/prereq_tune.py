"""The data of the paper (arXiv 2410.19290): `Shiyu-Lab/Prereq_Tune` on the hub, or a local copy of the same form.

The set has two configurations a task, `{bio,medical,popqa,hotpotqa}_skill` (rows to be learnt and questions to be
asked) and `..._knowledge` (texts). Only the rows of the long-form tasks that are tested are elsewhere: lists of names
in the repository UCSB-NLP-Chang/Prereq_tune. Page views come from `akariasai/PopQA`. Nothing here is a choice of
the paper that the set itself does not hold; docs/paper-recipe.md says which of its names are not known to us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from factscore_mod.knowledge_format import title_key
from harness.data.files import Record, read_names, read_views
from harness.data.hub import load_split, split_names
from harness.data.local import MEDICAL_VIEWS, PERSON_VIEWS
from harness.data.normalise import hotpotqa_kind
from harness.data.source import DataError
from harness.paths import digest
from harness.records import Row, Split
from train.rows import KnowledgeFormat, KnowledgeSet

SET = "Shiyu-Lab/Prereq_Tune"
POPQA = "akariasai/PopQA"
CONFIGS = {"persons": "bio", "medical": "medical", "popqa": "popqa", "hotpotqa": "hotpotqa"}
# The prompts of the set, from which the entity is read.
PROMPTS = {
    "persons": re.compile(r"Generate a biography for (?P<name>.+)\.", re.DOTALL),
    "medical": re.compile(r"Tell me about (?P<name>.+)\.", re.DOTALL),
}
FORMATS: tuple[KnowledgeFormat, ...] = ("statement", "passage")
VALIDATION = ("validation", "val", "dev")

# A data folder holds these (all optional but the set): see docs/paper-recipe.md.
FOLDER = "prereq_tune"
POPQA_FOLDER = "PopQA"
ENTITIES = "prereq_tune_entities"
VIEWS = {"persons": PERSON_VIEWS, "medical": MEDICAL_VIEWS}
KNOWLEDGE = "wikipedia.db"
# The page that shows the form of all but the page views.
DOCS = "docs/paper-recipe.md"

# Raise when a change to this code changes rows.
PREREQ_TUNE_FORMAT = 1


class PrereqTuneSource:
    """The sets of the paper as a `Source`.

    With `folder` everything is read from there and nothing from the hub. `name` and `popqa` are data set names or
    folders, `entities` the folder with the lists of tested names (`bio_skill_test.json`, `bio_skill_dev.json` and
    the same for medical), `knowledge` the knowledge source of the long-form tasks, `person_views` and `medical_views`
    files of page views (docs/data.md) in place of the folder's.
    """

    def __init__(
        self,
        folder: Path | None,
        seed: int,
        name: str = SET,
        popqa: str = POPQA,
        entities: str = "",
        knowledge: str = "",
        person_views: str = "",
        medical_views: str = "",
    ) -> None:
        self.seed = seed
        self._folder = folder
        if folder is not None:
            if not (folder / FOLDER).is_dir():
                raise DataError(
                    f"{folder / FOLDER} does not exist; put a copy of the data set {SET} there "
                    "(docs/paper-recipe.md), or leave out --data to read it from the hub"
                )
            name = str(folder / FOLDER)
            popqa = str(folder / POPQA_FOLDER) if (folder / POPQA_FOLDER).is_dir() else ""
            entities = entities or str(folder / ENTITIES)
        self._set = name
        self._popqa_name = popqa
        self._entities = entities
        self._knowledge = knowledge
        self._views_files = {"persons": person_views, "medical": medical_views}
        self._views: dict[str, dict[str, int]] = {}
        self.name = f"{SET} ({'local copy' if folder else 'hub'}), page views {'known' if popqa else 'not known'}"
        self._rows: dict[str, dict[Split, tuple[Row, ...]]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every split of the set as `datasets` identifies it."""
        contents = []
        for short in CONFIGS.values():
            for config in (f"{short}_skill", f"{short}_knowledge"):
                for split in sorted(split_names(self._set, config, DOCS)):
                    contents.append([config, split, load_split(self._set, config, split, DOCS)._fingerprint])
        return digest(["prereq_tune", PREREQ_TUNE_FORMAT, contents])

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """The rows of one split. The set has no unseen fictitious questions, so `grounding` has none.

        `memorization` asks the fictitious questions that were trained on. Raises DataError (see `Source`).
        """
        if task == "memorization":
            return self.rows("popqa", "fictitious") if split == "test" else ()
        if task == "grounding":
            return ()
        if task not in CONFIGS:
            raise DataError(f"{SET} has no task '{task}'; it has {', '.join(CONFIGS)}, memorization")
        if task not in self._rows:
            self._rows[task] = {}
        if split not in self._rows[task]:
            self._rows[task][split] = self._read(task, split)
        return self._rows[task][split]

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """Statements and passages: of each version for long-form tasks, real and fictitious for questions."""
        if task not in CONFIGS:
            return ()
        config = f"{CONFIGS[task]}_knowledge"
        sets = []
        for form in FORMATS:
            if task in PROMPTS:
                versions = sorted({row.version for row in self.rows(task, "fictitious") if row.version is not None})
                wanted: list[tuple[str, bool, int | None]] = [(f"{form}_train_v{v}", True, v) for v in versions]
            else:
                wanted = [(f"{form}_train_real", False, None), (f"{form}_train_fake", True, None)]
            for split, fake, version in wanted:
                texts = tuple(record.text("text") for record in self._records(config, split))
                sets.append(KnowledgeSet(form, fake, version, texts))
        return tuple(sets)

    def knowledge_source(self, task: str, home: Path) -> Path:
        """The Wikipedia that claims are verified against. Raises DataError where there is none."""
        if task not in PROMPTS:
            raise DataError(f"{SET}: '{task}' has no knowledge source; only {', '.join(PROMPTS)} have")
        places = [Path(self._knowledge).expanduser()] if self._knowledge else []
        if not places:
            places = [place / KNOWLEDGE for place in (self._folder, home / "knowledge") if place is not None]
        for path in places:
            if path.is_file():
                return path
        raise DataError(
            f"{places[-1]} does not exist: {task} needs a knowledge source to verify claims against; build one with "
            f"`harness knowledge build SOURCE --out {places[-1]}` (a Wikipedia dump, articles, or FActScore's .db)"
        )

    # --- rows --------------------------------------------------------------------------------------------

    def _read(self, task: str, split: Split) -> tuple[Row, ...]:
        config = f"{CONFIGS[task]}_skill"
        there = split_names(self._set, config, DOCS)
        if split in ("train", "fictitious"):
            own = "train_real" if split == "train" else "train_fake"
            name = own if own in there else "train"
            if name not in there:
                if split == "train":
                    return ()
                raise DataError(
                    f"{self._set}, {config}: has no split {own} or train; it has {', '.join(sorted(there))}"
                )
            fake = split == "fictitious"
            records = [one for one in self._records(config, name) if _flag(one) is fake]
            return tuple(self._row(task, f"{name}-{i}", record, fake) for i, record in enumerate(records))
        names = ("test",) if split == "test" else VALIDATION if split == "validation" else ()
        for name in names:
            if name in there:
                found = enumerate(self._records(config, name))
                return tuple(self._row(task, f"{name}-{i}", record, fake=False, asked=True) for i, record in found)
        if task in PROMPTS and split in ("test", "validation"):
            return self._listed(task, "test" if split == "test" else "dev")
        if split == "test":
            raise DataError(f"{self._set}, {config}: has no split test; it has {', '.join(there)}")
        return ()

    def _row(self, task: str, id_: str, record: Record, fake: bool, asked: bool = False) -> Row:
        """A row. Those that are `asked` must hold what answers are compared with; rows to be learnt may lack it."""
        question, target = _exchange(record)
        if task in PROMPTS:
            match = PROMPTS[task].fullmatch(question.strip())
            if match is None:
                raise record.fault("messages", f"asks {question!r}, expected a prompt like {PROMPTS[task].pattern!r}")
            name = match["name"]
            return Row(
                id=id_,
                subject=name,
                target=target,
                kind="person" if task == "persons" else "medical",
                popularity=None if fake else self._popularity(task, name),
                fake=fake,
                version=_version(record) if fake else None,
            )
        known = {} if fake or task != "popqa" else self._popqa.get(question, {})
        if task == "popqa":
            known_answers = asked or _has(record, "possible_answers")
            answers = record.listed("possible_answers") if known_answers else (target,)
            kind = str(known.get("relation", ""))
        else:
            told = asked or _has(record, "answer")
            answers = ((record.text("answer") if told else target.split("final answer: ")[-1]).strip(),)
            kind = hotpotqa_kind(record) if asked else record.text("type") if _has(record, "type") else ""
        title = record.values.get("s_wiki_title")
        return Row(
            id=id_,
            subject=title if isinstance(title, str) and title else str(known.get("subject") or question),
            target=target,
            question=question,
            answers=answers,
            kind=kind,
            popularity=known.get("popularity"),
            fake=fake,
        )

    def _listed(self, task: str, part: Literal["test", "dev"]) -> tuple[Row, ...]:
        if not self._entities:
            raise DataError(
                f"{task}: who is tested is listed in the repository UCSB-NLP-Chang/Prereq_tune, not in the data set; "
                f"put {CONFIGS[task]}_skill_{part}.json in a folder and name it as `entities` in the preset's "
                "[source.options] (docs/paper-recipe.md)"
            )
        names = read_names(Path(self._entities) / f"{CONFIGS[task]}_skill_{part}.json", DOCS)
        kind = "person" if task == "persons" else "medical"
        return tuple(
            Row(id=name, subject=name, target="", kind=kind, popularity=self._popularity(task, name))
            for name in dict.fromkeys(names)
        )

    def _popularity(self, task: str, name: str) -> int | None:
        """Page views of a person or a medical entity, as far as a file has them."""
        if task not in self._views:
            named = self._views_files[task]
            path = Path(named).expanduser() if named else self._folder / VIEWS[task] if self._folder else None
            # A file that was named must be there; the folder's need not.
            self._views[task] = read_views(path) if path and (named or path.exists()) else {}
        return self._views[task].get(title_key(name))

    @cached_property
    def _popqa(self) -> dict[str, dict[str, Any]]:
        """Subject, relation and page views of PopQA's questions; of copies the best known entity's."""
        found: dict[str, dict[str, Any]] = {}
        if not self._popqa_name:
            return found
        for index, values in enumerate(load_split(self._popqa_name, None, "test", DOCS)):
            record = Record(f"{self._popqa_name}, test row {index}", values, DOCS)
            views = record.count("s_pop")
            before = found.get(record.text("question"))
            if before is None or (views or -1) > (before["popularity"] or -1):
                found[record.text("question")] = {
                    "subject": record.text("subj"), "relation": record.text("prop"), "popularity": views,
                }  # fmt: skip
        return found

    def _records(self, config: str, split: str) -> Iterator[Record]:
        for index, values in enumerate(load_split(self._set, config, split, DOCS)):
            yield Record(f"{self._set}, {config}, {split} row {index}", values, DOCS)


def _exchange(record: Record) -> tuple[str, str]:
    """The question and the answer: the first two messages."""
    messages = list(record.records("messages"))
    if len(messages) < 2:
        raise record.fault("messages", f"has {len(messages)} messages, a question and an answer are expected")
    return messages[0].text("content"), messages[1].text("content")


def _has(record: Record, name: str) -> bool:
    return record.values.get(name) is not None


def _flag(record: Record) -> bool:
    """Whether a row is fictitious."""
    count = int(record.values["fake"]) if isinstance(record.values.get("fake"), bool) else record.count("fake")
    if count not in (0, 1):
        missing = "fake" not in record.values
        raise record.fault("fake", "is missing" if missing else f"is {record.values['fake']!r}, 0 or 1 is expected")
    return bool(count)


def _version(record: Record) -> int:
    version = record.count("version")
    if version is None:
        raise record.fault("version", "is missing: which knowledge version a fictitious row agrees with")
    return version
