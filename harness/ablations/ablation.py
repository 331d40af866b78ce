"""What an ablation is, and the registry of those that come with the package.

An ablation is one file: a function that names its arms (runs with something changed), decorated with what it
studies, and a function that turns the answers of all arms into words, numbers and a picture:

    @ablation("format", title="...", paper="table 8", render=render)
    def arms(options: RunOptions) -> tuple[Arm, ...]:
        return (Arm("both", "both", None, options), ...)

From another package, put the decorated function's `Ablation` under the entry point group `harness.ablations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from harness.ablations.figures import Picture
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.registry import MODELS, Registry, Suite
from harness.run_options import RunOptions

BUILT_IN = (
    "claims", "scaling", "format", "decomposition", "popqa_cleaning", "settings", "controlled", "examples",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arm:
    """One run with something changed: `series` is the line that it belongs to and `x` its place on that line.

    The suite and the models of `options` say what is answered by whom.
    """

    label: str
    series: str
    x: float | None
    options: RunOptions


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The answers of one arm. `qa` and `long` are by (task, model), rows as in the run folder's records."""

    arm: Arm
    qa: Mapping[tuple[str, str], Sequence[QaScore]]
    long: Mapping[tuple[str, str], Sequence[LongformScore]]
    responses: Sequence[Mapping[str, Any]]
    claims: Sequence[Mapping[str, Any]]
    exclusions: Mapping[tuple[str, str], str]

    def scores(self, task: str, model: str) -> Sequence[Any]:
        """The scores of a model on a task, short or long; none where it has no cell."""
        return self.qa.get((task, model)) or self.long.get((task, model)) or ()


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of an ablation: one sentence, the body of its page, every number, and a picture if there is one."""

    summary: str
    body: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    picture: Picture | None = None


ArmsFunction = Callable[[RunOptions], tuple[Arm, ...]]
RenderFunction = Callable[[RunOptions, Sequence[ArmResult]], Findings]


@dataclass(frozen=True, slots=True)
class Ablation:
    """A named study; `paper` says what of the paper it corresponds to, `about` what is varied and what is read off.

    `arms` raises NotApplicable where the preset does not have what is varied.
    """

    name: str
    title: str
    paper: str
    about: str
    arms: ArmsFunction
    render: RenderFunction


def _load() -> None:
    for name in BUILT_IN:
        import_module(f"harness.ablations.{name}")


ABLATIONS: Registry[Ablation] = Registry("ablation", "harness.ablations", _load)


def ablation(
    name: str, *, title: str, paper: str, about: str, render: RenderFunction
) -> Callable[[ArmsFunction], Ablation]:
    """Decorate a function `RunOptions -> arms` to make it an ablation."""

    def decorate(arms: ArmsFunction) -> Ablation:
        made = Ablation(name, title, paper, about, arms, render)
        ABLATIONS.add(name, made)
        return made

    return decorate


# --- arms ----------------------------------------------------------------------------------------------------


def asking(options: RunOptions, tasks: Sequence[str], models: Sequence[str] = ()) -> RunOptions:
    """The options with these tasks, and these models in place of the run's own where some are named."""
    suite = Suite("ablations", options.suite.title, tuple(tasks), "accuracy", options.suite.f1_k)
    chosen = tuple(MODELS.get(name) for name in models) if models else options.models
    return replace(options, suite=suite, models=chosen)


def with_source(options: RunOptions, **switches: Any) -> RunOptions:
    """The options with switches of the data source changed."""
    source = options.preset.source
    changed = source.model_copy(update={"options": source.options | switches})
    return replace(options, preset=options.preset.model_copy(update={"source": changed}))


def with_method_options(options: RunOptions, tasks: Sequence[str], **switches: Any) -> RunOptions:
    """The options with method options changed for these tasks."""
    table = dict(options.preset.options)
    for task in tasks:
        table[task] = table.get(task, {}) | switches
    return replace(options, preset=options.preset.model_copy(update={"options": table}))


def changes(options: RunOptions, arm: Arm) -> dict[str, Any]:
    """What of the preset an arm changes: dotted name -> value there (None where it is left out)."""
    before, after = (_flat(o.preset.model_dump(mode="json")) for o in (options, arm.options))
    return {name: after.get(name) for name in sorted({*before, *after}) if before.get(name) != after.get(name)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
