"""Presets: TOML files that fix the scale of a run, validated with every problem reported at once."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from baselines.method import Recipes
from harness.errors import Problems, UserError
from train.rows import SkillMode
from train.stages import Recipe, Rollouts
from train.template import PromptTemplate

StageName = Literal["knowledge", "sft", "skill", "preference", "verifier", "rl"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PresetSection(_Section):
    """What the preset is called and how long its first run takes."""

    name: str
    description: str
    minutes: float = Field(gt=0, description="a first longform run of one world on `machine`")
    machine: str = "two cores"
    models: tuple[str, ...] = Field(description="the models of a run that names none")


class SourceSection(_Section):
    """Where rows come from. `world` holds the fields of the miniature's WorldConfig.

    `miniature` makes its rows; `real` reads public sets; `prereq_tune` reads those of the paper, fictitious ones
    included.
    """

    kind: Literal["miniature", "real", "prereq_tune"]
    world: dict[str, Any] = {}
    train_rows: dict[str, int] = Field(default={}, description="at most so many real training rows a task")
    test_rows: dict[str, int] = Field(default={}, description="at most so many test rows a task, as --limit draws them")
    prefill_subject: bool = Field(default=False, description="give the entity's name as the beginning of the answer")
    options: dict[str, Any] = Field(default={}, description="further switches of the source, recorded")


class BaseSection(_Section):
    """The base model: pre-trained here (`miniature`) or ready made (`pretrained`)."""

    kind: Literal["miniature", "pretrained"]
    settings: dict[str, Any] = {}


class EngineSection(_Section):
    """How generation is laid out on GPUs; but for `data_parallel` see `harness.backends.vllm.EngineSettings`."""

    tensor_parallel: int | None = Field(
        default=None, gt=0, description="GPUs that a base is spread over; as few as fit"
    )
    memory_share: float = Field(default=0.9, gt=0, lt=1, description="of a GPU's memory")
    data_parallel: int = Field(
        default=1, gt=0, description="jobs that a list of prompts is spread over, each on GPUs of its own; any backend"
    )
    context: int | None = Field(default=None, gt=0, description="longest prompt with answer; the model's own if absent")


class TrainingSection(_Section):
    """How the training of one stage is spread over GPUs; see `train.launch` and docs/training.md."""

    processes: int = Field(default=1, gt=0, description="one a GPU; `dpo` and `rl` stages have one")
    config_file: str | None = Field(default=None, description="of `accelerate config`; DDP without one")
    kernels: Literal["torch", "liger"] = "torch"

    @field_validator("config_file")
    @classmethod
    def _absolute(cls, name: str | None) -> str | None:
        if name is not None and not Path(name).is_file():
            raise ValueError(f"{name} is not a file; configs/accelerate has some")
        return str(Path(name).absolute()) if name is not None else None


class GenerationSection(_Section):
    """Decoding is greedy; these are its limits."""

    batch_size: int = Field(default=64, gt=0)
    max_new_tokens: dict[str, int] = Field(default={}, description="by task; the task's own limit where absent")
    stop: dict[str, tuple[str, ...]] = Field(default={}, description="strings that end an answer, by task")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    engine: EngineSection = EngineSection()


class ScoringSection(_Section):
    """The judge of long-form answers and the length of the accuracy-versus-claims curve."""

    judge: str = "rules"
    profile: Literal["modified", "factscore"] = "modified"
    curve_claims: int = Field(default=20, gt=0)


class TeacherSection(_Section):
    """The miniature's teacher: what its world and its base have otherwise than the base that is fine-tuned."""

    world: dict[str, Any] = {}
    settings: dict[str, Any] = {}


class TuningSection(_Section):
    """The grid of `--tune`, as factors on the preset's own values; the same for every method."""

    learning_rate: tuple[float, ...] = Field(default=(0.5, 1.0, 2.0), min_length=1)
    epochs: tuple[float, ...] = Field(default=(0.5, 1.0), min_length=1)


class AblationsSection(_Section):
    """How finely the ablations are drawn."""

    forced_shares: tuple[float, ...] = Field(
        default=(0.25, 0.5, 0.75, 1.0), min_length=1, description="forced lengths, as shares of the task's limit"
    )
    subject_shares: tuple[float, ...] = Field(
        default=(0.125, 0.25, 0.5, 1.0), min_length=2, description="shares of the fictitious subjects, ascending"
    )
    popularity_bins: int = Field(default=10, gt=1)
    bin_items: int = Field(default=20, gt=0, description="fewer bins where they would hold fewer items than this")


class Preset(_Section):
    """A whole preset file."""

    preset: PresetSection
    source: SourceSection
    base: BaseSection
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()
    scoring: ScoringSection = ScoringSection()
    teacher: TeacherSection | None = None
    tuning: TuningSection = TuningSection()
    ablations: AblationsSection = AblationsSection()
    template: dict[str, str] = {}
    few_shot: dict[str, int] = Field(default={}, description="solved examples before a question, model `base` only")
    recipes: dict[str, dict[StageName, dict[str, Any]]] = {}
    options: dict[str, dict[str, Any]] = Field(default={}, description="method options by task, or `default`")

    def recipes_for(self, task: str, skill_mode: SkillMode, tested: str = "") -> Recipes:
        """The recipes of one task: the task's own values over those of `default` over the code's.

        `tested` is a task that only tests what was trained for `task`; its values come last.
        """
        levels = ("default", skill_mode, task, *([tested] if tested else []))

        def recipe(stage: StageName) -> Recipe:
            values: dict[str, Any] = {}
            for level in levels:
                values |= self.recipes.get(level, {}).get(stage, {})
            return Recipe(**values)

        options: dict[str, Any] = {}
        for level in levels:
            options |= self.options.get(level, {})
        if "rollouts" in options:
            options["rollouts"] = Rollouts(**options["rollouts"])
        options |= {stage: recipe(stage) for stage in get_args(StageName)}
        return Recipes(**options)

    def prompt_template(self) -> PromptTemplate:
        """The preset's prompt template."""
        return PromptTemplate(**self.template)


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in files("harness").joinpath("presets").iterdir())


def load_preset(name: str) -> Preset:
    """A preset by name, or by path when `name` ends in .toml; Problems lists every fault of the file."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"preset file {path} does not exist; `harness list` shows the ready ones")
        text, where = path.read_text(encoding="utf-8"), str(path)
    elif name in preset_names():
        text = files("harness").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
        where = f"preset {name}"
    else:
        raise UserError(f"no preset is called '{name}'; there are {', '.join(preset_names())} (or a path to a .toml)")
    return parse_preset(text, where)


def parse_preset(text: str, where: str) -> Preset:
    """A preset from TOML text; `where` names it in messages."""
    try:
        preset = Preset.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not valid TOML ({error})") from error
    except ValidationError as error:
        raise Problems(
            f"{where}: {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        ) from error
    problems = []
    for level, mode in [(level, "mixed") for level in preset.recipes] or [("default", "mixed")]:
        try:
            preset.recipes_for(level, mode)  # type: ignore[arg-type]
        except TypeError as error:
            problems.append(f"{where}: recipes.{level} or options.{level}: {error}; see train.stages.Recipe")
    try:
        preset.prompt_template()
    except TypeError as error:
        problems.append(f"{where}: template: {error}; see train.template.PromptTemplate")
    if problems:
        raise Problems(problems)
    return preset
