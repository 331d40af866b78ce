"""Cloze questions of claims, and how sure a set of sampled answers is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.confidence import (
    FUNCTION_WORDS,
    cloze,
    expected_confidence,
    group,
    max_confidence,
    normalise,
    same_answer,
)

ANSWERS = st.lists(st.text("abc ,.\nthe", max_size=8), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("claim", "question"),
    [
        ("Ada Lovelace was born on 10 December 1815.", "Ada Lovelace was born on"),
        ("Ada Lovelace studied marine biology.", "Ada Lovelace studied"),
        ("Ann Lee joined the Anvil Company.", "Ann Lee joined the"),
        ("Ann Lee worked as a baker", "Ann Lee worked as a"),
        ("Ann Lee married Bob Fox.", "Ann Lee married"),
        ("He lived in Oslo, Norway.", "He lived in"),
        ("Rubella is a Norwegian disease!", "Rubella is a Norwegian"),
        ('She wrote "The Long Road."', 'She wrote "The'),
        ("Paris is where Ann Lee comes from.", "Paris is where Ann Lee"),
        ("In 1903 Ann Lee discovered polonium.", "In 1903 Ann Lee discovered"),
        ("Ann Lee sings.", "Ann Lee"),
        ("Ann Lee", "Ann"),
        ("Paris.", ""),
        ("it is", ""),
        (" . ", ""),
        ("", ""),
    ],
)
def test_a_cloze_is_the_claim_up_to_its_last_content_words(claim: str, question: str) -> None:
    assert cloze(claim) == question


@given(
    st.lists(
        st.sampled_from(("Ann", "Lee", "was", "the", "born", "in", "Oslo,", "1903", "-", "(a)", "fox.")), max_size=9
    )
)
def test_a_cloze_is_a_proper_beginning_that_leaves_out_something_of_content(words: list[str]) -> None:
    question = cloze(" ".join(words)).split()
    assert question == words[: len(question)]
    if question:
        rest = [word.strip("().,").lower() for word in words[len(question) :]]
        assert any(word and word not in FUNCTION_WORDS | {"-"} for word in rest)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (" The Eiffel Tower.\nQuestion:", ("eiffel", "tower")),
        ("Paris, France", ("paris", ",", "france")),
        (", Paris,", ("paris",)),
        ("Yes, it is", ("yes",)),
        ("No.", ("no",)),
        ("Norway", ("norway",)),
        ("Jean-Paul O'Neill", ("jean-paul", "o'neill")),
        ("  \n ", ()),
        ("...", ()),
    ],
)
def test_answers_are_normalised(answer: str, words: tuple[str, ...]) -> None:
    assert normalise(answer) == words


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Lee Ann", "Ann Lee", True),
        ("Marie Curie", "Curie", True),
        ("Curie", "Marie Curie", True),
        ("Paris, France", "France", False),
        ("Paris, France", "Paris France", True),
        ("cat", "cats", True),
        ("big fox", "big foxes", True),
        ("cat", "car", False),
        ("Marie Curie", "Marie", False),
        ("10 May", "11 May", False),
    ],
)
def test_answers_that_say_the_same(one: str, other: str, same: bool) -> None:
    assert same_answer(normalise(one), normalise(other)) is same
    assert same_answer(normalise(other), normalise(one)) is same


def test_confidence_by_hand() -> None:
    answers = ["Curie", "Marie Curie", "the Curie.", "Bohr", "bohr", "", "Planck", "Rutherford"]
    assert group(answers) == [3, 2, 1, 1]
    assert max_confidence(answers) == 3 / 8
    assert expected_confidence(answers) == (9 + 4 + 1 + 1) / 64
    assert max_confidence(["", " "]) == expected_confidence(["", " "]) == 0
    for measure in (max_confidence, expected_confidence):
        with pytest.raises(ValueError, match="answers"):
            measure([])


@given(ANSWERS)
def test_confidences_are_shares(answers: list[str]) -> None:
    sizes = group(answers)
    said = [answer for answer in answers if normalise(answer)]
    assert sum(sizes) == len(said) and all(size > 0 for size in sizes)
    largest, expected = max_confidence(answers), expected_confidence(answers)
    # p1^2 <= sum p_i^2 <= p1 * sum p_i <= p1
    assert 0 <= largest**2 - 1e-12 <= expected <= largest + 1e-12 <= 1 + 1e-12 or largest == expected == 0


@given(st.text("ab c", min_size=1, max_size=6).filter(lambda text: bool(normalise(text))), st.integers(1, 20))
def test_a_model_that_always_says_the_same_is_sure(answer: str, times: int) -> None:
    assert max_confidence([answer] * times) == expected_confidence([answer] * times) == 1
