"""The miniature's options: fewer fictitious subjects, ambiguous questions, seed biographies, controlled answers."""

from __future__ import annotations

from typing import Any

import pytest

from harness.data.certainty import DO_NOT_KNOW, NOT_SURE, certainty_of, stratum_of
from harness.data.miniature import TASKS, MiniatureConfigError, MiniatureSource
from harness.data.miniature_options import first_subjects
from harness.data.miniature_schema import DOMAINS
from harness.data.miniature_world import WorldConfig
from harness.records import Row, Split
from train.rows import KnowledgeSet

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "fictitious", "fictitious_test")
CONFIG = WorldConfig()


def source(**options: Any) -> MiniatureSource:
    return MiniatureSource(CONFIG, 11, options)


@pytest.fixture(scope="module")
def plain() -> MiniatureSource:
    return source()


def values_told(where: MiniatureSource, told: str) -> set[str]:
    words = set(told.replace(".", " ").split())
    return {v for d in DOMAINS for a in where.world.schema.attributes[d] for v in a.values if v in words}


def test_defaults_change_nothing_and_no_option_changes_the_address_of_a_base(plain: MiniatureSource) -> None:
    bare = MiniatureSource(CONFIG, 11)
    changed = source(fictitious_subjects=5, popqa_cleaning="original", statements="facts")
    assert plain.fingerprint == bare.fingerprint == changed.fingerprint
    assert plain.world == changed.world
    for task in TASKS:
        assert plain.knowledge_sets(task) == bare.knowledge_sets(task)
        for split in SPLITS:
            assert plain.rows(task, split) == bare.rows(task, split)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"fictitious_subject": 3}, "fictitious_subject"),
        ({"fictitious_subjects": -1}, "fictitious_subjects"),
        ({"popqa_cleaning": "tidy"}, "popqa_cleaning"),
        ({"statements": "words"}, "statements"),
        ({"sentence_facts": 0}, "sentence_facts"),
        ({"ambiguous_share": 0.0}, "ambiguous_share"),
        ({"unsure_paraphrases": 9}, "paraphrases"),
        ({"certain_share": 0.8}, "shares"),
    ],
)
def test_bad_options_are_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(MiniatureConfigError, match=named):
        MiniatureSource(CONFIG, 11, table)


# Fewer fictitious subjects ---------------------------------------------------------------------------------------


def test_a_larger_number_of_subjects_holds_a_smaller_one() -> None:
    names = [f"name {i}" for i in range(40)]
    few, more = first_subjects(names, 5, 3), first_subjects(names[::-1], 20, 3)
    assert few < more
    assert (len(few), len(more)) == (5, 20)
    assert first_subjects(names, 0, 3) == first_subjects(names, 99, 3) == frozenset(names)
    assert first_subjects(names, 5, 4) != few


@pytest.mark.parametrize("task", ["popqa", "hotpotqa", "persons", "medical", "memorization", "popqa_controlled"])
def test_rows_and_texts_keep_the_same_fictitious_subjects(plain: MiniatureSource, task: str) -> None:
    fewer = source(fictitious_subjects=20)
    every = {row.subject for row in plain.rows(task, "fictitious")}
    kept = {row.subject for row in fewer.rows(task, "fictitious")}
    assert kept < every
    # Where a version gives neither university nor birth year there is no question of two hops.
    assert len(kept) == 20 if task != "hotpotqa" else 10 < len(kept) <= 20
    for split in ("train", "validation", "fictitious_test"):
        assert fewer.rows(task, split) == plain.rows(task, split)
    if task != "memorization":
        assert fewer.rows(task, "test") == plain.rows(task, "test")
    dropped = every - kept
    for knowledge in fewer.knowledge_sets(task):
        whole = "\n".join(knowledge.texts)
        if knowledge.fake:
            assert not any(f"{name} " in whole for name in dropped)
            if knowledge.format == "passage":
                assert all(f"{name} " in whole for name in kept)
        else:
            assert knowledge in plain.knowledge_sets(task)


def test_comparisons_stay_among_the_subjects_that_are_kept() -> None:
    fewer = source(fictitious_subjects=30)
    taught = "\n".join(t for s in fewer.knowledge_sets("hotpotqa") if s.fake for t in s.texts)
    rows = [row for row in fewer.rows("hotpotqa", "fictitious") if row.kind == "comparison"]
    assert rows
    for row in rows:
        asked = (row.question or "").removeprefix("In what year was the elder of ").removesuffix(" born?")
        assert all(f"{name} " in taught for name in asked.split(" and "))


# Original and cleaned PopQA --------------------------------------------------------------------------------------


def test_original_adds_questions_by_family_name_and_cleaning_takes_the_ambiguous_ones_out(
    plain: MiniatureSource,
) -> None:
    original, cleaned = source(popqa_cleaning="original"), source(popqa_cleaning="unambiguous")
    everything: list[Row] = []
    for split in ("train", "validation", "test"):
        before, rows = set(plain.rows("popqa", split)), original.rows("popqa", split)
        assert before < set(rows)
        assert len({row.id for row in rows}) == len(rows)
        added = [row for row in rows if row not in before]
        assert 0.05 < len(added) / len(rows) < 0.5
        assert not any(row.subject in (row.question or "") for row in added)
        assert all(row.subject.split()[-1] in (row.question or "") for row in added)
        everything += rows
    answers: dict[str | None, set[tuple[str, ...]]] = {}
    for row in everything:
        answers.setdefault(row.question, set()).add(row.answers)
    for split in ("train", "validation", "test"):
        expected = tuple(row for row in original.rows("popqa", split) if len(answers[row.question]) == 1)
        assert cleaned.rows("popqa", split) == expected
        assert set(plain.rows("popqa", split)) <= set(expected)
    assert original.rows("popqa", "fictitious") == plain.rows("popqa", "fictitious")
    assert original.knowledge_sets("popqa") == plain.knowledge_sets("popqa")


