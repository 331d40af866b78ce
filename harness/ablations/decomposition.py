"""Figure 7: statements taken from seed biographies by rules, or the biographies' sentences as they are.

The paper decomposes with GPT-4. Here the rules decomposer does it (the one that scores), so that nothing has to be
asked; both kinds are made of the same seed biographies.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.method import NotApplicable
from harness.ablations import contrasts
from harness.ablations.ablation import (
    Arm,
    ArmResult,
    Findings,
    ablation,
    asking,
    with_method_options,
    with_source,
)
from harness.ablations.figures import Panel, Picture, line, point
from harness.metrics.longform import REACH, common_range, curve
from harness.metrics.summary import longform_metrics
from harness.reports.grids import cell
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

TASK, METHOD = "persons", "prereq_tune"
HOW = {"facts": "decomposed by rules", "sentences": "split into sentences"}


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """Two curves, and decomposition tested against splitting, at full and at equal length."""
    scores = {result.arm.label: result.long.get((TASK, METHOD), ()) for result in results}
    end = max(1, common_range(scores.values()))
    metrics = {metric.name: metric for metric in longform_metrics(area_to=end)}
    area = f"area_to_{end}"
    head = ("statements", "accuracy, % [95 %]", "claims [95 %]", f"area to k = {end}, % [95 %]", "n")
    rows, lines, numbers = [], [], {}
    for label, group in scores.items():
        found = {name: metrics[name].estimate(group) for name in ("accuracy", "claims", area)}
        rows.append((label, *(cell(name, estimate) for name, estimate in found.items()), str(found["accuracy"].n)))
        drawn = curve(group, options.preset.scoring.curve_claims)
        lines.append(line(label, [point(p.k, p.accuracy) for p in drawn.points if p.k == 1 or p.reach >= REACH]))
        numbers[label] = {**found, "curve": drawn}
    decomposed, split = HOW.values()
    # Two tests of one question, each with its correction over a single pair: the area is at equal length.
    tests = {name: contrasts.test([(decomposed, split)], scores, metrics[name]) for name in ("accuracy", area)}
    said = [
        f"{name}: {contrasts.words(pairs)}" for name, pairs in zip(("Accuracy", "Area"), tests.values(), strict=True)
    ]
    body = "\n\n".join(
        [
            markdown_table(head, rows, words=("statements",)),
            f"{contrasts.how(tests['accuracy'])} {' '.join(said)}",
            "The area is that under the accuracy of the first k claims, at equal length. The paper's figure 7 has "
            "decomposition (by GPT-4) above sentence splitting; its values were not printed as numbers.",
        ]
    )
    numbers["tests"] = {name: contrasts.record(pairs) for name, pairs in tests.items()}
    panel = Panel("Persons", "claims kept of every answer: its first k", "accuracy, %", tuple(lines))
    return Findings(" ".join(said), body, numbers, Picture((panel,)))


@ablation(
    "decomposition",
    title="Decomposition of seed biographies",
    paper="figure 7",
    about="PREREQ-TUNE over statement adapters alone, whose statements are made from seed biographies in two ways.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """One arm a way to make statements."""
    if options.preset.source.kind != "miniature":
        raise NotApplicable("only the miniature has seed biographies of its fictitious subjects")
    asked = with_method_options(asking(options, (TASK,), (METHOD,)), (TASK,), formats="statement")
    return tuple(Arm(label, label, None, with_source(asked, statements=how)) for how, label in HOW.items())
