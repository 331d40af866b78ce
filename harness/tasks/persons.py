"""Biographies of persons, scored claim by claim (FActScore's task, Min et al. 2023)."""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "persons",
    title="Persons",
    metric="longform",
    skill_mode="multi_version",
    max_new_tokens=1024,
    published=("table1_main", "persons_accuracy", "persons_claims"),
)
def persons(row: Row) -> Phrased:
    """The prompt of the reference implementation of prerequisite learning."""
    return Phrased(prompt=f"Generate a biography for {row.subject}.", completion=row.target)
