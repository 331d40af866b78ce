"""PopQA: one-hop questions on subjects from famous to obscure (Mallen et al. 2023).

An answer counts when it contains any alias of the gold answer (metrics/short_qa.py says exactly how).
"""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "popqa",
    title="PopQA",
    metric="short_qa",
    skill_mode="mixed",
    max_new_tokens=128,
    published=("table1_main", "short_qa_accuracy"),
)
def popqa(row: Row) -> Phrased:
    """The dataset's own question, answered by the bare answer."""
    return Phrased(prompt=row.question or "", completion=row.target)
