"""Sentences of ordinary English -> atomic, self-contained claims."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.decompose import MAX_CLAIMS, decompose_response, decompose_sentence, resolve_subject
from factscore_mod.judges.rules import RulesDecomposer
from factscore_mod.sentences import split_sentences

NAME = "Ada Stone"


def claims(sentence: str, topic: str = NAME) -> list[str]:
    return list(decompose_sentence(sentence, topic))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("They worked as a baker.", ["Ada Stone worked as a baker."]),
        ("Stone was born in 1950.", ["Ada Stone was born in 1950."]),
        ("Her father was a lawyer.", ["Ada Stone's father was a lawyer."]),
        (
            "She was born on March 9, 1941, in Riyadh, Saudi Arabia.",
            ["Ada Stone was born in Riyadh, Saudi Arabia.", "Ada Stone was born on March 9, 1941."],
        ),
        (
            "She was born in Bro and grew up in Oslo.",
            ["Ada Stone was born in Bro.", "Ada Stone grew up in Oslo."],
        ),
        (
            "Ada Stone is a Welsh actor, pilot, and author.",
            [
                "Ada Stone is Welsh.",
                "Ada Stone is an actor.",
                "Ada Stone is a pilot.",
                "Ada Stone is an author.",
            ],
        ),
        (
            "She is a retired Swedish golfer who plays for Oslo.",
            ["Ada Stone is Swedish.", "Ada Stone is a retired golfer.", "Ada Stone plays for Oslo."],
        ),
        (
            "She founded CafeOne, a website for cooks, and retired.",
            ["Ada Stone founded CafeOne.", "CafeOne is a website for cooks.", "Ada Stone retired."],
        ),
        (
            "She directed films, including Dust, Embers, and Fog.",
            [
                "Ada Stone directed films.",
                "Ada Stone directed films, including Dust.",
                "Ada Stone directed films, including Embers.",
                "Ada Stone directed films, including Fog.",
            ],
        ),
        (
            "She moved to Rome, winning two medals.",
            ["Ada Stone moved to Rome.", "Ada Stone won two medals."],
        ),
        (
            "In 1999, she moved to Rome.",
            ["Ada Stone moved to Rome.", "Ada Stone moved to Rome in 1999."],
        ),
        (
            "Ada Stone (May 5, 1950 \u2013 June 7, 2001) was a pilot.",
            [
                "Ada Stone was a pilot.",
                "Ada Stone was born on May 5, 1950.",
                "Ada Stone died on June 7, 2001.",
            ],
        ),
        ("She met Lee, who was a dancer.", ["Ada Stone met Lee.", "Lee was a dancer."]),
        ("She was a pilot, but she retired.", ["Ada Stone was a pilot.", "Ada Stone retired."]),
        (
            "She served as Secretary of Trade and Industry.",
            ["Ada Stone served as Secretary of Trade and Industry."],
        ),
        (
            "She was captured and tortured for her faith.",
            ["Ada Stone was captured and tortured for her faith."],
        ),
    ],
)
def test_sentence_gives_these_claims(sentence: str, expected: list[str]) -> None:
    assert sorted(claims(sentence)) == sorted(expected)


def test_citations_and_markup_are_dropped() -> None:
    assert claims("**Ada Stone** was a pilot[1][2].") == ["Ada Stone was a pilot."]


@pytest.mark.parametrize("sentence", ["Who was she?", "...", "Her works are as follows:"])
def test_questions_and_headings_state_nothing(sentence: str) -> None:
    assert claims(sentence) == []


def test_a_sentence_that_is_not_understood_stays_whole() -> None:
    assert claims("A bright cold day in spring.") == ["A bright cold day in spring."]


def test_the_disambiguation_of_a_topic_is_not_part_of_its_name() -> None:
    assert resolve_subject("He flew.", "Lee Marsh (pilot)") == "Lee Marsh flew."


def test_it_is_the_topic_unless_the_topic_is_a_person() -> None:
    medical = decompose_response("Gozvir", split_sentences("Gozvir is a drug. It treats headaches."))
    assert medical[1].text == "Gozvir treats headaches."
    person = decompose_response(NAME, split_sentences("She wrote Dust. It sold well in Rome."))
    assert person[1].text == "It sold well in Rome."


def test_claims_keep_their_sentence_and_are_not_repeated() -> None:
    found = decompose_response(NAME, split_sentences("She flew planes. She sang songs. Ada Stone flew planes."))
    assert [(claim.text, claim.sentence) for claim in found] == [
        ("Ada Stone flew planes.", 0),
        ("Ada Stone sang songs.", 1),
    ]


def test_long_lists_are_capped() -> None:
    assert len(claims(f"She visited {', '.join(f'City{i}' for i in range(60))}, and Rome.")) <= MAX_CLAIMS


@given(
    st.text(alphabet=st.sampled_from("abA, .;()'and who is was in 1950"), max_size=120),
    st.sampled_from(["", NAME]),
)
def test_any_sentence_is_decomposed_without_an_error(sentence: str, topic: str) -> None:
    for claim in decompose_sentence(sentence, topic):
        assert claim == claim.strip()
        assert "\u201a" not in claim


def test_decomposer_of_the_judge_costs_nothing_and_has_a_stable_fingerprint() -> None:
    decomposer = RulesDecomposer()
    text = "She was born in Bro. She flew planes."
    found, usage = asyncio.run(decomposer.decompose(NAME, text, split_sentences(text)))
    assert [claim.text for claim in found] == ["Ada Stone was born in Bro.", "Ada Stone flew planes."]
    assert usage.calls == 0
    assert decomposer.fingerprint == RulesDecomposer().fingerprint
