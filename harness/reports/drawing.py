"""What all figures have in common: the style, a colour a method, and files that are equal for equal figures."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.paths import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A colour a method, after Okabe and Ito (2008): apart for colour-blind readers, and the same everywhere.
COLOURS = {
    "base": "#5f6368",
    "sft": "#e69f00",
    "popular": "#56b4e9",
    "flame": "#009e73",
    "facttune": "#cc79a7",
    "rl": "#8a7a00",
    "sft_gpt": "#7b4b2a",
    "sft_fictitious": "#d55e00",
    "prereq_tune": "#0050a0",
}
EMPHASISED = "prereq_tune"
_OTHERS = ("#6a3d9a", "#1b9e77", "#a6761d", "#e7298a")

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "svg.hashsalt": "harness",
}


def colour(line: str, others: Sequence[str] = ()) -> str:
    """The colour of a model's line; `others` are the lines in the figure without a colour of their own."""
    if line in COLOURS:
        return COLOURS[line]
    return _OTHERS[list(others).index(line) % len(_OTHERS)] if line in others else "#333333"


def save(draw: Callable[[], Figure], png: Path, svg: Path) -> None:
    """Draw in the common style, into a PNG and an SVG file; equal figures give equal bytes."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure = draw()
        picture, drawing = _bytes(figure, "png"), _bytes(figure, "svg")
    write_whole(svg, drawing.decode())
    png.parent.mkdir(parents=True, exist_ok=True)
    temporary = png.with_name(f".{png.name}.{os.getpid()}.tmp")
    temporary.write_bytes(picture)
    temporary.replace(png)


def under(figure: Figure, note: str) -> None:
    """Small print under a figure."""
    figure.text(0.006, -0.015, note, fontsize=6.5, color="#666666", ha="left", va="top")


def label_ends(panel: Axes, ends: Sequence[tuple[str, float, float]], last: float, others: Sequence[str]) -> None:
    """Names of lines to the right of x = `last`, moved apart where they would overlap; ends are (name, x, height).

    Leaders are dotted where a line ends far before, so that they are not taken for its going on.
    """
    first = panel.get_xlim()[0]
    bottom, top = panel.get_ylim()
    gap = (top - bottom) * 0.062
    ordered = sorted(ends, key=lambda end: (end[2], end[0]))
    heights = [height for _, _, height in ordered]
    for _ in range(200):
        moved = False
        for i in range(len(heights) - 1):
            overlap = gap - (heights[i + 1] - heights[i])
            if overlap > 1e-6:
                heights[i] -= overlap / 2
                heights[i + 1] += overlap / 2
                moved = True
        if not moved:
            break
    shift = max(0.0, bottom + gap / 2 - heights[0]) if heights else 0.0
    for (name, x, end), height in zip(ordered, heights, strict=True):
        shade = colour(name, others)
        panel.annotate(
            name,
            xy=(x, end),
            xytext=(last + 0.035 * last + 0.1, height + shift),
            textcoords="data",
            color=shade,
            va="center",
            fontsize=8,
            fontweight="bold" if name == EMPHASISED else "normal",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": shade,
                "linewidth": 0.6,
                "linestyle": "-" if last - x < 0.15 * (last - first) else (0, (1, 3)),
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _bytes(figure: Figure, kind: str) -> bytes:
    """The rendered file without dates or version strings."""
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    figure.savefig(stream, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.06)
    return stream.getvalue()
