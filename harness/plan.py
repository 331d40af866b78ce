"""From what was asked for to the jobs that have to be done: worlds x tasks x models -> jobs.

Planning reads data and hashes it, and imports nothing heavy: a run whose results are all there is planned and
reported without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from baselines.method import NotApplicable, Recipes
from baselines.skill import knowledge_stage
from harness.backends.decoding import Decoding
from harness.bases import (
    adapter_fingerprint,
    base_of,
    make_source,
    resolve_base,
    served_fingerprint,
    teacher_of,
    weights_fingerprint,
)
from harness.data.source import DataError, Source
from harness.jobs import Generate, Job, Score, ToScore, in_parts
from harness.paths import derive_seed, digest, home
from harness.plan_training import GENERATION_FORMAT, Ground, Teacher, joined, stage_jobs
from harness.recall import Recall, recalls_of
from harness.records import Item
from harness.registry import METHODS, MODELS, TASKS, ModelSpec, Task
from harness.run_options import RunOptions
from harness.sampling import Judges
from harness.tuning import matched, tuned
from train.launch import Launch
from train.rows import KnowledgeSet, TaskData
from train.template import PromptTemplate

# Raise when a change to the code changes what scores it makes of equal inputs.
SCORE_FORMAT = 1
# A chat model's own template is put around the question where it is served.
CHAT_TEMPLATE = PromptTemplate(question="{question}")


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

    def done(self) -> bool:
        """Whether the answers, and their scores where they have any, are there."""
        return self.generate.done() and (self.score is None or self.score.done())


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, the cells they fill, and the cells that stay empty with the reason why.

    `recalls` measure the knowledge adapters behind each task; no cell needs them, and their jobs are not in `jobs`.
    """

    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    exclusions: Mapping[tuple[str, str], str]
    bases: tuple[str, ...]
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()
    recalls: Mapping[str, tuple[Recall, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class StandIn:
    """What a plan is drawn with where data, base or judge are not at hand; such a plan can be counted, not run.

    `base` is a folder and a fingerprint in place of a base that is not here.
    """

    source: Source | None = None
    base: tuple[Path, str] | None = None


def plan_run(options: RunOptions, stand_in: StandIn | None = None) -> Plan:
    """All jobs of a run in a fixed order."""
    jobs: dict[str, Job] = {}
    cells: list[Cell] = []
    exclusions: dict[tuple[str, str], str] = {}
    bases: list[str] = []
    sources: list[str] = []
    recalls: dict[str, tuple[Recall, ...]] = {}
    for world in range(options.worlds):
        source = (stand_in.source if stand_in else None) or make_source(options, world)
        sources.append(source.name)
        if all(model.served for model in options.models):
            base_job, base_dir, base_fingerprint = None, Path(), ""  # nothing is asked of a base
        elif stand_in and stand_in.base:
            base_job, (base_dir, base_fingerprint) = None, stand_in.base
            bases.append(str(base_dir))
        else:
            base_job, base_dir, base_fingerprint = base_of(options, world, source)
            bases.append(str(base_dir))
        if base_job:
            jobs[base_job.key] = base_job
        teacher = teacher_of(options, world)
        data: dict[str, TaskData] = {}
        for name in options.suite.tasks:
            task = TASKS.get(name)
            models = models_of(task, options)
            items = select(_items(task, source, options), _most(task, options), options.seed)
            if not items:
                for model in models:
                    exclusions[name, model.name] = f"the data has no {options.split} rows for {name}"
                continue
            judging = _judging_of(task, source, options, stand_in)
            trained = trained_for(task)
            if trained.name not in data:
                data[trained.name] = _training_data(trained, source, options, teacher)
            about = source.knowledge_sets(name) if any(model.knowledge is not None for model in models) else ()
            where = _Where(
                options=options,
                task=task,
                trained=trained,
                items=items,
                data=data[trained.name],
                about=about,
                base_job=base_job,
                judging=judging,
                ground=_ground(
                    options,
                    world,
                    trained,
                    _judging_of(trained, source, options, stand_in),
                    base_job,
                    base_dir,
                    base_fingerprint,
                    teacher,
                ),
            )
            here: list[Job] = []
            for model in models:
                try:
                    cell, made = _cell(where, model)
                except NotApplicable as reason:
                    exclusions[name, model.name] = str(reason)
                    continue
                cells.append(cell)
                here += made
            jobs |= {job.key: job for job in here}
            if asked := recalls_of(source, trained.name, here, where.ground):
                recalls[name] = (*recalls.get(name, ()), *asked)
    return Plan(tuple(jobs.values()), tuple(cells), exclusions, tuple(bases), tuple(sources), recalls=recalls)


def models_of(task: Task, options: RunOptions) -> tuple[ModelSpec, ...]:
    """The rows of a task's table: its own where it names some, without those that were not asked for."""
    if not task.models:
        return tuple(model for model in options.models if model.knowledge is None)
    asked = {model.name for model in options.models} | {model.method for model in options.models}
    rows = (MODELS.get(name) for name in task.models)
    return tuple(model for model in rows if model.name in asked or model.method in asked)


def trained_for(task: Task) -> Task:
    """The task whose training data a task's models learn from: its own, unless it only tests."""
    return TASKS.get(task.trained_on) if task.trained_on else task


def recipes_of(task: Task, options: RunOptions) -> Recipes:
    """The recipes of a task's models: those of what they are trained on, and what the task has otherwise."""
    trained = trained_for(task)
    return options.preset.recipes_for(trained.name, trained.skill_mode, tested="" if trained is task else task.name)


def _items(task: Task, source: Source, options: RunOptions) -> tuple[Item, ...]:
    prefill = options.preset.source.prefill_subject
    return tuple(task.item(row, prefill) for row in source.rows(task.name, options.split))


def _most(task: Task, options: RunOptions) -> int | None:
    """How many items of a task are asked at most: the smaller of the preset's number and `--limit`."""
    bounds = [bound for bound in (options.preset.source.test_rows.get(task.name), options.limit) if bound is not None]
    return min(bounds) if bounds and options.split == "test" else options.limit


def select(items: tuple[Item, ...], limit: int | None, seed: int) -> tuple[Item, ...]:
    """At most `limit` items, drawn by a hash of their ids: a smaller limit's items are among a larger one's."""
    if limit is None or limit >= len(items):
        return items
    drawn = sorted(items, key=lambda item: digest([seed, "limit", item.task, item.id]))[:limit]
    chosen = {item.id for item in drawn}
    return tuple(item for item in items if item.id in chosen)


def _training_data(task: Task, source: Source, options: RunOptions, teacher: Teacher | None) -> TaskData:
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
        max_new_tokens=_limit(task, options),
        short_answers=task.metric == "short_qa",
        teacher=teacher.fingerprint if teacher else "",
    )


@dataclass(frozen=True)
class _Where:
    """One task in one world: all that its cells have in common. `about` are the texts on what the task asks."""

    options: RunOptions
    task: Task
    trained: Task
    items: tuple[Item, ...]
    data: TaskData
    about: tuple[KnowledgeSet, ...]
    base_job: Job | None
    judging: _Judging | None
    ground: Ground


def _cell(where: _Where, model: ModelSpec) -> tuple[Cell, list[Job]]:
    """A cell and the jobs that fill it, in order. Raises NotApplicable where the method is not defined."""
    options, task, ground, items = where.options, where.task, where.ground, where.items
    if model.base is not None:
        own = resolve_base(replace(options, base=model.base))
        ground = replace(ground, base_dir=own, base_fingerprint=weights_fingerprint(own), needs=())
    template = model.template or options.preset.prompt_template()
    label = f"world {ground.world}: {task.name}, {model.name}"
    jobs: list[Job] = []
    adapter: Path | None = None
    adapter_key: str | None = None
    needs = ground.needs
    if model.served is not None:
        needs = ()
    elif model.adapter is not None:
        adapter = Path(model.adapter.replace("{task}", task.name)).expanduser().resolve()
        adapter_key = adapter_fingerprint(adapter)
    else:
        jobs = _training_jobs(where, model, ground, template)
        if jobs:
            adapter, adapter_key = jobs[-1].out, jobs[-1].key
            needs = (*needs, jobs[-1].key)
    few = options.preset.few_shot.get(task.name, 0) if model.method == "base" else 0
    count = model.shots.get(task.name, few)
    shots = _shots(where.data, count, options.seed)
    if model.chat:
        # A chat is asked the question as it is, and begins its answer itself.
        items = tuple(replace(item, prefill="") for item in items)
        template = model.template or CHAT_TEMPLATE
    prompts = tuple(template.prompt(item.prompt, item.prefill, shots) for item in items)
    generation = options.preset.generation
    stop = generation.stop.get(task.name, ()) if count else ()
    forced = options.forced_tokens if task.metric == "longform" else None
    payload = Generate(
        base=model.served or str(ground.base_dir),
        prompts=tuple((item.id, prompt) for item, prompt in zip(items, prompts, strict=True)),
        decoding=Decoding(_limit(task, options), stop) if forced is None else Decoding(forced, min_new_tokens=forced),
        batch_size=generation.batch_size,
        dtype=generation.dtype,
        adapter=adapter,
        trust_remote_code=options.trust_remote_code,
        whole_sentences=forced is not None,
        backend="openai" if model.served else options.backend,
        engine={"base_url": model.base_url, "chat": model.chat} if model.served else ground.engine,
    )
    made_by = served_fingerprint(model) if model.served else ground.base_fingerprint
    address = payload.address() | {"base": made_by, "adapter": adapter_key, "format": GENERATION_FORMAT}
    key = digest(["generate", payload.backend, address])
    generate = Job(
        key, "generate", f"{label}: answer {len(items)} prompts", home() / "generations" / f"{key[:32]}.jsonl",
        payload, needs,
    )  # fmt: skip
    jobs += (parts := in_parts(generate, generation.engine.data_parallel))
    generate = parts[-1]
    score = None
    if where.judging is not None:
        score = _score_job(options, generate, items, template.separator, where.judging, label)
        jobs.append(score)
    return Cell(ground.world, task.name, model.name, items, prompts, generate, score, adapter), jobs


def _training_jobs(where: _Where, model: ModelSpec, ground: Ground, template: PromptTemplate) -> list[Job]:
    """The jobs that make a model's adapter, itself last; none for the untouched base."""
    options, trained = where.options, where.trained
    method = METHODS.get(model.method or "")
    seed = options.training_seed if options.training_seed is not None else options.seed
    seed = derive_seed(seed + ground.world, f"training/{trained.name}")
    recipes = recipes_of(where.task, options)
    if setting := options.settings.get((trained.name, method.name)):
        recipes = tuned(recipes, method.tunes, setting)
    stage = method.plan(where.data, recipes, seed, template)
    if stage is None:
        return []
    if options.match_updates:
        stage = matched(stage, where.data, recipes, seed, template)
    jobs = stage_jobs(stage, ground)
    if model.knowledge is None:
        return jobs
    texts = [t for t in where.about if t.version == model.knowledge and t.format == recipes.probe_format]
    if not texts:
        raise NotApplicable(f"the data has no {recipes.probe_format} texts of version {model.knowledge}")
    known = stage_jobs(knowledge_stage(where.task.name, texts[0], recipes, seed), ground)
    return [*jobs, *known, joined([known[-1], jobs[-1]], ground, f"{model.name} for {where.task.name}")]


def _limit(task: Task, options: RunOptions) -> int:
    return options.preset.generation.max_new_tokens.get(task.name, task.max_new_tokens)


def _ground(
    options: RunOptions,
    world: int,
    task: Task,
    judging: _Judging | None,
    base_job: Job | None,
    base_dir: Path,
    base_fingerprint: str,
    teacher: Teacher | None,
) -> Ground:
    return Ground(
        world=world,
        base_dir=base_dir,
        base_fingerprint=base_fingerprint,
        needs=(base_job.key,) if base_job else (),
        judges=Judges(
            task=task.name,
            final_answer=task.final_answer,
            judge=options.judge,
            profile=options.preset.scoring.profile,
            knowledge=judging.knowledge if judging else None,
            cache=home() / "judge_cache.sqlite",
        ),
        judges_fingerprint=judging.fingerprint if judging else "match",
        batch_size=options.preset.generation.batch_size,
        dtype=options.preset.generation.dtype,
        backend=options.backend,
        teacher=teacher,
        trust_remote_code=options.trust_remote_code,
        engine=_engine(options),
        data_parallel=options.preset.generation.engine.data_parallel,
        launch=_launch(options),
    )


def _launch(options: RunOptions) -> Launch | None:
    """The processes that train a stage; `None` where it is trained in the job's own."""
    launch = Launch(**options.preset.training.model_dump())
    return None if launch == Launch() else launch


def _engine(options: RunOptions) -> dict[str, Any]:
    """How the run's engine is laid out, with room for the adapters of its recipes."""
    if options.backend != "vllm":
        return {}
    ranks = []
    for task in map(TASKS.get, options.suite.tasks):
        recipes = recipes_of(task, options)
        rank = max(recipe.rank for recipe in (recipes.sft, recipes.skill, recipes.preference, recipes.rl))
        with_knowledge = any(model.knowledge is not None for model in models_of(task, options))
        ranks.append(rank + (recipes.knowledge.rank if with_knowledge else 0))
    return {"highest_rank": max(ranks, default=1)} | options.preset.generation.engine.model_dump(
        exclude={"data_parallel"}
    )


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


def _judging_of(task: Task, source: Source, options: RunOptions, stand_in: StandIn | None) -> _Judging | None:
    """What a task's answers are judged with; None for short ones."""
    if task.metric != "longform":
        return None
    if stand_in:
        return _Judging(Path("knowledge"), "stand-in")
    return _judging(source.knowledge_source(task.name, home()), options)


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
