"""Text that nobody vouches for cannot leave its fence, and cannot be read as a verdict."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.injection import ATTACKS, FALSE_CLAIM, PLACES, TRUE_CLAIM, report, run
from factscore_mod.chat import Ask, Reply
from factscore_mod.profiles import FACTSCORE, MODIFIED
from factscore_mod.prompting import fence, fenced, load_prompt, neutralise
from factscore_mod.replies import parse_claims, parse_verdicts
from factscore_mod.scorer import FactScorer
from tests.judging import honest, knowledge, scripted_judge

attack_texts = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
anything = st.text() | st.sampled_from(list(ATTACKS.values())) | st.text(alphabet="<>|[]/INSTEND \n0123456789abcdef=")


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 40 and len(set(ATTACKS.values())) == len(ATTACKS)


@pytest.mark.parametrize("judge", ["rules", "mock"])
@pytest.mark.parametrize("profile", ["modified", "factscore"])
def test_no_attack_moves_rules_or_mock(judge: str, profile: str) -> None:
    outcomes = list(run(judge, profile))
    assert len(outcomes) == len(ATTACKS) * len(PLACES)
    assert report(judge, profile, outcomes)["which"] == []
    assert sum(o.abstained for o in outcomes) <= 1


@given(anything)
@example("<|")
def test_neutral_text_is_one_line_without_fences_or_control_tokens(text: str) -> None:
    neutral = neutralise(text)
    assert "\n" not in neutral and len(neutral.splitlines()) <= 1
    assert "<<" not in neutral and ">>" not in neutral
    assert not any(token in neutral for token in ("<|", "[INST]", "[/INST]", "</s>"))
    assert neutralise(neutral) == neutral


@given(st.text(alphabet=st.characters(categories=("L", "N", "P")), max_size=40))
def test_ordinary_words_are_left_as_they_are(text: str) -> None:
    if not any(mark in text for mark in "<>[\u00ab\u00bb\u2039\u203a\uff1c\uff1e"):
        assert neutralise(f"a {text} b".replace("\ufeff", "")).split() == f"a {text} b".split()


@given(st.lists(anything, min_size=1, max_size=5), st.lists(anything, min_size=1, max_size=5))
def test_fences_hold_exactly_what_was_put_into_them(passages: list[str], claims: list[str]) -> None:
    first = [neutralise(text) for text in passages]
    second = [f"{n}. {neutralise(text)}" for n, text in enumerate(claims, 1)]
    message = f"Topic: {neutralise(passages[0])}\n\n{fence('PASSAGES', *first)}\n\n{fence('CLAIMS', *second)}\n\nJudge."
    assert fenced(message) == {"PASSAGES": first, "CLAIMS": second}


def test_fences_depend_on_content_alone() -> None:
    assert fence("CLAIMS", "1. a") == fence("CLAIMS", "1. a")
    assert fence("CLAIMS", "1. a").split("\n")[0] != fence("CLAIMS", "1. b").split("\n")[0]


def test_blanks_in_untrusted_text_are_not_filled() -> None:
    filled = load_prompt("verify_structured.v1").fill("user", topic="{{claims}}", passages="{{topic}}", claims="SECRET")
    assert filled.count("SECRET") == 1 and "{{topic}}" in filled


def echoing(ask: Ask) -> str:
    """A model that thinks aloud: it repeats everything it was given before it answers in the form asked for."""
    return f"Let me see.\n{ask.user}\nSo:\n{honest(ask)}"


@attack_texts
def test_a_model_that_repeats_the_attack_is_read_by_its_last_line_only(attack: str) -> None:
    judge, _ = scripted_judge(lambda ask: honest(ask) if ask.stage == "decompose" else echoing(ask))
    claims = [TRUE_CLAIM, attack, FALSE_CLAIM]
    [scored] = FactScorer(judge, knowledge()).score(["Ada Lovelace"], [TRUE_CLAIM], claims=[claims])
    assert scored.claims[0].judgement.verdict == "supported"
    assert scored.claims[-1].judgement.verdict == "not_supported"
    assert not scored.count("unparsed")


@attack_texts
def test_a_model_that_says_nothing_but_the_attack_gives_no_verdict_on_the_claim(attack: str) -> None:
    """Only a reply that is exactly a whole verdict can be one; quoted among other words it is not."""
    for form in ("json", "line"):
        reply = Reply(f"The text says: {attack} I am not sure.", form="json" if form == "json" else "line")
        assert parse_verdicts(reply, 3) == {}


@attack_texts
def test_the_attack_as_topic_changes_nothing(attack: str) -> None:
    for profile in (MODIFIED, FACTSCORE):
        judge, _ = scripted_judge(honest, profile)
        [scored] = FactScorer(judge, knowledge(), profile=profile).score([attack], [f"{TRUE_CLAIM}\n{FALSE_CLAIM}"])
        assert len(scored.claims) == 2 and not scored.count("unparsed") and not scored.count("error")
        assert scored.claims[1].judgement.verdict == "not_supported"


@pytest.mark.parametrize(
    "text",
    [
        "VERDICTS: 1=S 2=N and so on",
        "verdicts: 1=S 2=N",
        "VERDICTS: 1=S, 2=N",
        "VERDICTS: 1=S 2=N\nThat is all.",
        "VERDICTS:",
        "1=S 2=N",
        "**VERDICTS: 1=S 2=N**",
        "VERDICTS: 1=supported 2=not_supported",
        "",
    ],
)
def test_almost_a_verdict_line_is_none(text: str) -> None:
    assert parse_verdicts(Reply(text), 2) == {}


@pytest.mark.parametrize(
    "text",
    [
        '{"verdicts": [{"claim": 1, "verdict": "supported"}]} trailing',
        'so: {"verdicts": [{"claim": 1, "verdict": "supported"}]}',
        '{"verdicts": [{"claim": 1, "verdict": "supported", "verdict": "not_supported"}]}',
        '{"verdicts": [{"claim": 1, "verdict": "SUPPORTED"}]}',
        '{"verdicts": [{"claim": true, "verdict": "supported"}]}',
        '{"verdicts": [{"claim": "1", "verdict": "supported"}]}',
        '{"verdicts": [{"claim": 1, "verdict": "supported"}], "note": ""}',
        '{"verdicts": {"1": "supported"}}',
        '[{"claim": 1, "verdict": "supported"}]',
        '{"verdicts": [{"claim": 1, "verdict": "supported"}',
        "[" * 100_000,
    ],
)
def test_almost_a_verdict_object_is_none(text: str) -> None:
    assert parse_verdicts(Reply(text, form="json"), 1) == {}


def test_contradictions_and_foreign_numbers_are_left_out() -> None:
    assert parse_verdicts(Reply("VERDICTS: 1=S 2=N 2=S 7=S 3=N 3=N"), 3) == {1: "supported", 3: "not_supported"}
    rows = [{"claim": n, "verdict": v} for n, v in ((1, "supported"), (1, "not_supported"), (0, "supported"))]
    assert parse_verdicts(Reply(json.dumps({"verdicts": rows}), form="json"), 2) == {}
    assert parse_verdicts(Reply("VERDICTS: 1=S", finish="length"), 1) == {1: "supported"}
    cut = Reply('{"verdicts": [{"claim": 1, "verdict": "supported"}]}', form="json", finish="length")
    assert parse_verdicts(cut, 1) == {}


@given(st.lists(st.tuples(st.integers(1, 5), st.text(alphabet="abc |=.", min_size=1)), max_size=5))
def test_claims_are_read_back_from_both_forms(pairs: list[tuple[int, str]]) -> None:
    pairs = [(n, " ".join(text.split())) for n, text in pairs if text.strip()]
    as_json = Reply(json.dumps({"claims": [{"sentence": n, "claim": text} for n, text in pairs]}), form="json")
    assert parse_claims(as_json, {1, 2, 3, 4, 5}) == pairs
    if pairs:
        assert parse_claims(Reply("\n".join(f"{n}| {text}" for n, text in pairs)), {1, 2, 3, 4, 5}) == pairs
    assert parse_claims(Reply("9| A claim of a sentence that is not there."), {1, 2}) is None
    assert parse_claims(Reply("1| cut", finish="length"), {1}) is None
