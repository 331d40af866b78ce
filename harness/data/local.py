"""Real data from a folder: PopQA, HotpotQA, persons with Wikipedia passages, medical entities with NIH texts.

docs/data.md shows the form of the folder and says where each set can be had. Every file is read when a task
first needs it, so a folder may hold some of the sets only.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from factscore_mod.knowledge import Document, build
from factscore_mod.knowledge_format import FORMAT, title_key
from harness.data.cleaning import known_popqa_cleaning
from harness.data.files import Record, read_jsonl, read_names, read_views
from harness.data.normalise import Clean, PopqaRecord, hotpotqa_kind, hotpotqa_row, known_clean, opening, popqa_splits
from harness.data.source import FICTITIOUS_TASKS, DataError, not_synthesized
from harness.paths import digest
from harness.records import Row, Split
from train.rows import KnowledgeSet

# Raise when a change to this code changes rows or knowledge sources.
LOCAL_FORMAT = 1

POPQA = "popqa/popqa_test.jsonl.gz"
HOTPOTQA_TRAIN = "hotpotqa/hotpot_train_100_full.jsonl.gz"
HOTPOTQA_TEST = "hotpotqa/hotpot_dev_v1_simplified.jsonl.gz"
PERSON_LISTS = ("factscore/unlabeled_prompt_entities.txt", "factscore/labeled_prompt_entities.txt")
PERSON_DEV = "prereq_tune_entities/bio_skill_dev.json"
PERSON_PASSAGES = "wiki_passages/bio500_retrieved_passages.jsonl.gz"
PERSON_VIEWS = "popularity/person_views.jsonl.gz"
MEDICAL_VIEWS = "popularity/medical_views.jsonl.gz"
MEDICAL = "medical_evidence/medquad_for_entities.jsonl.gz"

Splits = dict[Split, tuple[Row, ...]]


@dataclass(slots=True)
class Page:
    """What there is of a page: its first passage without the title put before it, and the others."""

    lead: str = ""
    others: list[str] = field(default_factory=list)


class LocalSource:
    """The sets of a data folder as a `Source`.

    `clean` says what is done with PopQA's repeated questions (see `popqa_rows`); `popqa_cleaning`, `original` or
    `unambiguous`, takes its place for a comparison of the two (see `popqa_splits`). The seed draws the splits of
    PopQA; all other splits are those of the files.
    """

    def __init__(
        self, folder: Path | str, seed: int, clean: Clean = "merge", popqa_cleaning: str | None = None
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder; give the data folder with --data (docs/data.md)")
        self.seed = seed
        self.clean: Clean = known_clean(clean)
        self.popqa_cleaning = known_popqa_cleaning(popqa_cleaning)
        self.name = f"local files, seed {seed}, clean = {self.popqa_cleaning or clean}"
        self._tasks: dict[str, Callable[[], Splits]] = {
            "popqa": self._popqa,
            "hotpotqa": self._hotpotqa,
            "persons": self._persons,
            "medical": self._medical,
        }
        self._rows: dict[str, Splits] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files that are there, the seed and the switches."""
        hashes = {}
        names = (
            POPQA, HOTPOTQA_TRAIN, HOTPOTQA_TEST, *PERSON_LISTS, PERSON_DEV, PERSON_PASSAGES, PERSON_VIEWS, MEDICAL,
            MEDICAL_VIEWS,
        )  # fmt: skip
        for name in names:
            path = self.folder / name
            if path.is_file():
                with path.open("rb") as stream:
                    hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest(["local", LOCAL_FORMAT, self.seed, self.popqa_cleaning or self.clean, hashes])

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """The rows of one split; there are no fictitious ones. Raises DataError (see `Source`)."""
        if task in FICTITIOUS_TASKS:
            raise not_synthesized("local data", task, self.folder)
        if task not in self._tasks:
            raise DataError(f"local data has no task '{task}'; it has {', '.join(self._tasks)}")
        if task not in self._rows:
            self._rows[task] = self._tasks[task]()
        return self._rows[task].get(split, ())

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """None: real data comes without texts for the knowledge stage."""
        return ()

    def knowledge_source(self, task: str, home: Path) -> Path:
        """The passages of a long-form task as a knowledge source, built once a content."""
        documents = {"persons": self._person_documents, "medical": self._medical_documents}
        if task not in documents:
            raise DataError(f"local data has no knowledge source for '{task}'; only for {', '.join(documents)}")
        content = list(documents[task]())
        out = home / "knowledge" / f"{task}-{digest([LOCAL_FORMAT, FORMAT, content])[:32]}.db"
        if not out.exists():
            build(content, out)
        return out

    # --- short QA ----------------------------------------------------------------------------------------

    def _popqa(self) -> Splits:
        def records() -> Iterator[PopqaRecord]:
            for index, record in enumerate(read_jsonl(self.folder / POPQA)):
                yield PopqaRecord(
                    index=index,
                    question=record.text("question"),
                    subject=record.text("subj"),
                    relation=record.text("prop"),
                    answer=record.text("obj"),
                    answers=record.listed("possible_answers"),
                    popularity=record.count("s_pop"),
                )

        return popqa_splits(records(), self.seed, self.clean, self.popqa_cleaning)

    def _hotpotqa(self) -> Splits:
        def rows(name: str) -> tuple[Row, ...]:
            return tuple(
                hotpotqa_row(str(index), record.text("question"), record.text("answer"), hotpotqa_kind(record))
                for index, record in enumerate(read_jsonl(self.folder / name))
            )

        return {"train": rows(HOTPOTQA_TRAIN), "test": rows(HOTPOTQA_TEST)}

    # --- persons -----------------------------------------------------------------------------------------

    @cached_property
    def _pages(self) -> dict[str, Page]:
        """What there is of each page, by title."""
        pages: dict[str, Page] = {}
        for record in read_jsonl(self.folder / PERSON_PASSAGES):
            for passage in record.records("passages"):
                # Titles and texts come in different Unicode forms.
                title, text = (unicodedata.normalize("NFC", passage.text(part)) for part in ("title", "text"))
                page = pages.setdefault(title, Page())
                body = lead(title, text)
                if body is not None:
                    page.lead = page.lead or body
                elif text not in page.others:
                    page.others.append(text)
        return pages

    def _persons(self) -> Splits:
        """Test: people of the FActScore lists with a page of their own, less those of the dev list.

        Validation: the dev list. Train: people of the other pages, with the opening of the page as the answer;
        names that need a word in brackets to be told apart are left out.
        """
        listed = [name for path in PERSON_LISTS for name in read_names(self.folder / path)]
        dev = {title_key(name) for name in read_names(self.folder / PERSON_DEV)}
        own = {title_key(title): page for title, page in self._pages.items()}
        views = self._views(PERSON_VIEWS)
        splits: dict[Split, list[Row]] = {"train": [], "validation": [], "test": []}
        for name in dict.fromkeys(listed):
            key = title_key(name)
            if key in own:
                split: Split = "validation" if key in dev else "test"
                splits[split].append(_described(name, opening(own[key].lead), "person", views.get(key)))
        taken = {title_key(name) for name in listed} | dev
        for title, page in self._pages.items():
            key = title_key(title)
            target = opening(page.lead) if is_person(page.lead) else ""
            if target and key not in taken and "(" not in title:
                splits["train"].append(_described(title, target, "person", views.get(key)))
        return {split: tuple(rows) for split, rows in splits.items()}

    def _views(self, name: str) -> dict[str, int]:
        """Page views by name; empty without the file, because popularity is optional."""
        path = self.folder / name
        return read_views(path) if path.exists() else {}

    def _person_documents(self) -> Iterator[Document]:
        for title, page in self._pages.items():
            yield Document(title, "\n".join(filter(None, [page.lead, *page.others])))

    # --- medical entities --------------------------------------------------------------------------------

    def _medical(self) -> Splits:
        """The entities of the published test and dev lists that have a document; none to train on."""
        splits: dict[Split, list[Row]] = {"validation": [], "test": []}
        names: dict[str, Split] = {"dev": "validation", "test": "test"}
        views = self._views(MEDICAL_VIEWS)
        for record in read_jsonl(self.folder / MEDICAL):
            split = record.text("split")
            if split not in names:
                raise record.fault("split", f"is '{split}', expected one of {', '.join(names)}")
            texts = _medical_texts(record)
            entity = record.text("entity")
            splits[names[split]].append(_described(entity, opening(texts[0]), "medical", views.get(title_key(entity))))
        return {split: tuple(rows) for split, rows in splits.items()}

    def _medical_documents(self) -> Iterator[Document]:
        for record in read_jsonl(self.folder / MEDICAL):
            entity = record.text("entity")
            focuses = dict.fromkeys(document.text("focus") for document in record.records("docs"))
            redirects = tuple(focus for focus in focuses if focus != entity)
            yield Document(entity, "\n".join(_medical_texts(record)), redirects)


