"""Ablations in a run: their arms are planned, their jobs shared with everything else, their pages written.

RUN/ablations/ gets for each ablation
    NAME.md            what was varied, the tables, and in words what they show
    NAME.json          every number, and what each arm changes and asks
    NAME.png and .svg  the picture, where there is one
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from baselines.method import NotApplicable
from harness.ablations.ablation import ABLATIONS, Ablation, Arm, ArmResult, Findings, changes
from harness.ablations.figures import plot
from harness.cells import read_cells
from harness.plan import Plan, StandIn, plan_run
from harness.registry import get_suite
from harness.run_options import RunOptions
from harness.store import RunFolder

FOLDER = "ablations"
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Study:
    """An ablation with its arms planned; `missing` says why there are none."""

    ablation: Ablation
    arms: tuple[Arm, ...] = ()
    plans: tuple[Plan, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A page that was written (relative to the run folder), or the reason why there is none."""

    name: str
    title: str
    paper: str
    summary: str
    page: str = ""


def prepare(options: RunOptions) -> tuple[Study, ...]:
    """The ablations of the suite with all their jobs. UserError for an unknown name or unusable data."""
    studies = []
    for name in options.suite.ablations:
        study = plan_arms(name, options)
        named = (_labelled(study.ablation, arm, plan) for arm, plan in zip(study.arms, study.plans, strict=True))
        studies.append(replace(study, plans=tuple(named)))
    return tuple(studies)


def plan_arms(name: str, options: RunOptions, stand_in: StandIn | None = None) -> Study:
    """An ablation with its arms planned as any run is. UserError for an unknown name or unusable data."""
    ablation = ABLATIONS.get(name)
    try:
        arms = ablation.arms(options)
    except NotApplicable as reason:
        return Study(ablation, missing=str(reason))
    plans = tuple(plan_run(arm.options, stand_in) for arm in arms)
    if plans and not any(plan.cells for plan in plans):
        reasons = dict.fromkeys(reason for plan in plans for reason in plan.exclusions.values())
        return Study(ablation, missing="; ".join(reasons))
    return Study(ablation, arms, plans)


def _labelled(ablation: Ablation, arm: Arm, plan: Plan) -> Plan:
    """An arm's plan whose jobs say whose they are, since all arms train and answer alike."""
    jobs = tuple(replace(job, label=f"{job.label} [{ablation.name}: {arm.label}]") for job in plan.jobs)
    return replace(plan, jobs=jobs)


def write(studies: Iterable[Study], options: RunOptions, folder: RunFolder) -> tuple[Written, ...]:
    """Write the pages of all studies whose answers are there; nothing is computed anew.

    Pages that an earlier command of the same run wrote stay, and are named after these.
    """
    made = [_write(study, options, folder) for study in studies]
    return (*made, *_earlier(folder, {one.name for one in made}))


def links(made: Sequence[Written]) -> str:
    """A section for the run's leaderboard with a line for each ablation; empty without any."""
    if not made:
        return ""
    lines = [
        f"- [{one.title}]({one.page}) ({one.paper}): {one.summary}" if one.page else f"- {one.title}: {one.summary}"
        for one in made
    ]
    return "\n".join(("", "## Ablations", "", *lines, ""))


def _earlier(folder: RunFolder, names: Collection[str]) -> list[Written]:
    """The pages of other ablations that an earlier command of the same run left."""
    found = []
    for path in sorted((folder.path / FOLDER).glob("*.json")):
        if path.stem not in names and path.with_suffix(".md").is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            page = str(Path(FOLDER) / f"{path.stem}.md")
            found.append(Written(record["name"], record["title"], record["paper"], record["summary"], page))
    return found


