"""Fair comparison: a tuning budget that is equal for all methods, or equally many optimiser updates.

Equal tuning: every method gets the same small grid of learning rates and epochs, as factors of the preset's own
values; each setting is trained in the first world and tried on its validation entities, and the one with the
best headline metric is used in every world. Equal updates: every supervised stage on task rows is trained for as
many updates as PREREQ-TUNE's skill stage (SFT, where a task has none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from baselines.method import NotApplicable, Recipes
from harness.registry import METHODS
from train.rows import TaskData
from train.sampling import Answers, Derived, Pairs, Verdicts
from train.stages import Recipe, Stage
from train.template import PromptTemplate


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the grid: factors on the preset's learning rate and epochs."""

    learning_rate: float = 1.0
    epochs: float = 1.0

    @property
    def distance(self) -> float:
        """How far it is from the preset's own setting."""
        return abs(self.learning_rate - 1) + abs(self.epochs - 1)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a setting scored on the validation entities; `claims` is 0 for short answers."""

    task: str
    method: str
    setting: Setting
    score: float
    claims: float
    n: int


def grid(learning_rates: Sequence[float], epochs: Sequence[float]) -> tuple[Setting, ...]:
    """Every combination, in a fixed order."""
    return tuple(Setting(rate, length) for rate in learning_rates for length in epochs)


def tuned(recipes: Recipes, tunes: Sequence[str], setting: Setting) -> Recipes:
    """The recipes with the setting applied to those stages of a method that its tuning covers."""

    def scaled(recipe: Recipe) -> Recipe:
        return replace(
            recipe,
            learning_rate=recipe.learning_rate * setting.learning_rate,
            epochs=recipe.epochs * setting.epochs,
        )

    changes: dict[str, Any] = {name: scaled(getattr(recipes, name)) for name in tunes}
    if "rl" in tunes:
        # The length of an rl stage is its number of rollouts' updates; it has no epochs.
        updates = max(1, round(recipes.rollouts.updates * setting.epochs))
        changes["rollouts"] = replace(recipes.rollouts, updates=updates)
    return replace(recipes, **changes)


def best(trials: Sequence[Trial]) -> dict[tuple[str, str], Setting]:
    """The setting with the highest score of each (task, method); of equals the one with more claims, then the
    one nearest to the preset's.
    """
    chosen: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        where = (trial.task, trial.method)
        if where not in chosen or _rank(trial) > _rank(chosen[where]):
            chosen[where] = trial
    return {where: trial.setting for where, trial in chosen.items()}


def _rank(trial: Trial) -> tuple[float, float, float]:
    return (trial.score, trial.claims, -trial.setting.distance)


# --- equal updates -------------------------------------------------------------------------------------------


def matched(stage: Stage, task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage:
    """The stage, and the supervised stages it starts from, trained for as many updates as the skill stage."""
    wanted = None
    for name in ("prereq_tune", "sft"):
        try:
            reference = METHODS.get(name).plan(task, recipes, seed, template)
        except NotApplicable:
            continue
        if reference is not None:
            wanted = updates(reference)
            break
    return stage if wanted is None else _with_updates(stage, wanted)


def updates(stage: Stage) -> int:
    """The optimiser updates of a supervised stage."""
    return max(1, round(stage.recipe.epochs * _units(stage) / stage.recipe.batch_size))


def _units(stage: Stage) -> int:
    """Rows an epoch, or subjects; of sampled rows the number asked for (some may be dropped later)."""
    if isinstance(stage.derived, Answers):
        return len(stage.derived.samples.prompts) * stage.derived.samples.count
    if stage.kind == "skill_multi_version":
        return len({example.subject for example in stage.examples})
    return len(stage.examples)


def _with_updates(stage: Stage, wanted: int) -> Stage:
    changes: dict[str, Any] = {}
    if stage.kind in ("sft", "skill_mixed", "skill_multi_version") and not isinstance(stage.derived, Verdicts):
        epochs = wanted * stage.recipe.batch_size / _units(stage)
        changes["recipe"] = replace(stage.recipe, epochs=epochs)
    if stage.start is not None:
        changes["start"] = _with_updates(stage.start, wanted)
    if stage.verifier is not None:
        changes["verifier"] = _with_updates(stage.verifier, wanted)
    if stage.derived is not None:
        changes["derived"] = _derived_with_updates(stage.derived, wanted)
    return replace(stage, **changes)


def _derived_with_updates(derived: Derived, wanted: int) -> Derived:
    match derived:
        case Answers(samples=samples) if samples.model is not None:
            return replace(derived, samples=replace(samples, model=_with_updates(samples.model, wanted)))
        case Pairs(judged=judged) | Verdicts(judged=judged) if judged.samples.model is not None:
            model = _with_updates(judged.samples.model, wanted)
            return replace(derived, judged=replace(judged, samples=replace(judged.samples, model=model)))
    return derived


def describe(settings: Mapping[tuple[str, str], Setting]) -> list[dict[str, Any]]:
    """The chosen settings as rows for the manifest."""
    return [
        {"task": task, "method": method, "learning_rate": setting.learning_rate, "epochs": setting.epochs}
        for (task, method), setting in sorted(settings.items())
    ]
