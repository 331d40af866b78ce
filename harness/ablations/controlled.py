"""Figure 5: answers that are certain, unsure or none, against how popular the entity asked about is.

The skill was taught to sound as certain as the knowledge under it was repeated, on fictitious facts alone. If it
reads the base's own knowledge alike, it is more certain of popular entities, and more often right where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from baselines.method import NotApplicable
from harness import stats
from harness.ablations import contrasts
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking
from harness.ablations.figures import Panel, Picture, line, point
from harness.data.certainty import CERTAINTIES, Certainty, certainty_of
from harness.metrics.comparison import judge
from harness.metrics.correlation import spearman
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import Estimate, Expectation, Metric
from harness.reports.grids import EMPTY, cell
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

TASK, METHOD = "popqa_controlled", "prereq_tune"
_RANK: Mapping[Certainty, int] = {"unknown": 0, "unsure": 1, "certain": 2}
#: Accuracies over fewer answers than this are not drawn.
_FEWEST = 5


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """Shares and accuracies of the classes by popularity, their rank correlation, and certain against unsure."""
    scores = results[0].qa.get((TASK, METHOD), ())
    if not scores:
        return Findings("no answers.", "The data has no such questions.")
    settings = options.preset.ablations
    groups = bins(scores, settings.popularity_bins, settings.bin_items)
    share, right = _shares(), _accuracies()
    rows, places = [], []
    by_bin: list[dict[str, Any]] = []
    for group in groups:
        place = fmean(math.log10(max(1, s.popularity or 0)) for s in group)
        shares = {name: share[name].estimate(group) for name in CERTAINTIES}
        accuracies = {name: metric.estimate(group) for name, metric in right.items()}
        places.append(place)
        by_bin.append({"log10_popularity": place, "shares": shares, "accuracy": accuracies})
        rows.append(_row(f"{place:.2f}", len(group), shares, accuracies))
    whole = {name: share[name].estimate(scores) for name in CERTAINTIES}
    correct = {name: metric.estimate(scores) for name, metric in right.items()}
    rows.append(_row("all", len(scores), whole, correct))
    rho = spearman(
        [float(_RANK[certainty_of(s.answer)]) for s in scores],
        [float(s.popularity or 0) for s in scores],
        [s.subject for s in scores],
        [s.world for s in scores],
    )
    names = [right["certain"].name, right["unsure"].name]
    pairs = judge([Expectation(METHOD, METHOD, names[0], None, names[1])], {METHOD: scores}, list(right.values()))
    unsure = f"Unsure are {correct['unsure'].n} of {len(scores)} answers ({cell('accuracy', whole['unsure'])} %)."
    said = f"{_correlated(rho)} {contrasts.words(pairs)} {unsure}"
    head = (
        "log10 popularity", "n", *(f"{name}, % [95 %]" for name in CERTAINTIES), "right when certain, % [95 %]",
        "right when unsure, % [95 %]",
    )  # fmt: skip
    body = "\n\n".join(
        [
            "An answer is unknown when it declines, unsure when it begins with the marker that the skill was taught, "
            "and certain otherwise. Bins hold about equally many questions; entities of equal popularity share one.",
            markdown_table(head, rows),
            f"Rank of the class (unknown, unsure, certain) against popularity, Spearman: {said} "
            f"{contrasts.how_apart(pairs)} "
            "The paper's figure 5 has the certain answers grow and the unknown ones shrink with page views; its values "
            "were not printed as numbers.",
        ]
    )
    share_lines = tuple(
        line(name, [point(x, b["shares"][name]) for x, b in zip(places, by_bin, strict=True)]) for name in CERTAINTIES
    )
    accuracy_lines = []
    for name in ("certain", "unsure"):
        told = [(x, b["accuracy"][name]) for x, b in zip(places, by_bin, strict=True)]
        left_out = [x for x, estimate in told if estimate.n < _FEWEST]
        kept = [point(x, estimate) for x, estimate in told if estimate.n >= _FEWEST]
        accuracy_lines.append(line(name, kept, left_out))
    across = "log10 of the entity's popularity"
    return Findings(
        said,
        body,
        {"bins": by_bin, "shares": whole, "accuracy": correct, "spearman": rho, "tests": contrasts.record(pairs)},
        Picture(
            (
                Panel("Share of answers", across, "share, %", share_lines),
                Panel("Accuracy by class", across, "right, %", tuple(accuracy_lines)),
            ),
            f"Right: bins with fewer than {_FEWEST} answers of a class are left out, and the line is broken there.",
        ),
    )


@ablation(
    "controlled",
    title="Answers that say how certain they are",
    paper="figure 5",
    about="PREREQ-TUNE taught to answer plainly, with a marker, or not at all, by how often a fact was repeated.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """One arm."""
    if options.preset.source.kind != "miniature":
        raise NotApplicable("only the miniature controls how often its fictitious facts are repeated")
    return (Arm(METHOD, METHOD, None, asking(options, (TASK,), (METHOD,))),)


def bins(scores: Sequence[QaScore], most: int, at_least: int) -> list[list[QaScore]]:
    """The answers in at most so many bins of about equal size, least popular first.

    There are fewer bins where one would hold fewer than `at_least` answers. Answers about equally popular entities
    stay together.
    """
    count = max(1, min(most, len(scores) // at_least))
    ordered = sorted(scores, key=lambda s: (s.popularity or 0, s.world, s.item_id))
    first: dict[int, int] = {}
    for position, score in enumerate(ordered):
        first.setdefault(score.popularity or 0, position)
    made: dict[int, list[QaScore]] = {}
    for score in ordered:
        made.setdefault(first[score.popularity or 0] * count // len(ordered), []).append(score)
    return [made[place] for place in sorted(made)]


def _shares() -> dict[Certainty, Metric[QaScore]]:
    return {name: Metric[QaScore](f"share[{name}]", "question", "all questions", _is(name)) for name in CERTAINTIES}


def _accuracies() -> dict[Certainty, Metric[QaScore]]:
    def metric(name: Certainty) -> Metric[QaScore]:
        said = _is(name)
        return Metric[QaScore](
            f"right when {name}", "question", f"{name} answers", lambda s: s.token_match and said(s), said
        )

    return {"certain": metric("certain"), "unsure": metric("unsure")}


def _is(name: Certainty) -> Callable[[QaScore], bool]:
    return lambda score: certainty_of(score.answer) == name


def _row(
    place: str, n: int, shares: Mapping[Certainty, Estimate], accuracies: Mapping[Certainty, Estimate]
) -> tuple[str, ...]:
    cells = [cell("accuracy", shares[name]) for name in CERTAINTIES]
    right = [f"{cell('accuracy', a)} (n {a.n})" if a.value is not None else EMPTY for a in accuracies.values()]
    return (place, str(n), *cells, *right)


def _correlated(rho: stats.Interval) -> str:
    if rho.value is None:
        return "answers do not differ in certainty, so that there is no correlation with popularity."
    if rho.low is None or rho.high is None:
        return f"ρ = {rho.value:.2f}, {rho.method}."
    verdict = (
        "certainty grows with popularity"
        if rho.low > 0
        else "certainty falls with popularity"
        if rho.high < 0
        else "whether certainty goes with popularity cannot be told"
    )
    return f"{verdict}, ρ = {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}] ({rho.method})."
