"""HotpotQA without its paragraphs: two facts have to be known and joined (Yang et al. 2018).

The answer is read after "final answer: ", so that a model may reason first; bridge and comparison questions
are reported apart.
"""

from __future__ import annotations

from harness.records import Row
from harness.registry import Phrased, task


@task(
    "hotpotqa",
    title="HotpotQA",
    metric="short_qa",
    skill_mode="mixed",
    max_new_tokens=128,
    final_answer=True,
)
def hotpotqa(row: Row) -> Phrased:
    """The dataset's own question; the target ends in "final answer: " and the answer."""
    return Phrased(prompt=row.question or "", completion=row.target)
