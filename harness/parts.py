"""Every plan of a run, before any of it is done: the trials of `--tune`, the tables, the arms of the ablations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.ablations.engine import plan_arms
from harness.jobs import Job
from harness.plan import Plan, StandIn, plan_run
from harness.run_options import RunOptions
from harness.trials import trial_runs

TUNING = "tuning"


@dataclass(frozen=True)
class Part:
    """One plan of a run; `within` says of what: `tuning`, an ablation's name, or "" for the tables."""

    within: str
    options: RunOptions
    plan: Plan

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs in their order, what asks knowledge adapters for their facts last; trials do not ask that."""
        recalls = {} if self.within == TUNING else self.plan.recalls
        return (*self.plan.jobs, *(one.job for found in recalls.values() for one in found))


def parts_of(options: RunOptions, stand_in: StandIn | None = None) -> tuple[tuple[Part, ...], Mapping[str, str]]:
    """The plans in the order of a run, and the ablations that are not made, with the reason.

    Parts share jobs: a job is done with the first that has it. With `options.tune` the tables and the ablations are
    planned as if of the grid's settings the one nearest to the preset's own had been the best, which only the trials
    can tell. UserError for an unknown ablation or unusable data.
    """
    parts: list[Part] = []
    missing: dict[str, str] = {}
    if options.tune:
        trials = trial_runs(options)
        parts += [Part(TUNING, trial, plan_run(trial, stand_in)) for _, trial in trials]
        _, nearest = min(trials, key=lambda one: one[0].distance)
        options = replace(options, settings=nearest.settings)
    parts.append(Part("", options, plan_run(options, stand_in)))
    for name in options.suite.ablations:
        study = plan_arms(name, options, stand_in)
        if study.missing:
            missing[name] = study.missing
        parts += [Part(name, arm.options, plan) for arm, plan in zip(study.arms, study.plans, strict=True)]
    return tuple(parts), missing
