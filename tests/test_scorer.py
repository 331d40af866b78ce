"""FactScorer and the metrics made of what it returns."""

from __future__ import annotations

import asyncio
import json
import math
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod import aggregate
from factscore_mod.chat import Ask, CallFailed
from factscore_mod.compat import FactScorer as CompatibleScorer
from factscore_mod.judges import JUDGES, JudgeError, make_judge
from factscore_mod.outputs import read_responses, response_from_json, response_to_json, write_responses
from factscore_mod.profiles import FACTSCORE, MODIFIED, get_profile
from factscore_mod.published import filter_facts, parse_facts, read_true_false
from factscore_mod.records import (
    Claim,
    Decomposer,
    Evidence,
    Judgement,
    Passage,
    ScoredClaim,
    ScoredResponse,
    Usage,
    Verdict,
    Verifier,
)
from factscore_mod.scorer import FactScorer, deduplicate, locate
from tests.judging import honest, knowledge, scripted_judge

ADA = "Ada Lovelace was born in London in 1815. She was a French painter."


def response(verdicts: str, *, abstained: bool = False, name: str = "r") -> ScoredResponse:
    """A scored response from a string of s(upported), n(ot supported), u(nparsed), e(rror)."""
    names: dict[str, Verdict] = {"s": "supported", "n": "not_supported", "u": "unparsed", "e": "error"}
    claims = [
        ScoredClaim(Claim(f"claim {i}", 0), Evidence((), "none"), Judgement(names[v])) for i, v in enumerate(verdicts)
    ]
    return ScoredResponse(name, "t", "x", abstained, (), tuple(claims), "exact")


class TestAggregate:
    def test_macro_is_the_mean_over_responses_and_micro_over_claims(self) -> None:
        responses = [response("ssn"), response("n"), response("", abstained=True)]
        assert aggregate.macro_accuracy(responses) == pytest.approx((2 / 3 + 0) / 2)
        assert aggregate.macro_accuracy(responses, "zero") == pytest.approx((2 / 3 + 0 + 0) / 3)
        assert aggregate.micro_accuracy(responses) == pytest.approx(2 / 4)
        assert aggregate.response_rate(responses) == pytest.approx(2 / 3)
        assert aggregate.claims_per_response(responses) == 2

    def test_unparsed_and_error_are_neither_right_nor_wrong(self) -> None:
        responses = [response("suen")]
        assert aggregate.macro_accuracy(responses) == 0.5
        assert aggregate.verdict_rate(responses, "unparsed") == 0.25
        assert aggregate.verdict_rate(responses, "error") == 0.25

    def test_nothing_gives_none_and_never_nan(self) -> None:
        for responses in ([], [response("", abstained=True)], [response("uu")]):
            values = aggregate.summary(responses, gamma=10)
            json.dumps(values, allow_nan=False)
            assert values["accuracy_macro"] is None

    def test_f1_at_k_against_its_definition(self) -> None:
        scored = response("sssn")
        precision, recall = 3 / 4, 3 / 10
        assert aggregate.f1_at_k(scored, 10) == pytest.approx(2 * precision * recall / (precision + recall))
        assert aggregate.f1_at_k(scored, 2) == pytest.approx(2 * precision / (precision + 1))
        assert aggregate.f1_at_k(response("nn"), 5) == 0
        assert aggregate.mean_f1_at_k([scored, response("", abstained=True)], 2) == pytest.approx(
            precision / (precision + 1)
        )
        with pytest.raises(ValueError, match="K must be"):
            aggregate.f1_at_k(scored, 0)

    def test_a_metric_does_not_move_when_other_responses_are_added(self) -> None:
        alone = aggregate.f1_at_k(response("ssn"), 10)
        together = [aggregate.f1_at_k(r, 10) for r in (response("ssn"), response("s" * 50))]
        assert together[0] == alone

    def test_length_penalty(self) -> None:
        assert aggregate.length_penalty(11, 10) == 1
        assert aggregate.length_penalty(10, 10) == 1
        assert aggregate.length_penalty(5, 10) == pytest.approx(math.exp(-1))
        assert aggregate.length_penalty(5, 0) == 1
        assert aggregate.penalised_score([response("sssss")], 10) == pytest.approx(math.exp(-1))

    def test_accuracy_over_the_first_claims(self) -> None:
        assert [aggregate.accuracy_over_first(response("snss"), k) for k in (1, 2, 3, 9)] == [1, 0.5, 2 / 3, 0.75]

    @given(st.lists(st.text("snue", max_size=12), max_size=12), st.randoms())
    def test_order_does_not_matter_and_rates_are_rates(self, verdicts: list[str], shuffler: object) -> None:
        responses = [response(v) for v in verdicts]
        values = aggregate.summary(responses, gamma=10)
        shuffler.shuffle(responses)  # type: ignore[attr-defined]
        assert aggregate.summary(responses, gamma=10) == values
        for name, value in values.items():
            if value is not None and ("accuracy" in name or "rate" in name or "f1" in name):
                assert 0 <= value <= 1


