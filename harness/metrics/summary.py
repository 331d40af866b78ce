"""From the scores of single answers to the numbers of a leaderboard, with intervals and denominators."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from harness import stats
from harness.metrics.correlation import spearman
from harness.metrics.longform import Curve, LongformScore
from harness.metrics.short_qa import QaScore

S = TypeVar("S", QaScore, LongformScore)
Family = Literal["short_qa", "longform"]

Verdict = Literal["holds", "opposite", "undecided"]
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
    takes answers as independent). `detectable` is the smallest difference that this test alone finds at 80 % power,
    `detectable_holm` the one that it finds at the strictest step of Holm's correction.
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
    detectable_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """That one row scores higher than another: by the paper (`printed`, its difference in points), or asked by us.

    `metric` is of both rows unless `lower_metric` names another for the lower one.
    """

    higher: str
    lower: str
    metric: str
    printed: float | None = None
    lower_metric: str = ""


@dataclass(frozen=True, slots=True)
class OrderedPair:
    """An expectation and what became of it here: `holds`, `opposite` (significantly so), or `undecided`.

    `difference` is higher minus lower on the same entities; `p_holm` is corrected over the pairs of its list, and
    `detectable_holm` is the difference found at 80 % power at the strictest step of that correction.
    """

    expected: Expectation
    difference: stats.Difference
    p_holm: float | None
    verdict: Verdict
    detectable_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Ordering:
    """Whether the paper's order holds here.

    `paper` are its own pairs, `unprinted` pairs of rows that it has not, and `base` every model against the
    untouched base. `words` says it in a few sentences, `details` lists the pairs behind them.
    """

    paper: tuple[OrderedPair, ...]
    unprinted: tuple[OrderedPair, ...]
    base: tuple[OrderedPair, ...]
    words: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """All numbers of one task. `models` and `titles` are in the order of the table.

    `exclusions` maps the models without a row, or without some of their worlds, to the reason; `published` names the
    table and the columns of the paper's figures, as `Task.published` does. `curves` are of long answers only. `ranks`
    is empty where no model is better for a higher score. `notes` are sentences that belong under the table.
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
    ordering: Ordering | None = None
    notes: tuple[str, ...] = ()


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
        for task in body["tasks"].values():
            if not task["notes"]:
                del task["notes"]
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


@dataclass(frozen=True)
class EntityMetric(Metric[S]):
    """A yes or no for each entity, decided by all of its answers: yes when `above` is at least `at` of `below`.

    The entity's verdict stands at its first answer; the others have denominator 0.
    """

    at: float = 1.0

    def sample(self, scores: Sequence[S]) -> stats.Sample:
        """One numerator and denominator of 1 an entity (within its world)."""
        entities: dict[tuple[int, str], list[int]] = {}
        for position, score in enumerate(scores):
            entities.setdefault((score.world, score.subject), []).append(position)
        above, below = [0.0] * len(scores), [0.0] * len(scores)
        for positions in entities.values():
            whole = sum(self.below(scores[i]) for i in positions)
            if whole > 0:
                below[positions[0]] = 1.0
                above[positions[0]] = float(sum(self.above(scores[i]) for i in positions) >= self.at * whole - 1e-9)
        return stats.Sample.of(above, below, [s.subject for s in scores], [s.world for s in scores])


def short_qa_metrics(kinds: Sequence[str] = (), memorised_at: float | None = None) -> tuple[Metric[QaScore], ...]:
    """The metrics of short answers; `accuracy[KIND]` for each of the kinds of question.

    `accuracy` is the reference's alias containment, the others are ours (see `metrics.short_qa`). With
    `memorised_at`, `memorised_entities` is the share of entities of whose questions at least that share is
    answered right. The rule is ours: how the paper matched a memorised entity was never published.
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
    if memorised_at is not None:
        rule = "every question" if memorised_at >= 1 else f"at least {100 * memorised_at:g} % of the questions"
        metrics.insert(
            1,
            EntityMetric[QaScore](
                "memorised_entities",
                "entity",
                f"all entities; memorised when {rule} about it is answered right",
                lambda s: s.reference_em,
                at=memorised_at,
            ),
        )
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


def longform_metrics(k_values: Sequence[int] = (), area_to: int = 0) -> tuple[Metric[LongformScore], ...]:
    """The metrics of long answers; a *responding* answer states at least one claim and does not abstain.

    `unparsed` and `error` claims are in no accuracy; they are counted by rates of their own. `area_to` is the end
    of the range of claims that the models compared have in common (`longform.common_range`); 0 leaves the area
    under the curve out.
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
    if area_to:
        metrics.append(
            Metric[LongformScore](
                f"area_to_{area_to}",
                "response",
                "answers with a judged claim; area under the accuracy of the first k claims, k = 1 to "
                f"{area_to}, divided by the range",
                lambda s: s.area(area_to) or 0.0,
                lambda s: s.judged > 0,
            )
        )
    return tuple(metrics)


def summarise_short_qa(scores: Sequence[QaScore], memorised_at: float | None = None) -> dict[str, Estimate]:
    """Every metric of one model's short answers; `memorised_at` as `Task.memorised_at`."""
    return {metric.name: metric.estimate(scores) for metric in short_qa_metrics(kinds(scores), memorised_at)}


def summarise_longform(scores: Sequence[LongformScore], k_values: Sequence[int]) -> dict[str, Estimate]:
    """Every metric of one model's long answers, with F1@K at the given values of K."""
    numbers = {metric.name: metric.estimate(scores) for metric in longform_metrics(k_values)}
    known = [s for s in scores if s.responds and s.popularity is not None]
    if known:
        r = spearman(
            [float(len(s.verdicts)) for s in known],
            [float(s.popularity or 0) for s in known],
            [s.subject for s in known],
            [s.world for s in known],
        )
        of = "responding answers about entities of known popularity; Spearman's rank correlation"
        numbers["claims_popularity"] = Estimate(
            r.value, r.low, r.high, r.n, r.clusters, "response", of, r.method, r.worlds, r.per_world
        )
    return numbers


def kinds(scores: Sequence[QaScore]) -> list[str]:
    """The kinds of question among these answers, if there are several."""
    found = sorted({s.kind for s in scores if s.kind})
    return found if len(found) > 1 else []


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
