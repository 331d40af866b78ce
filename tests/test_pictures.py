"""Pictures: which points are joined, where names hang, and that panels side by side can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from harness.ablations.figures import Line, Panel, Picture, Point, _draw
from harness.metrics.longform import Curve, LongformScore, curve
from harness.reports import curves, drawing

MODELS = ("base", "sft", "popular", "flame", "facttune", "prereq_tune")


def ends(panel: Axes) -> dict[str, tuple[float, float]]:
    """Where the leader of each name begins."""
    return {text.get_text(): text.xy for text in panel.texts}  # type: ignore[attr-defined]


def drawn_lines(panel: Axes) -> list[tuple[list[float], str]]:
    return [([float(x) for x in line.get_xdata()], str(line.get_linestyle())) for line in panel.lines]  # type: ignore[union-attr]


def picture(panel: Panel) -> Axes:
    return _draw(Picture((panel,))).axes[0]


def points(*places: float) -> tuple[Point, ...]:
    return tuple(Point(x, 0.5, 0.4, 0.6) for x in places)


# --- pictures of ablations -----------------------------------------------------------------------------------


def test_names_hang_on_the_dots_where_bars_stand_side_by_side() -> None:
    lines = tuple(Line(name, points(0, 1)) for name in ("sft", "popular", "prereq_tune"))
    panel = picture(Panel("P", "questions", "%", lines, ("original", "cleaned")))
    dots = {
        name: places[-1]
        for name, (places, _) in zip(("sft", "popular", "prereq_tune"), drawn_lines(panel), strict=True)
    }
    assert {name: x for name, (x, _) in ends(panel).items()} == pytest.approx(dots)
    assert len(set(dots.values())) == 3


def test_words_without_an_order_are_not_joined() -> None:
    panel = picture(Panel("P", "format", "%", (Line("prereq_tune", points(0, 1, 2)),), ("a", "b", "c"), joined=False))
    assert [style for _, style in drawn_lines(panel)] == ["None"] and not panel.texts
    joined = picture(Panel("P", "format", "%", (Line("prereq_tune", points(0, 1, 2)),), ("a", "b", "c")))
    assert [style for _, style in drawn_lines(joined)] == ["-"] and "prereq_tune" in ends(joined)


def test_a_line_is_broken_where_a_place_is_left_out() -> None:
    line = Line("unsure", points(1, 2, 4, 6, 7), left_out=(3.0, 5.0, 9.0))
    assert [[p.x for p in piece] for piece in line.pieces()] == [[1, 2], [4], [6, 7]]
    panel = picture(Panel("P", "x", "%", (line,)))
    assert [places for places, _ in drawn_lines(panel)] == [[1, 2], [4], [6, 7]]
    bands = [c for c in panel.collections if isinstance(c, PolyCollection)]
    bars = [c for c in panel.collections if isinstance(c, LineCollection)]
    assert len(bands) == 2 and len(bars) == 1, "a point alone has a bar"
    assert Line("a", points(1, 2)).pieces() == [points(1, 2)] and Line("a", ()).pieces() == []


def test_the_leader_of_a_line_that_ends_early_is_not_taken_for_the_line() -> None:
    panel = picture(Panel("P", "x", "%", (Line("certain", points(0, 5, 10)), Line("unsure", points(0, 4)))))
    styles = {text.get_text(): text.arrow_patch.get_linestyle() for text in panel.texts}  # type: ignore[attr-defined]
    assert styles["certain"] == "-" and styles["unsure"] != "-"


# --- accuracy against claims ---------------------------------------------------------------------------------


def made(models: Sequence[str], level: float) -> dict[str, Curve]:
    rng = np.random.default_rng(len(models))
    return {
        name: curve(
            [
                LongformScore(
                    f"p{i}", f"p{i}", 0, i, False,
                    tuple("supported" if rng.random() < level else "not_supported" for _ in range(4)), False,
                )
                for i in range(40)
            ],
            4,
        )
        for name in models
    }  # fmt: skip


def figure(models: Sequence[str]) -> Figure:
    return curves.draw({"persons": made(models, 0.2), "medical": made(models, 0.8)}, titles={})


def test_equal_heights_side_by_side_are_equal_accuracies() -> None:
    first, second = figure(MODELS).axes
    assert first.get_ylim() == second.get_ylim()
    for panel in (first, second):
        low, high = panel.get_ylim()
        for line in panel.lines:
            heights = np.asarray(line.get_ydata(), dtype=float)
            assert (low <= heights).all() and (heights <= high).all()


@pytest.mark.parametrize(("models", "banded"), [(MODELS, 3), (MODELS[1:], 5), (("mine", "sft"), 2)])
def test_bands_are_of_few_lines_where_there_are_many(models: Sequence[str], banded: int) -> None:
    found = figure(models)
    for panel in found.axes:
        assert len([c for c in panel.collections if isinstance(c, PolyCollection)]) == banded
        assert {text.get_text() for text in panel.texts} == set(models)
    note = " ".join(text.get_text() for text in found.texts)
    assert ("Bands (base, sft, prereq_tune alone)" in note) == (banded < len(models))
    assert drawing.EMPHASISED == "prereq_tune"
