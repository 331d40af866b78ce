"""Table 9: what every model answers about the same entity, with its claims and their verdicts.

The entity is not picked by hand: it is the test entity of median popularity in the first world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from factscore_mod.outputs import response_from_json
from factscore_mod.records import ScoredResponse
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking
from harness.published import order
from harness.registry import TASKS
from harness.reports.html import tally
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

ASKED = ("persons", "medical")
_MARKS = {"supported": "✓", "not_supported": "✗"}
_WORDS = ("model", "answer", "claims")


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """One table an entity: the answer of every model, its claims marked, and their tally."""
    del options
    sections, chosen, numbers = [], [], {}
    for task in ASKED:
        rows = [row for row in results[0].claims if row["task"] == task]
        entity = median_entity(rows)
        if entity is None:
            continue
        answers = {row["model"]: response_from_json(dict(row)) for row in rows if _entity(row) == entity}
        world, id_, popularity = entity
        topic = next(iter(answers.values())).topic
        models = order(list(answers))
        body = [(m, answers[m].text, _marked(answers[m]), tally(answers[m])) for m in models]
        sections.append(
            f"## {TASKS.get(task).title}: {topic}\n\nPopularity {popularity:g}, the median of the test entities of "
            f"world {world}.\n\n"
            + markdown_table(("model", "answer", "claims", "tally"), body, words=(*_WORDS, "tally"))
        )
        chosen.append(topic)
        numbers[task] = {
            "id": id_,
            "topic": topic,
            "world": world,
            "popularity": popularity,
            "answers": {
                model: {
                    "text": answers[model].text,
                    "claims": [[c.claim.text, c.judgement.verdict] for c in answers[model].claims],
                }
                for model in models
            },
        }
    note = "✓ supported, ✗ not supported by the knowledge source, ? without a verdict. One entity proves nothing."
    summary = f"answers about {' and '.join(chosen)}, the entities of median popularity."
    return Findings(summary, "\n\n".join([note, *sections]), numbers)


@ablation(
    "examples",
    title="Answers side by side",
    paper="table 9",
    about="One person and one medical entity, answered by all models.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """The answers of the main table."""
    return (Arm("all models", "answers", None, asking(options, ASKED)),)


def median_entity(rows: Sequence[Mapping[str, Any]]) -> tuple[int, str, float] | None:
    """World, id and popularity of the lower median of the first world's items by (popularity, id)."""
    if not rows:
        return None
    first = min(row["world"] for row in rows)
    entities = sorted({_entity(row) for row in rows if row["world"] == first}, key=lambda e: (e[2], e[1]))
    return entities[(len(entities) - 1) // 2]


def _entity(row: Mapping[str, Any]) -> tuple[int, str, float]:
    return row["world"], row["id"], float(row["popularity"] or 0)


def _marked(scored: ScoredResponse) -> str:
    return "; ".join(f"{_MARKS.get(c.judgement.verdict, '?')} {c.claim.text}" for c in scored.claims) or "none"
