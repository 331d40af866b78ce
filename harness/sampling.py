"""Jobs that stand between training stages: judging sampled responses, asking a teacher, joining adapters.

Methods that learn from their own samples (FLAME, FactTune, RL) describe what they need with the records of
`train.sampling`; the plan turns them into these jobs, and `Bench` answers what training asks while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.decoding import Decoding, Request
from harness.data.answers import read_answers
from harness.errors import UserError
from harness.jobs import Report, join
from harness.metrics import short_qa
from harness.paths import append_lines, mend_lines, read_lines, write_lines
from harness.records import Item, Response
from train.rows import Example
from train.sampling import JudgedClaim, JudgedSample, Judging, Sample
from train.template import PromptTemplate

if TYPE_CHECKING:
    from factscore_mod.records import ScoredResponse
    from factscore_mod.scorer import FactScorer

# A cloze answer is one value: the longest are names (FactTune reads 15 tokens).
CLOZE_TOKENS = 15


@dataclass(frozen=True)
class Judges:
    """What responses of one task are judged with: right or wrong, or claim by claim against a knowledge source."""

    task: str
    final_answer: bool = False
    judge: str = "rules"
    profile: str = "modified"
    knowledge: Path | None = None
    cache: Path | None = None

    def scorer(self) -> FactScorer:
        """The scorer of claims. Raises UserError where the task has no knowledge source."""
        from factscore_mod.scorer import FactScorer

        if self.knowledge is None:
            raise UserError(f"{self.task}: there is no knowledge source to judge sampled answers against")
        return FactScorer(judge=self.judge, knowledge=self.knowledge, profile=self.profile, cache=self.cache)

    def right(self, example: Example, text: str) -> bool | None:
        """Whether a short answer is right; `None` where it declines to answer."""
        gold = example.answers or (example.completion,)
        item = Item(task=self.task, id="", prompt=example.prompt, subject=example.subject, gold=gold)
        response = Response(self.task, "", "", 0, text, 0, "stop")
        score = short_qa.score(item, response, final_answer=self.final_answer)
        return None if score.abstained else score.token_match


@dataclass(frozen=True)
class Bench:
    """The workbench of a run (`train.sampling.Workbench`): claims by the run's decomposer, answers by its metric."""

    judges: Judges

    def claims(self, texts: Sequence[str], subjects: Sequence[str]) -> list[tuple[str, ...]]:
        """The claims of each response; an abstention has none."""
        from factscore_mod.sentences import split_sentences

        decomposer = self._scorer.judge.decomposer
        found = []
        for text, subject in zip(texts, subjects, strict=True):
            claims, _ = run_coroutine(decomposer.decompose(subject, text, split_sentences(text)))
            found.append(tuple(dict.fromkeys(claim.text for claim in claims)))
        return found

    def matches(self, texts: Sequence[str], examples: Sequence[Example]) -> list[bool | None]:
        """Whether each short answer is right."""
        return [self.judges.right(example, text) for text, example in zip(texts, examples, strict=True)]

    @cached_property
    def _scorer(self) -> FactScorer:
        return self.judges.scorer()


def run_coroutine(work: Any) -> Any:
    """The result of a coroutine, from plain code."""
    import asyncio

    return asyncio.run(work)


@dataclass(frozen=True)
class JudgeSamples:
    """Score every sampled response of a `Generate` job. The result is a JSON line a response."""

    samples: Path
    prompts: tuple[Example, ...]
    judging: Judging
    judges: Judges
    base: str
    template: PromptTemplate
    batch_size: int = 64
    dtype: str = "auto"
    trust_remote_code: bool = False
    backend: str = "transformers"
    engine: Mapping[str, Any] = field(default_factory=dict)

    def run(self, out: Path, report: Report) -> None:
        """Judge, then write the whole result; what a killed job had judged is in the judge's cache."""
        samples = read_samples(self.samples)
        report(0, len(samples), "")
        match self.judging.measure:
            case "match":
                judged = [self._match(sample) for sample in samples]
            case "fs":
                judged = [
                    _by_claims(s, scored) for s, scored in zip(samples, self._scored(samples, report), strict=True)
                ]
            case "mc" | "ec":
                judged = self._by_confidence(samples, report)
        write_lines(out, [asdict(sample) for sample in judged])
        report(len(samples), len(samples), "")

    def _match(self, sample: Sample) -> JudgedSample:
        return JudgedSample(sample, float(self.judges.right(self.prompts[sample.prompt], sample.text) is True))

    def _scored(self, samples: Sequence[Sample], report: Report) -> Iterator[ScoredResponse]:
        scored = self.judges.scorer().iter_score(
            [self.prompts[sample.prompt].subject for sample in samples], [self._text(sample) for sample in samples]
        )
        for done, response in enumerate(scored, start=1):
            report(done, len(samples), "judged")
            yield response

    def _text(self, sample: Sample) -> str:
        prefill = self.prompts[sample.prompt].prefill
        return join(prefill + self.template.separator if prefill else "", sample.text)

    def _by_confidence(self, samples: Sequence[Sample], report: Report) -> list[JudgedSample]:
        """FactTune-MC: how sure the base is of each claim, asked as a cloze; no knowledge source is read."""
        from baselines.confidence import cloze, expected_confidence, max_confidence
        from harness.backends.opening import open_backend

        texts = [self._text(sample) for sample in samples]
        subjects = [self.prompts[sample.prompt].subject for sample in samples]
        claims = Bench(self.judges).claims(texts, subjects)
        questions = {claim: cloze(claim) for found in claims for claim in found}
        asked = sorted({question for question in questions.values() if question})
        backend = open_backend(
            self.backend,
            self.base,
            dtype=self.dtype,
            batch_size=self.batch_size,
            trust_remote_code=self.trust_remote_code,
            engine=self.engine,
        )
        decoding = Decoding(
            CLOZE_TOKENS, ("\n", "."), temperature=self.judging.temperature, top_p=self.judging.top_p,
            seed=self.judging.samples.seed,
        )  # fmt: skip
        requests = [Request(f"{i}-{k}", text) for i, text in enumerate(asked) for k in range(self.judging.answers)]
        answers: dict[str, list[str]] = {question: [] for question in asked}
        done = 0
        for batch in backend.generate(requests, decoding):
            for generation in batch:
                answers[asked[int(generation.id.partition("-")[0])]].append(generation.text)
            done += len(batch)
            report(done, len(requests), "claims asked")
        measure = max_confidence if self.judging.measure == "mc" else expected_confidence
        sure = {question: measure(found) for question, found in answers.items()}
        judged = []
        for sample, found in zip(samples, claims, strict=True):
            scores = [sure[questions[claim]] for claim in found if questions[claim]]
            score = sum(scores) / len(scores) if scores else None
            judged.append(JudgedSample(sample, score, tuple(JudgedClaim(claim, None) for claim in found)))
        return judged