class TestRules:
    def test_claims_evidence_and_verdicts(self) -> None:
        [scored] = FactScorer("rules", knowledge()).score(["Ada Lovelace"], [ADA], ids=["ada"])
        assert scored.id == "ada" and scored.topic_found == "exact" and not scored.abstained
        by_sentence = {0: set(), 1: set()}
        for claim in scored.claims:
            by_sentence[claim.claim.sentence].add(claim.judgement.verdict)
            assert claim.evidence.passages[0].title == "Ada Lovelace"
        assert by_sentence[0] == {"supported"}
        assert "not_supported" in by_sentence[1]
        assert scored.usage == Usage()

    def test_order_ids_and_equal_responses(self) -> None:
        topics = ["Marie Curie", "Ada Lovelace", "Ada Lovelace"]
        texts = ["Marie Curie discovered radium.", ADA, ADA]
        scored = FactScorer("rules", knowledge()).score(topics, texts)
        assert [r.topic for r in scored] == topics and [r.id for r in scored] == ["0", "1", "2"]
        assert scored[1].claims == scored[2].claims

    def test_abstentions_have_no_claims_and_are_seen(self) -> None:
        scored = FactScorer("rules", knowledge()).score(
            ["Ada Lovelace", "Ada Lovelace"], ["I'm sorry, I don't have any information about this person.", ADA]
        )
        assert [r.abstained for r in scored] == [True, False]
        assert scored[0].claims == ()

    def test_an_unknown_topic_is_searched_for_and_counted(self) -> None:
        [scored] = FactScorer("rules", knowledge()).score(["Zzyzx Qwort"], ["Marie Curie discovered radium."])
        assert scored.topic_found == "none"
        assert scored.claims and all(c.judgement.verdict != "error" for c in scored.claims)
        assert aggregate.summary([scored])["topics_not_found"] == 1

    def test_given_claims_are_judged_as_they_are(self) -> None:
        given_claims = ["Ada Lovelace was born in 1815.", "Ada Lovelace was born in 1915."]
        [scored] = FactScorer("rules", knowledge()).score(["Ada Lovelace"], [ADA], claims=[given_claims])
        assert [c.claim.text for c in scored.claims] == given_claims
        assert [c.judgement.verdict for c in scored.claims] == ["supported", "not_supported"]

    def test_empty_and_odd_texts(self) -> None:
        scored = FactScorer("rules", knowledge()).score([""] * 4, ["", " \n", "\ud800 broken", "?!"])
        assert len(scored) == 4
        json.dumps([response_to_json(r) for r in scored]).encode()

    def test_async_gives_the_same(self) -> None:
        scorer = FactScorer("rules", knowledge())
        assert asyncio.run(scorer.ascore(["Ada Lovelace"], [ADA])) == scorer.score(["Ada Lovelace"], [ADA])

    def test_unequal_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="equally many"):
            FactScorer("rules", knowledge()).score(["a", "b"], ["x"])
        with pytest.raises(ValueError, match="sequences"):
            FactScorer("rules", knowledge()).score("a", "x")

    def test_the_fingerprint_tells_settings_apart(self) -> None:
        prints = {
            FactScorer("rules", knowledge(), profile=profile).fingerprint
            for profile in ("modified", "factscore", MODIFIED.with_switches(passages=3))
        }
        prints.add(FactScorer("mock", knowledge()).fingerprint)
        assert len(prints) == 4
        assert FactScorer("rules", knowledge()).fingerprint == FactScorer("rules", knowledge()).fingerprint


