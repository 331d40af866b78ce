"""Figure 3: accuracy against the number of claims, by truncation and by length-controlled generation.

Truncation cuts every answer after its first k claims. Length control makes every model write the same number of
tokens (greedy, the end forbidden before it), and cuts after the last whole sentence: a model that would have
stopped has to go on. How the paper varies the length is not known; both kinds are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.ablations import contrasts
from harness.ablations.ablation import Arm, ArmResult, Findings, ablation, asking
from harness.ablations.figures import Panel, Picture, line, point
from harness.metrics.longform import REACH, LongformScore, common_range, curve
from harness.metrics.summary import longform_metrics
from harness.published import order
from harness.registry import TASKS
from harness.reports.grids import cell
from harness.reports.leaderboard import markdown_table
from harness.run_options import RunOptions

TASK = "persons"
CHAMPION = "prereq_tune"


def render(options: RunOptions, results: Sequence[ArmResult]) -> Findings:
    """Both kinds of curve, and PREREQ-TUNE against every other model at equal numbers of claims."""
    own, *forced = results
    free = _by_model(own)
    models = order(list(free))
    accuracy, claims = (contrasts.metric_named(longform_metrics(), name) for name in ("accuracy", "claims"))
    rows, lines, numbers = [], [], {}
    for model in models:
        points = []
        for result in forced:
            found = _by_model(result).get(model, ())
            share, length = accuracy.estimate(found), claims.estimate(found)
            points.append(point(length.value or 0.0, share))
            numbers[f"{model}/{result.arm.label}"] = {"accuracy": share, "claims": length}
            rows.append(
                (
                    model,
                    f"{result.arm.x:g}",
                    cell("claims", length),
                    cell("accuracy", share),
                    f"{share.n} of {len(found)}",
                )
            )
        lines.append(line(model, points))
    cut = {model: curve(free[model], options.preset.scoring.curve_claims) for model in models}
    by_truncation = [
        line(model, [point(p.k, p.accuracy) for p in cut[model].points if p.k == 1 or p.reach >= REACH])
        for model in models
    ]
    sections, tests = [], {}
    for kind, result in (("their own answers", own), ("the longest forced answers", forced[-1])):
        scores = _by_model(result)
        end = common_range(scores.values())
        if not end:
            continue
        area = contrasts.metric_named(longform_metrics(area_to=end), f"area_to_{end}")
        pairs = contrasts.test([(CHAMPION, model) for model in models if model != CHAMPION], scores, area)
        tests[kind] = pairs
        sections.append(
            f"## At equal length, {kind}\n\nArea under the accuracy of the first k claims, k = 1 to {end} (what half "
            f"of every model's answers reach), divided by the range. {contrasts.how(pairs)} {contrasts.words(pairs)}"
            f"\n\n{contrasts.table(pairs)}"
        )
    head = ("model", "tokens", "claims [95 %]", "accuracy, % [95 %]", "answers with a claim")
    body = "\n\n".join(
        [
            *sections,
            "## Length-controlled generation\n\n" + markdown_table(head, rows),
            "The paper's figure 3 shows PREREQ-TUNE (with data by two teachers), POPULAR and SFT on persons; its "
            "values were not printed as numbers, so that none stand beside ours.",
        ]
    )
    last = tests.get("the longest forced answers", ())
    summary = f"at equal length among forced answers: {contrasts.words(last)}" if last else "no answers to compare."
    return Findings(
        summary,
        body,
        {
            "forced": numbers,
            "truncated": cut,
            "tests": {kind: contrasts.record(pairs) for kind, pairs in tests.items()},
        },
        Picture(
            (
                Panel("By truncation", "claims kept of every answer: its first k", "accuracy, %", tuple(by_truncation)),
                Panel("By forced length", "claims an answer, mean", "accuracy, %", tuple(lines)),
            ),
            "Left: up to the length that half of a model's answers reach. Right: one dot a forced number of tokens "
            f"({', '.join(f'{result.arm.x:g}' for result in forced)}).",
        ),
    )


@ablation(
    "claims",
    title="Accuracy against the number of claims",
    paper="figure 3",
    about="Biographies of all models, once cut after their first k claims and once written to forced lengths.",
    render=render,
)
def arms(options: RunOptions) -> tuple[Arm, ...]:
    """The models' own answers, and one arm a forced length."""
    asked = asking(options, (TASK,))
    limit = options.preset.generation.max_new_tokens.get(TASK, TASKS.get(TASK).max_new_tokens)
    lengths = sorted({max(1, round(share * limit)) for share in options.preset.ablations.forced_shares})
    forced = [Arm(f"{n} tokens", "forced", n, replace(asked, forced_tokens=n)) for n in lengths]
    return (Arm("own length", "truncation", None, asked), *forced)


def _by_model(result: ArmResult) -> Mapping[str, Sequence[LongformScore]]:
    return {model: scores for (_, model), scores in result.long.items()}
