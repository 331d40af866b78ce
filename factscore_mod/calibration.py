"""Is a judge right? Its verdicts, claims and abstentions against labels, with intervals and a baseline beside them.

    from factscore_mod.calibration import calibrate
    for result in calibrate(Path("data"), RulesVerifier()):
        print(result.set, result.balanced_accuracy, result.balanced_accuracy_interval)

The baseline is plain unigram overlap: the share of the claim's content words that occur in the evidence, at the
threshold that is best on the very rows it is measured on.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from factscore_mod.abstain import is_abstention
from factscore_mod.agreement import (
    Agreement,
    Interval,
    agreement,
    auroc,
    best_balanced_accuracy,
    cluster_codes,
    confusion,
    percentiles,
    resampled_counts,
    rogan_gladen,
)
from factscore_mod.labelled import (
    CLAIM_SETS,
    FILES,
    CalibrationError,
    LabelledClaim,
    LabelledResponse,
    biographies,
    has_set,
)
from factscore_mod.lexicon import STOP_WORDS, fold, stem
from factscore_mod.records import Claim, Decomposer, Judgement, Sentence, Verifier

SETS = tuple(FILES)
#: Groups of claims that are judged at the same time.
CONCURRENCY = 64
#: A human fact is covered where one of our claims shares this much of its content words (F1).
COVERED = 0.6

_WORD = re.compile(r"[a-z0-9]+")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SetResult:
    """A judge on one labelled set. Figures that a set has not are NaN, and null in JSON.

    `n` rows were judged in `clusters`; `unjudged` more got no verdict (unparsed or error) and are in no figure.
    `true_rate` is the labelled share of supported rows, `observed_rate` the judge's, and `corrected_rate` the
    Rogan-Gladen correction of the latter with sensitivity and specificity of the other half of the clusters.
    `overlap_*` is the baseline. `extra` holds figures that only one set has.
    """

    set: str
    n: int
    clusters: int
    unjudged: int
    agreement: Agreement
    true_rate: float = math.nan
    observed_rate: float = math.nan
    corrected_rate: float = math.nan
    overlap_balanced_accuracy: float = math.nan
    overlap_auroc: float = math.nan
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return self.agreement.balanced_accuracy

    @property
    def balanced_accuracy_interval(self) -> Interval:
        """Its 95 % interval, clustered."""
        return self.agreement.balanced_accuracy_interval

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object; NaN becomes null."""
        flat = asdict(self)
        flat |= flat.pop("agreement") | flat.pop("extra")
        return {name: _plain(value) for name, value in flat.items()}

    def row(self) -> tuple[str, ...]:
        """The cells of a table: set, n, balanced accuracy, kappa, AUROC, sensitivity, specificity, baseline."""
        found = self.agreement
        baseline = "-"
        if not math.isnan(self.overlap_balanced_accuracy):
            baseline = f"{self.overlap_balanced_accuracy:.3f}, AUROC {self.overlap_auroc:.3f}"
        elif self.extra:
            names = ("coverage", "matching", "count_correlation")
            baseline = ", ".join(f"{name} {self.extra[name]:.3f}" for name in names)
        return (
            self.set,
            f"{self.n}",
            _cell(found.balanced_accuracy, found.balanced_accuracy_interval),
            _cell(found.kappa, found.kappa_interval),
            _cell(found.auroc, found.auroc_interval),
            _cell(found.sensitivity, found.sensitivity_interval),
            _cell(found.specificity, found.specificity_interval),
            baseline,
        )


def _cell(value: float, interval: Interval) -> str:
    return "-" if math.isnan(value) else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, tuple | list):
        return None if any(_plain(part) is None for part in value) else list(value)
    return value


