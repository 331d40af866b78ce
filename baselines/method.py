"""What a method is, and the registry of those that come with the package.

A method is a function that describes what it trains as a graph of stages, and trains nothing itself:

    @method("sft", title="SFT", reference="...")
    def plan(task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage | None:
        return Stage(name=f"{task.task}-sft", kind="sft", recipe=recipes.sft, seed=seed, examples=task.real)

`None` stands for the untouched base. From another package, put the decorated function's `Method` under the
entry point group `harness.methods`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from train.rows import KnowledgeSet, TaskData
from train.stages import Recipe, Rollouts, Stage
from train.template import PromptTemplate

BUILT_IN = ("base", "sft", "popular", "flame", "facttune", "rl", "sft_gpt", "sft_fictitious", "prereq_tune")


class NotApplicable(Exception):
    """A method is not defined for a task; the message is the reason that tables print."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipes:
    """The recipes of one task, and the options of the methods. Every option is a choice that papers leave
    open.

    `knowledge_changes` changes the knowledge recipe for some sets, by `statement`, `passage`, `real`, `fake`
    or both as in `statement-real`; the more specific one wins. `knowledge_strengths` has several adapters of the
    same texts, keyed the same way: one for each number of epochs listed. `fraction`, `side` and `stratify` say which
    rows `popular` keeps, and `match_updates` whether it trains for as many updates as `sft` does. `formats`
    are the knowledge adapters of `prereq_tune`. `real_weight` is lambda and `include_real` whether there are
    real rows at all in the mixed skill stage, for `prereq_tune` and `sft_fictitious` alike; `frozen_dropout`
    is dropout in the frozen adapters.

    `shots` solved examples stand before a prompt when `flame` samples the base (0: none), `flame_samples` times a
    prompt, and `flame_pair_samples` times when it compares answers of its own, all at `flame_temperature` and
    `flame_top_p`; `facttune_*` are the same for `facttune`, whose answers are scored by `measure`. Preference stages
    train with `beta`, on pairs whose scores differ by more than `min_gap`, of which at most `pairs_per_prompt` are
    drawn for `facttune` (`None`: all). `verifier_samples` answers a prompt are judged for the verifier of `rl`, whose
    sampling and rewards are `rollouts`.
    """

    knowledge: Recipe = field(default_factory=Recipe)
    sft: Recipe = field(default_factory=Recipe)
    skill: Recipe = field(default_factory=Recipe)
    preference: Recipe = field(default_factory=Recipe)
    verifier: Recipe = field(default_factory=Recipe)
    rl: Recipe = field(default_factory=Recipe)
    knowledge_changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    knowledge_strengths: Mapping[str, Sequence[float]] = field(default_factory=dict)
    fraction: float = 0.5
    side: Literal["top", "bottom", "random"] = "top"
    stratify: Literal["none", "relation"] = "none"
    match_updates: bool = False
    formats: Literal["both", "statement", "passage"] = "both"
    real_weight: float = 0.5
    include_real: bool = True
    frozen_dropout: bool = True
    shots: int = 5
    flame_samples: int = 10
    flame_temperature: float = 0.7
    flame_top_p: float = 0.9
    flame_pair_samples: int = 4
    facttune_samples: int = 10
    facttune_temperature: float = 1.0
    facttune_top_p: float = 1.0
    measure: Literal["fs", "mc", "ec"] = "fs"
    beta: float = 0.1
    min_gap: float = 0.0
    pairs_per_prompt: int | None = None
    verifier_samples: int = 4
    probe_format: Literal["statement", "passage"] = "statement"
    rollouts: Rollouts = field(default_factory=Rollouts)

    def __post_init__(self) -> None:
        _require(0 < self.fraction <= 1, f"fraction: {self.fraction} is not above 0 and at most 1")
        for name in ("real_weight", "shots", "min_gap"):
            _require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is below 0")
        for name in ("flame_samples", "flame_pair_samples", "facttune_samples", "verifier_samples", "pairs_per_prompt"):
            count = getattr(self, name)
            _require(count is None or count >= 1, f"{name}: {count} is below 1")
        for name in ("flame_temperature", "facttune_temperature", "beta"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not above 0")
        for name in ("flame_top_p", "facttune_top_p"):
            _require(0 < getattr(self, name) <= 1, f"{name}: {getattr(self, name)} is not above 0 and at most 1")
        for name, allowed in (
            ("side", ("top", "bottom", "random")),
            ("stratify", ("none", "relation")),
            ("formats", ("both", "statement", "passage")),
            ("measure", ("fs", "mc", "ec")),
            ("probe_format", ("statement", "passage")),
        ):
            value = getattr(self, name)
            _require(value in allowed, f"{name}: {value!r} is none of {', '.join(allowed)}")
        kinds = {"statement", "passage", "real", "fake"}
        for key in self.knowledge_changes:
            _require(set(key.split("-")) <= kinds, f"knowledge_changes: {key!r} names no kind of knowledge set")
        for key, strengths in self.knowledge_strengths.items():
            _require(set(key.split("-")) <= kinds, f"knowledge_strengths: {key!r} names no kind of knowledge set")
            distinct = len(set(strengths)) == len(strengths) > 0 and all(epochs > 0 for epochs in strengths)
            _require(distinct, f"knowledge_strengths: {key!r} needs numbers of epochs, each above 0 and listed once")

    def knowledge_for(self, texts: KnowledgeSet) -> Recipe:
        """The knowledge recipe of one set of texts."""
        recipe = self.knowledge
        for key in _matching(self.knowledge_changes, texts):
            recipe = replace(recipe, **self.knowledge_changes[key])
        return recipe

    def strengths_for(self, texts: KnowledgeSet) -> tuple[Recipe, ...]:
        """The recipes of all adapters of one set of texts: one, or one a strength."""
        recipe = self.knowledge_for(texts)
        keys = _matching(self.knowledge_strengths, texts)
        if not keys:
            return (recipe,)
        return tuple(replace(recipe, epochs=epochs) for epochs in self.knowledge_strengths[keys[-1]])


def _matching(keys: Iterable[str], texts: KnowledgeSet) -> list[str]:
    """The keys that name this kind of set, the more specific ones last."""
    kinds = {texts.format, "fake" if texts.fake else "real"}
    return sorted((key for key in keys if set(key.split("-")) <= kinds), key=lambda key: (key.count("-"), key))


PlanFunction = Callable[[TaskData, Recipes, int, PromptTemplate], Stage | None]


@dataclass(frozen=True, slots=True)
class Method:
    """A named fine-tuning recipe; `reference` says where it comes from.

    `tunes` are the recipes whose learning rate and length a tuning budget is spent on.
    """

    name: str
    title: str
    reference: str
    function: PlanFunction
    tunes: tuple[str, ...] = ("sft",)

    def plan(self, task: TaskData, recipes: Recipes, seed: int, template: PromptTemplate) -> Stage | None:
        """The last stage of the method (the others are what it needs), or `None` for the untouched base.

        Raises NotApplicable where the method is not defined for the task.
        """
        if self.name in task.exclusions:
            raise NotApplicable(task.exclusions[self.name])
        return self.function(task, recipes, seed, template)


METHODS: dict[str, Method] = {}


def method(
    name: str, *, title: str, reference: str, tunes: tuple[str, ...] = ("sft",)
) -> Callable[[PlanFunction], Method]:
    """Turn a plan function into a Method and register it. Raises ValueError for a name taken twice."""

    def decorate(function: PlanFunction) -> Method:
        if name in METHODS and METHODS[name].function.__module__ != function.__module__:
            raise ValueError(f"method {name!r} is already defined in {METHODS[name].function.__module__}")
        METHODS[name] = Method(name, title, reference, function, tunes)
        return METHODS[name]

    return decorate


def methods() -> tuple[Method, ...]:
    """The methods of the package, in the order of the tables, then any others registered so far."""
    for name in BUILT_IN:
        importlib.import_module(f"baselines.{name}")
    return tuple(METHODS[name] for name in (*BUILT_IN, *(name for name in METHODS if name not in BUILT_IN)))


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