class TestPrompted:
    def test_a_response_of_twenty_sentences_takes_two_calls(self) -> None:
        judge, engine = scripted_judge(honest)
        text = " ".join(f"Ada Lovelace wrote letter number {i} in London." for i in range(1, 21))
        [scored] = FactScorer(judge, knowledge()).score(["Ada Lovelace"], [text])
        assert len(scored.claims) == 20
        assert (engine.count("decompose"), engine.count("verify")) == (1, 1)
        assert len(engine.asks) / len(scored.claims) <= 0.2
        assert scored.usage.calls == 2 and scored.usage.prompt_tokens == 20

    def test_equal_claims_count_once_in_modified_and_twice_in_factscore(self) -> None:
        text = "Ada Lovelace was born in London in 1815. Ada Lovelace was born in London in 1815."
        counts = []
        for profile in (MODIFIED, FACTSCORE):
            judge, _ = scripted_judge(honest, profile)
            [scored] = FactScorer(judge, knowledge(), profile=profile).score(["Ada Lovelace"], [text])
            counts.append(len(scored.claims))
        assert counts == [1, 2]
        claims = [Claim("He was born.", 0), Claim(" he  was BORN", 1), Claim("He died.", 1)]
        assert deduplicate(claims) == (claims[0], claims[2])

    def test_the_lead_is_always_among_the_evidence(self) -> None:
        [scored] = FactScorer("mock", knowledge(), profile=MODIFIED.with_switches(passages=1)).score(
            ["Marie Curie"], ["Marie Curie won the Nobel Prize in Chemistry in 1911."]
        )
        assert scored.claims[0].evidence.passages[0].index == 0

    def test_an_unreadable_reply_is_unparsed_and_kept(self) -> None:
        judge, engine = scripted_judge(lambda ask: honest(ask) if ask.stage == "decompose" else "I would say so.")
        [scored] = FactScorer(judge, knowledge()).score(["Ada Lovelace"], [ADA])
        assert [c.judgement.verdict for c in scored.claims] == ["unparsed", "unparsed"]
        assert scored.claims[0].judgement.reply == "I would say so."
        assert engine.count("verify") == 3 * 3  # two claims together, then each alone, each asked three times

    def test_a_claim_left_out_is_asked_about_alone(self) -> None:
        def forgetful(ask: Ask) -> str:
            text = honest(ask)
            return text if ask.stage == "decompose" else text.partition(" 2=")[0]

        judge, _ = scripted_judge(forgetful)
        [scored] = FactScorer(judge, knowledge()).score(["Ada Lovelace"], [ADA])
        assert [c.judgement.verdict for c in scored.claims] == ["supported", "not_supported"]

    def test_a_failed_call_is_error_and_kept(self) -> None:
        judge, _ = scripted_judge(lambda ask: honest(ask) if ask.stage == "decompose" else CallFailed("no luck"))
        [scored] = FactScorer(judge, knowledge()).score(["Ada Lovelace"], [ADA])
        assert [c.judgement.verdict for c in scored.claims] == ["error", "error"]
        assert "no luck" in scored.claims[0].judgement.reason

    @pytest.mark.parametrize("profile", [MODIFIED, FACTSCORE])
    def test_sentences_that_could_not_be_decomposed_stay_in_the_count(self, profile: object) -> None:
        def script(ask: Ask) -> str | Exception:
            return CallFailed("down") if ask.stage == "decompose" and "painter" in ask.user else honest(ask)

        assert isinstance(profile, type(MODIFIED))
        judge, _ = scripted_judge(script, profile)
        [scored] = FactScorer(judge, knowledge(), profile=profile).score(["Ada Lovelace"], [ADA])
        assert [c.claim.sentence for c in scored.claims] == [0, 1]
        assert scored.claims[1].judgement.verdict == "error"
        assert scored.claims[1].claim.text == "She was a French painter."

    def test_many_responses_at_once_keep_their_order(self) -> None:
        topics = ["Ada Lovelace"] * 600
        texts = [f"Ada Lovelace wrote {i} letters." for i in range(600)]
        scored = FactScorer("mock", knowledge(), window=50).score(topics, texts)
        assert [r.text for r in scored] == texts

    def test_score_works_inside_a_running_event_loop(self) -> None:
        async def notebook() -> list[ScoredResponse]:
            return FactScorer("mock", knowledge()).score(["Ada Lovelace"], [ADA])

        assert len(asyncio.run(notebook())[0].claims) == 2

    def test_probabilities_of_the_verdict_become_scores(self) -> None:
        from factscore_mod.chat import Reply, Token

        def script(ask: Ask) -> str | Reply:
            if ask.stage == "decompose":
                return honest(ask)
            tokens = (Token("VERDICTS: 1=", ()), Token("S", (("S", math.log(0.6)), ("N", math.log(0.2)))))
            return Reply("VERDICTS: 1=S", tokens=tokens)

        judge, _ = scripted_judge(script)
        [scored] = FactScorer(judge, knowledge()).score(["Ada Lovelace"], ["Ada Lovelace was born in 1815."])
        assert scored.claims[0].judgement.score == pytest.approx(0.75)

    def test_decomposer_and_verifier_may_differ(self) -> None:
        scorer = FactScorer("mock", knowledge(), decomposer="rules")
        assert scorer.judge.name == "rules+mock"
        [scored] = scorer.score(["Ada Lovelace"], ["Ada Lovelace was born in London in 1815."])
        assert len(scored.claims) == 2

    def test_unknown_judges_name_the_known_ones(self) -> None:
        for name in ("gpt", "openai:", "local:"):
            with pytest.raises(JudgeError, match="judge"):
                make_judge(name)
        assert set(JUDGES) >= {"rules", "mock", "openai:MODEL"}
        with pytest.raises(ValueError, match="factscore, modified"):
            get_profile("fast")


