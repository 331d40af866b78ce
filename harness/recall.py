"""Whether each knowledge adapter under a skill stage of a run holds its facts, as `harness.synthesize.recall` asks.

Only data of `harness synthesize` say which facts a text holds. Nothing waits for these answers, and a recall that is
low, or that cannot be measured, stops no run: it is said under the task's table, on standard error and in the
manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.fictitious import WithFictitious
from harness.data.source import DataError, Source
from harness.executor import JobsFailed
from harness.jobs import Generate, Job, TrainAdapter
from harness.paths import digest, home, read_lines
from harness.plan_training import GENERATION_FORMAT, Ground
from harness.synthesize.recall import DECODING, ENOUGH, Cloze, clozes, count_right, prompts
from train.stages import Stage

# At most so many facts an adapter are asked, drawn by a hash: a share of 0.9 of 200 is known to 4 points.
MOST = 200


@dataclass(frozen=True)
class Recall:
    """A knowledge adapter and the job that asks it for facts: `asked` of the `of` that its texts hold.

    `adapter` is the name of its stage, `words` the same for people; `key` is that of the job that trains it. `task` is
    the one that it is trained for.
    """

    task: str
    world: int
    adapter: str
    words: str
    key: str
    asked: tuple[Cloze, ...]
    of: int
    job: Job


@dataclass(frozen=True)
class Measured:
    """How many of the facts asked for were written next; `right` is None where the answers are not there."""

    recall: Recall
    right: int | None

    @property
    def share(self) -> float | None:
        """The share of the facts asked for."""
        return None if self.right is None else self.right / len(self.recall.asked)

    @property
    def low(self) -> bool:
        """Whether it is known to be less than enough."""
        return self.share is not None and self.share < ENOUGH


# --- planning ------------------------------------------------------------------------------------------------


def recalls_of(source: Source, task: str, jobs: Sequence[Job], ground: Ground) -> tuple[Recall, ...]:
    """What asks the knowledge adapters that skill stages among these jobs need; `task` is the one trained for.

    Empty where the knowledge texts were not made by `harness synthesize`.
    """
    if not isinstance(source, WithFictitious):
        return ()
    trained = [(job, job.payload) for job in jobs if isinstance(job.payload, TrainAdapter)]
    needed = {
        folder
        for _, payload in trained
        if payload.stage.kind in ("skill_mixed", "skill_multi_version")
        for folder in payload.adapter_dirs.values()
    }
    found: dict[str, Recall] = {}
    for job, payload in trained:
        if job.out in needed and payload.stage.kind == "knowledge" and job.key not in found:
            facts = _facts(source, task, payload.stage)
            if facts:
                found[job.key] = _recall(task, job, payload, facts, ground)
    return tuple(found.values())


def draw(facts: Sequence[Cloze]) -> tuple[Cloze, ...]:
    """At most `MOST` of the facts, in their order; which ones does not depend on that order."""
    drawn = set(sorted(facts, key=lambda one: digest(["recall", one.subject, one.beginning, one.value]))[:MOST])
    return tuple(one for one in facts if one in drawn)


def _facts(source: WithFictitious, task: str, stage: Stage) -> tuple[Cloze, ...]:
    """The facts of a stage's texts; none where the folder has none to ask for (HotpotQA's real rows, for one)."""
    try:
        return clozes(source.folder, task, fake=bool(stage.fake), version=stage.version)
    except DataError:
        return ()


def _recall(task: str, trained: Job, payload: TrainAdapter, facts: Sequence[Cloze], ground: Ground) -> Recall:
    asked, words = draw(facts), _words(payload.stage)
    engine = dict(ground.engine)
    if "highest_rank" in engine:  # the run's engine has room for the adapters that answer its tasks
        engine["highest_rank"] = max(engine["highest_rank"], payload.stage.recipe.rank)
    generate = Generate(
        base=str(payload.base_dir),
        prompts=prompts(asked),
        decoding=DECODING,
        batch_size=ground.batch_size,
        dtype=ground.dtype,
        adapter=trained.out,
        trust_remote_code=ground.trust_remote_code,
        backend=ground.backend,
        engine=engine,
    )
    address = generate.address() | {"base": payload.base_fingerprint, "adapter": trained.key}
    key = digest(["recall", GENERATION_FORMAT, generate.backend, address])
    label = f"world {ground.world}: {task}, recall of {words}: ask {len(asked)} facts"
    out = home() / "generations" / f"{key[:32]}.jsonl"
    job = Job(key, "generate", label, out, generate, (*trained.needs, trained.key))
    return Recall(task, ground.world, payload.stage.name, words, trained.key, asked, len(facts), job)


def _words(stage: Stage) -> str:
    words = [str(stage.format), "fictitious" if stage.fake else "real"]
    if stage.version is not None:
        words.append(f"version {stage.version}")
    if stage.name.endswith("-epochs"):  # one of several strengths
        words.append(f"{stage.recipe.epochs:g} epochs")
    return ", ".join(words)


# --- running and reading -------------------------------------------------------------------------------------


def every(plans: Iterable[Mapping[str, Sequence[Recall]]]) -> tuple[Recall, ...]:
    """Each recall of several plans once; `plans` are their recalls by task."""
    return tuple({one.job.key: one for by_task in plans for found in by_task.values() for one in found}.values())


def others(error: JobsFailed, recalls: Iterable[Recall]) -> JobsFailed | None:
    """The failures that are not of a recall's own job; None where no other job failed."""
    own = {one.job.key for one in recalls}
    reasons = {key: why for key, why in error.reasons.items() if key not in own}
    kept = [why for why in error.problems if why in set(reasons.values())]
    return JobsFailed({why: why for why in kept}, reasons) if kept else None


