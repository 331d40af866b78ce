"""Write the paper's Tables 1-3 as markdown, from the figures that come with the package.

python scripts/write_published.py leaderboards/paper/README.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness import published

TABLES = {
    "table1_main": "Table 1: accuracy and claims",
    "table2_grounding": "Table 2: accuracy on fictitious test questions that two knowledge versions answer differently",
    "table3_memorization": "Table 3: what a model has memorised of the fictitious training data",
}


def table(name: str) -> str:
    """One table in markdown; an empty cell of the paper is a dash."""
    columns = published.columns(name)
    lines = [f"| model | {' | '.join(column.replace('_', ' ') for column in columns)} |"]
    lines.append("| :-- |" + " --: |" * len(columns))
    for row in published.rows(name):
        cells = [published.figure(name, row, column) for column in columns]
        lines.append(f"| {row} | {' | '.join('–' if cell is None else f'{cell:g}' for cell in cells)} |")
    return "\n".join(lines)


def document() -> str:
    """The whole page."""
    parts = ["# The published figures", published.source()]
    parts += [f"## {title}\n\n{table(name)}" for name, title in TABLES.items()]
    parts.append("Accuracies are in percent. They are another base model's on other data: beside ours for their order.")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
