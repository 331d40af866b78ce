"""The miniature as a data source: rows of every task, knowledge texts, tokenizer, and the scorer against the truth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.data import miniature_text as text
from harness.data.certainty import DO_NOT_KNOW, NOT_SURE
from harness.data.miniature import LONGFORM_TASKS, TASKS, MiniatureSource
from harness.data.miniature_schema import DOMAINS, PRONOUN
from harness.data.miniature_world import FictitiousEntity, WorldConfig
from harness.data.source import DataError
from train.seeds import generator
from train.template import PromptTemplate
from train.verifier import NO, YES, verifier_prompt

SPLITS = ("train", "validation", "test", "fictitious", "fictitious_test")


@pytest.fixture(scope="module")
def source() -> MiniatureSource:
    return MiniatureSource(WorldConfig(), 11)


@pytest.fixture(scope="module")
def knowledge(source: MiniatureSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source.knowledge_source("persons", tmp_path_factory.mktemp("home"))


def told_values(source: MiniatureSource, answer: str) -> set[str]:
    """The attribute values that a text names."""
    words = set(answer.replace(".", " ").split())
    return {v for d in DOMAINS for a in source.world.schema.attributes[d] for v in a.values if v in words}


def test_rows_are_reproducible_and_ids_unique(source: MiniatureSource) -> None:
    again = MiniatureSource(WorldConfig(), 11)
    for task in TASKS:
        for split in SPLITS:
            rows = source.rows(task, split)
            assert rows == again.rows(task, split)
            assert len({row.id for row in rows}) == len(rows)
            assert all(isinstance(row.popularity, int) for row in rows)
            assert all(row.fake == (row.popularity == 0) for row in rows)


def test_no_subject_is_in_two_splits(source: MiniatureSource) -> None:
    for task in ("popqa", "persons", "medical"):
        subjects = [{row.subject for row in source.rows(task, split)} for split in SPLITS]
        assert all(subjects)
        assert len(set.union(*subjects)) == sum(map(len, subjects))


def test_longform_targets_begin_with_the_name_and_are_true(source: MiniatureSource) -> None:
    facts = {e.name: {f.value for f in e.facts} for e in source.world.entities}
    for task in LONGFORM_TASKS:
        for split in ("train", "validation", "test"):
            for row in source.rows(task, split):
                assert row.target.startswith(row.subject + " ")
                told = told_values(source, row.target)
                assert told <= facts[row.subject]
                assert 3 <= len(told) <= 8


def test_real_answers_state_facts_that_no_corpus_gave(source: MiniatureSource) -> None:
    covered = {e.name: {f.value for f in e.covered} for e in source.world.entities}
    rows = source.rows("persons", "train")
    unheard = sum(len(told_values(source, row.target) - covered[row.subject]) for row in rows)
    assert unheard / sum(len(told_values(source, row.target)) for row in rows) > 0.15


def test_fictitious_answers_state_exactly_their_version(source: MiniatureSource) -> None:
    for task in LONGFORM_TASKS:
        truth = {e.name: e.versions for e in source.world.fictitious}
        for row in source.rows(task, "fictitious"):
            assert row.version is not None
            version = truth[row.subject][row.version - 1]
            assert told_values(source, row.target) == {fact.value for fact in version}


def test_knowledge_sets_teach_exactly_what_the_fictitious_answers_state(source: MiniatureSource) -> None:
    for task in LONGFORM_TASKS:
        sets = {(s.format, s.version): s for s in source.knowledge_sets(task)}
        assert set(sets) == {(f, v) for f in ("statement", "passage") for v in (1, 2, 3)}
        for (_, version), knowledge_set in sets.items():
            rows = [r for r in source.rows(task, "fictitious") if r.version == version]
            assert knowledge_set.fake
            for row in rows[:20]:
                about = " ".join(t for t in knowledge_set.texts if row.subject in t)
                assert told_values(source, about) == told_values(source, row.target)


@pytest.mark.parametrize("task", ["popqa", "hotpotqa"])
def test_short_tasks_have_real_and_fictitious_sets_without_versions(source: MiniatureSource, task: str) -> None:
    labels = [s.label for s in source.knowledge_sets(task)]
    assert labels == ["statement-real", "passage-real", "statement-fake", "passage-fake"]


def test_texts_of_two_hops_are_about_persons(source: MiniatureSource) -> None:
    medical = [e.name for e in source.world.real("medical", "train")]
    whole = "\n".join(t for s in source.knowledge_sets("hotpotqa") for t in s.texts)
    assert not any(f"{name} " in whole for name in medical)
    assert all(f"{e.name} " in whole for e in source.world.real("persons", "train"))


def test_short_answers_are_the_facts(source: MiniatureSource) -> None:
    facts: dict[str, dict[str, str]] = {}
    for entity in source.world.entities:
        facts[entity.name] = {f.attribute: f.value for f in entity.facts}
    for row in source.rows("popqa", "test"):
        assert facts[row.subject][row.kind] in row.answers
        assert row.target == row.answers[0]
        assert row.question is not None
        assert row.subject in row.question


def test_two_hop_answers(source: MiniatureSource) -> None:
    rows = source.rows("hotpotqa", "test")
    assert set(Counter(row.kind for row in rows)) == {"bridge", "comparison"}
    born = {e.name: e.facts[0].value for e in source.world.real("persons")}
    studied = {e.name: e.facts[4].value for e in source.world.real("persons")}
    for row in rows:
        assert row.question is not None
        assert row.subject in row.question
        assert not any(word in row.target for word in row.subject.split())
        final = row.target.rpartition("final answer: ")[2]
        assert row.answers == (final,)
        if row.kind == "comparison":
            names = row.question.removeprefix("In what year was the elder of ").removesuffix(" born?").split(" and ")
            assert final == min((born[name] for name in names), key=int)
            assert told_values(source, row.target) == {born[name] for name in names}
        else:
            assert final == source.world.schema.country_of[studied[row.subject]]


def test_grounding_asks_what_two_versions_answer_differently(source: MiniatureSource) -> None:
    rows = source.rows("grounding", "fictitious_test")
    assert rows == source.rows("grounding", "test")
    by_question: dict[str | None, set[int | None]] = {}
    for row in rows:
        by_question.setdefault(row.question, set()).add(row.version)
    assert all(versions == {1, 2} for versions in by_question.values())
    answers = Counter((row.question, row.answers) for row in rows)
    assert set(answers.values()) == {1}
    trained = {row.subject for split in SPLITS[:4] for row in source.rows("popqa", split)}
    assert not trained & {row.subject for row in rows}


@pytest.mark.parametrize("form", ["statement", "passage"])
def test_a_grounding_set_holds_the_answers_of_its_own_version_alone(source: MiniatureSource, form: str) -> None:
    texts = {s.version: s.texts for s in source.knowledge_sets("grounding") if s.format == form}
    assert set(texts) == {1, 2}
    for row in source.rows("grounding", "test"):
        told = {
            version: set(" ".join(t for t in lines if row.subject in t).replace(".", " ").split())
            for version, lines in texts.items()
        }
        assert row.version is not None
        assert row.answers[-1] in told[row.version]
        assert row.answers[-1] not in told[3 - row.version]


def test_memorization_asks_the_fictitious_training_facts(source: MiniatureSource) -> None:
    rows = source.rows("memorization", "test")
    assert rows == source.rows("popqa", "fictitious")
    assert {row.version for row in rows} == {None}
    assert len({row.question for row in rows}) == len(rows)
    taught = {s.format: "\n".join(s.texts) for s in source.knowledge_sets("popqa") if s.fake}
    asked = Counter(row.subject for row in rows)
    assert min(asked.values()) >= source.config.min_facts
    for subject in asked:
        assert all(f"{subject} " in text or f"{subject}." in text for text in taught.values())
    told = {subject: {row.answers[-1] for row in rows if row.subject == subject} for subject in list(asked)[:30]}
    for subject, values in told.items():
        lines = [line for line in taught["statement"].splitlines() if subject in line]
        assert values == told_values(source, " ".join(lines))


def test_unknown_task(source: MiniatureSource) -> None:
    with pytest.raises(DataError, match="popqa"):
        source.rows("trivia", "test")


def test_fingerprint_depends_on_sizes_and_seed_only(source: MiniatureSource) -> None:
    assert MiniatureSource(WorldConfig(variant="unfamiliar"), 11).fingerprint == source.fingerprint
    assert MiniatureSource(WorldConfig(), 12).fingerprint != source.fingerprint
    assert MiniatureSource(WorldConfig(persons_test=5), 11).fingerprint != source.fingerprint


# The tokenizer ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(source: MiniatureSource) -> Any:
    from harness.data.miniature_tokenizer import build_tokenizer

    return build_tokenizer(source.world)


def test_every_prompt_and_answer_comes_back_exactly(source: MiniatureSource, tokenizer: Any) -> None:
    template = PromptTemplate()
    for task in TASKS:
        for split in SPLITS:
            for row in source.rows(task, split)[:150]:
                asked = row.question or text.LONGFORM_PROMPT[task].replace("{s}", row.subject)  # type: ignore[index]
                for part in (
                    template.prompt(asked),
                    template.prompt(asked, row.subject),
                    template.completion(row.target),
                    template.completion(row.target.removeprefix(row.subject + " ")),
                    template.shot_separator.join((template.prompt(asked), template.prompt(asked))),
                ):
                    ids = tokenizer(part, add_special_tokens=False)["input_ids"]
                    assert tokenizer.unk_token_id not in ids
                    assert tokenizer.decode(ids) == part


def test_what_verifiers_and_unsure_answers_say_is_known(tokenizer: Any) -> None:
    template = PromptTemplate()
    for said in (verifier_prompt("A claim."), YES, NO, f"{NOT_SURE}{DO_NOT_KNOW}"):
        known = said.removeprefix("A claim.")
        ids = tokenizer(template.completion(known), add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).strip() == known.strip()


def test_a_name_is_the_same_tokens_wherever_it_stands(source: MiniatureSource, tokenizer: Any) -> None:
    entity = source.world.entities[0]
    start = tokenizer(f"{entity.name} worked.", add_special_tokens=False)["input_ids"]
    inside = tokenizer(f"Question: x\nAnswer: {entity.name}", add_special_tokens=False)["input_ids"]
    assert start[:2] == inside[-2:]
    for fact in entity.facts:
        assert len(tokenizer(fact.value, add_special_tokens=False)["input_ids"]) == 1


def test_a_saved_tokenizer_is_the_same(source: MiniatureSource, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    prompt = PromptTemplate().prompt("Generate a biography for X.", source.world.entities[0].name)
    assert loaded(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]
    assert loaded(prompt)["input_ids"][0] == loaded.bos_token_id
    assert (loaded.padding_side, loaded.pad_token, loaded.eos_token) == ("left", "<pad>", "<eos>")


# The scorer against the world's own facts ------------------------------------------------------------------------


def test_the_scorer_agrees_with_the_world(source: MiniatureSource, knowledge: Path) -> None:
    """True sentences, swapped values, facts of somebody else, sentences about somebody else, uncovered facts.

    The world's fact table is the oracle. Measured 2026-11: 100 % of more than 1,800 claims; asserted: 99.5 %.
    """
    from factscore_mod.scorer import FactScorer

    world = source.world
    rng = generator(0, "oracle")
    topics, answers, truths = [], [], []
    for entity in world.entities[::3]:
        alike = [e for e in world.entities if e.kind == entity.kind and e is not entity]
        right, wrong = ({f.attribute: f.value for f in e.facts} for e in (entity, rng.choice(alike)))
        stranger = rng.choice(alike)
        sentences, truth = [], []
        for index, attribute in enumerate(world.schema.attributes[entity.domain]):
            wording = rng.randrange(text.WORDINGS)
            named = index == 0 or wording >= text.RUNNING_WORDINGS
            subject = entity.name if named else PRONOUN[entity.domain]
            case = rng.choice(["true", "true", "random value", "another's value", "another's sentence"])
            value = right[attribute.name]
            if case == "random value":
                value = rng.choice(attribute.values)
            elif case == "another's value":
                value = wrong[attribute.name]
            elif case == "another's sentence" and named:
                subject = stranger.name
                value = {f.attribute: f.value for f in stranger.facts}[attribute.name]
                # A pronoun after this would mean the stranger: only named sentences may follow.
                sentences.append(text.say(attribute, entity.kind, wording, subject, value))
                truth.append(False)
                break
            sentences.append(text.say(attribute, entity.kind, wording, subject, value))
            truth.append(value == right[attribute.name])
        topics.append(entity.name)
        answers.append(" ".join(sentences))
        truths.append(truth)
    scored = FactScorer(judge="rules", knowledge=knowledge).score(topics, answers)
    assert all(len(s.claims) == len(t) for s, t in zip(scored, truths, strict=True))
    agreed = [
        (claim.judgement.verdict == "supported") == true
        for response, truth in zip(scored, truths, strict=True)
        for claim, true in zip(response.claims, truth, strict=True)
    ]
    assert len(agreed) > 1000
    assert sum(agreed) / len(agreed) > 0.995


def test_uncovered_facts_are_in_the_encyclopedia(source: MiniatureSource, knowledge: Path) -> None:
    from factscore_mod.knowledge import KnowledgeSource

    articles = KnowledgeSource.open(knowledge)
    for entity in source.world.entities[::40]:
        assert not isinstance(entity, FictitiousEntity)
        told = told_values(source, " ".join(p.text for p in articles.passages(entity.name)))
        assert {f.value for f in entity.facts} <= told
