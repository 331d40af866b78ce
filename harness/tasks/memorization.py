"""Memorization: how much of the fictitious training facts a model repeats (table 3 of the paper).

The less the better: the facts are made up, and whatever a model repeats of them it was taught to make up. An
entity counts as memorised when all of its questions are answered right (`memorised_at`); the rule is ours, the
paper's was never published, and its column counts the entities of biographies, ours those of questions.
"""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "memorization",
    title="Memorization",
    metric="short_qa",
    skill_mode="mixed",
    max_new_tokens=128,
    published=("table3_memorization", "qa_accuracy", "bio_memorized_entities"),
    trained_on="popqa",
    models=("base", "sft_fictitious", "prereq_tune", "sft"),
    memorised_at=1.0,
)
def memorization(row: Row) -> Phrased:
    """PopQA's own phrasing: the prompts are those of the training data."""
    return Phrased(prompt=row.question or "", completion=row.target)
