"""The figures that the paper printed (`published.json`), so that a table can show them beside ours.

They were measured with Llama-3-8B on the paper's data, and are never mixed with ours: a column of their
own, with that label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

#: The order of the paper's main table, with the untrained base first.
MODEL_ORDER = (
    "base",
    "sft",
    "popular",
    "flame",
    "facttune",
    "rl",
    "sft_gpt",
    "sft_fictitious",
    "prereq_tune",
)
LABEL = "paper (Llama-3-8B)"
#: What the rows of a table are called here, where the paper names them otherwise than its methods.
ROW_OF = {
    "table2_grounding": {
        "prereq_know1": "base + know_v1 + skill",
        "prereq_know2": "base + know_v2 + skill",
        "prereq_tune": "base + skill",
        "sft": "sft_real",
    },
    "table3_memorization": {"prereq_tune": "base + skill", "sft": "sft_real"},
}
#: Which of our metrics a printed column stands beside.
METRIC_OF = {
    "persons_accuracy": "accuracy",
    "persons_claims": "claims",
    "medical_accuracy": "accuracy",
    "medical_claims": "claims",
    "short_qa_accuracy": "accuracy",
    "accuracy_v1": "accuracy[V1]",
    "accuracy_v2": "accuracy[V2]",
    "qa_accuracy": "accuracy",
    "bio_memorized_entities": "memorised_entities",
}


@cache
def _tables() -> Mapping[str, Any]:
    text = files("harness").joinpath("published.json").read_text(encoding="utf-8")
    tables: Mapping[str, Any] = json.loads(text)
    return tables


def source() -> str:
    """Where the figures were printed."""
    return str(_tables()["source"])


def columns(table: str) -> tuple[str, ...]:
    """The columns of one table; KeyError for a table that the paper does not have."""
    return tuple(_tables()[table].get("columns", ()))


def rows(table: str) -> tuple[str, ...]:
    """The rows of one table in the paper's order."""
    return tuple(_tables()[table]["rows"])


def figure(table: str, row: str, column: str | None = None) -> float | None:
    """One printed figure (shares in percent); None where the paper has an empty cell or no such row.

    `column` is left out for tables with a single figure a row. KeyError for an unknown table or column.
    """
    body = _tables()[table]
    cells = body["rows"].get(row)
    if column is None:
        return cells if isinstance(cells, (int, float)) else None
    position = columns(table).index(column) if column in columns(table) else -1
    if position < 0:
        raise KeyError(f"{table} has no column '{column}'; it has {', '.join(columns(table))}")
    value = cells[position] if cells else None
    return float(value) if isinstance(value, (int, float)) else None


def entry(table: str, row: str, column: str) -> str | float | None:
    """One cell as it was printed, words included; None where the paper has no such row. KeyError as `figure`."""
    cells = _tables()[table]["rows"].get(row)
    if column not in columns(table):
        raise KeyError(f"{table} has no column '{column}'; it has {', '.join(columns(table))}")
    found: str | float | None = cells[columns(table).index(column)] if cells else None
    return found


def row_of(table: str, model: str) -> str:
    """The name of a model's row in a table; the model's own where the paper uses that."""
    return ROW_OF.get(table, {}).get(model, model)


def label(task: tuple[str, ...], model: str) -> str:
    """What a model's row is called in the table of a task; `task` is what `Task.published` is (or empty)."""
    name = row_of(task[0], model) if task else model
    return "SFT-real" if name == "sft_real" else name


def beside(task: tuple[str, ...], model: str) -> dict[str, float]:
    """The printed figures that stand beside a model's metrics: metric -> figure as printed (shares in percent).

    `task` is what `Task.published` is, the table and its columns (or empty); empty cells are left out.
    """
    if not task:
        return {}
    table, *names = task
    found = {METRIC_OF[name]: figure(table, row_of(table, model), name) for name in names}
    return {metric: value for metric, value in found.items() if value is not None}


def published_sizes(table: str, column: str) -> dict[str, float]:
    """The numbers of one column of a table of sizes, by row; KeyError for an unknown table."""
    found = {row: figure(table, row, column) for row in rows(table)}
    return {row: value for row, value in found.items() if value is not None}


def note(table: str, key: str) -> str:
    """The paper's remark on a row or column of a table, or an empty string."""
    return str(_tables()[table].get("notes", {}).get(key, ""))


def order(models: list[str]) -> list[str]:
    """Models in the paper's order; others follow as they came."""
    return sorted(models, key=lambda name: MODEL_ORDER.index(name) if name in MODEL_ORDER else len(MODEL_ORDER))
