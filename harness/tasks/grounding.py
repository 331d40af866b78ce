"""Grounding: does the skill adapter read what a knowledge adapter holds? (table 2 of the paper)

Questions about fictitious subjects that no model was trained on. Two knowledge adapters, which were not there when
the skill was learnt, hold contradicting facts about them; each question is asked once for the answer of either
(kinds `V1` and `V2`). The skill over adapter 1 should give the answers of version 1 and over adapter 2 those of
version 2; without a knowledge adapter it should know neither.
"""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "grounding",
    title="Grounding",
    metric="short_qa",
    skill_mode="mixed",
    max_new_tokens=128,
    published=("table2_grounding", "accuracy_v1", "accuracy_v2"),
    trained_on="popqa",
    models=("base", "prereq_know1", "prereq_know2", "prereq_tune", "sft"),
)
def grounding(row: Row) -> Phrased:
    """PopQA's own phrasing: the prompts are those that the skill was learnt with."""
    return Phrased(prompt=row.question or "", completion=row.target)