class TestPublished:
    """The profile `factscore` against an account of the published algorithm written down independently here."""

    REPLIES = (
        "True", "False", "true.", "It is False, not True.", "True or False? False", "False. True", "", "I cannot say.",
        "No information.", "Yes", "TRUE false true", "unknown", "It's untrue", "The statement is supported",
    )  # fmt: skip

    @staticmethod
    def published_decision(reply: str) -> bool:
        text = reply.lower()
        if "true" in text and "false" in text:
            return text.index("true") > text.index("false")
        if "true" in text:
            return True
        if "false" in text:
            return False
        bare = "".join(c for c in text if c not in string.punctuation).split()
        return not any(word in bare for word in ("not", "cannot", "unknown", "information"))

    def test_equal_replies_give_equal_decisions_and_scores(self) -> None:
        profile = FACTSCORE.with_switches(empty_reply_is_supported=True)
        replies = dict(zip((f"Claim number {i} about Ada." for i in range(14)), self.REPLIES, strict=True))

        def script(ask: Ask) -> str:
            return next(reply for text, reply in replies.items() if text in ask.user)

        judge, engine = scripted_judge(script, profile, reasks=0)
        facts = [list(replies)[:3], list(replies)[3:5], list(replies)[5:]]
        scored = FactScorer(judge, knowledge(), profile=profile).score(
            ["Ada Lovelace"] * 3, ["a", "b", "c"], claims=facts
        )
        expected = [[self.published_decision(replies[fact]) for fact in group] for group in facts]
        assert [[c.judgement.verdict == "supported" for c in r.claims] for r in scored] == expected
        assert engine.count("verify") == 14
        penalised = [
            sum(group) / len(group) * (1.0 if len(group) > 10 else math.exp(1 - 10 / len(group))) for group in expected
        ]
        assert aggregate.penalised_score(scored, 10) == pytest.approx(sum(penalised) / 3)
        assert aggregate.macro_accuracy(scored) == pytest.approx(sum(sum(g) / len(g) for g in expected) / 3)

    def test_an_empty_reply_is_unparsed_unless_switched(self) -> None:
        for reply in ("", "Yes", "no idea"):
            assert read_true_false(reply) is None
        assert read_true_false("", empty_is_supported=True) is True
        judge, _ = scripted_judge(lambda ask: honest(ask) if ask.stage == "decompose" else "", FACTSCORE)
        [scored] = FactScorer(judge, knowledge(), profile=FACTSCORE).score(["Ada Lovelace"], [ADA])
        assert {c.judgement.verdict for c in scored.claims} == {"unparsed"}

    @given(st.text(alphabet="truefalsno cTF.,!", max_size=30))
    def test_reading_true_and_false_as_published(self, reply: str) -> None:
        assert read_true_false(reply, empty_is_supported=True) == self.published_decision(reply)
        with_rule_off = read_true_false(reply)
        assert with_rule_off is None or with_rule_off == self.published_decision(reply)

    def test_one_call_a_sentence_with_fixed_and_picked_demonstrations(self) -> None:
        judge, engine = scripted_judge(honest, FACTSCORE)
        FactScorer(judge, knowledge(), profile=FACTSCORE).score(["Ada Lovelace"], [ADA])
        prompts = [ask.user for ask in engine.asks if ask.stage == "decompose"]
        assert len(prompts) == 2
        assert all(prompt.count("Take this sentence apart") == 7 + 1 + 1 for prompt in prompts)

    def test_the_demonstration_nearest_to_the_sentence_is_picked(self) -> None:
        judge, engine = scripted_judge(honest, FACTSCORE)
        text = "She won the silver medal in the 100 metres at the 1996 Olympic Games."
        FactScorer(judge, knowledge(), profile=FACTSCORE).score(["Ada Lovelace"], [text])
        assert "behind her team mate Olga Brandt" in engine.asks[0].user

    def test_evidence_is_in_reverse_order_of_rank(self) -> None:
        judge, engine = scripted_judge(honest, FACTSCORE)
        [scored] = FactScorer(judge, knowledge(), profile=FACTSCORE).score(["Marie Curie"], ["She found radium."])
        prompt = next(ask.user for ask in engine.asks if ask.stage == "verify")
        places = [prompt.index(p.text[:40]) for p in scored.claims[0].evidence.passages]
        assert places == sorted(places, reverse=True)

    def test_facts_are_read_from_dashes(self) -> None:
        assert parse_facts("- One.\n- Two\n") == ["One.", "Two."]
        assert parse_facts("There are no facts here.") == []

    def test_invented_numbers_and_bare_endings_are_dropped(self) -> None:
        sentence = "He was born on May 4, 1996 and elected in 2020."
        facts = ["He was born.", "He was born on May 4, 1996.", "He was elected in 2020.", "He was elected in 2021."]
        assert filter_facts(sentence, facts) == [facts[1], facts[2]]
        assert filter_facts(sentence, ["He was born in 1999."]) == ["He was born in 1999."]  # nothing covered: kept

    def test_small_talk_is_not_decomposed(self) -> None:
        judge, engine = scripted_judge(honest, FACTSCORE)
        text = "Sure, here is a biography. Ada Lovelace was born in London in 1815."
        FactScorer(judge, knowledge(), profile=FACTSCORE).score(["Ada Lovelace"], [text])
        assert engine.count("decompose") == 1


