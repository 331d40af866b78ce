"""Sentences and their offsets, and abstentions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.abstain import is_abstention
from factscore_mod.sentences import SplitterUnavailable, split_sentences


def texts(text: str) -> list[str]:
    return [sentence.text for sentence in split_sentences(text)]


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n-()\"'\u2019é"), max_size=80))
def test_offsets_point_at_the_sentence_in_order(text: str) -> None:
    end = 0
    for index, sentence in enumerate(split_sentences(text)):
        assert sentence.index == index
        assert text[sentence.start : sentence.end] == sentence.text == sentence.text.strip()
        assert sentence.start >= end
        end = sentence.end


@given(st.text(max_size=60))
def test_any_text_is_split_without_an_error(text: str) -> None:
    for sentence in split_sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text


def test_abbreviations_and_initials_do_not_end_a_sentence() -> None:
    text = "Dr. J. R. Smith Jr. was born in the U.S. in 1950. He worked for Acme Inc. until 1990."
    assert len(texts(text)) == 2


def test_ordinary_words_of_the_learnt_abbreviation_list_end_a_sentence() -> None:
    assert texts("Marlo Venn worked as a carpenter. Jo Pell wrote a book.") == [
        "Marlo Venn worked as a carpenter.",
        "Jo Pell wrote a book.",
    ]
    assert len(texts("He met Prof. Stone and Capt. Hill.")) == 1


def test_line_breaks_and_list_markers_separate_sentences() -> None:
    assert texts("# Life\n- Born in Rome\n2. Died in Oslo.\n\n--\n") == [
        "Life",
        "Born in Rome",
        "Died in Oslo.",
    ]


def test_no_sentence_in_an_empty_text() -> None:
    assert split_sentences("") == () == split_sentences(" \n ... ")


def test_unknown_splitter_names_the_choices() -> None:
    with pytest.raises(SplitterUnavailable, match="nupunkt"):
        split_sentences("One.", "spacy")  # type: ignore[arg-type]


def test_punkt_without_its_data_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from nltk.tokenize import punkt

    from factscore_mod import sentences

    def missing(*_: object) -> None:
        raise LookupError("punkt_tab")

    monkeypatch.setattr(punkt, "PunktTokenizer", missing)
    sentences._spans_function.cache_clear()
    with pytest.raises(SplitterUnavailable, match="punkt_tab data"):
        split_sentences("One. Two.", "punkt")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "I'm sorry, but I cannot find any information about Lee Marsh.",
        "I don\u2019t know.",
        "I apologize, but I could not find a person named Lee Marsh. Could you give more context?",
        "Unfortunately, the provided search results do not contain a biography of Lee Marsh.",
        "There is no information available on Lee Marsh.",
        "As an AI language model, I cannot provide details about private people.",
        "The search results are not about Lee Marsh. They describe a lake.",
        "The provided search result is about a lake. There is no information about Lee Marsh in this search result.",
        "Thank you for your question. I do not have any information about Lee Marsh.",
        "Who is Lee Marsh? I don't know.",
        "I'm a language model. I cannot provide a biography of private people.",
        "I'm sorry, but I do not know of Lee Marsh, but there are many people with that name.",
    ],
)
def test_refusals_are_abstentions(text: str) -> None:
    assert is_abstention(text)


@pytest.mark.parametrize(
    "text",
    [
        "Lee Marsh is a Welsh painter. There is no information about his later life.",
        "Lee Marsh was born in 1950. He could not find work and moved to Oslo.",
        "Lee Marsh never provided evidence to the court.",
        "Sorry is a 1999 film by Lee Marsh.",
        "Lee Marsh is a Welsh painter. I do not have any information about his later life.",
        "Lee Marsh was born in Cardiff in 1950. I could not find further details. He died in 2001.",
        "Lee Marsh painted lakes. Unfortunately, the search results do not contain more information.",
        "Based on the search results, Lee Marsh is a Welsh painter. I cannot confirm his date of birth.",
        "I do not know much about Lee Marsh, but he was a Welsh painter.",
        "I don't have complete information about Lee Marsh, however records name a painter born in 1950.",
    ],
)
def test_answers_are_not_abstentions(text: str) -> None:
    assert not is_abstention(text)
