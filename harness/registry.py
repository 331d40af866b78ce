"""What can be named on the command line: tasks, methods, models, suites, presets, judges and backends.

A task is one file with one decorated function, a method likewise (see `baselines.method`), a model is one TOML
table. Other packages add theirs through the entry-point groups `harness.tasks`, `harness.methods` and
`harness.models`; they are loaded when a name is first looked up, so `harness --help` stays quick.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from baselines.method import Method
from harness.errors import UserError
from harness.records import Item, Row
from train.rows import Example, SkillMode
from train.template import PromptTemplate

T = TypeVar("T")


class Registry(Generic[T]):
    """Names and what they stand for, in order of registration.

    `loader` registers the built-in entries and runs before the first look-up, as do the entry points of `group`.
    """

    def __init__(self, noun: str, group: str | None = None, loader: Callable[[], None] | None = None) -> None:
        self.noun = noun
        self._group = group
        self._loader = loader
        self._loaded = False
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Register an entry; a name that is taken by something else is an error."""
        if name in self._entries and self._entries[name] != entry:
            raise UserError(f"two {self.noun}s are called '{name}': rename one of them")
        self._entries[name] = entry

    def get(self, name: str) -> T:
        """The entry of that name; UserError with the nearest names otherwise."""
        self._load()
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3) or list(self._entries)
            raise UserError(f"no {self.noun} is called '{name}'; did you mean {', '.join(near)}?")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, built-in ones first."""
        self._load()
        return list(self._entries)

    def __iter__(self) -> Iterator[T]:
        self._load()
        return iter(self._entries.values())

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self._loader:
            self._loader()
        if self._group:
            for point in entry_points(group=self._group):
                entry = point.load()
                # A decorated function has registered itself on import; a plain value is registered here.
                if not callable(entry) or isinstance(entry, (Task, Method)):
                    self.add(point.name, entry)


# --- tasks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Phrased:
    """A row in a task's words: the prompt and, for rows to be learnt, the completion."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Task:
    """One dataset with its prompt and metric.

    `phrase` turns a row into the task's words. `final_answer` tasks are read after "final answer: ".
    `published` names the table of `published.json` and the columns of the paper's figures (accuracy, claims).
    `max_new_tokens` is the paper's default; presets may set less. A task that only tests names the task whose
    training data and recipes its models have (`trained_on`; recipes under the task's own name change these for it),
    and may fix which `models` stand in its table.
    `memorised_at` (short questions) counts an entity as memorised once this share of its questions is answered
    right; None leaves that metric out.
    """

    name: str
    title: str
    metric: Literal["short_qa", "longform"]
    skill_mode: SkillMode
    phrase: Callable[[Row], Phrased]
    max_new_tokens: int
    final_answer: bool = False
    published: tuple[str, ...] = ()
    trained_on: str = ""
    models: tuple[str, ...] = ()
    memorised_at: float | None = None

    def item(self, row: Row, prefill_subject: bool) -> Item:
        """The test item of a row. Rows of several knowledge versions are told apart by them: kind `V1`, `V2`."""
        return Item(
            task=self.name,
            id=row.id,
            prompt=self.phrase(row).prompt,
            subject=row.subject,
            topic=row.subject if self.metric == "longform" else "",
            prefill=row.subject if prefill_subject and self.metric == "longform" else "",
            gold=row.answers,
            kind=row.kind if row.version is None else f"V{row.version}",
            popularity=row.popularity,
        )

    def example(self, row: Row, prefill_subject: bool) -> Example:
        """The training example of a row; a prefilled subject is cut from the front of the completion."""
        phrased = self.phrase(row)
        prefill, completion = "", phrased.completion
        if prefill_subject and self.metric == "longform" and completion.startswith(row.subject + " "):
            prefill, completion = row.subject, completion[len(row.subject) + 1 :]
        return Example(
            prompt=phrased.prompt,
            completion=completion,
            subject=row.subject,
            prefill=prefill,
            fake=row.fake,
            version=row.version,
            popularity=row.popularity,
            kind=row.kind,
            answers=row.answers,
        )


def _load_tasks() -> None:
    for name in ("popqa", "hotpotqa", "persons", "medical", "grounding", "memorization", "popqa_controlled"):
        import_module(f"harness.tasks.{name}")


TASKS: Registry[Task] = Registry("task", "harness.tasks", _load_tasks)


def task(
    name: str,
    *,
    title: str,
    metric: Literal["short_qa", "longform"],
    skill_mode: SkillMode,
    max_new_tokens: int,
    final_answer: bool = False,
    published: tuple[str, ...] = (),
    trained_on: str = "",
    models: tuple[str, ...] = (),
    memorised_at: float | None = None,
) -> Callable[[Callable[[Row], Phrased]], Task]:
    """Decorate a function `Row -> Phrased` to make it a task; see `harness/tasks/popqa.py` for the shape."""

    def decorate(phrase: Callable[[Row], Phrased]) -> Task:
        made = Task(
            name, title, metric, skill_mode, phrase, max_new_tokens,
            final_answer=final_answer, published=published, trained_on=trained_on, models=models,
            memorised_at=memorised_at,
        )  # fmt: skip
        TASKS.add(name, made)
        return made

    return decorate


# --- methods -----------------------------------------------------------------------------------------------


def _load_methods() -> None:
    import baselines

    for method in baselines.methods():
        METHODS.add(method.name, method)