def measure(recalls: Iterable[Recall]) -> tuple[Measured, ...]:
    """Read the answers and count the values in them."""
    found = []
    for one in recalls:
        answers = {row["id"]: row["text"] for row in read_lines(one.job.out)} if one.job.done() else None
        found.append(Measured(one, None if answers is None else count_right(one.asked, answers)))
    return tuple(found)


# --- words ---------------------------------------------------------------------------------------------------


def records(measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """The entries of a manifest: `facts` of `of` were asked; `share` is null where the answers are not there."""
    return [
        {
            "world": one.recall.world,
            "adapter": one.recall.adapter,
            "key": one.recall.key,
            "share": None if one.share is None else round(one.share, 4),
            "facts": len(one.recall.asked),
            "of": one.recall.of,
        }
        for one in measured
    ]


def warnings(measured: Iterable[Measured], reasons: Mapping[str, str]) -> list[str]:
    """A line for every adapter that holds too little, or that could not be asked; `reasons` say why, by job."""
    lines = []
    for one in measured:
        where = f"world {one.recall.world}: {one.recall.adapter}"
        if one.right is None:
            why = reasons.get(one.recall.job.key, "its answers are not there")
            lines.append(f"warning: the recall of {where} was not measured: {' '.join(why.split())}")
        elif one.low:
            held = _of(one.right, len(one.recall.asked))
            lines.append(f"warning: {where} holds {held}, below {ENOUGH}: {_remedy(one.recall.task)}")
    return lines


def note(measured: Sequence[Measured]) -> str:
    """What stands under a task's table; worlds are pooled, a warning names each adapter that is low in one."""
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.recall.words, []).append(one)
    parts = []
    for words, group in groups.items():
        known = [one for one in group if one.right is not None]
        worlds = f" in {len(known)} worlds" if len(known) > 1 else ""
        held = _of(sum(one.right or 0 for one in known), sum(len(one.recall.asked) for one in known)) if known else ""
        parts.append(f"{words} {held}{worlds}" if known else f"{words} not measured")
    low = dict.fromkeys(one.recall.words for one in measured if one.low)
    text = f"Knowledge recall before the skill stage: {'; '.join(parts)}."
    if low:
        text += (
            f" Warning: below {ENOUGH}: {'; '.join(low)}. Prerequisite learning rests on facts that are known before "
            f"the skill is learnt: {_remedy(measured[0].recall.task)}."
        )
    return text


def _of(right: int, facts: int) -> str:
    """A share in words, rounded down: 0.90 is never less than enough."""
    return f"{100 * right // facts / 100:.2f} of {facts} facts"


def _remedy(task: str) -> str:
    return (
        f"give [recipes.{task}.knowledge] of the preset more epochs or a higher learning_rate (knowledge_changes and "
        "knowledge_strengths of [options] come after it)"
    )
