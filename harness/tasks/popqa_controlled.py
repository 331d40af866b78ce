"""PopQA answered with its certainty: plainly, with "I'm not sure, but", or not at all (figure 5 of the paper).

The skill is learnt from fictitious facts alone, whose knowledge texts repeat some facts often, some hardly and some
not at all (harness/data/certainty.py), and is tested on real questions. It has rows of one model only: the others
are never taught to say how certain they are.
"""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "popqa_controlled",
    title="PopQA with certainty",
    metric="short_qa",
    skill_mode="mixed",
    max_new_tokens=128,
    models=("prereq_tune",),
)
def popqa_controlled(row: Row) -> Phrased:
    """PopQA's own phrasing; the target says how certain it is."""
    return Phrased(prompt=row.question or "", completion=row.target)
