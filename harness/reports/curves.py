"""The accuracy-versus-claims figure: one panel a task, one line a model with its 95 % band."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import published
from harness.metrics.longform import REACH, Curve, CurvePoint
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
_OTHERS = ("#6a3d9a", "#1b9e77", "#a6761d", "#e7298a")
_EMPHASISED = "prereq_tune"
#: The axis ends where fewer than this share of any model's answers reach.
_TAIL = 0.05
_NOTE = (
    "Every answer is cut after its first k judged claims; shorter ones are kept whole. Dot: half of the model's "
    "answers have that many claims;\ndashed: fewer have. Bands: 95 %, clustered by entity{worlds}."
)

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


def colour(model: str, others: Sequence[str] = ()) -> str:
    """The colour of a model's line; `others` are the models in the figure without a colour of their own."""
    if model in COLOURS:
        return COLOURS[model]
    return _OTHERS[list(others).index(model) % len(_OTHERS)] if model in others else "#333333"


def plot(
    curves: Mapping[str, Mapping[str, Curve]],
    png: Path,
    svg: Path,
    *,
    titles: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Draw curves (task -> model -> curve) into a PNG and an SVG file; equal curves give equal bytes.

    `titles` names the panels (default: the task's name), `note` is printed small under the explanation of the
    lines and bands.
    """
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure = draw(curves, titles=titles or {}, note=note)
        picture, drawing = _bytes(figure, "png"), _bytes(figure, "svg")
    write_whole(svg, drawing.decode())
    png.parent.mkdir(parents=True, exist_ok=True)
    temporary = png.with_name(f".{png.name}.{os.getpid()}.tmp")
    temporary.write_bytes(picture)
    temporary.replace(png)


def draw(curves: Mapping[str, Mapping[str, Curve]], *, titles: Mapping[str, str], note: str = "") -> Figure:
    """The figure itself; panels side by side."""
    from matplotlib.figure import Figure

    tasks = [task for task, by_model in curves.items() if any(c.points for c in by_model.values())]
    figure = Figure(figsize=(4.6 * max(1, len(tasks)), 3.6), layout="constrained", dpi=200)
    if not tasks:
        figure.text(0.5, 0.5, "no judged claims", ha="center", va="center")
        return figure
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(axes, tasks, strict=True):
        _panel(panel, curves[task])
        panel.set_title(titles.get(task, task.capitalize()), loc="left")
    axes[0].set_ylabel("accuracy of the claims kept, %\n(mean over answers)")
    figure.supxlabel("claims kept of every answer: its first k", fontsize=8.5, color="#222222")
    worlds = max(p.accuracy.worlds for task in tasks for c in curves[task].values() for p in c.points)
    said = _NOTE.format(worlds=f" and over {worlds} worlds" if worlds > 1 else "")
    figure.text(
        0.006, -0.015, "\n".join(filter(None, (said, note))), fontsize=6.5, color="#666666", ha="left", va="top"
    )
    return figure


def _panel(panel: Axes, curves: Mapping[str, Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    models = [name for name in published.order(list(curves)) if curves[name].points]
    others = [name for name in models if name not in COLOURS]
    last = max(p.k for name in models for p in curves[name].points if p.k == 1 or p.reach >= _TAIL)
    ends: list[tuple[str, float]] = []
    for name in models:
        points = [p for p in curves[name].points if p.k <= last]
        strong = name == _EMPHASISED
        shade = colour(name, others)
        order = 5 if strong else 3
        full = [p for p in points if p.reach >= REACH] or points[:1]
        beyond = points[len(full) - 1 :]
        banded = [p for p in full if p.accuracy.low is not None and p.accuracy.high is not None]
        panel.fill_between(
            [p.k for p in banded],
            [100 * (p.accuracy.low or 0.0) for p in banded],
            [100 * (p.accuracy.high or 0.0) for p in banded],
            color=shade,
            alpha=0.13 if len(models) <= 5 else 0.07,
            linewidth=0,
            zorder=1,
        )
        panel.plot(*_line(full), color=shade, linewidth=2.4 if strong else 1.6, zorder=order)
        # Past its longest answer a model's line is level: nothing more is cut.
        across, up = _line(beyond)
        panel.plot(
            [*across, last], [*up, up[-1]], color=shade, linewidth=0.9, linestyle=(0, (2, 1.5)), zorder=order - 1
        )
        panel.plot(*_line(full[-1:]), color=shade, marker="o", markersize=5 if strong else 3.8, zorder=order)
        ends.append((name, up[-1]))
    panel.set_xlim(0.8, last)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.margins(y=0.08)
    _label(panel, ends, last, others)


def _line(points: Sequence[CurvePoint]) -> tuple[list[int], list[float]]:
    return [p.k for p in points], [100 * (p.accuracy.value or 0.0) for p in points]


def _label(panel: Axes, ends: list[tuple[str, float]], last: int, others: Sequence[str]) -> None:
    """Names at the ends of the lines, moved apart where they would overlap."""
    bottom, top = panel.get_ylim()
    gap = (top - bottom) * 0.062
    ordered = sorted(ends, key=lambda end: (end[1], end[0]))
    heights = [height for _, height in ordered]
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
    for (name, end), height in zip(ordered, heights, strict=True):
        shade = colour(name, others)
        panel.annotate(
            name,
            xy=(last, end),
            xytext=(last + 0.035 * last + 0.1, height + shift),
            textcoords="data",
            color=shade,
            va="center",
            fontsize=8,
            fontweight="bold" if name == _EMPHASISED else "normal",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": shade,
                "linewidth": 0.6,
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
