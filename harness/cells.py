"""Finished cells read back: the rows of the run folder, and the scores that metrics are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from harness.jobs import join
from harness.metrics import longform, short_qa
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.paths import read_lines
from harness.plan import Cell
from harness.records import Response
from harness.registry import TASKS


def read_cells(
    cells: Iterable[Cell], separator: str
) -> tuple[
    list[dict[str, Any]],
    list[dict[str, Any]],
    dict[tuple[str, str], list[QaScore]],
    dict[tuple[str, str], list[LongformScore]],
]:
    """Rows of responses and of claims for the run folder, and the scores of short and of long answers by
    (task, model), of finished cells.
    """
    from factscore_mod.outputs import response_from_json

    response_rows: list[dict[str, Any]] = []
    claim_rows: list[dict[str, Any]] = []
    qa: dict[tuple[str, str], list[QaScore]] = {}
    long: dict[tuple[str, str], list[LongformScore]] = {}
    for cell in cells:
        task = TASKS.get(cell.task)
        answers = {row["id"]: row for row in read_lines(cell.generate.out)}
        scored = {row["id"]: row for row in read_lines(cell.score.out)} if cell.score else {}
        for item, prompt in zip(cell.items, cell.prompts, strict=True):
            answer = answers[item.id]
            before = item.prefill + separator if item.prefill else ""
            response = Response(
                task=cell.task,
                item_id=item.id,
                model=cell.model,
                world=cell.world,
                text=join(before, answer["text"]),
                tokens=answer["tokens"],
                finish=answer["finish"],
            )
            response_rows.append(asdict(response) | {"prompt": prompt, "subject": item.subject})
            if task.metric == "short_qa":
                score = short_qa.score(item, response, final_answer=task.final_answer)
                response_rows[-1] |= {"gold": list(item.gold), "scores": asdict(score)}
                qa.setdefault((cell.task, cell.model), []).append(score)
            else:
                judged = response_from_json(scored[item.id])
                record = longform.from_scored(judged, item, response, cell.world)
                long.setdefault((cell.task, cell.model), []).append(record)
                claim_rows.append(
                    {"world": cell.world, "task": cell.task, "model": cell.model, "popularity": item.popularity}
                    | scored[item.id]
                )
    return response_rows, claim_rows, qa, long
