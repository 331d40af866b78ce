"""Table 7: PopQA as it is, ambiguous questions included, against PopQA cleaned of them.

How the paper cleaned was never published; the rule is ours (harness/data/cleaning.py) and has a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baselines.method import NotApplicable
from harness import published
from harness.ablations import contrasts
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking, with_source
from harness.ablations.figures import Panel, Picture, line, point
from harness.data.cleaning import POPQA_CLEANING
from harness.metrics.short_qa import QaScore
from harness.reports import ordering
from harness.reports.grids import EMPTY, cell
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

TASK = "popqa"
MODELS = ("sft", "popular", "sft_fictitious", "prereq_tune")


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """Accuracy on both, the paper's beside it, its order within each, and both on the questions that they share."""
    del options
    accuracy = contrasts.accuracy_of(TASK)
    scores: dict[str, Mapping[str, Sequence[QaScore]]] = {
        result.arm.label: {model: result.qa[TASK, model] for model in MODELS if (TASK, model) in result.qa}
        for result in results
    }
    models = [model for model in MODELS if all(model in by_model for by_model in scores.values())]
    head, rows = ["model"], {model: [model] for model in models}
    numbers: dict[str, Any] = {}
    for label, by_model in scores.items():
        head += [f"{label}, % [95 %]", f"{label}: {published.LABEL}"]
        for model in models:
            estimate = accuracy.estimate(by_model[model])
            numbers[f"{label}/{model}"] = estimate
            printed = _printed(label, model)
            rows[model] += [cell("accuracy", estimate), EMPTY if printed is None else f"{printed:.2f}"]
        head.append("n")
        for model in models:
            rows[model].append(str(len(by_model[model])))
    sections, said = [], []
    for label, by_model in scores.items():
        figures = {model: printed for model in models if (printed := _printed(label, model)) is not None}
        expected = ordering.by_figures(figures, accuracy.name)
        pairs = contrasts.test([(e.higher, e.lower, e.printed) for e in expected], by_model, accuracy)
        numbers[f"{label}/tests"] = contrasts.record(pairs)
        verdict = ordering.words(pairs, (), (), ranked=False)
        sections.append(
            f"## {label.capitalize()}: the paper's order\n\n{verdict} All are over {contrasts.entities(pairs)}. "
            f"{contrasts.words(pairs)}\n\n{contrasts.table(pairs, paper=True)}"
        )
        said.append(f"{label}: {verdict}")
    shared = {f"{model}, {label}": by_model[model] for label, by_model in scores.items() for model in models}
    original, cleaned = POPQA_CLEANING
    both = contrasts.test([(f"{model}, {cleaned}", f"{model}, {original}") for model in models], shared, accuracy)
    numbers["shared/tests"] = contrasts.record(both)
    sections.append(
        "## On the questions that both have\n\nWhether training on cleaned data helps with questions that are not "
        f"ambiguous. {contrasts.how(both)} {contrasts.words(both)}\n\n{contrasts.table(both)}"
    )
    lines = tuple(
        line(model, [point(float(i), numbers[f"{label}/{model}"]) for i, label in enumerate(scores)])
        for model in models
    )
    return Findings(
        " ".join(said),
        "\n\n".join([markdown_table(head, list(rows.values())), *sections]),
        numbers,
        Picture((Panel("PopQA", "questions", "accuracy, %", lines, tuple(scores)),)),
    )


@ablation(
    "popqa_cleaning",
    title="Original and cleaned PopQA",
    paper="table 7",
    about="Trained and tested on PopQA with its ambiguous questions, and without them (rule `unambiguous`, ours).",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """One arm a state of the data."""
    if options.preset.source.kind == "prereq_tune":
        raise NotApplicable("the published set has PopQA in its cleaned state alone")
    asked = asking(options, (TASK,), MODELS)
    return tuple(Arm(rule, rule, None, with_source(asked, popqa_cleaning=rule)) for rule in POPQA_CLEANING)


def _printed(label: str, model: str) -> float | None:
    if label == "original":
        return published.figure("popqa_original", model)
    return published.figure("table1_main", model, "short_qa_accuracy")