def _write(study: Study, options: RunOptions, folder: RunFolder) -> Written:
    ablation = study.ablation
    absent = study.missing or _unfinished(study.plans)
    if absent:
        return Written(ablation.name, ablation.title, ablation.paper, f"not made: {absent}.")
    results = [_read(arm, plan) for arm, plan in zip(study.arms, study.plans, strict=True)]
    findings = ablation.render(options, results)
    place = folder.path / FOLDER
    if findings.picture is not None:
        plot(findings.picture, place / f"{ablation.name}.png", place / f"{ablation.name}.svg")
    folder.json(f"{FOLDER}/{ablation.name}.json", _record(study, options, findings))
    folder.text(f"{FOLDER}/{ablation.name}.md", _page(ablation, options, findings))
    page = str(Path(FOLDER) / f"{ablation.name}.md")
    return Written(ablation.name, ablation.title, ablation.paper, findings.summary, page)


def _unfinished(plans: Iterable[Plan]) -> str:
    cells = [cell for plan in plans for cell in plan.cells]
    open_ = [cell for cell in cells if not cell.done()]
    return f"{len(open_)} of its {len(cells)} cells have no answers" if open_ else ""


def _read(arm: Arm, plan: Plan) -> ArmResult:
    separator = arm.options.preset.prompt_template().separator
    responses, claims, qa, long = read_cells(plan.cells, separator)
    return ArmResult(arm, qa, long, responses, claims, plan.exclusions)


def _page(ablation: Ablation, options: RunOptions, findings: Findings) -> str:
    facts = {"preset": options.preset.preset.name, "variant": options.preset.source.world.get("variant", "")}
    facts |= {"worlds": options.worlds, "comparison": options.comparison, "judge": options.judge}
    parts = [
        f"# {ablation.title}",
        f"Corresponds to {ablation.paper} of the paper. {ablation.about}",
        f"```\n{_command(ablation, options)}\n```",
        " · ".join(f"{name}: `{value}`" for name, value in facts.items() if value),
        f"![{ablation.title}]({ablation.name}.png)" if findings.picture is not None else "",
        findings.body,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _command(ablation: Ablation, options: RunOptions) -> str:
    """The command that makes this page alone, the same whatever command made it."""
    usual = get_suite("ablations").models
    models = [model.name for model in options.models]
    variant = options.preset.source.world.get("variant", "familiar")
    given = {
        "--suite": "ablations",
        "--only": ablation.name,
        "--preset": options.preset.preset.name,
        "--models": ",".join(models) if set(models) != {*usual, "base"} else "",
        "--seeds": options.worlds if options.worlds > 1 else "",
        "--seed": options.seed or "",
        "--variant": variant if variant != "familiar" else "",
        "--limit": options.limit or "",
        "--judge": options.judge if options.judge != options.preset.scoring.judge else "",
    }
    words = [word for name, value in given.items() if value for word in (name, str(value))]
    return shlex.join(["harness", "run", *words, *(["--match-updates"] if options.match_updates else [])])


def _record(study: Study, options: RunOptions, findings: Findings) -> dict[str, Any]:
    arms = [
        {
            "label": arm.label,
            "series": arm.series,
            "x": arm.x,
            "tasks": arm.options.suite.tasks,
            "models": [model.name for model in arm.options.models],
            "changes": changes(options, arm),
            "forced_tokens": arm.options.forced_tokens,
            "exclusions": [
                {"task": task, "model": model, "reason": reason} for (task, model), reason in plan.exclusions.items()
            ],
            "answers": {f"{c.world}/{c.task}/{c.model}": (c.score or c.generate).key for c in plan.cells},
        }
        for arm, plan in zip(study.arms, study.plans, strict=True)
    ]
    body = {
        "name": study.ablation.name,
        "title": study.ablation.title,
        "paper": study.ablation.paper,
        "preset": options.preset.preset.name,
        "worlds": options.worlds,
        "seed": options.seed,
        "comparison": options.comparison,
        "judge": options.judge,
        "arms": arms,
        "summary": findings.summary,
        "numbers": findings.numbers,
    }
    plain: dict[str, Any] = _plain(body)
    return plain


def _plain(value: Any) -> Any:
    """Only what JSON knows, floats rounded, so that equal runs write equal bytes."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value)
