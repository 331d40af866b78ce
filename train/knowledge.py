"""The knowledge (prerequisite) stage: continued pre-training of one adapter on raw texts.

Loss: CE(all tokens | base + knowledge adapter). Source: Prereq-Tune (arXiv 2410.19290), stage 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from train.encode import Encoded
from train.plan import Plan, micro_batches_per_update, plain_update, visits
from train.seeds import generator
from train.stages import Stage

# Rows of this many updates are sorted by length together: little padding, and still a random order of
# updates.
UPDATES_PER_POOL = 16


def plan_knowledge(stage: Stage, rows: Sequence[Encoded]) -> Plan:
    """Updates of rows of similar length, in a random order."""
    recipe = stage.recipe
    parts = micro_batches_per_update(recipe)
    draws = list(visits(len(rows), recipe, stage.seed))
    planned = []
    for start in range(0, len(draws), UPDATES_PER_POOL):
        window = draws[start : start + UPDATES_PER_POOL]
        pool = sorted((i for draw in window for i in draw), key=lambda i: len(rows[i].ids))
        updates = [pool[i : i + recipe.batch_size] for i in range(0, len(pool), recipe.batch_size)]
        generator(stage.seed, "length-groups", start).shuffle(updates)
        for update in updates:
            planned += plain_update(rows, update, parts)
    return Plan(tuple(planned), parts)
