"""Table 8: what the knowledge under the skill is made of: statements and passages, or one of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from harness import published
from harness.ablations import contrasts
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking, with_method_options
from harness.ablations.figures import Panel, Picture, line, point
from harness.metrics.summary import longform_metrics
from harness.reports.grids import EMPTY, cell
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

METHOD = "prereq_tune"
FORMATS = ("both", "statement", "passage")
COLUMNS = {"popqa": "short_qa_accuracy", "persons": "persons_accuracy"}
TITLES = {"popqa": "PopQA", "persons": "Persons"}
TABLE = "knowledge_format"


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """Accuracy by format, the paper's beside it, and the paper's order of the formats tested."""
    cells: dict[str, list[str]] = {fmt: [] for fmt in FORMATS}
    numbers: dict[str, Any] = {}
    sections, panels, said = [], [], []
    for task, column in COLUMNS.items():
        scores = {result.arm.label: result.scores(task, METHOD) for result in results}
        accuracy = contrasts.accuracy_of(task)
        estimates = {fmt: accuracy.estimate(scores[fmt]) for fmt in FORMATS}
        printed = {fmt: published.figure(TABLE, fmt, column) for fmt in FORMATS}
        for fmt in FORMATS:
            cells[fmt] += [cell("accuracy", estimates[fmt]), EMPTY if printed[fmt] is None else f"{printed[fmt]:.2f}"]
            cells[fmt].append(str(estimates[fmt].n))
            if task == "persons":
                claims = contrasts.metric_named(longform_metrics(), "claims").estimate(scores[fmt])
                cells[fmt].append(cell("claims", claims))
                numbers[f"persons claims/{fmt}"] = claims
            numbers[f"{task}/{fmt}"] = estimates[fmt]
        ordered = sorted(FORMATS, key=lambda fmt: -(printed[fmt] or 0.0))
        pairs = contrasts.test(
            [(a, b, round((printed[a] or 0.0) - (printed[b] or 0.0), 2)) for a, b in combinations(ordered, 2)],
            scores,
            accuracy,
        )
        numbers[f"{task}/tests"] = contrasts.record(pairs)
        sections.append(
            f"## {TITLES[task]}: the paper's order\n\n{contrasts.how(pairs)} {contrasts.words(pairs)}\n\n"
            f"{contrasts.table(pairs, paper=True)}"
        )
        held = sum(pair.verdict == "holds" for pair in pairs)
        turned = sum(pair.verdict == "opposite" for pair in pairs)
        said.append(f"{TITLES[task]}: {held} of {len(pairs)} pairs as in the paper, {turned} the other way")
        drawn = line(METHOD, [point(float(i), estimates[fmt]) for i, fmt in enumerate(FORMATS)])
        panels.append(Panel(TITLES[task], "knowledge given as", "accuracy, %", (drawn,), FORMATS, joined=False))
    head = ["format"]
    for task in COLUMNS:
        head += [f"{TITLES[task]} accuracy, % [95 %]", f"{TITLES[task]}: {published.LABEL}", f"{TITLES[task]}: n"]
    head += ["claims [95 %]"]
    table = markdown_table(head, [(fmt, *cells[fmt]) for fmt in FORMATS], words=("format",))
    usual = {
        task: options.preset.recipes_for(task, "mixed" if task == "popqa" else "multi_version").formats
        for task in COLUMNS
    }
    note = "This preset's own choice: " + ", ".join(f"{usual[task]} for {TITLES[task]}" for task in COLUMNS) + "."
    note += f" *n* is the number of questions, or of answers with a judged claim. All answers are {METHOD}'s."
    return Findings(
        f"{'; '.join(said)}.",
        "\n\n".join([table, note, *sections]),
        numbers,
        Picture(tuple(panels), f"All answers are {METHOD}'s."),
    )


@ablation(
    "format",
    title="Format of the knowledge",
    paper="table 8",
    about="PREREQ-TUNE over knowledge taught as statements and passages, as statements alone, or as passages alone.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """One arm a format."""
    asked = asking(options, tuple(COLUMNS), (METHOD,))
    return tuple(Arm(fmt, fmt, None, with_method_options(asked, tuple(COLUMNS), formats=fmt)) for fmt in FORMATS)