def lead(title: str, text: str) -> str | None:
    """The text of a page's first passage, in which its title stands before the first sentence; else None."""
    body = text.removeprefix(title).lstrip() if text.startswith(f"{title} ") else ""
    if not body or not (body[0].isupper() or body[0] in "\"'“"):
        return None
    # Foreign scripts and sound marks were taken out of the brackets and left their punctuation behind.
    return _EMPTY_BRACKETS.sub("", _EMPTY_BEGINNING.sub("(", body))


_EMPTY_BEGINNING = re.compile(r"\(\s*[;,][;,\s]*")
_EMPTY_BRACKETS = re.compile(r"\s*\(\s*\)")


_LIFE = re.compile(r"\([^()]*\b(?:born\b|b\. |died\b|(?:c\. ?)?\d{3,4}\b)[^()]*\)")
_IS_A = re.compile(r"\b(?:is|was) (?:an?|the|one)\b")


def is_person(text: str) -> bool:
    """Whether a page's opening gives years of life in brackets and then says who somebody is or was."""
    life = _LIFE.search(text[:250])
    return life is not None and _IS_A.match(text[life.end() :].lstrip(" ,")) is not None


def _described(subject: str, target: str, kind: str, popularity: int | None) -> Row:
    return Row(id=subject, subject=subject, target=target, kind=kind, popularity=popularity)


def _medical_texts(record: Record) -> list[str]:
    """The distinct answers of an entity's documents, those to "what is it" first."""
    questions = [qa for document in record.records("docs") for qa in document.records("qa")]
    questions.sort(key=lambda qa: qa.text("qtype") != "information")
    texts = list(dict.fromkeys(qa.text("answer") for qa in questions))
    if not texts:
        raise record.fault("docs", "holds no answer")
    return texts
