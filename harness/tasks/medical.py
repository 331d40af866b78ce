"""Descriptions of medical entities (diseases, drugs, procedures), scored claim by claim."""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "medical",
    title="Medical entities",
    metric="longform",
    skill_mode="multi_version",
    max_new_tokens=1024,
    published=("table1_main", "medical_accuracy", "medical_claims"),
)
def medical(row: Row) -> Phrased:
    """The prompt of the reference implementation of prerequisite learning."""
    return Phrased(prompt=f"Tell me about {row.subject}.", completion=row.target)