def _by_claims(sample: Sample, scored: ScoredResponse) -> JudgedSample:
    verdicts = {"supported": True, "not_supported": False}
    claims = tuple(JudgedClaim(c.claim.text, verdicts.get(c.judgement.verdict)) for c in scored.claims)
    known = [claim.supported for claim in claims if claim.supported is not None]
    # A subject without an article is not wrong: it cannot be scored.
    score = sum(known) / len(known) if known and scored.topic_found != "none" else None
    return JudgedSample(sample, score, claims)


def read_samples(path: Path) -> list[Sample]:
    """The samples of a `Generate` job whose ids are "prompt-sample", in the order of the prompts."""
    return [Sample(int(row["id"].partition("-")[0]), row["text"], row["finish"]) for row in read_lines(path)]


def read_judged(path: Path) -> list[JudgedSample]:
    """The result of a `JudgeSamples` job."""
    return [
        JudgedSample(Sample(**row["sample"]), row["score"], tuple(JudgedClaim(**claim) for claim in row["claims"]))
        for row in read_lines(path)
    ]


# --- teachers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherFile:
    """Answers from a file: JSON lines with `prompt` (or `subject`) and `text`."""

    path: Path
    prompts: tuple[Example, ...]

    def run(self, out: Path, report: Report) -> None:
        """Raises UserError for a file that is malformed or answers none of the prompts."""
        _, answers = read_answers(self.path)
        rows = [
            {"id": f"{i}-0", "text": answers[key], "tokens": 0, "finish": "stop"}
            for i, example in enumerate(self.prompts)
            if (key := example.prompt if example.prompt in answers else example.subject) in answers
        ]
        if not rows:
            raise UserError(f"{self.path}: answers none of the {len(self.prompts)} training prompts")
        write_lines(out, rows)
        report(len(rows), len(self.prompts), "")


@dataclass(frozen=True)
class AskTeacher:
    """Answers from an OpenAI-compatible endpoint, each asked to be as long as the reference answer."""

    model: str
    prompts: tuple[Example, ...]
    max_new_tokens: int
    cache: Path

    def run(self, out: Path, report: Report) -> None:
        """Finished answers are kept in `*.part` beside the result, and replies in the judge's cache."""
        part = out.with_suffix(".part")
        mend_lines(part)
        answers = {row["id"]: row for row in read_lines(part)}
        report(len(answers), len(self.prompts), "")

        def keep(row: dict[str, Any]) -> None:
            append_lines(part, [row])
            answers[row["id"]] = row
            report(len(answers), len(self.prompts), "")

        missing = [i for i in range(len(self.prompts)) if f"{i}-0" not in answers]
        run_coroutine(self._ask(missing, keep))
        write_lines(out, [answers[f"{i}-0"] for i in range(len(self.prompts))])
        part.unlink(missing_ok=True)

    async def _ask(self, missing: Sequence[int], keep: Callable[[dict[str, Any]], None]) -> None:
        import asyncio

        from factscore_mod.cache import ReplyCache
        from factscore_mod.chat import Ask, Chat, Ledger
        from factscore_mod.judges.base import JudgeOptions
        from factscore_mod.judges.openai import OpenAIEngine

        chat = Chat(OpenAIEngine(self.model, JudgeOptions()), Ledger(ReplyCache(self.cache)))

        async def one(i: int) -> None:
            question = teacher_question(self.prompts[i])
            ask = Ask("teach", TEACHER_PROMPT, "", question, max_tokens=self.max_new_tokens)
            reply, _ = await chat.ask(ask, lambda reply: bool(reply.text.strip()))
            keep(
                {"id": f"{i}-0", "text": reply.text.strip(), "tokens": reply.completion_tokens, "finish": reply.finish}
            )

        try:
            await asyncio.gather(*map(one, missing))
        finally:
            await chat.aclose()


TEACHER_PROMPT = "teacher-1"


def teacher_question(example: Example) -> str:
    """The request to a teacher. Its wording is ours; the paper's is not known."""
    words = len(f"{example.prefill} {example.completion}".split())
    return f"{example.prompt} Answer in plain prose of about {words} words, without headings, lists or remarks."