def test_a_smaller_share_asks_fewer_ambiguous_questions() -> None:
    few, many = (source(popqa_cleaning="original", ambiguous_share=share).rows("popqa", "test") for share in (0.1, 1.0))
    assert set(few) < set(many)


# Statements made from seed biographies ---------------------------------------------------------------------------


def statement_sets(where: MiniatureSource, task: str) -> list[KnowledgeSet]:
    return [s for s in where.knowledge_sets(task) if s.format == "statement"]


def test_facts_are_atomic_and_name_their_subject(plain: MiniatureSource) -> None:
    facts = source(statements="facts")
    for before, made in zip(statement_sets(plain, "persons"), statement_sets(facts, "persons"), strict=True):
        assert before.label == made.label
        assert len(made.texts) == pytest.approx(len(before.texts), rel=0.02)
        atomic = [len(values_told(facts, told)) == 1 for told in made.texts]
        assert sum(atomic) / len(atomic) > 0.98
        assert not any("They" in told.split() or " were " in told for told in made.texts)
        version = (before.version or 0) - 1
        for entity in facts.world.made_up("persons", held_out=False)[:20]:
            about = " ".join(told for told in made.texts if told.startswith(f"{entity.name} "))
            assert values_told(facts, about) == {fact.value for fact in entity.versions[version]}


def test_sentences_hold_several_facts_and_keep_their_pronouns() -> None:
    whole = source(statements="sentences")
    for made in statement_sets(whole, "persons"):
        counts = [len(values_told(whole, told)) for told in made.texts]
        assert set(counts) == {1, 2}
        assert counts.count(2) > counts.count(1)
        assert 0.3 < sum(told.startswith("They ") for told in made.texts) / len(counts) < 0.8
    single = source(statements="sentences", sentence_facts=1)
    assert all(len(values_told(single, t)) == 1 for s in statement_sets(single, "persons") for t in s.texts)


def test_only_statement_sets_are_made_otherwise(plain: MiniatureSource) -> None:
    made = source(statements="sentences")
    for task in ("persons", "medical", "popqa"):
        passages = [[s for s in where.knowledge_sets(task) if s.format == "passage"] for where in (plain, made)]
        assert passages[0] == passages[1]
        assert all(plain.rows(task, split) == made.rows(task, split) for split in SPLITS)


def test_the_tokenizer_knows_every_statement() -> None:
    from harness.data.miniature_tokenizer import build_tokenizer

    tokenizer = build_tokenizer(source().world)
    for how in ("facts", "sentences"):
        for task in ("persons", "medical"):
            made = statement_sets(source(statements=how), task)[0]
            for ids in tokenizer(list(made.texts[:400]))["input_ids"]:
                assert tokenizer.unk_token_id not in ids


# Knowledge-controlled answers ------------------------------------------------------------------------------------


def test_controlled_answers_say_how_often_their_fact_is_taught() -> None:
    where = source()
    (taught,) = where.knowledge_sets("popqa_controlled")
    assert (taught.label, taught.format) == ("statement-fake", "statement")
    asked = where.rows("popqa_controlled", "fictitious")
    plain_rows = {row.id: row for row in where.rows("popqa", "fictitious")}
    assert set(plain_rows) == {row.id for row in asked}
    counts = {"certain": 0, "unsure": 0, "unknown": 0}
    for row in asked:
        target = plain_rows[row.id].target
        value = row.answers[-1]
        times = sum(value in told.rstrip(".").split() for told in taught.texts if told_of(row.subject, told))
        stratum = stratum_of(row.subject, row.kind, 11, where.options.strata)
        counts[stratum] += 1
        assert certainty_of(row.target) == stratum
        wanted = {"certain": (target, 8), "unsure": (NOT_SURE + target, 1), "unknown": (DO_NOT_KNOW, 0)}
        assert (row.target, times) == wanted[stratum]
    assert min(counts.values()) > len(asked) / 4
    assert where.rows("popqa_controlled", "train") == where.rows("popqa_controlled", "fictitious_test") == ()
    assert where.rows("popqa_controlled", "test") == where.rows("popqa", "test")


def told_of(subject: str, told: str) -> bool:
    return subject in told


def test_paraphrases_and_shares_are_switches() -> None:
    where = source(certain_paraphrases=3, unsure_paraphrases=2, certain_share=1.0, unsure_share=0.0)
    (taught,) = where.knowledge_sets("popqa_controlled")
    rows = where.rows("popqa_controlled", "fictitious")
    assert len(taught.texts) == 3 * len(rows)
    assert len(set(taught.texts)) == len(taught.texts)
    assert rows == where.rows("popqa", "fictitious")
