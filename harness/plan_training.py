"""From a method's stages to jobs: samples and judgements first, then the adapters that learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baselines.method import NotApplicable
from harness.backends.decoding import Decoding
from harness.jobs import Generate, Job, JoinAdapters, TrainAdapter, in_parts
from harness.paths import digest, home
from harness.sampling import AskTeacher, Bench, Judges, JudgeSamples, TeacherFile
from train.launch import LAUNCHED, Launch
from train.sampling import Judging, Sampling, samplings
from train.stages import Stage

# Raise one of these when a change to the code changes what it makes of equal inputs.
GENERATION_FORMAT = 3
JUDGING_FORMAT = 1


@dataclass(frozen=True)
class Teacher:
    """A stronger model that answers training prompts.

    `job` pre-trains it where that is done here. `kind` is `model` (a folder), `openai` or `file`; `name` is that
    folder, model or file. The fingerprint changes whenever the answers would.
    """

    kind: str
    name: str
    fingerprint: str
    job: Job | None = None


@dataclass(frozen=True)
class Ground:
    """What the training of one task in one world stands on."""

    world: int
    base_dir: Path
    base_fingerprint: str
    needs: tuple[str, ...]
    judges: Judges
    judges_fingerprint: str
    batch_size: int
    dtype: str
    backend: str
    teacher: Teacher | None = None
    trust_remote_code: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)
    launch: Launch | None = None
    data_parallel: int = 1


def stage_jobs(stage: Stage, ground: Ground) -> list[Job]:
    """The jobs of a stage and of all that it needs; the stage itself comes last.

    Raises NotApplicable where a stage asks for a teacher or a judge that the run does not have.
    """
    jobs: dict[str, Job] = {}
    adapters: dict[str, Job] = {}
    for needed in stage.prerequisites():
        made = stage_jobs(needed, ground)
        jobs |= {job.key: job for job in made}
        adapters[needed.fingerprint(ground.base_fingerprint)] = made[-1]
    data: Job | None = None
    if stage.derived is not None:
        sampling, judging = samplings(stage.derived)
        made = sampling_jobs(sampling, ground) if judging is None else judging_jobs(judging, ground)
        jobs |= {job.key: job for job in made}
        data = made[-1]
    fingerprint = stage.fingerprint(ground.base_fingerprint)
    key = fingerprint
    rewarded = stage.kind == "rl"
    if data is not None or rewarded or any(job.key != print_ for print_, job in adapters.items()):
        # What the adapter owes to samples and judges is not in the stage's own fingerprint.
        from_judges = ground.judges_fingerprint if rewarded else ""
        key = digest([fingerprint, [job.key for job in adapters.values()], data.key if data else "", from_judges])
    payload = TrainAdapter(
        stage=stage,
        base_dir=ground.base_dir,
        base_fingerprint=ground.base_fingerprint,
        adapter_dirs={print_: job.out for print_, job in adapters.items()},
        checkpoint_dir=home() / "checkpoints" / key[:32],
        data=data.out if data else None,
        workbench=Bench(ground.judges) if rewarded else None,
        launch=ground.launch if stage.kind in LAUNCHED else None,
    )
    label = f"world {ground.world}: train {stage.name}"
    made_here = Job(key, "train", label, home() / "adapters" / key[:32], payload, (*ground.needs, *jobs))
    return [*jobs.values(), made_here]


def sampling_jobs(sampling: Sampling, ground: Ground) -> list[Job]:
    """The jobs of a sampling, itself last; its result has a line a response, with the id "prompt-response"."""
    if sampling.teacher:
        return _teacher_jobs(sampling, ground)
    jobs = stage_jobs(sampling.model, ground) if sampling.model else []
    model = jobs[-1] if jobs else None
    payload = _generate(sampling, ground, str(ground.base_dir), model.out if model else None)
    key = _generation_key(sampling, ground, model.key if model else "")
    needs = (*ground.needs, *(job.key for job in jobs))
    return [*jobs, *_sample_jobs(key, sampling, ground, payload, needs)]


def judging_jobs(judging: Judging, ground: Ground) -> list[Job]:
    """The jobs of a judging, itself last."""
    if judging.measure == "fs" and ground.judges.knowledge is None:
        raise NotApplicable("there is no knowledge source to judge sampled answers against")
    jobs = sampling_jobs(judging.samples, ground)
    key = digest(
        ["judge samples", JUDGING_FORMAT, jobs[-1].key, judging.measure, judging.answers, judging.temperature,
         judging.top_p, ground.judges_fingerprint]
    )  # fmt: skip
    payload = JudgeSamples(
        samples=jobs[-1].out,
        prompts=judging.samples.prompts,
        judging=judging,
        judges=ground.judges,
        base=str(ground.base_dir),
        template=judging.samples.template,
        batch_size=ground.batch_size,
        dtype=ground.dtype,
        trust_remote_code=ground.trust_remote_code,
        backend=ground.backend,
        engine=ground.engine,
    )
    label = f"world {ground.world}: judge {judging.samples.name} ({judging.measure})"
    return [*jobs, Job(key, "judge", label, home() / "samples" / f"{key[:32]}.jsonl", payload, (jobs[-1].key,))]


def joined(jobs: Sequence[Job], ground: Ground, label: str) -> Job:
    """The job that makes one adapter of several trained ones."""
    key = digest(["join", [job.key for job in jobs]])
    payload = JoinAdapters(ground.base_dir, tuple(job.out for job in jobs))
    needs = (*ground.needs, *(job.key for job in jobs))
    return Job(key, "join", f"world {ground.world}: join {label}", home() / "adapters" / key[:32], payload, needs)


def _teacher_jobs(sampling: Sampling, ground: Ground) -> list[Job]:
    teacher = ground.teacher
    if teacher is None:
        raise NotApplicable("no teacher is given")
    if teacher.kind == "model":
        before = [teacher.job] if teacher.job else []
        payload: Any = _generate(sampling, ground, teacher.name, None)
    elif teacher.kind == "file":
        before, payload = [], TeacherFile(Path(teacher.name), sampling.prompts)
    else:
        before = []
        payload = AskTeacher(teacher.name, sampling.prompts, sampling.max_new_tokens, home() / "judge_cache.sqlite")
    key = _generation_key(sampling, ground, teacher.fingerprint)
    return [*before, *_sample_jobs(key, sampling, ground, payload, tuple(job.key for job in before))]


def _generate(sampling: Sampling, ground: Ground, base: str, adapter: Path | None) -> Generate:
    prompts = [sampling.template.prompt(p.prompt, p.prefill, sampling.shots) for p in sampling.prompts]
    return Generate(
        base=base,
        prompts=tuple((f"{i}-{k}", prompt) for i, prompt in enumerate(prompts) for k in range(sampling.count)),
        decoding=Decoding(
            sampling.max_new_tokens,
            sampling.stop,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        ),
        batch_size=ground.batch_size,
        dtype=ground.dtype,
        adapter=adapter,
        trust_remote_code=ground.trust_remote_code,
        backend=ground.backend,
        engine=ground.engine,
    )


def _generation_key(sampling: Sampling, ground: Ground, model: str) -> str:
    made_of = [sampling.fingerprint(ground.base_fingerprint), model, ground.backend, ground.batch_size, ground.dtype]
    return digest(["sample", GENERATION_FORMAT, *made_of])


def _sample_jobs(key: str, sampling: Sampling, ground: Ground, payload: Any, needs: tuple[str, ...]) -> list[Job]:
    label = f"world {ground.world}: sample {sampling.name} ({len(sampling.prompts)} x {sampling.count})"
    job = Job(key, "sample", label, home() / "samples" / f"{key[:32]}.jsonl", payload, needs)
    return in_parts(job, ground.data_parallel)
