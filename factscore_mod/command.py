"""All of `harness score` but the terminal: read generations, estimate, score within a budget, write what came out."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from factscore_mod import aggregate
from factscore_mod.budget import Budget, BudgetReached
from factscore_mod.chat import Chat, Plan
from factscore_mod.cost import PriceTable
from factscore_mod.inputs import Generation, read_generations
from factscore_mod.judges import JudgeOptions
from factscore_mod.outputs import to_line, write_metrics
from factscore_mod.profiles import Profile
from factscore_mod.records import ScoredResponse
from factscore_mod.retrieval import Method
from factscore_mod.scorer import FactScorer
from factscore_mod.usage import total

CLAIMS, METRICS = "claims.jsonl", "metrics.json"

Progress = Callable[[int, int, int, float], None]
"""Called after each response with: responses done, responses in all, calls sent so far, dollars spent so far."""

Intervals = Callable[[Sequence[ScoredResponse]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """The options of `score_file`, as on the command line.

    embedder: the model of `embedding` and `hybrid` retrieval, in place of the profile's.
    use_claims: judge the claims that the rows bring along. limit: score the first rows only.
    max_cost (dollars), max_calls: stop cleanly there; the same command goes on later.
    prices: further price tables. f1_ks, first_ks: the K of F1@K and of accuracy over the first K claims.
    """

    judge: str = "rules"
    decomposer: str | None = None
    verifier: str | None = None
    profile: str | Profile = "modified"
    retrieval: Method = "bm25"
    embedder: str | None = None
    use_claims: bool = False
    limit: int | None = None
    cache: Path | None = None
    max_cost: float | None = None
    max_calls: int | None = None
    prices: tuple[Path, ...] = ()
    f1_ks: tuple[int, ...] = (10, 20)
    first_ks: tuple[int, ...] = (1, 2, 5, 10, 20)
    engine: JudgeOptions = field(default_factory=JudgeOptions)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would cost, by stage. `dollars` is `None` where a price is not known."""

    responses: int
    stages: dict[str, Plan]

    @property
    def calls(self) -> int:
        """Calls that would be sent."""
        return sum(plan.calls for plan in self.stages.values())

    @property
    def dollars(self) -> float | None:
        """What they would cost."""
        costs = [plan.dollars for plan in self.stages.values()]
        return None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """A table: stage, calls, calls already in the cache, tokens in, tokens out, dollars."""
        return [
            (
                stage,
                f"{plan.calls:,}",
                f"{plan.cached_calls:,}",
                f"{plan.prompt_tokens:,}",
                f"{plan.completion_tokens:,}",
                "unknown" if plan.dollars is None else f"{plan.dollars:.4f}",
            )
            for stage, plan in sorted(self.stages.items())
        ]


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What was scored. `stopped` says at which limit it ended early; `sent` and `dollars` are of this run alone."""

    responses: tuple[ScoredResponse, ...]
    metrics: dict[str, Any]
    stopped: str
    sent: int
    cached: int
    dollars: float
    corrupt_cache_rows: int

    def rows(self) -> list[tuple[str, str, str]]:
        """A table: metric, value, what it is taken over."""
        return table(self.metrics["metrics"])


def estimate_file(path: Path, knowledge: Path, options: ScoreOptions | None = None) -> Estimate:
    """What `score_file` would send, knowing the cache. Sends nothing and stores nothing.

    Claims that only a model could make are estimated as one a sentence.
    """
    options = options or ScoreOptions()
    items = read_generations(path, use_claims=options.use_claims, limit=options.limit)
    scorer = make_scorer(knowledge, options, dry=True)
    if scorer.judge.closeables:
        for _ in scorer.iter_generations(items):
            pass
    return Estimate(len(items), dict(scorer.ledger.plans))


def score_file(
    path: Path,
    knowledge: Path,
    out: Path,
    options: ScoreOptions | None = None,
    *,
    progress: Progress | None = None,
    intervals: Intervals | None = None,
) -> ScoreResult:
    """Score a file of generations and write `claims.jsonl` and `metrics.json` into the folder `out`.

    Responses are appended to `claims.jsonl.part` as they finish; at the end it gets its name. `intervals` adds
    confidence intervals to the metrics. Raises InputError, KnowledgeError, JudgeError, CacheError or PriceError
    (all ValueError), with what to do.
    """
    options = options or ScoreOptions()
    items = read_generations(path, use_claims=options.use_claims, limit=options.limit)
    scorer = make_scorer(knowledge, options)
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{CLAIMS}.part"
    scored: list[ScoredResponse] = []
    stopped = ""
    with part.open("w", encoding="utf-8") as file, _rare_collection():
        try:
            for response in scorer.iter_generations(items):
                file.write(to_line(response))
                file.flush()
                scored.append(response)
                if progress is not None:
                    progress(len(scored), len(items), scorer.ledger.sent, scorer.ledger.dollars)
        except BudgetReached as reached:
            stopped = str(reached)
    metrics = describe(scored, items, path, scorer, options)
    if intervals is not None:
        metrics["intervals"] = intervals(scored)
    part.replace(out / CLAIMS)
    write_metrics(out / METRICS, metrics)
    ledger = scorer.ledger
    return ScoreResult(
        responses=tuple(scored),
        metrics=metrics,
        stopped=stopped,
        sent=ledger.sent,
        cached=ledger.cached,
        dollars=ledger.dollars,
        corrupt_cache_rows=scorer.cache.corrupt if scorer.cache is not None else 0,
    )


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Look for reference cycles less often: records have none, and looking took a sixth of the time of a run."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def make_scorer(knowledge: Path, options: ScoreOptions, *, dry: bool = False) -> FactScorer:
    """The scorer that these options describe. Raises PriceError for a money limit without a price."""
    prices = PriceTable(*options.prices)
    scorer = FactScorer(
        options.judge,
        knowledge,
        profile=options.profile,
        decomposer=options.decomposer,
        verifier=options.verifier,
        cache=options.cache,
        options=options.engine,
        budget=Budget(options.max_calls, options.max_cost),
        prices=prices,
        retrieval=options.retrieval,
        embedder=options.embedder,
        dry=dry,
    )
    if options.max_cost is not None:
        for chat in scorer.judge.closeables:
            if isinstance(chat, Chat):
                prices.need(chat.engine.model)
    return scorer


def describe(
    scored: Sequence[ScoredResponse], items: Sequence[Generation], path: Path, scorer: FactScorer, options: ScoreOptions
) -> dict[str, Any]:
    """The content of `metrics.json`: the same for the same replies, whether bought now or earlier."""
    cost = asdict(total(response.usage for response in scored))
    del cost["cached_calls"]
    return {
        "metrics": aggregate.summary(
            scored, gamma=scorer.profile.gamma, f1_ks=options.f1_ks, first_ks=options.first_ks
        ),
        "complete": len(scored) == len(items),
        "responses_given": len(items),
        "cost_of_replies": cost,
        "judge": scorer.judge.name,
        "profile": asdict(scorer.profile),
        "claims_given": options.use_claims,
        "retrieval": options.retrieval,
        "embedder": scorer.retriever.embedder.name if scorer.retriever.embedder else None,
        "knowledge": {"file": scorer.source.path.name, "fingerprint": scorer.source.fingerprint},
        "input": {"file": path.name, "sha256": _digest(items)},
        "scorer": scorer.fingerprint,
    }


def table(metrics: dict[str, float | int | None]) -> list[tuple[str, str, str]]:
    """The metrics as rows of name, value and denominator."""
    responses, responded, claims = metrics["responses"], metrics["responded"], metrics["claims"]
    over_responded = f"{responded} responses that responded"
    over_all = f"all {responses} responses"
    over_claims = f"{claims} claims"
    rows = [
        ("accuracy (macro)", "accuracy_macro", over_responded),
        ("accuracy (macro, abstention = 0)", "accuracy_macro_abstentions_as_zero", over_all),
        ("accuracy (micro)", "accuracy_micro", f"{metrics['claims_judged']} judged claims"),
        ("claims a response", "claims_per_response", over_responded),
        ("response rate", "response_rate", over_all),
        ("unparsed", "unparsed_rate", over_claims),
        ("error", "error_rate", over_claims),
        ("topics not found", "topics_not_found", over_all),
    ]
    rows += [(name.replace("_", " "), name, over_responded) for name in metrics if name.startswith("penalised")]
    rows += [(name.replace("f1_at_", "F1@"), name, over_all) for name in metrics if name.startswith("f1_at_")]
    return [(label, _shown(metrics[name]), over) for label, name, over in rows]


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _digest(items: Sequence[Generation]) -> str:
    """A hash of what was read, so that a renamed or recompressed file is the same input."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.id, item.topic, item.text, item.claims)).encode("utf-8", "replace"))
    return digest.hexdigest()
