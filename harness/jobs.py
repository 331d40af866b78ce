"""The work of a run as jobs: pre-train a base, train an adapter, generate, score.

A job has an address (its `key`, a hash of all that made it) and a file or folder that it leaves there; a job
whose result exists is not run again, by anyone. Jobs run in worker processes, so everything in them is plain
data. A worker that is killed leaves no half result: folders and files get their name when they are whole, and
what is appended meanwhile (generations, scored responses, checkpoints) is taken up again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.backends.decoding import Decoding, Generation, Request
from harness.paths import append_lines, digest, mend_lines, read_lines, write_lines
from train.launch import Launch, launch_stage
from train.sampling import Workbench, samplings
from train.stages import Stage

JobKind = Literal["base", "train", "join", "sample", "judge", "generate", "score"]
# Judges that are models in the process of the job.
JUDGES_IN_PROCESS = ("local", "vllm", "transformers", "nli")
Report = Callable[[int, int, str], None]
"""Progress of a job: steps done, steps in all, a short remark such as a rate."""


class Payload(Protocol):
    """What a worker does for a job."""

    def run(self, out: Path, report: Report) -> None:
        """Do the work and leave the whole result at `out`."""


@dataclass(frozen=True)
class Job:
    """A piece of work: `needs` are the keys of the jobs whose results it reads.

    `part_of` is the result that it makes a part of; where that is there, the part is not needed.
    """

    key: str
    kind: JobKind
    label: str
    out: Path
    payload: Payload
    needs: tuple[str, ...] = ()
    part_of: Path | None = None

    def done(self) -> bool:
        """Whether the result is there (results appear whole or not at all)."""
        return self.out.exists() or (self.part_of is not None and self.part_of.exists())


@dataclass(frozen=True)
class PretrainBase:
    """Pre-train a miniature base."""

    world: Mapping[str, Any]
    settings: Mapping[str, Any]
    world_seed: int
    base_seed: int

    def run(self, out: Path, report: Report) -> None:
        """Raises BaseRejected where the base does not know the head better than the tail."""
        from harness.backends.opening import make_room
        from harness.data.miniature_base import BaseConfig, pretrain_base
        from harness.data.miniature_world import WorldConfig

        make_room()
        pretrain_base(
            WorldConfig.from_dict(self.world),
            BaseConfig.from_dict(self.settings),
            self.world_seed,
            self.base_seed,
            out,
            progress=lambda remark, done, total: report(done, total, remark),
        )


@dataclass(frozen=True)
class TrainAdapter:
    """Train one stage's adapter. `data` are the samples, or the judged samples, that its rows are made of.

    With `launch` it is trained in processes of their own.
    """

    stage: Stage
    base_dir: Path
    base_fingerprint: str
    adapter_dirs: Mapping[str, Path]
    checkpoint_dir: Path
    data: Path | None = None
    workbench: Workbench | None = None
    launch: Launch | None = None

    def run(self, out: Path, report: Report) -> None:
        """Continues from the newest whole checkpoint where a killed run left one."""
        from harness.backends.opening import make_room
        from train.run import run_stage

        make_room()
        here = partial(run_stage, workbench=self.workbench)
        train = partial(launch_stage, launch=self.launch) if self.launch else here
        train(
            self._filled(),
            base_dir=self.base_dir,
            adapter_dirs=self.adapter_dirs,
            out_dir=out,
            base_fingerprint=self.base_fingerprint,
            checkpoint_dir=self.checkpoint_dir,
            progress=lambda done, total, loss: report(done, total, f"loss {loss:.3f}"),
        )
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)

    def _filled(self) -> Stage:
        """The stage with the rows or pairs that were made of samples."""
        if self.stage.derived is None or self.data is None:
            return self.stage
        from baselines.derive import derive
        from harness.sampling import read_judged, read_samples

        if samplings(self.stage.derived)[1] is None:
            return derive(self.stage, read_samples(self.data), ())
        judged = read_judged(self.data)
        return derive(self.stage, [one.sample for one in judged], judged)


@dataclass(frozen=True)
class JoinAdapters:
    """Make the one adapter that equals several active at once."""

    base_dir: Path
    adapters: tuple[Path, ...]

    def run(self, out: Path, report: Report) -> None:
        """The folder appears whole: it is written under another name first."""
        from train.lora import combine

        staging = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        combine(self.base_dir, self.adapters, staging)
        staging.replace(out)
        report(1, 1, "")


@dataclass(frozen=True)
class Generate:
    """Answer a list of prompts, given as (id, text) pairs. The result is a JSON line an answer, in that order.

    `whole_sentences` cuts every answer after its last whole sentence, for answers of a length that was forced.
    `base` is a folder, or the name of a model that is served (backend `openai`); `engine` are further settings of
    the backend (`harness.backends.opening`). `part` (k, n) answers every n-th batch alone, from the k-th on
    (`in_parts`).
    """

    base: str
    prompts: tuple[tuple[str, str], ...]
    decoding: Decoding
    batch_size: int
    dtype: str
    adapter: Path | None = None
    trust_remote_code: bool = False
    whole_sentences: bool = False
    backend: str = "transformers"
    engine: Mapping[str, Any] = field(default_factory=dict)
    part: tuple[int, int] = (0, 1)

    @property
    def share(self) -> int:
        """How many of the prompts are answered here; of a part about so many, in sum all."""
        return len(self.prompts[self.part[0] :: self.part[1]])

    def address(self) -> dict[str, Any]:
        """What of this decides the answers, but for the base and the adapter, which stand by other names."""
        named = {f.name: getattr(self, f.name) for f in fields(self)} | {"decoding": asdict(self.decoding)}
        # Fields that came later count where they change something, so that older results keep their addresses.
        unused = {"backend", "engine", "part", *(() if self.whole_sentences else ("whole_sentences",))}
        return {name: value for name, value in named.items() if name not in unused}

    def run(self, out: Path, report: Report) -> None:
        """Finished batches are kept in `*.part` beside the result; they are not generated again."""
        from harness.backends.opening import open_backend

        part = out.with_suffix(".part")
        mend_lines(part)
        answers = {row["id"]: row for row in read_lines(part)}
        backend = open_backend(
            self.backend,
            self.base,
            dtype=self.dtype,
            batch_size=self.batch_size,
            trust_remote_code=self.trust_remote_code,
            engine=self.engine,
        )
        batches = backend.generate(
            [Request(id=id_, prompt=text) for id_, text in self.prompts],
            self.decoding,
            adapter=self.adapter,
            done=frozenset(answers),
            part=self.part,
        )
        report(len(answers), self.share, "")
        for batch in batches:
            rows = [asdict(self._cut(generation)) for generation in batch]
            append_lines(part, rows)
            answers |= {row["id"]: row for row in rows}
            report(len(answers), self.share, f"{backend.tokens_per_second:.0f} tokens/s")
        write_lines(out, [answers[id_] for id_, _ in self.prompts if self.part[1] == 1 or id_ in answers])
        part.unlink(missing_ok=True)

    def _cut(self, generation: Generation) -> Generation:
        return replace(generation, text=whole_sentences(generation.text)) if self.whole_sentences else generation


@dataclass(frozen=True)
class JoinAnswers:
    """Make the result of a `Generate` job of the results of its parts, which are removed."""

    ids: tuple[str, ...]
    parts: tuple[Path, ...]

    def run(self, out: Path, report: Report) -> None:
        """Answers stand in the order of the prompts, as if there had been no parts."""
        answers = {row["id"]: row for path in self.parts for row in read_lines(path)}
        write_lines(out, [answers[id_] for id_ in self.ids])
        for path in self.parts:
            path.unlink()
        report(len(self.ids), len(self.ids), "")


def in_parts(job: Job, parts: int) -> list[Job]:
    """The jobs that answer a `Generate` job's prompts in so many parts beside each other; the job itself comes last.

    Its address and every byte of its result are those of one whole job: parts are cut between batches. A job that
    has no more than a batch, or asks a served model, stays whole, and so does any other job.
    """
    whole = job.payload
    if not isinstance(whole, Generate) or whole.backend == "openai":
        return [job]
    parts = min(parts, -(-len(whole.prompts) // whole.batch_size))
    if parts <= 1:
        return [job]
    made = []
    for k in range(parts):
        key = digest(["part", job.key, k, parts])
        label = f"{job.label} (part {k + 1} of {parts})"
        out = job.out.with_name(f"{key[:32]}.jsonl")
        made.append(Job(key, job.kind, label, out, replace(whole, part=(k, parts)), job.needs, part_of=job.out))
    joined = JoinAnswers(tuple(id_ for id_, _ in whole.prompts), tuple(part.out for part in made))
    return [*made, replace(job, payload=joined, needs=(*job.needs, *(part.key for part in made)))]


@dataclass(frozen=True)
class ToScore:
    """A response to be scored: `before` is the prefill that stands before the generated text."""

    id: str
    topic: str
    before: str = ""


@dataclass(frozen=True)
class Score:
    """Take the answers of a `Generate` job apart and judge their claims."""

    generations: Path
    responses: tuple[ToScore, ...]
    knowledge: Path
    judge: str
    profile: str
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, out: Path, report: Report) -> None:
        """Scored responses are kept in `*.part` beside the result; they are not judged again."""
        from factscore_mod.outputs import response_from_json, response_to_json
        from factscore_mod.scorer import FactScorer
        from harness.backends.opening import make_room

        if self.judge.partition(":")[0] in JUDGES_IN_PROCESS:
            make_room()
        part = out.with_suffix(".part")
        mend_lines(part)
        scored = {row["id"]: row for row in read_lines(part)}
        texts = {row["id"]: row["text"] for row in read_lines(self.generations)}
        missing = [response for response in self.responses if response.id not in scored]
        scorer = FactScorer(
            judge=self.judge, knowledge=self.knowledge, profile=self.profile, cache=self.cache, **self.options
        )
        report(len(scored), len(self.responses), "")
        for result in scorer.iter_score(
            [response.topic for response in missing],
            [join(response.before, texts[response.id]) for response in missing],
            ids=[response.id for response in missing],
        ):
            row = response_to_json(result)
            append_lines(part, [row])
            scored[row["id"]] = row
            report(len(scored), len(self.responses), "")
        ordered = [scored[response.id] for response in self.responses]
        for row in ordered:
            response_from_json(row)  # what cannot be read back must not be called done
        write_lines(out, ordered)
        part.unlink(missing_ok=True)


def join(before: str, text: str) -> str:
    """A prefill (with its separator) and what the model wrote after it; nothing where it wrote nothing.

    A prefill alone is no answer: it would be scored as a claim that is true of everybody.
    """
    return before + text.lstrip() if before and text.strip() else text.strip()


def whole_sentences(text: str) -> str:
    """The text up to the end of its last whole sentence; empty where there is none.

    A last sentence is whole when it ends in a full stop, an exclamation or a question mark (quotes may follow).
    """
    from factscore_mod.sentences import split_sentences

    sentences = split_sentences(text)
    if sentences and not sentences[-1].text.rstrip("\"'\u201d\u2019)]").endswith((".", "!", "?")):
        sentences = sentences[:-1]
    return text[: sentences[-1].end] if sentences else ""
