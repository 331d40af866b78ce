"""Figure 4: more fictitious subjects, with and without the prerequisite stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baselines.method import NotApplicable
from harness.ablations import contrasts
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking, with_source
from harness.ablations.figures import Panel, Picture, line, point
from harness.bases import make_source
from harness.reports.grids import cell
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

TASKS = {"popqa": "PopQA", "persons": "Persons"}
WITH, WITHOUT = "prereq_tune", "sft_fictitious"


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """Accuracy by number of subjects, and whether more of them help with and without the prerequisite stage."""
    del options
    sections, panels, said = [], [], []
    numbers: dict[str, Any] = {}
    for task, title in TASKS.items():
        here = [result for result in results if result.arm.series == task]
        accuracy = contrasts.accuracy_of(task)
        scores, rows = {}, []
        for result in here:
            row = [f"{result.arm.x:g}"]
            for method in (WITH, WITHOUT):
                found = result.scores(task, method)
                scores[_named(method, result)] = found
                numbers[f"{task}/{_named(method, result)}"] = accuracy.estimate(found)
                row += [cell("accuracy", accuracy.estimate(found)), str(accuracy.estimate(found).n)]
            rows.append(row)
        first, last = here[0], here[-1]
        pairs = contrasts.test(
            [
                (_named(WITH, last), _named(WITH, first)),
                (_named(WITHOUT, last), _named(WITHOUT, first)),
                *((_named(WITH, result), _named(WITHOUT, result)) for result in here),
            ],
            scores,
            accuracy,
        )
        numbers[f"{task}/tests"] = contrasts.record(pairs)
        head = ("subjects", f"{WITH}, % [95 %]", "n", f"{WITHOUT}, % [95 %]", "n")
        sections.append(
            f"## {title}\n\n{markdown_table(head, rows)}\n\n{contrasts.how(pairs)} {contrasts.words(pairs)}\n\n"
            f"{contrasts.table(pairs)}"
        )
        said.append(f"{title}, all subjects against the fewest: {contrasts.words(pairs[:2])}")
        lines = tuple(
            line(method, [point(r.arm.x or 0.0, numbers[f"{task}/{_named(method, r)}"]) for r in here])
            for method in (WITH, WITHOUT)
        )
        panels.append(Panel(title, "fictitious subjects", "accuracy, %", lines))
    note = (
        f"`{WITH}` has the prerequisite stage and `{WITHOUT}` has not; both are taught the same answers. Epochs are "
        "fixed, so that more subjects also mean more updates; of short questions the real rows stay as they are. The "
        "subjects of a smaller number are among those of a larger one. *n* is the number of questions, or of answers "
        "with a judged claim. The paper's figure 4 was not printed as numbers."
    )
    return Findings(" ".join(said), "\n\n".join([note, *sections]), numbers, Picture(tuple(panels)))


@ablation(
    "scaling",
    title="More synthetic data",
    paper="figure 4",
    about="Growing numbers of fictitious subjects, fine-tuned on with and without the prerequisite stage.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """An arm a task and number of subjects; the base is the same for all."""
    if options.preset.source.kind != "miniature":
        raise NotApplicable("only the miniature can bound its fictitious subjects")
    source = make_source(options, 0)
    made = []
    for task in TASKS:
        whole = len({row.subject for row in source.rows(task, "fictitious")})
        asked = asking(options, (task,), (WITH, WITHOUT))
        for count in sorted({max(1, round(share * whole)) for share in options.preset.ablations.subject_shares}):
            # All subjects is what the tables have: the same switches, and so the same adapters.
            bounded = asked if count >= whole else with_source(asked, fictitious_subjects=count)
            made.append(Arm(f"{task}, {count} subjects", task, float(count), bounded))
    return tuple(made)


def _named(method: str, result: ArmResult) -> str:
    return f"{method} on {result.arm.x:g}"
