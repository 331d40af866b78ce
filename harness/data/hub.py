"""PopQA and HotpotQA from the hub, through `datasets`.

The names may also be folders in the form that `datasets.load_dataset` reads. Long-form tasks need a knowledge
source, which the hub does not have in this form: they come from a data folder (docs/data.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data.cleaning import known_popqa_cleaning
from harness.data.files import Record
from harness.data.normalise import (
    Clean,
    PopqaRecord,
    hotpotqa_kind,
    hotpotqa_row,
    known_clean,
    popqa_splits,
)
from harness.data.source import DataError
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
                    answers=_answers(record),
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


def load_split(name: str, config: str | None, split: str) -> Any:
    """A split of a data set on the hub, or of a folder of the same form. Raises DataError where it cannot be had."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(name, config, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        raise _not_loaded(f"{name}{f', {config}' if config else ''}: the {split} split", error) from error


def split_names(name: str, config: str) -> tuple[str, ...]:
    """The splits of a configuration. Raises DataError where it cannot be had."""
    from datasets import get_dataset_split_names
    from datasets.exceptions import DatasetsError

    try:
        return tuple(get_dataset_split_names(name, config))
    except (OSError, ValueError, DatasetsError) as error:
        raise _not_loaded(f"{name}: the configuration {config}", error) from error


def _not_loaded(what: str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(
        f"{what} cannot be loaded ({reason}); check the connection to the hub and the name, or give a data folder "
        "with --data (docs/data.md)"
    )


def _answers(record: Record) -> tuple[str, ...]:
    """`possible_answers`, which is published as a JSON list inside a string."""
    text = record.text("possible_answers")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise record.fault("possible_answers", f"is no JSON list ({error})") from error
    return Record(record.where, {"possible_answers": values}).texts("possible_answers")