METHODS: Registry[Method] = Registry("method", "harness.methods", _load_methods)


# --- models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of a leaderboard: a base, and a method that trains an adapter for it or a ready adapter; or a model
    that is served.

    `adapter` is a peft folder; `{task}` in it is replaced by the task's name. `base` overrides the preset's.
    `shots` solved examples of the training split are put before each question. `template` overrides the
    preset's prompt template. `knowledge` adds the knowledge adapter of that version to the method's own, for
    tasks that ask about what it holds. `served` is the name of a model behind an OpenAI-compatible endpoint,
    `base_url` that endpoint (default: OPENAI_BASE_URL); with `chat` a prompt is one user message, the question as
    it is.
    """

    name: str
    title: str = ""
    method: str | None = None
    adapter: str | None = None
    base: str | None = None
    shots: dict[str, int] = field(default_factory=dict)
    template: PromptTemplate | None = None
    knowledge: int | None = None
    served: str | None = None
    base_url: str | None = None
    chat: bool = False

    def __post_init__(self) -> None:
        if [self.method, self.adapter, self.served].count(None) != 2:
            raise UserError(f"model '{self.name}': give one of `method`, `adapter` and `served`")

    def describe(self) -> dict[str, Any]:
        """Every field as plain values: the endpoint without credentials, and only where the model is served."""
        plain = asdict(self)
        if self.served is None:
            return {name: value for name, value in plain.items() if name not in ("served", "base_url", "chat")}
        from factscore_mod.judges.endpoint import place_of

        return plain | {"base_url": place_of(self.base_url)}


def served_model(word: str, base_url: str | None = None) -> ModelSpec:
    """The model of a word `openai:NAME` (text completions) or `openai-chat:NAME` (chat completions)."""
    kind, _, name = word.partition(":")
    if kind not in ("openai", "openai-chat") or not name:
        raise UserError(f"'{word}' is not of the form openai:NAME or openai-chat:NAME")
    return ModelSpec(name=word, title=name, served=name, base_url=base_url, chat=kind == "openai-chat")


def read_models(path: Path) -> list[ModelSpec]:
    """The models of a TOML file, one `[models.NAME]` table each; UserError names file, table and field."""
    try:
        tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8")).get("models", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read as TOML ({error})") from error
    known = {f.name for f in fields(ModelSpec)} - {"name"}
    models = []
    for name, table in tables.items():
        if unknown := sorted(set(table) - known):
            raise UserError(f"{path}: [models.{name}] has unknown field '{unknown[0]}'; known: {sorted(known)}")
        if "template" in table:
            table["template"] = PromptTemplate(**table["template"])
        models.append(ModelSpec(name=name, **table))
    return models


def _load_models() -> None:
    for method in METHODS:
        MODELS.add(method.name, ModelSpec(name=method.name, title=method.title, method=method.name))
    # Rows of the grounding task: the skill adapter over each knowledge adapter of the unseen fictitious facts.
    for version in (1, 2):
        name, title = f"prereq_know{version}", f"base + know_v{version} + skill"
        MODELS.add(name, ModelSpec(name=name, title=title, method="prereq_tune", knowledge=version))


MODELS: Registry[ModelSpec] = Registry("model", "harness.models", _load_models)


# --- suites and presets ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of tasks with the metrics decided beforehand: the headline, and `k` of F1@K.

    `headlines` names another headline for some of the tasks. `models` are those of a run that names none; the
    preset's where there are none here either. `ablations` are made beside the tables (harness/ablations).
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    headline: str
    f1_k: tuple[int, ...] = ()
    headlines: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()

    def headline_of(self, task: str) -> str:
        """The headline metric of one of the tasks."""
        return self.headlines.get(task, self.headline)


@cache
def suites() -> dict[str, Suite]:
    """The suites of `suites.toml`, by name."""
    tables = tomllib.loads(files("harness").joinpath("suites.toml").read_text(encoding="utf-8"))
    return {
        name: Suite(
            name,
            t["title"],
            tuple(t["tasks"]),
            t["headline"],
            tuple(t.get("f1_k", ())),
            t.get("headlines", {}),
            tuple(t.get("models", ())),
            tuple(t.get("ablations", ())),
        )
        for name, t in tables.items()
    }


def get_suite(name: str) -> Suite:
    """The suite of that name; UserError with the known names otherwise."""
    if name not in suites():
        raise UserError(f"no suite is called '{name}'; there are {', '.join(suites())}")
    return suites()[name]


JUDGES = {
    "rules": "embedded lexical rules: free, deterministic, no download",
    "openai": "openai:MODEL, any OpenAI-compatible endpoint (OPENAI_BASE_URL, OPENAI_API_KEY)",
    "local": "local:PATH-or-id, a language model in this process (vLLM where it has a GPU, else transformers)",
    "transformers": "transformers:PATH-or-id, the same by transformers",
    "vllm": "vllm:PATH-or-id, the same by vLLM",
    "nli": "nli:PATH-or-id, an entailment model (verifies; decomposition by rules)",
    "mock": "a deterministic stand-in for tests",
}
BACKENDS = {
    "transformers": "transformers on CPU or GPU, batched",
    "vllm": "vLLM in this process, one engine for a base and its adapters; the default on a GPU where it is installed",
    "openai": "the models named are served: --models NAME is openai:NAME, --base-url says where",
}
