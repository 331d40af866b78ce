"""The interface of a data source."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from harness.errors import UserError
from harness.records import Row, Split
from train.rows import KnowledgeSet


class DataError(UserError):
    """Data is missing or malformed. The message names the file, the field and the remedy."""


# Tasks that ask about fictitious subjects, which public sets do not have.
FICTITIOUS_TASKS = ("grounding", "memorization")


def not_synthesized(source: str, task: str, data: Path | str) -> DataError:
    """The error of a source without fictitious data; `data` is the folder that they can be made from."""
    return DataError(
        f"{source} has no task '{task}', which asks about fictitious subjects: make them with `harness synthesize "
        f"{data} --task popqa --out FOLDER` and give them with --fictitious FOLDER (docs/synthesize.md)"
    )


class Source(Protocol):
    """Rows, knowledge texts and knowledge sources for the tasks that it has.

    Rows, not fingerprints, are what adapters and generations are addressed by; the fingerprint names knowledge
    sources and goes into the manifest.
    """

    @property
    def name(self) -> str:
        """A name for people."""

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything the rows are made from."""

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """The rows of one split in a fixed order; empty where the source has none.

        Raises DataError when the source does not know the task or its files are malformed.
        """

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """Texts for the knowledge stage; empty where the source has none."""

    def knowledge_source(self, task: str, home: Path) -> Path:
        """The SQLite file that long-form claims of this task are verified against, built under `home` if missing."""
