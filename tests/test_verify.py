"""The rules verifier: what an article says is supported, and nothing else."""

import asyncio
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.judges.rules import RulesVerifier
from factscore_mod.reading import content_tokens
from factscore_mod.records import Claim, Evidence, Passage
from factscore_mod.verify import COEFFICIENTS, THRESHOLD, verify_claim

TOPIC = "Marlo Venn"
ARTICLE = (
    Passage(
        TOPIC,
        "Marlo Venn was born in 1950. They worked as a glassblower. They lived in Tarvane. "
        "They married Ilvia. They joined the Zurl Company. They won the Klol Prize in 1981. "
        "They never visited Oslo. Dr. Pell beat Dr. Stone.",
        0,
    ),
)


def supported(claim: str, passages: tuple[Passage, ...] = ARTICLE, topic: str = TOPIC) -> bool:
    return verify_claim(claim, passages, topic).supported


@pytest.mark.parametrize(
    "claim",
    [
        "Marlo Venn was born in 1950.",
        "Marlo Venn worked as a glassblower.",
        "Venn lived in Tarvane.",
        "They married Ilvia.",
        "Marlo Venn joined the Zurl Company.",
        "Marlo Venn won the Klol Prize.",
        "Marlo Venn won the Klol Prize in 1981.",
        "Marlo Venn won the Klol Prize in the 1980s.",
        "Marlo Venn never visited Oslo.",
    ],
)
def test_what_the_article_says_is_supported(claim: str) -> None:
    assert supported(claim)


@pytest.mark.parametrize(
    ("claim", "missing"),
    [
        ("Marlo Venn was born in 1951.", "1951"),
        ("Marlo Venn worked as a baker.", "baker"),
        ("Marlo Venn lived in Tarvano.", "tarvano"),
        ("Marlo Venn married Ilvina.", "ilvina"),
        ("Marlo Venn joined the Burl Company.", "burl"),
        ("Marlo Venn won the Drol Prize in 1981.", "drol"),
        ("Jona Pellar worked as a glassblower.", "jona"),
        ("Marlo Venn wrote three books.", "books"),
    ],
)
def test_swapped_and_absent_values_are_not_supported_and_named(claim: str, missing: str) -> None:
    verdict = verify_claim(claim, ARTICLE, TOPIC)
    assert not verdict.supported
    assert verdict.score < THRESHOLD
    assert missing in verdict.reason


def test_one_other_word_in_an_otherwise_equal_sentence_contradicts() -> None:
    evidence = (Passage("Gozvir", "The main symptom linked to Gozvir is nausea.", 0),)
    assert supported("The main symptom linked to Gozvir is nausea.", evidence, "Gozvir")
    assert not supported("The main symptom linked to Gozvir is fatigue.", evidence, "Gozvir")


def test_a_negation_on_one_side_only_contradicts() -> None:
    assert not supported("Marlo Venn visited Oslo.")
    assert not supported("Marlo Venn never worked as a glassblower.")


def test_swapped_roles_score_lower() -> None:
    right, swapped = (verify_claim(c, ARTICLE).score for c in ("Pell beat Stone.", "Stone beat Pell."))
    assert right > swapped


def test_countries_and_their_adjectives_are_one_word() -> None:
    assert supported("Ada Stone is Swedish.", (Passage("Ada Stone", "Ada Stone was born in Sweden.", 0),), "Ada Stone")


def test_without_evidence_or_content_nothing_is_supported() -> None:
    assert verify_claim("Marlo Venn was born in 1950.", (), TOPIC).score == 0
    assert not supported("It was he.", ARTICLE, "")


def test_names_are_told_from_words_by_their_capitals() -> None:
    tokens = content_tokens("Bakers met Ada Stone 1,250 times in two U.S. towns.")
    assert [(token.form, token.kind) for token in tokens] == [
        ("bakers", "word"),
        ("met", "word"),
        ("ada", "name"),
        ("stone", "name"),
        ("1250", "number"),
        ("times", "word"),
        ("two", "number"),
        ("u.s", "name"),
        ("towns", "word"),
    ]


def test_more_that_is_missing_never_raises_a_score() -> None:
    for name in ("coverage", "window", "pairs", "adjacency", "subject"):
        assert getattr(COEFFICIENTS, name) >= 0
    for name in ("missing_names", "missing_numbers", "last_missing"):
        assert getattr(COEFFICIENTS, name) <= 0


_words = st.lists(
    st.sampled_from(["Marlo", "Venn", "born", "1950", "glassblower", "Oslo", "not", "the", "X.", "é", "Klol"]),
    max_size=12,
)


@given(_words, _words)
def test_scores_are_probabilities_and_agree_with_the_verdict(claim: list[str], evidence: list[str]) -> None:
    passages = (Passage("Marlo Venn", " ".join(evidence), 0),)
    verdict = verify_claim(" ".join(claim), passages, TOPIC)
    assert 0 <= verdict.score <= 1
    assert verdict.supported == (verdict.score >= THRESHOLD)
    again = verify_claim(" ".join(claim), passages, TOPIC)
    assert dataclasses.astuple(verdict) == dataclasses.astuple(again)


def test_order_of_passages_does_not_matter() -> None:
    passages = tuple(Passage(TOPIC, sentence + ".", i) for i, sentence in enumerate(ARTICLE[0].text.split(". ")[:5]))
    for claim in ("Marlo Venn was born in 1950.", "Marlo Venn married Jo."):
        assert verify_claim(claim, passages, TOPIC).score == verify_claim(claim, passages[::-1], TOPIC).score


def test_judge_gives_one_judgement_a_claim_in_order() -> None:
    claims = (Claim("They worked as a baker.", 0), Claim("They worked as a glassblower.", 1))
    verifier = RulesVerifier()
    judgements, usage = asyncio.run(verifier.verify(TOPIC, claims, (Evidence(ARTICLE, "exact", TOPIC),) * 2))
    assert [judgement.verdict for judgement in judgements] == ["not_supported", "supported"]
    assert judgements[0].score is not None and judgements[0].score < THRESHOLD
    assert usage.calls == 0
    assert verifier.fingerprint == RulesVerifier().fingerprint


def test_outside_the_topics_own_article_its_name_has_to_be_found() -> None:
    passages = (Passage("Norbert Grund", "Norbert Grund was a Bohemian painter who was born in Prague.", 0),)
    claim = Claim("Marlo Venn was a painter.", 0)
    assert RulesVerifier.judge("Marlo Venn", claim, Evidence(passages, "search")).verdict == "not_supported"
    own = (Passage("Marlo Venn", "He was a painter who was born in Prague.", 0),)
    assert RulesVerifier.judge("Marlo Venn", claim, Evidence(own, "exact", "Marlo Venn")).verdict == "supported"