def calibrate(
    data: Path,
    verifier: Verifier,
    decomposer: Decomposer | None = None,
    sets: Sequence[str] | None = None,
    limit: int | None = None,
    *,
    seed: int = 0,
) -> list[SetResult]:
    """Measure a judge on the labelled sets of a folder, all that are there unless `sets` names some.

    `decomposer` is measured against human claims (default: the rules). `limit` takes so many rows of each set, drawn
    by `seed` and kept in their order.

    Raises:
        CalibrationError: for an unknown set, a named set whose file is missing, or a folder without any set.
    """
    names = tuple(sets) if sets is not None else tuple(name for name in SETS if has_set(data, name))
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise CalibrationError(f"no labelled set {unknown[0]!r}; the sets are {', '.join(SETS)}")
    if not names:
        raise CalibrationError(
            f"{data} holds no labelled set, such as {FILES[SETS[0]][0]}.gz; docs/calibration.md describes the folder"
        )
    if decomposer is None and "factscore_decomposition" in names:
        from factscore_mod.judges.rules import RulesDecomposer

        decomposer = RulesDecomposer()

    async def measure() -> list[SetResult]:
        results: list[SetResult] = []
        for name in names:
            if name == "factscore_abstention":
                results.append(_abstention(_taken(name, biographies(data), limit, seed), seed))
            elif name == "factscore_decomposition":
                assert decomposer is not None
                results.append(await _decomposition(decomposer, _taken(name, biographies(data), limit, seed), seed))
            else:
                rows = _taken(name, CLAIM_SETS[name](data), limit, seed)
                results.append(claim_result(name, rows, await judge(verifier, rows), seed))
        return results

    return asyncio.run(measure())


def _taken(name: str, rows: Iterator[_T], limit: int | None, seed: int) -> list[_T]:
    taken = list(rows)
    if limit is None or limit >= len(taken):
        return taken
    drawn = random.Random(f"{seed} calibration:{name}").sample(range(len(taken)), limit)
    return [taken[index] for index in sorted(drawn)]


async def judge(verifier: Verifier, rows: Sequence[LabelledClaim]) -> list[Judgement]:
    """One judgement a row, in order; claims of one cluster go to the judge together, as those of a response do."""
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: (row.cluster, row.topic))]
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(group: list[LabelledClaim]) -> tuple[Judgement, ...]:
        async with gate:
            claims = tuple(Claim(row.claim, index) for index, row in enumerate(group))
            judgements, _ = await verifier.verify(group[0].topic, claims, tuple(row.evidence for row in group))
            return judgements

    return [judgement for found in await asyncio.gather(*map(one, groups)) for judgement in found]


def claim_result(name: str, rows: Sequence[LabelledClaim], judgements: Sequence[Judgement], seed: int = 0) -> SetResult:
    """The figures of a set of labelled claims."""
    judged = [
        (row, judgement)
        for row, judgement in zip(rows, judgements, strict=True)
        if judgement.verdict in ("supported", "not_supported")
    ]
    if not judged:
        raise CalibrationError(f"set {name!r}: not one of {len(rows)} rows got a verdict; look at the judge")
    labels = [row.supported for row, _ in judged]
    verdicts = [judgement.verdict == "supported" for _, judgement in judged]
    scores = [judgement.score for _, judgement in judged]
    clusters = [row.cluster for row, _ in judged]
    known = [score for score in scores if score is not None]
    found = agreement(
        labels,
        verdicts,
        known if len(known) == len(scores) else None,
        clusters,
        purpose=f"calibration:{name}",
        seed=seed,
    )
    overlap = [unigram_overlap(row) for row, _ in judged]
    return SetResult(
        name,
        len(judged),
        len(set(clusters)),
        len(rows) - len(judged),
        found,
        true_rate=float(np.mean(labels)),
        observed_rate=float(np.mean(verdicts)),
        corrected_rate=corrected_rate(labels, verdicts, clusters),
        overlap_balanced_accuracy=best_balanced_accuracy(labels, overlap)[0],
        overlap_auroc=auroc(labels, overlap),
    )


def unigram_overlap(row: LabelledClaim) -> float:
    """The baseline's score: the share of a claim's content words (no stop words, no stemming) in its evidence."""
    claim = _content_words(row.claim)
    evidence = frozenset[str]().union(*(_content_words(passage.text) for passage in row.evidence.passages))
    return len(claim & evidence) / len(claim) if claim else 0.0


def _content_words(text: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS)


