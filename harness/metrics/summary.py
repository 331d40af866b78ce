"""From the scores of single answers to the numbers of a leaderboard, with intervals and denominators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from harness import stats
from harness.metrics.longform import Curve, LongformScore
from harness.metrics.short_qa import QaScore

S = TypeVar("S", QaScore, LongformScore)
Family = Literal["short_qa", "longform"]

#: What models are compared in, beside the headline metric of the suite.
COMPARED: dict[Family, tuple[str, ...]] = {
    "longform": ("accuracy", "accuracy_micro", "supported_claims"),
    "short_qa": ("accuracy", "token_match"),
}
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval (`None` where there is nothing to compute it from).

    The denominator is `n` of `unit`, described by `of`; `clusters` entities within `worlds` worlds stand
    behind it. `method` says what the interval is; `per_world` holds each world's own value.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    unit: str
    of: str
    method: str
    worlds: int = 1
    per_world: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against the baseline on the same items: `value` is model minus baseline.

    `p_holm` is corrected over the models compared in this metric. `better` and `worse` count the answers that
    only the model, only the baseline got right, and `p_mcnemar` tests them exactly (yes-or-no scores only; it
    takes answers as independent). `detectable` is the smallest difference found at 80 % power.
    """

    metric: str
    model: str
    baseline: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    n: int
    clusters: int
    worlds: int
    detectable: float | None
    method: str
    per_world: tuple[tuple[int, float], ...] = ()
    better: int | None = None
    worse: int | None = None
    p_mcnemar: float | None = None


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """All numbers of one task. `models` and `titles` are in the order of the table.

    `exclusions` maps the models without a row to the reason; `published` names the table and the columns of
    the paper's figures, as `Task.published` does. `curves` are of long answers only.
    """

    name: str
    title: str
    family: Family
    headline: str
    models: Mapping[str, Mapping[str, Estimate]]
    titles: Mapping[str, str] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    exclusions: Mapping[str, str] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Everything a report says.

    `metadata` decides the numbers (preset, judge, ...) and is part of `metrics.json`; `context` (command,
    date, hardware) is not, so that equal runs write equal bytes.
    """

    title: str
    metadata: Mapping[str, Any]
    tasks: tuple[TaskSummary, ...]
    context: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """`metrics.json`: sorted keys, fixed precision, nothing that differs between equal runs."""
        body = {
            "title": self.title,
            "metadata": _plain(self.metadata),
            "tasks": {task.name: _plain({**asdict(task), "order": list(task.models)}) for task in self.tasks},
        }
        return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


# --- metrics as ratios ------------------------------------------------------------------------------------


@dataclass(frozen=True)  # slots and a subscripted generic do not go together before Python 3.13
class Metric(Generic[S]):
    """A score as a ratio of sums: what each answer adds above and below.

    `share` says that it lies in [0, 1]; `of` describes the denominator in words.
    """

    name: str
    unit: str
    of: str
    above: Callable[[S], float]
    below: Callable[[S], float] = lambda _: 1.0
    share: bool = True

    def sample(self, scores: Sequence[S]) -> stats.Sample:
        """The numerators and denominators of these scores, in their order."""
        return stats.Sample.of(
            [float(self.above(s)) for s in scores],
            [float(self.below(s)) for s in scores],
            [s.subject for s in scores],
            [s.world for s in scores],
        )

    def estimate(self, scores: Sequence[S]) -> Estimate:
        """The number, its interval and its denominator."""
        r = stats.ratio(self.sample(scores), share=self.share)
        return Estimate(r.value, r.low, r.high, r.n, r.clusters, self.unit, self.of, r.method, r.worlds, r.per_world)


def short_qa_metrics(kinds: Sequence[str] = ()) -> tuple[Metric[QaScore], ...]:
    """The metrics of short answers; `accuracy[KIND]` for each kind of question when there are several.

    `accuracy` is the reference's alias containment, the others are ours (see `metrics.short_qa`).
    """
    every = "all questions; abstentions count as wrong"
    metrics = [
        Metric[QaScore]("accuracy", "question", every, lambda s: s.reference_em),
        Metric[QaScore]("token_match", "question", every, lambda s: s.token_match),
        Metric[QaScore]("strict_em", "question", every, lambda s: s.strict_em),
        Metric[QaScore]("f1", "question", every, lambda s: s.f1),
        Metric[QaScore]("abstention_rate", "question", "all questions", lambda s: s.abstained),
        Metric[QaScore]("cut_off_rate", "question", "all questions", lambda s: s.cut_off),
    ]
    if len(kinds) > 1:
        for kind in kinds:
            metrics.append(
                Metric[QaScore](
                    f"accuracy[{kind}]",
                    "question",
                    f"questions of kind {kind}; abstentions count as wrong",
                    lambda s, kind=kind: s.reference_em and s.kind == kind,  # type: ignore[misc]
                    lambda s, kind=kind: s.kind == kind,  # type: ignore[misc]
                )
            )
    return tuple(metrics)


def longform_metrics(k_values: Sequence[int] = ()) -> tuple[Metric[LongformScore], ...]:
    """The metrics of long answers; a *responding* answer states at least one claim and does not abstain.

    `unparsed` and `error` claims are in no accuracy; they are counted by rates of their own.
    """
    responding = "responding answers (at least one claim, no abstention)"
    judged = "judged claims of all answers, pooled (no unparsed, no error)"
    found = "claims of all answers"
    metrics = [
        Metric[LongformScore](
            "accuracy",
            "response",
            "answers with a judged claim; abstentions left out; mean of each answer's supported share",
            lambda s: s.precision() or 0.0,
            lambda s: s.precision() is not None,
        ),
        Metric[LongformScore]("accuracy_micro", "claim", judged, lambda s: s.supported, lambda s: s.judged),
        Metric[LongformScore](
            "accuracy_abstention_zero",
            "response",
            "all answers; those without claims count as 0, those with no judged claim are left out",
            lambda s: s.precision() or 0.0,
            lambda s: s.judged > 0 or not s.responds,
        ),
        Metric[LongformScore](
            "claims", "response", responding, lambda s: len(s.verdicts), lambda s: s.responds, share=False
        ),
        Metric[LongformScore](
            "supported_claims",
            "response",
            responding,
            lambda s: s.supported,
            lambda s: s.responds,
            share=False,
        ),
        Metric[LongformScore]("response_rate", "response", "all answers", lambda s: s.responds),
        Metric[LongformScore](
            "unparsed_rate", "claim", found, lambda s: s.verdicts.count("unparsed"), lambda s: len(s.verdicts)
        ),
        Metric[LongformScore](
            "error_rate", "claim", found, lambda s: s.verdicts.count("error"), lambda s: len(s.verdicts)
        ),
        Metric[LongformScore]("cut_off_rate", "response", "all answers", lambda s: s.cut_off),
    ]
    for k in k_values:
        metrics.append(
            Metric[LongformScore](
                f"f1_at_{k}",
                "response",
                f"all answers, 0 without a supported claim; recall is supported / {k}, at most 1",
                lambda s, k=k: s.f1_at(k),  # type: ignore[misc]
            )
        )
    return tuple(metrics)


def summarise_short_qa(scores: Sequence[QaScore]) -> dict[str, Estimate]:
    """Every metric of one model's short answers."""
    return {metric.name: metric.estimate(scores) for metric in short_qa_metrics(_kinds(scores))}