class TestCompat:
    def test_keys_and_values_are_factscores_and_json(self, tmp_path: object) -> None:
        scorer = CompatibleScorer("retrieval+mock", cache_dir=str(tmp_path))
        scorer.register_knowledge_source("mine", db_path=str(knowledge()))
        out = scorer.get_score(
            ["Ada Lovelace", "Marie Curie"],
            ["She was born in London in 1815.", "She won."],
            atomic_facts=[["Ada Lovelace was born in London in 1815.", "Ada Lovelace was a painter."], None],
            knowledge_source="mine",
        )
        json.dumps(out, allow_nan=False)
        assert set(out) >= {"score", "init_score", "respond_ratio", "decisions", "num_facts_per_response"}
        assert out["respond_ratio"] == 0.5 and out["num_facts_per_response"] == 2
        assert out["decisions"][0] == [
            {"atom": "Ada Lovelace was born in London in 1815.", "is_supported": True},
            {"atom": "Ada Lovelace was a painter.", "is_supported": False},
        ]
        assert out["decisions"][1] is None
        assert out["init_score"] == 0.5 and out["score"] == pytest.approx(0.5 * math.exp(1 - 10 / 2))

    def test_nothing_to_score_is_none_and_not_nan(self, tmp_path: object) -> None:
        scorer = CompatibleScorer("retrieval+mock", cache_dir=str(tmp_path))
        scorer.register_knowledge_source("mine", db_path=str(knowledge()))
        out = scorer.get_score(["Ada Lovelace"], ["x"], atomic_facts=[None], knowledge_source="mine", gamma=0)
        assert out["score"] is None and "init_score" not in out

    def test_abstention_detection_and_unknown_sources(self, tmp_path: object) -> None:
        scorer = CompatibleScorer("retrieval+mock", cache_dir=str(tmp_path), abstain_detection_type="generic")
        scorer.register_knowledge_source("mine", db_path=str(knowledge()))
        out = scorer.get_score(
            ["Ada Lovelace"] * 2, ["I'm sorry, I cannot help with that.", ADA], knowledge_source="mine"
        )
        assert [d is None for d in out["decisions"]] == [True, False]
        with pytest.raises(ValueError, match="not registered"):
            scorer.get_score(["a"], ["b"], knowledge_source="other")
        with pytest.raises(ValueError, match="NPM"):
            CompatibleScorer("retrieval+llama+npm")