def corrected_rate(labels: Sequence[bool], verdicts: Sequence[bool], clusters: Sequence[str]) -> float:
    """Rogan-Gladen, cross-fitted: each half of the clusters is corrected with the errors seen on the other half."""
    truth, said = np.asarray(labels, dtype=bool), np.asarray(verdicts, dtype=bool)
    second = cluster_codes(clusters) % 2 == 1
    total = 0.0
    for half in (second, ~second):
        if not half.any() or half.all():
            return math.nan
        errors = confusion(list(truth[~half]), list(said[~half]))
        rate = rogan_gladen(float(said[half].mean()), float(errors.sensitivity), float(errors.specificity))
        total += rate * half.sum()
    return total / len(truth)


def _abstention(responses: Sequence[LabelledResponse], seed: int) -> SetResult:
    labels = [response.sentences is None for response in responses]
    said = [is_abstention(response.text) for response in responses]
    topics = [response.topic for response in responses]
    found = agreement(labels, said, None, topics, purpose="calibration:abstention", seed=seed)
    return SetResult(
        "factscore_abstention",
        len(responses),
        len(set(topics)),
        0,
        found,
        true_rate=float(np.mean(labels)),
        observed_rate=float(np.mean(said)),
        corrected_rate=corrected_rate(labels, said, topics),
    )


async def _decomposition(decomposer: Decomposer, responses: Sequence[LabelledResponse], seed: int) -> SetResult:
    """Claims per sentence against human facts: count correlation, coverage, and the share that matches a fact."""
    human: list[int] = []
    ours: list[int] = []
    covered: list[tuple[int, int]] = []
    matched: list[tuple[int, int]] = []
    topics: list[str] = []
    for response in responses:
        labelled = [sentence for sentence in response.sentences or () if sentence.facts]
        if not labelled:
            continue
        sentences = tuple(Sentence(i, part.text, 0, len(part.text)) for i, part in enumerate(labelled))
        claims, _ = await decomposer.decompose(response.topic, response.text, sentences)
        for index, part in enumerate(labelled):
            found = [claim.text for claim in claims if claim.sentence == index]
            human.append(len(part.facts))
            ours.append(len(found))
            covered.append((_covered(part.facts, found, response.topic), len(part.facts)))
            matched.append((_covered(found, part.facts, response.topic), len(found)))
            topics.append(response.topic)
    if not human:
        raise CalibrationError("set 'factscore_decomposition': no sentence with human facts among the rows taken")
    draws = resampled_counts(len(set(topics)), purpose="calibration:decomposition", seed=seed)
    weights = draws[:, cluster_codes(topics)]
    share = np.array(covered, dtype=np.float64)
    low, high = percentiles((weights @ share[:, 0]) / (weights @ share[:, 1]))
    none = (math.nan, math.nan)
    return SetResult(
        "factscore_decomposition",
        len(human),
        len(set(topics)),
        0,
        Agreement(math.nan, none, math.nan, none, math.nan, none, math.nan, none, math.nan, none),
        extra={
            "human_claims": float(sum(human)),
            "claims": float(sum(ours)),
            "count_correlation": statistics.correlation(human, ours)
            if len(set(human)) > 1 < len(set(ours))
            else math.nan,
            "coverage": float(share[:, 0].sum() / share[:, 1].sum()),
            "coverage_low": low,
            "coverage_high": high,
            "matching": sum(m for m, _ in matched) / max(1, sum(n for _, n in matched)),
        },
    )


def _covered(wanted: Sequence[str], offered: Sequence[str], topic: str) -> int:
    """How many of the wanted claims have an offered one that shares most of their content words."""
    offers = [_stems(text, topic) for text in offered]
    return sum(any(_f1(_stems(text, topic), offer) >= COVERED for offer in offers) for text in wanted)


def _stems(text: str, topic: str) -> frozenset[str]:
    skipped = {fold(word) for word in re.findall(r"\w+", topic)} | STOP_WORDS
    return frozenset(stem(word) for word in map(fold, re.findall(r"\w+", text)) if word not in skipped)


def _f1(a: frozenset[str], b: frozenset[str]) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
