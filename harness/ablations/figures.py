"""Pictures of ablations: panels of lines with 95 % bands, drawn in the style of the accuracy-versus-claims figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.metrics.summary import Estimate
from harness.reports import drawing
from harness.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Point:
    """A share at a place of the axis, with its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A named line; lines named as methods have the methods' colours everywhere.

    It is broken at the places of `left_out`, where there is nothing to draw.
    """

    name: str
    points: tuple[Point, ...]
    left_out: tuple[float, ...] = ()

    def pieces(self) -> list[tuple[Point, ...]]:
        """The points that are joined, piece by piece from left to right."""
        made: list[list[Point]] = []
        for point in self.points:
            broken = not made or any(made[-1][-1].x < x < point.x for x in self.left_out)
            if broken:
                made.append([])
            made[-1].append(point)
        return [tuple(piece) for piece in made]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes. With `ticks`, words stand at the places 0, 1, ... of the axis in place of numbers.

    Points are not `joined` where these words have no order.
    """

    title: str
    across: str
    up: str
    lines: tuple[Line, ...]
    ticks: tuple[str, ...] = ()
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels side by side, and small print under them."""

    panels: tuple[Panel, ...]
    note: str = ""


def point(x: float, estimate: Estimate | Interval) -> Point | None:
    """A point of a line; None where there is nothing to draw."""
    if estimate.value is None:
        return None
    return Point(x, estimate.value, estimate.low, estimate.high)


def line(name: str, points: Sequence[Point | None], left_out: Sequence[float] = ()) -> Line:
    """The line through those points that there are, from left to right, broken at the places that are left out."""
    return Line(name, tuple(sorted((p for p in points if p is not None), key=lambda p: p.x)), tuple(left_out))


def plot(picture: Picture, png: Path, svg: Path) -> None:
    """Draw a picture into a PNG and an SVG file; equal pictures give equal bytes."""
    drawing.save(lambda: _draw(picture), png, svg)


def _draw(picture: Picture) -> Figure:
    from matplotlib.figure import Figure

    panels = [panel for panel in picture.panels if any(line.points for line in panel.lines)]
    figure = Figure(figsize=(4.6 * max(1, len(panels)), 3.6), layout="constrained", dpi=200)
    if not panels:
        figure.text(0.5, 0.5, "nothing to draw", ha="center", va="center")
        return figure
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, panel)
    drawing.under(figure, "\n".join(filter(None, ("Bands and bars: 95 %, clustered by entity.", picture.note))))
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    lines = [line for line in panel.lines if line.points]
    others = [line.name for line in lines if line.name not in drawing.COLOURS]
    ends: list[tuple[str, float, float]] = []
    for position, each in enumerate(lines):
        # Bars at the same place would hide each other.
        aside = 0.04 * (position - (len(lines) - 1) / 2) if panel.ticks else 0.0
        shade = drawing.colour(each.name, others)
        for piece in each.pieces():
            _piece(axes, piece, aside, shade, panel, strong=each.name == drawing.EMPHASISED, crowd=len(lines))
        ends.append((each.name, each.points[-1].x + aside, 100 * each.points[-1].y))
    axes.margins(x=0.04, y=0.08)
    if all(p.x == round(p.x) for each in lines for p in each.points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.set_xlim(-0.3, len(panel.ticks) - 0.7)
    # Names stand to the right of the axis: they hang together with the ends of the lines.
    last = axes.get_xlim()[1]
    if panel.joined or len(lines) > 1:
        drawing.label_ends(axes, ends, last, others)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.across)
    axes.set_ylabel(panel.up)


def _piece(
    axes: Axes, points: Sequence[Point], aside: float, shade: str, panel: Panel, *, strong: bool, crowd: int
) -> None:
    """Joined points of one line with their band, or with a bar each where nothing lies between them."""
    banded = [(p.x + aside, 100 * p.low, 100 * p.high) for p in points if p.low is not None and p.high is not None]
    if len(points) > 1 and not panel.ticks:
        axes.fill_between(
            [x for x, _, _ in banded],
            [low for _, low, _ in banded],
            [high for _, _, high in banded],
            color=shade,
            alpha=0.13 if crowd <= 5 else 0.07,
            linewidth=0,
            zorder=1,
        )
    elif banded:
        axes.vlines(*zip(*banded, strict=True), color=shade, linewidth=1.0, zorder=2)
    axes.plot(
        [p.x + aside for p in points], [100 * p.y for p in points], color=shade, marker="o",
        markersize=3.5 if strong else 2.8, linewidth=2.2 if strong else 1.5, zorder=5 if strong else 3,
        linestyle="-" if panel.joined else "none",
    )  # fmt: skip