class TestOutputs:
    @given(st.text("snue", max_size=6), st.text(max_size=20), st.integers(0, 9))
    def test_a_line_reads_back_as_the_same_record(self, verdicts: str, text: str, number: int) -> None:
        text = text.encode("utf-8", "replace").decode()
        passage = Passage("T", text, number)
        scored = response(verdicts)
        claims = tuple(
            replace(c, evidence=Evidence((passage,), "exact", "T"), judgement=replace(c.judgement, reply=text))
            for c in scored.claims
        )
        scored = replace(scored, claims=claims, usage=Usage(number, 0, 1, 2, 0.5))
        assert response_from_json(json.loads(json.dumps(response_to_json(scored)))) == scored

    def test_a_cut_off_last_line_is_forgiven_on_request(self, tmp_path: object) -> None:
        from pathlib import Path

        path = Path(str(tmp_path)) / "claims.jsonl"
        write_responses(path, [response("sn"), response("s")])
        path.write_bytes(path.read_bytes()[:-9])
        assert len(list(read_responses(path, forgive_last_line=True))) == 1
        with pytest.raises(ValueError, match="line 2"):
            list(read_responses(path))

    def test_claims_are_located_in_their_sentence(self) -> None:
        [scored] = FactScorer("rules", knowledge()).score(["Ada Lovelace"], [ADA])
        assert locate("She was a painter from France.", scored.sentences) == 1
        assert locate("anything", ()) == 0


def test_judges_keep_the_protocols() -> None:
    judge = make_judge("mock")
    decomposer: Decomposer = judge.decomposer
    verifier: Verifier = judge.verifier
    assert decomposer.name == verifier.name == "mock"