def summarise_longform(scores: Sequence[LongformScore], k_values: Sequence[int]) -> dict[str, Estimate]:
    """Every metric of one model's long answers, with F1@K at the given values of K."""
    return {metric.name: metric.estimate(scores) for metric in longform_metrics(k_values)}


# --- models side by side ----------------------------------------------------------------------------------


def compare_short_qa(
    scores: Mapping[str, Sequence[QaScore]], baseline: str, metrics: Sequence[str] = COMPARED["short_qa"]
) -> tuple[Comparison, ...]:
    """Every other model against the baseline on the questions that all of them answered."""
    known = {m.name: m for m in short_qa_metrics(_kinds([s for group in scores.values() for s in group]))}
    return _compare(scores, baseline, [known[name] for name in metrics])


def compare_longform(
    scores: Mapping[str, Sequence[LongformScore]],
    baseline: str,
    metrics: Sequence[str] = COMPARED["longform"],
    k_values: Sequence[int] = (),
) -> tuple[Comparison, ...]:
    """Every other model against the baseline on the subjects that all of them were asked about."""
    known = {m.name: m for m in longform_metrics(k_values)}
    return _compare(scores, baseline, [known[name] for name in metrics])


def rank_models(scores: Mapping[str, Sequence[S]], metric: Metric[S]) -> dict[str, int]:
    """1 + the number of models that are significantly better (`stats.ranks`)."""
    aligned = _align(scores)
    return stats.ranks(list(aligned), [metric.sample(group) for group in aligned.values()])


def _compare(scores: Mapping[str, Sequence[S]], baseline: str, metrics: Sequence[Metric[S]]) -> tuple[Comparison, ...]:
    aligned = _align(scores)
    result: list[Comparison] = []
    for metric in metrics:
        against = metric.sample(aligned[baseline])
        rows = []
        for model, group in aligned.items():
            if model != baseline:
                rows.append((model, len(group), metric.sample(group)))
        differences = [stats.paired(sample, against) for _, _, sample in rows]
        adjusted = stats.holm([1.0 if d.p is None else d.p for d in differences])
        for (model, n, sample), d, p_holm in zip(rows, differences, adjusted, strict=True):
            better, worse, exact = _discordant(sample, against)
            result.append(
                Comparison(
                    metric.name, model, baseline, d.value, d.low, d.high, d.p, None if d.p is None else
                    p_holm, n, d.clusters, d.worlds, d.detectable, d.method, d.per_world, better, worse,
                    exact,
                )
            )  # fmt: skip
    return tuple(result)


def _discordant(first: stats.Sample, second: stats.Sample) -> tuple[int | None, int | None, float | None]:
    """Discordant counts and McNemar's p-value where every score is a plain right or wrong."""
    for sample in (first, second):
        if not ((sample.denominator == 1).all() and ((sample.numerator == 0) | (sample.numerator == 1)).all()):
            return None, None, None
    better = int((first.numerator > second.numerator).sum())
    worse = int((first.numerator < second.numerator).sum())
    return better, worse, stats.mcnemar_exact(better, worse)


def _align(scores: Mapping[str, Sequence[S]]) -> dict[str, list[S]]:
    """Each model's scores of the items that all models have, in the same order."""
    tables = {model: {_key(s): s for s in group} for model, group in scores.items()}
    shared = sorted(set.intersection(*(set(table) for table in tables.values()))) if tables else []
    return {model: [table[key] for key in shared] for model, table in tables.items()}


def _key(score: QaScore | LongformScore) -> tuple[int, str]:
    return score.world, score.item_id if isinstance(score, QaScore) else score.response_id


def _kinds(scores: Sequence[QaScore]) -> list[str]:
    return sorted({s.kind for s in scores if s.kind})


def _plain(value: Any) -> Any:
    """Only what JSON knows, floats rounded."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value)
