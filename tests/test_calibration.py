"""Agreement with labels: figures against independent computations, sets read from a folder, clear errors."""

import gzip
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.agreement import agreement, auroc, best_balanced_accuracy, confusion, rogan_gladen
from factscore_mod.calibration import SETS, SetResult, calibrate, corrected_rate
from factscore_mod.judges.rules import RulesVerifier
from factscore_mod.labelled import CalibrationError
from factscore_mod.records import Claim, Evidence, Judgement, Usage

_pairs = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=30)


@given(_pairs)
def test_auroc_counts_the_pairs_that_are_in_order(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    positive = [s for label, s in pairs if label]
    negative = [s for label, s in pairs if not label]
    if not positive or not negative:
        assert math.isnan(auroc(labels, scores))
        return
    wins = sum((a > b) + (a == b) / 2 for a, b in itertools.product(positive, negative))
    assert auroc(labels, scores) == pytest.approx(wins / (len(positive) * len(negative)))


@given(_pairs)
def test_weights_of_auroc_repeat_rows(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    weights = np.arange(len(pairs)) % 3
    repeated = [pair for pair, weight in zip(pairs, weights, strict=True) for _ in range(weight)]
    expected = auroc([label for label, _ in repeated], [score for _, score in repeated])
    assert auroc(labels, scores, weights.astype(float)) == pytest.approx(expected, nan_ok=True)


@given(_pairs)
def test_best_threshold_is_the_best_of_all(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    best, threshold = best_balanced_accuracy(labels, scores)
    if math.isnan(best):
        assert len(set(labels)) == 1
        return
    at = {t: float(confusion(labels, [s >= t for s in scores]).balanced_accuracy) for t in set(scores)}
    assert best == pytest.approx(max(at.values())) == pytest.approx(at[threshold])


def test_kappa_of_a_published_example() -> None:
    # 20 both yes, 5 and 10 in disagreement, 15 both no: kappa = (0.7 - 0.5) / 0.5
    labels = [True] * 25 + [False] * 25
    verdicts = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = confusion(labels, verdicts)
    assert float(found.kappa) == pytest.approx(0.4)
    assert float(found.sensitivity) == pytest.approx(0.8)
    assert float(found.specificity) == pytest.approx(0.6)
    assert float(found.balanced_accuracy) == pytest.approx(0.7)


@given(st.floats(0, 1), st.floats(0.55, 1), st.floats(0.55, 1))
def test_rogan_gladen_undoes_the_errors(rate: float, sensitivity: float, specificity: float) -> None:
    observed = rate * sensitivity + (1 - rate) * (1 - specificity)
    assert rogan_gladen(observed, sensitivity, specificity) == pytest.approx(rate, abs=1e-9)


def test_rogan_gladen_has_no_answer_for_a_judge_at_chance() -> None:
    assert math.isnan(rogan_gladen(0.5, 0.4, 0.6))


def test_corrected_rate_is_right_for_a_judge_with_constant_errors() -> None:
    labels = ([True] * 6 + [False] * 4) * 10
    verdicts = ([True] * 4 + [False] * 2 + [True] + [False] * 3) * 10
    clusters = [str(i // 10) for i in range(100)]
    assert corrected_rate(labels, verdicts, clusters) == pytest.approx(0.6)


def test_intervals_hold_the_estimate_repeat_and_widen_with_clusters() -> None:
    generator = np.random.default_rng(1)
    labels = [bool(x) for x in generator.random(400) < 0.5]
    verdicts = [label if x < 0.8 else not label for label, x in zip(labels, generator.random(400), strict=True)]
    scores = [float(v) for v in verdicts]
    alone = agreement(labels, verdicts, scores, list(range(400)), purpose="test")
    assert alone == agreement(labels, verdicts, scores, list(range(400)), purpose="test")
    low, high = alone.balanced_accuracy_interval
    assert low < alone.balanced_accuracy < high
    closed_form = 2 * 1.96 * math.sqrt(0.8 * 0.2 / 200 * 2) / 2
    assert high - low == pytest.approx(closed_form, rel=0.25)
    tenfold = agreement(labels * 10, verdicts * 10, scores * 10, list(range(400)) * 10, purpose="test")
    wide = tenfold.balanced_accuracy_interval
    assert wide[1] - wide[0] == pytest.approx(high - low, rel=0.25)


def write(path: Path, rows: list[dict[str, Any]], *, zipped: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if zipped:
        with gzip.open(path.with_name(f"{path.name}.gz"), "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def article(name: str, year: int) -> str:
        return f"{name} was born in {year}. {name} worked as a baker."

    people = [(f"Ada{i} Stone", 1900 + i) for i in range(8)]
    write(
        tmp_path / "wikibio_gpt3/wikibio_gpt3.jsonl",
        [
            {
                "title": name.lower(),
                "wiki_bio_text": article(name, year),
                "gpt3_sentences": [f"{name} was born in {year}.", f"{name} was a pilot."],
                "annotation": ["accurate", "minor_inaccurate" if year % 2 else "major_inaccurate"],
            }
            for name, year in people
        ],
    )
    write(
        tmp_path / "verifier/wice_claim_dev.jsonl",
        [
            {
                "label": label,
                "claim": f"Stone was born in {year}.",
                "evidence": ["Home", "Stone was born in 1950."],
                "meta": {"claim_title": f"{label}{year}"},
            }
            for label, year in (("supported", 1950), ("partially_supported", 1951), ("not_supported", 1952))
        ],
        zipped=False,
    )
    write(
        tmp_path / "verifier/factcheckgpt_claim_evidence_stance.jsonl",
        [
            {"claim": "Stone was born in 1950.", "evidence": f"Stone was born in {year}.", "stance": stance}
            for stance, year in (("completely-support", 1950), ("refute", 1951), ("irrelevant", 1952))
        ],
    )
    write(
        tmp_path / "factscore_auto/factscore_auto_claims.jsonl",
        [
            {
                "topic": name,
                "claims": [
                    {"message": f"{name} was born in {year}.", "annotation": "T"},
                    {"message": f"{name} was born in 1850.", "annotation": "F"},
                ],
            }
            for name, year in [*people, ("Nobody Known", 1950)]
        ],
    )
    write(
        tmp_path / "wiki_passages/bio500_retrieved_passages.jsonl",
        [{"name": name, "passages": [{"title": name, "text": article(name, year)}]} for name, year in people]
        + [{"name": "Nobody Known", "passages": [{"title": "Somebody Else", "text": "Born in 1850."}]}],
    )
    for model in ("InstructGPT", "ChatGPT", "PerplexityAI"):
        facts = [{"text": "Ada was born in Rome.", "label": "S"}, {"text": "Ada flew planes.", "label": "NS"}]
        more = [{"text": "She sang.", "label": "S"}]
        annotations = [
            {"text": "Ada was born in Rome and flew planes.", "human-atomic-facts": facts},
            {"text": "She sang.", "human-atomic-facts": more},
            {"text": "The end.", "human-atomic-facts": None},
        ]
        write(
            tmp_path / f"factscore/{model}.jsonl",
            [
                {
                    "topic": "Ada",
                    "output": "Ada was born in Rome and flew planes. She sang.",
                    "annotations": annotations,
                },
                {"topic": "Lee", "output": "I'm sorry, I do not know who Lee is.", "annotations": None},
            ],
        )
    return tmp_path


def test_all_sets_of_a_folder_are_measured(data: Path) -> None:
    results = {result.set: result for result in calibrate(data, RulesVerifier())}
    assert tuple(results) == SETS
    for name in ("wikibio", "wice", "factcheckgpt", "factscore_auto", "factscore_abstention"):
        assert results[name].balanced_accuracy == 1
        assert results[name].agreement.kappa == 1
    assert results["wikibio"].n == 16
    assert results["wikibio"].clusters == 8
    assert results["wikibio"].true_rate == 0.5 == results["wikibio"].corrected_rate
    assert results["factscore_auto"].n == 16  # nobody's page but somebody else's: left out
    assert results["factscore_decomposition"].n == 6
    assert results["factscore_decomposition"].extra["coverage"] == 1
    assert results["factscore_decomposition"].extra["count_correlation"] == pytest.approx(1)


def test_json_is_flat_and_strict(data: Path) -> None:
    for result in calibrate(data, RulesVerifier()):
        row = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert {"set", "n", "balanced_accuracy", "kappa", "auroc", "auroc_interval"} <= set(row)
        assert len(result.row()) == 8
    wikibio = calibrate(data, RulesVerifier(), sets=["wikibio"])[0].to_json()
    assert wikibio["balanced_accuracy_interval"] == [1, 1]
    assert wikibio["overlap_auroc"] is not None


def test_limit_takes_so_many_rows(data: Path) -> None:
    assert calibrate(data, RulesVerifier(), sets=["wikibio"], limit=6)[0].n == 6


def test_rows_without_a_verdict_are_counted_apart(data: Path) -> None:
    class Flaky:
        name = fingerprint = "flaky"

        async def verify(
            self, topic: str, claims: tuple[Claim, ...], evidence: tuple[Evidence, ...]
        ) -> tuple[tuple[Judgement, ...], Usage]:
            answers = (Judgement("supported"), Judgement("unparsed"))
            return tuple(answers[i % 2] for i in range(len(claims))), Usage()

    result = calibrate(data, Flaky(), sets=["factscore_auto"])[0]
    assert (result.n, result.unjudged) == (8, 8)
    assert math.isnan(result.agreement.auroc)
    assert result.to_json()["auroc"] is None


def test_a_missing_file_an_unknown_set_and_an_empty_folder_are_named(data: Path, tmp_path: Path) -> None:
    (data / "verifier/wice_claim_dev.jsonl").unlink()
    assert "wice" not in [result.set for result in calibrate(data, RulesVerifier(), limit=2)]
    with pytest.raises(CalibrationError, match=r"wice_claim_dev\.jsonl.*--sets"):
        calibrate(data, RulesVerifier(), sets=["wice"])
    with pytest.raises(CalibrationError, match="wikibio"):
        calibrate(data, RulesVerifier(), sets=["wikibo"])
    with pytest.raises(CalibrationError, match="holds no labelled set"):
        calibrate(tmp_path / "nowhere", RulesVerifier())


def test_a_broken_line_is_named(data: Path) -> None:
    path = data / "wikibio_gpt3/wikibio_gpt3.jsonl"
    path.with_name(f"{path.name}.gz").unlink()
    path.write_text('{"title": ', encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"wikibio_gpt3\.jsonl:1"):
        calibrate(data, RulesVerifier(), sets=["wikibio"])


def test_rules_beat_unigram_overlap_on_human_labels() -> None:
    folder = os.environ.get("HARNESS_DATA")
    if not folder:
        pytest.skip("HARNESS_DATA names no folder of labelled sets")
    results: list[SetResult] = calibrate(Path(folder), RulesVerifier())
    measured = [result for result in results if not math.isnan(result.overlap_auroc)]
    assert measured
    for result in measured:
        assert result.balanced_accuracy > max(0.5, result.overlap_balanced_accuracy), result.set
        assert result.agreement.auroc > result.overlap_auroc, result.set
