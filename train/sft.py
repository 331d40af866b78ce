"""Plain supervised fine-tuning of one adapter. Loss: CE(completion and EOS | base + skill adapter)."""

from __future__ import annotations

from collections.abc import Sequence

from train.encode import Encoded
from train.plan import Plan, micro_batches_per_update, plain_update, visits
from train.stages import Stage


def plan_sft(stage: Stage, rows: Sequence[Encoded]) -> Plan:
    """Shuffled epochs, one after another."""
    parts = micro_batches_per_update(stage.recipe)
    planned = []
    for update in visits(len(rows), stage.recipe, stage.seed):
        planned += plain_update(rows, update, parts)
    return Plan(tuple(planned), parts)
