"""PopQA and HotpotQA from the hub, through `datasets`.

The names may also be folders in the form that `datasets.load_dataset` reads. Long-form tasks need a knowledge
source, which the hub does not have in this form: they come from a data folder (docs/data.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data.cleaning import known_popqa_cleaning
from harness.data.files import DOCS, Record
from harness.data.normalise import (
    Clean,
    PopqaRecord,
    hotpotqa_kind,
    hotpotqa_row,
    known_clean,
    popqa_splits,
)
from harness.data.source import FICTITIOUS_TASKS, DataError, not_synthesized
from harness.paths import digest
from harness.records import Row, Split
from train.rows import KnowledgeSet

# Raise when a change to this code changes rows.
HUB_FORMAT = 1

Splits = dict[Split, tuple[Row, ...]]


class HubSource:
    """The short-QA sets of the hub as a `Source`.

    `popqa` and `hotpotqa` are data set names or folders, `hotpotqa_config` is `distractor` or `fullwiki` (the
    questions are the same). `clean` says what is done with PopQA's repeated questions (see `popqa_rows`);
    `popqa_cleaning`, `original` or `unambiguous`, takes its place for a comparison of the two (see
    `popqa_splits`). The seed draws the splits of PopQA, which is published as a single one.
    """

    def __init__(
        self,
        seed: int,
        clean: Clean = "merge",
        popqa: str = "akariasai/PopQA",
        hotpotqa: str = "hotpotqa/hotpot_qa",
        hotpotqa_config: str = "distractor",
        popqa_cleaning: str | None = None,
    ) -> None:
        self.seed = seed
        self.clean: Clean = known_clean(clean)
        self.popqa_cleaning = known_popqa_cleaning(popqa_cleaning)
        self._popqa_name = popqa
        self._hotpotqa_name = hotpotqa
        self._hotpotqa_config = hotpotqa_config
        self.name = f"hub ({popqa}, {hotpotqa}), seed {seed}, clean = {self.popqa_cleaning or clean}"
        self._tasks: dict[str, Callable[[], Splits]] = {"popqa": self._popqa, "hotpotqa": self._hotpotqa}
        self._rows: dict[str, Splits] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the sets as `datasets` identifies them, the seed and the switches."""
        contents = [
            load_split(self._popqa_name, None, "test")._fingerprint,
            load_split(self._hotpotqa_name, self._hotpotqa_config, "train")._fingerprint,
            load_split(self._hotpotqa_name, self._hotpotqa_config, "validation")._fingerprint,
        ]
        return digest(["hub", HUB_FORMAT, self.seed, self.popqa_cleaning or self.clean, contents])

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """The rows of one split; there are no fictitious ones. Raises DataError (see `Source`)."""
        if task in FICTITIOUS_TASKS:
            raise not_synthesized("the hub source", task, "DATA")
        if task not in self._tasks:
            raise DataError(
                f"the hub source has no task '{task}'; it has {', '.join(self._tasks)}. For long-form tasks give "
                "a data folder with --data (docs/data.md)"
            )
        if task not in self._rows:
            self._rows[task] = self._tasks[task]()
        return self._rows[task].get(split, ())

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """None: these sets come without texts for the knowledge stage."""
        return ()

    def knowledge_source(self, task: str, home: Path) -> Path:
        """Always a DataError: see the module's head."""
        raise DataError(f"the hub source has no knowledge source for '{task}'; give a data folder with --data")

    def _popqa(self) -> Splits:
        def records() -> Iterator[PopqaRecord]:
            for index, record in enumerate(self._records(self._popqa_name, None, "test")):
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
        """Train as published; the published validation split is the test split (its test answers are secret)."""

        def rows(split: str) -> tuple[Row, ...]:
            return tuple(
                hotpotqa_row(record.text("id"), record.text("question"), record.text("answer"), hotpotqa_kind(record))
                for record in self._records(self._hotpotqa_name, self._hotpotqa_config, split)
            )

        return {"train": rows("train"), "test": rows("validation")}

    def _records(self, name: str, config: str | None, split: str) -> Iterator[Record]:
        for index, values in enumerate(load_split(name, config, split)):
            yield Record(f"{name}, {split} row {index}", values)


_told_at_once = ContextVar("told_at_once", default=False)


@contextmanager
def at_once() -> Iterator[None]:
    """Within, it is told at once that a set is neither here nor to be had; `datasets` tries for half a minute."""
    before = _told_at_once.set(True)
    try:
        yield
    finally:
        _told_at_once.reset(before)


def _reach(name: str, docs: str) -> None:
    """Raises DataError where the hub's page of a set is neither here nor to be had."""
    if not _told_at_once.get() or Path(name).exists():
        return
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with suppress(LocalEntryNotFoundError):
            snapshot_download(name, repo_type="dataset", allow_patterns="README.md", local_files_only=True)
            return
        snapshot_download(name, repo_type="dataset", allow_patterns="README.md", dry_run=True)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _not_loaded(name, "", error, docs) from error


def load_split(name: str, config: str | None, split: str, docs: str = DOCS) -> Any:
    """A split of a data set on the hub, or of a folder of the same form.

    Raises DataError where it cannot be had; `docs` is the page that it names.
    """
    _reach(name, docs)
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(name, config, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        raise _not_loaded(name, f"{f', {config}' if config else ''}: the {split} split", error, docs) from error


def split_names(name: str, config: str, docs: str = DOCS) -> tuple[str, ...]:
    """The splits of a configuration. Raises DataError where it cannot be had; `docs` is the page that it names."""
    _reach(name, docs)
    from datasets import get_dataset_split_names
    from datasets.exceptions import DatasetsError

    try:
        return tuple(get_dataset_split_names(name, config))
    except (OSError, ValueError, DatasetsError) as error:
        raise _not_loaded(name, f": the configuration {config}", error, docs) from error


def _not_loaded(name: str, what: str, error: Exception, docs: str) -> DataError:
    if Path(name).is_dir():
        remedy = f"put a whole copy of the data set into that folder ({docs})"
    else:
        remedy = f"check the connection to the hub and the name, or give a data folder with --data ({docs})"
    return DataError(f"{name}{what} cannot be loaded ({reason_of(error)}); {remedy}")


def reason_of(error: Exception) -> str:
    """What kept something of the hub from being had, in a line: what is behind an error that says no more than so."""
    from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError

    said = error.__cause__ if isinstance(error, (DryRunError, LocalEntryNotFoundError)) else None
    said = said or error
    return (str(said).splitlines() or [type(said).__name__])[0]
