"""What one job of a run takes: a line of work for the device, and calls to a judge or a teacher."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from factscore_mod.cost import estimate_tokens
from harness.counts import Tokens, count
from harness.errors import UserError
from harness.jobs import Generate, Job, JoinAdapters, PretrainBase, Score, TrainAdapter
from harness.registry import TASKS
from harness.run_options import RunOptions
from harness.sampling import AskTeacher, JudgeSamples
from harness.shape import FP32, Shape, training_memory
from harness.standin import Lengths, claims_of
from train.stages import Stage

# Dense bf16 operations and bytes a second by the makers' data sheets; `cpu` is one core with AVX-512 in fp32.
DEVICES: dict[str, tuple[float, float]] = {
    "h200": (989e12, 4.8e12),
    "h100": (989e12, 3.35e12),
    "a100": (312e12, 2.0e12),
    "cpu": (0.1e12, 1e10),
}
# What torch calls the devices that these figures are of. Relatives of theirs (PCIe, NVL, 40 GB) are slower.
GPU_NAMES: dict[str, str] = {
    "h200": "NVIDIA H200",
    "h100": "NVIDIA H100 80GB HBM3",
    "a100": "NVIDIA A100-SXM4-80GB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What an estimate takes for granted; each is a switch of ours and is printed.

    `mfu` is the share of the device's peak that training reaches, `bandwidth_share` of its memory bandwidth that
    decoding reaches. A batch decodes until its longest answer ends: `straggler` times the mean. A judge's calls hold
    about so many tokens besides the response and its claims: `decompose_prompt`, and `verify_prompt` with the
    passages; a teacher's `teacher_prompt`. `claims_per_call` is that of the scoring profile.
    """

    device: str = "h100"
    mfu: float = 0.35
    bandwidth_share: float = 0.5
    straggler: float = 1.5
    decompose_prompt: int = 350
    verify_prompt: int = 5000
    claims_per_call: int = 20
    tokens_per_claim: int = 20
    teacher_prompt: int = 60
    tokens_per_verdict: int = 10
    lengths: Lengths = field(default_factory=Lengths)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UserError(f"--device: '{self.device}' is not one of {', '.join(DEVICES)}")
        if not 0 < self.mfu <= 1:
            raise UserError(f"--mfu: {self.mfu} is not above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Jobs of a kind: together so many rows, updates, tokens and seconds; memory is that of the largest.

    Rows of training are those of the data, of sampling and generation the responses. `ready` of the jobs have a
    result already; their seconds are not counted. `tokens` are read in training and written in generation. `exact`
    says that updates and tokens are those of the very plan; `basis` is `estimated` or `measured`. `truncated` are
    the rows that were counted and are longer than the recipe's `max_length`.
    """

    label: str
    kind: str
    jobs: int = 1
    ready: int = 0
    rows: int = 0
    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0
    exact: bool = True
    basis: str = "estimated"
    truncated: int = 0

    def __add__(self, other: Line) -> Line:
        return Line(
            label=self.label,
            kind=self.kind,
            jobs=self.jobs + other.jobs,
            ready=self.ready + other.ready,
            rows=self.rows + other.rows,
            updates=self.updates + other.updates,
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            exact=self.exact and other.exact,
            basis=self.basis if self.basis == other.basis else "estimated, partly measured",
            truncated=self.truncated + other.truncated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Calls to a judge or a teacher; `dollars` is None where the price is not known."""

    label: str
    model: str
    responses: int
    calls: int
    tokens_in: int
    tokens_out: int
    dollars: float | None

    def __add__(self, other: Calls) -> Calls:
        known = self.dollars is not None and other.dollars is not None
        return Calls(
            label=self.label,
            model=self.model,
            responses=self.responses + other.responses,
            calls=self.calls + other.calls,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            dollars=(self.dollars or 0) + (other.dollars or 0) if known else None,
        )


@dataclass(frozen=True)
class Base:
    """The base of one world: its shape, its tokens, the tokenizer where there is one, and its fingerprint."""

    shape: Shape
    tokens: Tokens
    tokenizer: Any
    fingerprint: str
    bytes_a_number: int


class Workload:
    """Turns jobs into lines and calls, and sums up the disk they fill; `answers` are mean tokens of an answer by task.

    Jobs are given in their order: the length of answers is that of the `Generate` job before.
    """

    def __init__(
        self,
        options: RunOptions,
        assumptions: Assumptions,
        bases: Mapping[str, Base],
        nominal: bool,
        throughputs: Mapping[tuple[str, str], float],
        answers: Mapping[str, float],
    ) -> None:
        self._options = options
        self._use = assumptions
        self._bases = bases
        self._nominal = nominal
        self._throughputs = throughputs
        self._answers = answers
        self._forced: dict[Path, int] = {}  # lengths that answers are forced to, by the file of the answers
        self._peak, self._bandwidth = DEVICES[assumptions.device]
        self.disk: dict[str, int] = {"adapters": 0, "a checkpoint": 0, "answers": 0, "bases": 0}
        for place, base in bases.items():
            if not Path(place).is_dir():
                self.disk["bases"] += base.shape.parameters * base.bytes_a_number

    def line(self, job: Job) -> Line | None:
        """The line of a job; None for jobs that take no time worth a line."""
        match job.payload:
            case TrainAdapter():
                line = self._train(job.payload, job.label)
            case Generate(backend=backend, decoding=decoding):
                if decoding.min_new_tokens:
                    self._forced[job.part_of or job.out] = decoding.min_new_tokens
                if backend == "openai":
                    return None
                line = self._generate(job.payload, job.label, job.kind)
            case PretrainBase():
                line = self._pretrain(job)
            case JoinAdapters():
                self.disk["adapters"] += sum(self._adapter_bytes(path) for path in job.payload.adapters)
                return None
            case _:
                return None
        return replace(line, ready=1, seconds=0.0) if job.done() else line

    def calls(self, job: Job) -> Calls | None:
        """The calls of a job to a judge or a teacher; None where it makes none."""
        task = task_of(job.label)
        payload = job.payload
        if isinstance(payload, Score):
            model = job.label.split(", ")[1].split(":")[0]
            forced = self._forced.get(payload.generations)
            claims = forced / self._use.lengths.claim if forced else self._claims(task, model)
            tokens = float(forced or self._answers.get(task, 0.0))
            return self._judge(f"judge {task}", payload.judge, len(payload.responses), claims, tokens)
        if isinstance(payload, JudgeSamples) and payload.judging.measure != "match":
            responses = len(payload.prompts) * payload.judging.samples.count
            return self._judge(
                f"judge samples, {task}", payload.judges.judge, responses, self._claims(task, "sft"),
                self._answers.get(task, 0.0),
            )  # fmt: skip
        if isinstance(payload, Generate) and payload.backend == "openai":
            prompts, limit = len(payload.prompts), payload.decoding.max_new_tokens
            words = sum(estimate_tokens(text) for _, text in payload.prompts)
            tokens_out = round(prompts * min(self._answers.get(task, 0.0) or limit, limit))
            return self._priced(f"answer {task}", f"openai:{payload.base}", prompts, prompts, words, tokens_out)
        if isinstance(payload, AskTeacher):
            prompts = len(payload.prompts)
            tokens_out = round(prompts * self._answers.get(task, 0.0))
            return self._priced(
                f"teacher, {task}", payload.model, prompts, prompts, prompts * self._use.teacher_prompt, tokens_out
            )
        return None

    # --- training ---

    def _train(self, payload: TrainAdapter, label: str) -> Line:
        stage, base = payload.stage, self._bases[str(payload.base_dir)]
        shape, recipe, use = base.shape, stage.recipe, self._use
        task = task_of(label)
        tokenizer = None if self._nominal else base.tokenizer
        counts = count(
            stage, base.tokens, tokenizer, base.fingerprint, self._answers.get(task, 0.0), self._claims(task)
        )
        owner = stage.start if stage.kind in ("dpo", "rl") and stage.start else stage
        trained = shape.adapter_parameters(owner.recipe.rank, owner.recipe.target_modules)
        frozen = [shape.adapter_parameters(need.recipe.rank, need.recipe.target_modules) for need in stage.needs]
        flops = shape.training_flops(
            counts.padded,
            counts.targets,
            counts.squares,
            trained,
            round(frozen[0] * counts.under_knowledge) if frozen else 0,
            recipe.gradient_checkpointing,
        )
        seconds = 0.0
        if stage.kind == "dpo":
            flops += shape.reading_flops(counts.padded, counts.squares, trained)  # the reference model
        if stage.kind == "rl":
            # The reference reads every response; the verifier reads every claim and writes one token.
            claims = counts.rows * self._claims(task)
            flops += shape.reading_flops(counts.padded, counts.squares, trained)
            flops += shape.reading_flops(claims * 3 * use.lengths.claim, 0.0, trained)
            seconds += self._decoding(base, counts.rows, counts.tokens / max(1, counts.rows), 64)
        rate = self._throughputs.get((base.fingerprint[:32], stage.kind))
        seconds = counts.tokens / rate if rate else seconds + flops / (self._peak * use.mfu)
        memory = training_memory(
            shape, recipe, sum(frozen), counts.largest, counts.largest_targets, base.bytes_a_number
        )
        self.disk["adapters"] += trained * FP32
        self.disk["a checkpoint"] = max(self.disk["a checkpoint"], 3 * trained * FP32)
        return Line(
            label=_stage_label(stage),
            kind="train",
            rows=counts.rows,
            updates=counts.updates,
            tokens=counts.tokens,
            seconds=seconds,
            memory_bytes=sum(memory.values()),
            exact=counts.exact,
            basis="measured" if rate else "estimated",
            truncated=counts.truncated,
        )

    def _pretrain(self, job: Job) -> Line:
        from harness.data.miniature_base import BaseConfig

        payload = cast(PretrainBase, job.payload)
        config = BaseConfig.from_dict(payload.settings)
        shape = next(base.shape for base in self._bases.values())
        tokens = config.planned_tokens
        flops = 6 * (shape.parameters + 0.0) * tokens
        return Line(
            label="pre-train",
            kind="base",
            updates=tokens // (config.rows * config.row_length),
            tokens=tokens,
            seconds=flops / (self._peak * self._use.mfu),
            memory_bytes=16 * shape.parameters,
            exact=False,
        )

    # --- generation ---

    def _generate(self, payload: Generate, label: str, kind: str) -> Line:
        base = self._bases.get(payload.base) or next(iter(self._bases.values()))
        task = task_of(label)
        responses = payload.share
        most, least = payload.decoding.max_new_tokens, payload.decoding.min_new_tokens
        mean = min(max(self._answers.get(task, 0.0) or most, least), most)
        step = max(1, responses // 200)
        sample = [base.tokens.count(text) + 1 for _, text in payload.prompts[::step]]
        prompt = sum(sample) / len(sample)
        seconds = self._decoding(base, responses, mean, payload.batch_size)
        seconds += base.shape.reading_flops(responses * prompt, 0.0) / (self._peak * self._use.mfu)
        tokens = round(responses * mean)
        self.disk["answers"] += 6 * tokens
        batch = min(payload.batch_size, responses)
        verb = "recall" if ", recall of " in label else "answer" if kind == "generate" else "sample"
        longest = max(sample) + payload.decoding.max_new_tokens
        return Line(
            label=f"{verb} {task}",
            kind=kind,
            rows=responses,
            tokens=tokens,
            seconds=seconds,
            memory_bytes=round(
                base.shape.parameters * base.bytes_a_number
                + batch * longest * base.shape.cache_bytes(base.bytes_a_number)
            ),
            exact=False,
        )

    def _decoding(self, base: Base, responses: int, mean: float, batch_size: int) -> float:
        """Seconds to write the answers: each step reads all weights once, or is bound by operations."""
        batches = -(-responses // batch_size)
        weights = base.shape.parameters * base.bytes_a_number
        step = max(
            weights / (self._bandwidth * self._use.bandwidth_share),
            2 * base.shape.parameters * min(batch_size, responses) / (self._peak * self._use.mfu),
        )
        return batches * mean * self._use.straggler * step

    def _adapter_bytes(self, path: Path) -> int:
        config = path / "adapter_model.safetensors"
        return config.stat().st_size if config.is_file() else 0

    # --- judges ---

    def _claims(self, task: str, model: str = "sft") -> float:
        """Claims of a response: the paper's on its own data, else one for so many tokens."""
        if not task or TASKS.get(task).metric != "longform":
            return 0.0
        if self._options.preset.source.kind == "prereq_tune":
            return claims_of(task, model)
        return self._answers.get(task, 0.0) / self._use.lengths.claim

    def _judge(self, label: str, judge: str, responses: int, claims: float, tokens: float) -> Calls:
        use = self._use
        verifying = -(-claims // use.claims_per_call)
        tokens_in = use.decompose_prompt + tokens + verifying * use.verify_prompt
        tokens_in += claims * use.tokens_per_claim
        tokens_out = claims * (use.tokens_per_claim + use.tokens_per_verdict)
        return self._priced(
            label, judge, responses, round(responses * (1 + verifying)), round(responses * tokens_in),
            round(responses * tokens_out),
        )  # fmt: skip

    def _priced(self, label: str, judge: str, responses: int, calls: int, tokens_in: int, tokens_out: int) -> Calls:
        from factscore_mod.cost import PriceTable

        kind, _, model = judge.rpartition(":")
        if kind not in ("openai", "") or judge == "rules":
            return Calls(
                label=label, model=judge, responses=responses, calls=0, tokens_in=0, tokens_out=0, dollars=0.0
            )  # fmt: skip
        price = PriceTable().get(model)
        return Calls(
            label=label,
            model=judge,
            responses=responses,
            calls=calls,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            dollars=price.of(tokens_in, tokens_out) if price else None,
        )


def _stage_label(stage: Stage) -> str:
    """The stage's name without what tells equal stages apart: version or strength."""
    return re.sub(r"-(v\d+|[\d.]+-epochs)$", "", stage.name)


def task_of(label: str) -> str:
    """The task that a job's label names, "" where it names none."""
    words = re.findall(r"[a-z_]+", label)
    return next((word for word in words if word in TASKS.names()), "")
