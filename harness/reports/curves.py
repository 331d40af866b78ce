"""The accuracy-versus-claims figure: one panel a task, one line a model with its 95 % band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import published
from harness.metrics.longform import REACH, Curve, CurvePoint
from harness.reports import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: With more lines than this in a panel, only these have bands.
_MOST_BANDS = 5
_BANDED = ("base", "sft", drawing.EMPHASISED)
#: The axis ends where fewer than this share of any model's answers reach.
_TAIL = 0.05
_NOTE = (
    "Every answer is cut after its first k judged claims; shorter ones are kept whole. Dot: half of the model's "
    "answers have that many claims;\ndashed: fewer have. Bands{of}: 95 %, clustered by entity{worlds}."
)


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
    drawing.save(lambda: draw(curves, titles=titles or {}, note=note), png, svg)


def draw(curves: Mapping[str, Mapping[str, Curve]], *, titles: Mapping[str, str], note: str = "") -> Figure:
    """The figure itself; panels side by side."""
    from matplotlib.figure import Figure

    tasks = [task for task, by_model in curves.items() if any(c.points for c in by_model.values())]
    figure = Figure(figsize=(4.6 * max(1, len(tasks)), 3.6), layout="constrained", dpi=200)
    if not tasks:
        figure.text(0.5, 0.5, "no judged claims", ha="center", va="center")
        return figure
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    ends = []
    for panel, task in zip(axes, tasks, strict=True):
        ends.append(_panel(panel, curves[task]))
        panel.set_title(titles.get(task, task.capitalize()), loc="left")
    # Side by side, equal heights are equal accuracies. Names are put beside the lines once the heights are final.
    low, high = min(panel.get_ylim()[0] for panel in axes), max(panel.get_ylim()[1] for panel in axes)
    for panel, named in zip(axes, ends, strict=True):
        panel.set_ylim(low, high)
        drawing.label_ends(panel, named, panel.get_xlim()[1], [n for n, _, _ in named if n not in drawing.COLOURS])
    axes[0].set_ylabel("accuracy of the claims kept, %\n(mean over answers)")
    figure.supxlabel("claims kept of every answer: its first k", fontsize=8.5, color="#222222")
    worlds = max(p.accuracy.worlds for task in tasks for c in curves[task].values() for p in c.points)
    few = any(len(_models(curves[task])) > _MOST_BANDS for task in tasks)
    said = _NOTE.format(
        worlds=f" and over {worlds} worlds" if worlds > 1 else "",
        of=f" ({', '.join(_BANDED)} alone)" if few else "",
    )
    drawing.under(figure, "\n".join(filter(None, (said, note))))
    return figure


def _models(curves: Mapping[str, Curve]) -> list[str]:
    """The models with a line, in the paper's order."""
    return [name for name in published.order(list(curves)) if curves[name].points]


def _panel(panel: Axes, curves: Mapping[str, Curve]) -> list[tuple[str, float, float]]:
    """Draw one task; the names of the lines with the places of their ends."""
    from matplotlib.ticker import MaxNLocator

    models = _models(curves)
    others = [name for name in models if name not in drawing.COLOURS]
    last = max(p.k for name in models for p in curves[name].points if p.k == 1 or p.reach >= _TAIL)
    ends: list[tuple[str, float, float]] = []
    for name in models:
        points = [p for p in curves[name].points if p.k <= last]
        strong = name == drawing.EMPHASISED
        shade = drawing.colour(name, others)
        order = 5 if strong else 3
        full = [p for p in points if p.reach >= REACH] or points[:1]
        beyond = points[len(full) - 1 :]
        banded = [p for p in full if p.accuracy.low is not None and p.accuracy.high is not None]
        if len(models) <= _MOST_BANDS or name in _BANDED:
            panel.fill_between(
                [p.k for p in banded],
                [100 * (p.accuracy.low or 0.0) for p in banded],
                [100 * (p.accuracy.high or 0.0) for p in banded],
                color=shade,
                alpha=0.13,
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
        ends.append((name, last, up[-1]))
    panel.set_xlim(0.8, last)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.margins(y=0.08)
    return ends


def _line(points: Sequence[CurvePoint]) -> tuple[list[int], list[float]]:
    return [p.k for p in points], [100 * (p.accuracy.value or 0.0) for p in points]
