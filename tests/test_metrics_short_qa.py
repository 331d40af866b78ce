"""Short answers: the reference's score with its quirks, and ours without them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics import short_qa
from harness.metrics.comparison import compare
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import short_qa_metrics, summarise_short_qa
from harness.records import Item, Response


def scored(
    text: str,
    *gold: str,
    prompt: str = "Who is it?",
    final_answer: bool = False,
    finish: str = "stop",
    subject: str = "s",
    world: int = 0,
    kind: str = "",
    item_id: str = "1",
) -> QaScore:
    item = Item(task="t", id=item_id, prompt=prompt, subject=subject, gold=gold, kind=kind, popularity=7)
    response = Response("t", item_id, "m", world, text, 3, finish)  # type: ignore[arg-type]
    return short_qa.score(item, response, final_answer=final_answer)


# --- the reference's score: what it gets right, and its quirks ------------------------------------------------


def test_any_alias_in_any_case_is_right() -> None:
    assert scored("It was PARIS, France", "Lutetia", "paris").reference_em
    assert not scored("London", "Lutetia", "paris").reference_em


def test_quirk_golds_match_inside_words() -> None:
    score = scored("music", "us")
    assert score.reference_em and not score.token_match
    score = scored("final answer: north", "no", final_answer=True)
    assert score.reference_em and not score.token_match


def test_quirk_run_on_text_counts() -> None:
    score = scored("London\nQuestion: And of France?\nAnswer: Paris", "Paris")
    assert score.reference_em and not score.token_match and score.answer == "London"


def test_quirk_a_question_that_says_answer_is_part_of_the_prediction() -> None:
    prompt = "Fill in. Answer: Paris or London?"
    assert scored("London", "Paris", prompt=prompt).reference_em
    assert not scored("London", "Paris", prompt=prompt).token_match


def test_quirk_popqa_golds_are_only_lower_cased() -> None:
    score = scored("u.s. army", "US Army")
    assert not score.reference_em and score.token_match
    assert not scored("The  Who", "the who").reference_em  # two spaces


def test_quirk_hotpotqa_is_normalised() -> None:
    assert scored("final answer: The U.S. Army!", "US army", final_answer=True).reference_em


def test_quirk_a_hotpotqa_gold_of_articles_only_is_always_right() -> None:
    score = scored("final answer: Paris", "The", final_answer=True)
    assert score.reference_em
    assert not (score.token_match or score.strict_em or score.f1)
    assert scored("The", "The", final_answer=False).strict_em


def test_quirk_the_last_marker_with_a_space_is_the_one() -> None:
    text = "final answer: London. No, final answer: Paris"
    assert not scored(text, "London", final_answer=True).reference_em
    assert scored(text, "Paris", final_answer=True).reference_em
    # Without the space the marker is not seen, and the whole text is the prediction.
    assert scored("London? final answer:Paris", "London", final_answer=True).reference_em
    assert not scored("London? final answer:Paris", "London", final_answer=True).token_match
    assert scored("London", "London", final_answer=True).reference_em


def test_quirk_rejections_are_found_in_popqa_only() -> None:
    assert not scored("I don't know, maybe Paris", "Paris").reference_em
    assert scored("final answer: I don't know, maybe Paris", "Paris", final_answer=True).reference_em
    assert scored("I don’t know, maybe Paris", "Paris").reference_em  # the curly apostrophe escapes
    assert scored("I do not know, maybe Paris", "Paris").reference_em


@pytest.mark.parametrize("text", ["I don't know.", "I don’t know, maybe Paris", "I do not know", "", "  \n", "unknown"])
@pytest.mark.parametrize("final_answer", [False, True])
def test_our_abstentions_are_right_by_no_score_of_ours(text: str, final_answer: bool) -> None:
    score = scored(text, "Paris", "unknown", final_answer=final_answer)
    assert score.abstained
    assert (score.token_match, score.strict_em, score.f1) == (False, False, 0.0)


# --- ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("She was born in Paris.", "Paris", True),
        ("Parisian", "Paris", False),
        ("the United States of America", "United States", True),
        ("United and States", "United States", False),
        ("The Who", "Who", True),
        ("well-known", "well known", True),
        ("O'Brien", "O’Brien", True),
        ("Ｐａｒｉｓ", "paris", True),
        ("A", "a", True),
        ("b", "a", False),
    ],
)
def test_token_match(answer: str, gold: str, right: bool) -> None:
    assert short_qa.contains_tokens(answer, gold) is right


def test_f1_by_hand() -> None:
    assert short_qa.f1("the red house", "red brick house") == pytest.approx(2 * 2 / (2 + 3))
    assert short_qa.f1("yes it is", "yes") == pytest.approx(2 / 4)
    assert short_qa.f1("yes it is", "yes", yes_no=True) == 0.0
    assert short_qa.f1("yes", "yes", yes_no=True) == 1.0
    assert scored("red", "blue", "red dog").f1 == pytest.approx(2 / 3)  # the best gold counts


@given(st.text(max_size=40), st.text(max_size=20))
def test_scores_agree_with_each_other(answer: str, gold: str) -> None:
    assert 0.0 <= short_qa.f1(answer, gold) <= 1.0
    if short_qa.strict_em(answer, gold):
        assert short_qa.f1(answer, gold) == 1.0
    assert short_qa.strict_em(gold, gold)


def test_the_record_carries_what_the_statistics_need() -> None:
    score = scored("x", "y", finish="length", subject="Ada", world=3, kind="bridge")
    assert (score.subject, score.world, score.kind, score.popularity, score.cut_off) == ("Ada", 3, "bridge", 7, True)


# --- summaries -----------------------------------------------------------------------------------------------


def answers(pattern: str, **common: object) -> list[QaScore]:
    """One score a letter: r(ight), w(rong), a(bstained)."""
    texts = {"r": "Paris", "w": "London", "a": "I don't know"}
    return [
        scored(texts[c], "Paris", item_id=str(i), subject=f"s{i}", kind="bridge" if i % 2 else "comparison")
        for i, c in enumerate(pattern)
    ]


def test_summary_by_hand() -> None:
    numbers = summarise_short_qa(answers("rrwa" * 5))
    assert numbers["accuracy"].value == pytest.approx(0.5)
    assert numbers["abstention_rate"].value == pytest.approx(0.25)
    assert numbers["accuracy[comparison]"].value == pytest.approx(0.5)
    assert numbers["accuracy[bridge]"].n == 10
    assert numbers["accuracy"].n == numbers["accuracy"].clusters == 20
    assert numbers["accuracy"].unit == "question" and "abstentions count as wrong" in numbers["accuracy"].of
    low, high = numbers["accuracy"].low, numbers["accuracy"].high
    assert low is not None and high is not None and 0 < low < 0.5 < high < 1


def test_kinds_are_reported_only_where_there_are_several() -> None:
    assert not [name for name in summarise_short_qa([scored("x", "y", kind="one")]) if "[" in name]


def test_comparison_counts_discordant_answers() -> None:
    scores = {"sft": answers("rrrrwwwwww" * 3), "new": answers("rrrwrrrwww" * 3), "same": answers("rrrrwwwwww" * 3)}
    rows = {(c.metric, c.model): c for c in compare(scores, "sft", short_qa_metrics())}
    new, same = rows["accuracy", "new"], rows["accuracy", "same"]
    assert (new.better, new.worse) == (9, 3)
    assert new.value == pytest.approx(0.2)
    assert new.p is not None and new.p_holm is not None and new.p_holm >= new.p
    assert (same.value, same.p, same.p_mcnemar) == (0.0, 1.0, 1.0)


def test_comparison_uses_the_common_questions_only() -> None:
    scores = {"sft": answers("rwrwrw"), "new": answers("rrrr")}
    assert {c.n for c in compare(scores, "sft", short_qa_metrics())} == {4}
