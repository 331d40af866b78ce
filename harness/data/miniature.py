"""The miniature universe as a data source: rows, knowledge texts and an encyclopedia for every task.

source = MiniatureSource(WorldConfig(), seed=0)
source.rows("persons", "train")
source.knowledge_sets("persons")
source.knowledge_source("persons", home)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.data import miniature_text as text
from harness.data.certainty import controlled_rows, controlled_set
from harness.data.cleaning import unambiguous
from harness.data.miniature_options import MiniatureOptions, first_subjects
from harness.data.miniature_schema import DOMAINS, Domain
from harness.data.miniature_world import (
    Entity,
    Fact,
    FictitiousEntity,
    MiniatureConfigError,
    World,
    WorldConfig,
    build_world,
)
from harness.data.source import DataError
from harness.data.statements import HowStated, statements
from harness.records import Row, Split
from train.rows import KnowledgeFormat, KnowledgeSet
from train.seeds import generator

__all__ = ["LONGFORM_TASKS", "TASKS", "MiniatureConfigError", "MiniatureOptions", "MiniatureSource", "WorldConfig"]

LONGFORM_TASKS: tuple[Domain, ...] = DOMAINS
TASKS = ("popqa", "hotpotqa", "persons", "medical", "grounding", "memorization", "popqa_controlled")

# Raise when a change here changes rows or texts of an equal configuration: what was made of the old ones is left alone.
SOURCE_FORMAT = 4


class MiniatureSource:
    """The rows and texts of one world. Implements `harness.data.source.Source`.

    Fictitious rows have popularity 0: nobody looks them up. `grounding` (fictitious test entities; one row for
    each version of a question whose answers differ) and `memorization` (fictitious training facts, version 1)
    give the same rows as `test` as they do as `fictitious_test` and `fictitious`. `popqa_controlled` has PopQA's
    test questions and no real training rows: how certain an answer is to sound is learnt from fictitious facts alone.

    `options` change rows and texts, and leave the world, its base and the fingerprint as they are.
    """

    def __init__(
        self, config: WorldConfig, seed: int, options: MiniatureOptions | Mapping[str, Any] | None = None
    ) -> None:
        self.config = config
        self.seed = seed
        self.options = options if isinstance(options, MiniatureOptions) else MiniatureOptions.from_dict(options or {})
        self.name = f"miniature universe {seed} ({config.variant})"
        # The variant changes the corpus of the base, not one row: adapters made of equal rows differ by their base.
        made_of = {k: v for k, v in config.to_dict().items() if k != "variant"}
        made_of |= {"seed": seed, "format": SOURCE_FORMAT}
        self.fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    @cached_property
    def world(self) -> World:
        """The world itself, built when first needed."""
        return build_world(self.config, self.seed)

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """The rows of one split in a fixed order; empty where there are none. Raises DataError for another task."""
        self._check(task)
        for domain in LONGFORM_TASKS:
            if task == domain:
                return tuple(self._longform(domain, split))
        if task == "popqa":
            return self._popqa(split)
        if task == "hotpotqa":
            return tuple(self._hotpotqa(split))
        if task == "grounding":
            wanted = split in ("test", "fictitious_test")
            return tuple(row for d in DOMAINS for row in self._grounding(d)) if wanted else ()
        if task == "popqa_controlled":
            if split == "fictitious":
                return controlled_rows(self._popqa(split), self.seed, self.options.strata)
            return self._popqa(split) if split in ("validation", "test") else ()
        return self._popqa("fictitious") if split in ("test", "fictitious") else ()

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """Statement and passage sets: one pair a version (long-form, `grounding`), or real and fictitious (QA)."""
        self._check(task)
        formats: tuple[KnowledgeFormat, ...] = ("statement", "passage")
        of_domain = [domain for domain in LONGFORM_TASKS if task == domain]
        if of_domain or task == "grounding":
            held_out = task == "grounding"
            made_up = tuple(e for d in of_domain or DOMAINS for e in self._fictitious(task, d, held_out))
            return tuple(
                KnowledgeSet(form, True, version, self._texts(form, _versions(made_up, version)))
                for version in range(1, (2 if held_out else self.config.versions) + 1)
                for form in formats
            )
        if task == "memorization":
            return ()
        # Questions of two hops are about persons, and so are the texts that teach what they join.
        domains: tuple[Domain, ...] = ("persons",) if task == "hotpotqa" else DOMAINS
        made_up_facts = [pair for d in domains for pair in self._made_up(task, d, held_out=False)]
        if task == "popqa_controlled":
            return (controlled_set(self._paraphrases(made_up_facts), self.seed, self.options.strata),)
        real = [(e, e.facts) for d in domains for e in self.world.real(d, "train")]
        return tuple(
            KnowledgeSet(form, fake, None, self._texts(form, subjects))
            for fake, subjects in ((False, real), (True, made_up_facts))
            for form in formats
        )

    def knowledge_source(self, task: str, home: Path) -> Path:
        """The encyclopedia of this world: one article a real entity. Built under `home` once; all tasks share it."""
        self._check(task)
        from factscore_mod.knowledge_format import FORMAT

        # A file of an older format cannot be read: another name has the new one built beside it.
        path = home / "knowledge" / f"miniature-{self.fingerprint[:16]}-{FORMAT.rsplit(maxsplit=1)[-1]}.sqlite"
        if not path.exists():
            from factscore_mod.knowledge import Document, build

            path.parent.mkdir(parents=True, exist_ok=True)
            build((Document(e.name, text.article(self.world, e)) for e in self.world.entities), path)
        return path

    def _check(self, task: str) -> None:
        if task not in TASKS:
            raise DataError(f"the miniature universe has no task {task!r}; it has {', '.join(TASKS)}")

    # Fictitious subjects -----------------------------------------------------------------------------------------

    def _fictitious(self, task: str, domain: Domain, held_out: bool) -> tuple[FictitiousEntity, ...]:
        """The fictitious entities of a domain that a task has; those for training may be bounded by an option."""
        if held_out:
            return self.world.made_up(domain, held_out=True)
        domains = (domain,) if task in (*LONGFORM_TASKS, "hotpotqa") else DOMAINS
        names = (e.name for d in domains for e in self.world.made_up(d, held_out=False))
        kept = first_subjects(names, self.options.fictitious_subjects, self.seed)
        return tuple(e for e in self.world.made_up(domain, held_out=False) if e.name in kept)

    def _made_up(self, task: str, domain: Domain, held_out: bool) -> list[tuple[FictitiousEntity, tuple[Fact, ...]]]:
        """The fictitious entities of short questions with the facts of their first version."""
        return _versions(self._fictitious(task, domain, held_out), 1)

    # Long-form ---------------------------------------------------------------------------------------------------

    def _longform(self, domain: Domain, split: Split) -> list[Row]:
        if split == "fictitious" or split == "fictitious_test":
            return [
                Row(
                    id=f"{_slug(entity.name)}-v{version}", subject=entity.name,
                    target=text.passage(
                        self.world, entity, facts, generator(self.seed, "fictitious answer", entity.name, version)
                    ),
                    kind=entity.kind, popularity=0, fake=True, version=version,
                )
                for entity in self._fictitious(domain, domain, held_out=split == "fictitious_test")
                for version, facts in enumerate(entity.versions, start=1)
            ]  # fmt: skip
        return [
            Row(
                id=_slug(entity.name), subject=entity.name, kind=entity.kind, popularity=entity.popularity,
                target=text.biography(self.world, entity, generator(self.seed, "answer", entity.name)),
            )
            for entity in self.world.real(domain, split)
        ]  # fmt: skip

    # Short questions ---------------------------------------------------------------------------------------------

    def _popqa(self, split: Split) -> tuple[Row, ...]:
        if split == "fictitious" or split == "fictitious_test":
            made_up = [pair for d in DOMAINS for pair in self._made_up("popqa", d, split == "fictitious_test")]
            return tuple(self._question(e, fact, None) for e, facts in made_up for fact in facts)
        if self.options.popqa_cleaning == "unambiguous":
            return self._unambiguous[split]
        return self._real_popqa(split, self.options.popqa_cleaning == "original")

    @cached_property
    def _unambiguous(self) -> dict[Split, tuple[Row, ...]]:
        splits: tuple[Split, ...] = ("train", "validation", "test")
        return unambiguous({split: self._real_popqa(split, ambiguous=True) for split in splits}).rows

    def _real_popqa(self, split: Split, ambiguous: bool) -> tuple[Row, ...]:
        """Questions by full name and, where asked for, some again by a family name that several entities share."""
        rows = []
        for domain in DOMAINS:
            asked = [e for e in self.world.real(domain) if e.split != "pretrain"]
            bearers = Counter(_family(e.name) for e in asked)
            for entity in (e for e in asked if e.split == split):
                rng = generator(self.seed, "questions", entity.name)
                facts = rng.sample(entity.facts, min(self.config.questions, len(entity.facts)))
                questions = [self._question(entity, fact, None) for fact in facts]
                rows += questions
                family = _family(entity.name)
                if ambiguous and bearers[family] > 1:
                    rows += [self._by_family(row) for row in questions if self._is_ambiguous(domain, family, row.kind)]
        return tuple(rows)

    def _is_ambiguous(self, domain: Domain, family: str, attribute: str) -> bool:
        """Drawn once for all who bear the name, so that they are asked the same."""
        return generator(self.seed, "ambiguous", domain, family, attribute).random() < self.options.ambiguous_share

    def _by_family(self, row: Row) -> Row:
        question = (row.question or "").replace(row.subject, _family(row.subject))
        return replace(row, id=f"{row.id}-family", question=question)

    def _question(self, entity: Entity | FictitiousEntity, fact: Fact, version: int | None) -> Row:
        target = text.answer(self.world, entity.domain, fact)
        fake = isinstance(entity, FictitiousEntity)
        suffix = "" if version is None else f"-v{version}"
        return Row(
            id=f"{_slug(entity.name)}-{_slug(fact.attribute)}{suffix}", subject=entity.name, target=target,
            question=text.question(self.world, entity, fact), answers=tuple(dict.fromkeys((target, fact.value))),
            kind=fact.attribute, popularity=0 if isinstance(entity, FictitiousEntity) else entity.popularity,
            fake=fake, version=version,
        )  # fmt: skip

    def _grounding(self, domain: Domain) -> list[Row]:
        """Questions that versions 1 and 2 answer differently, once for each version."""
        rows = []
        for entity in self.world.made_up(domain, held_out=True):
            if len(entity.versions) < 2:
                continue
            first, second = entity.versions[:2]
            other = {fact.attribute: fact for fact in second}
            for fact in first:
                rival = other.get(fact.attribute)
                if rival is not None and rival.value != fact.value:
                    rows += [self._question(entity, fact, 1), self._question(entity, rival, 2)]
        return rows

    # Two hops ----------------------------------------------------------------------------------------------------

    def _hotpotqa(self, split: Split) -> list[Row]:
        """Bridge questions over universities, and comparisons of birth years, about persons alone."""
        subjects: list[tuple[Entity | FictitiousEntity, tuple[Fact, ...]]]
        if split == "fictitious" or split == "fictitious_test":
            subjects = list(self._made_up("hotpotqa", "persons", split == "fictitious_test"))
        else:
            subjects = [(e, e.facts) for e in self.world.real("persons", split)]
        born = [(e, fact) for e, facts in subjects for fact in facts if fact.attribute == "birth year"]
        rows = []
        for entity, facts in subjects:
            studied = next((fact for fact in facts if fact.attribute == "university"), None)
            year = next((fact for fact in facts if fact.attribute == "birth year"), None)
            if studied is not None:
                rows.append(self._bridge(entity, studied))
            if year is not None and self.config.hotpot_questions > 1:
                rng = generator(self.seed, "comparison", entity.name)
                rivals = [(e, fact) for e, fact in born if fact.value != year.value]
                for rival in rng.sample(rivals, min(self.config.hotpot_questions - 1, len(rivals))):
                    rows.append(self._comparison(entity, year, *rival))
        return rows

    def _bridge(self, entity: Entity | FictitiousEntity, fact: Fact) -> Row:
        country = self.world.schema.country_of[fact.value]
        return Row(
            id=f"{_slug(entity.name)}-bridge", subject=entity.name, kind="bridge", answers=(country,),
            question=text.BRIDGE_QUESTION.replace("{s}", entity.name),
            target=text.two_hops(self.world, entity, fact),
            popularity=_popularity(entity), fake=isinstance(entity, FictitiousEntity),
        )  # fmt: skip

    def _comparison(
        self, entity: Entity | FictitiousEntity, fact: Fact, rival: Entity | FictitiousEntity, rival_fact: Fact
    ) -> Row:
        elder = min(fact.value, rival_fact.value, key=int)
        return Row(
            id=f"{_slug(entity.name)}-{_slug(rival.name)}", subject=entity.name, kind="comparison", answers=(elder,),
            question=text.COMPARISON_QUESTION.replace("{s}", entity.name).replace("{t}", rival.name),
            target=text.comparison(fact.value, rival_fact.value),
            popularity=min(_popularity(entity), _popularity(rival)), fake=isinstance(entity, FictitiousEntity),
        )  # fmt: skip

    # Knowledge texts ---------------------------------------------------------------------------------------------

    def _texts(
        self, form: KnowledgeFormat, subjects: Sequence[tuple[Entity | FictitiousEntity, tuple[Fact, ...]]]
    ) -> tuple[str, ...]:
        """Raw texts: sentences in several wordings, or passages that give all facts in several orders.

        A passage ends as passages of the corpus do. Were its end not marked, its adapter would learn that a
        sentence is always followed by another, and a skill adapter trained over it would learn to undo that.
        """
        texts = []
        for entity, facts in subjects:
            key = "|".join(fact.value for fact in facts)
            rng = generator(self.seed, form, entity.name, key)
            if form == "statement" and self.options.statements != "written":
                texts += self._decomposed(entity, facts, key, self.options.statements)
            elif form == "statement":
                count = min(self.config.statement_wordings, text.WORDINGS)
                for fact in facts:
                    wordings = rng.sample(range(text.WORDINGS), count)
                    texts += [text.statement(self.world, entity, fact, wording) for wording in wordings]
            else:
                for _ in range(self.config.passages):
                    told = text.passage(self.world, entity, rng.sample(facts, len(facts)), rng)
                    texts.append(told + text.END_OF_DOCUMENT)
        return tuple(texts)

    def _decomposed(
        self, entity: Entity | FictitiousEntity, facts: tuple[Fact, ...], key: str, how: HowStated
    ) -> list[str]:
        """The statements of as many seed biographies as there are wordings of a fact otherwise."""
        rng = generator(self.seed, "seed biography", entity.name, key)
        biographies = [
            text.seed_biography(
                self.world, entity, rng.sample(facts, len(facts)), rng, self.options.sentence_facts
            )
            for _ in range(min(self.config.statement_wordings, text.WORDINGS))
        ]  # fmt: skip
        return [told for biography in biographies for told in statements(entity.name, biography, how)]

    def _paraphrases(
        self, subjects: Sequence[tuple[FictitiousEntity, tuple[Fact, ...]]]
    ) -> dict[tuple[str, str], list[str]]:
        """All wordings of each fact, in an order of its own, by subject and attribute."""
        paraphrases = {}
        for entity, facts in subjects:
            for fact in facts:
                rng = generator(self.seed, "paraphrases", entity.name, fact.attribute)
                wordings = rng.sample(range(text.WORDINGS), text.WORDINGS)
                told = [text.statement(self.world, entity, fact, wording) for wording in wordings]
                paraphrases[entity.name, fact.attribute] = told
        return paraphrases


def _family(name: str) -> str:
    return name.split()[-1]


def _versions(made_up: Sequence[FictitiousEntity], version: int) -> list[tuple[FictitiousEntity, tuple[Fact, ...]]]:
    return [(e, e.versions[version - 1]) for e in made_up if version <= len(e.versions)]


def _popularity(entity: Entity | FictitiousEntity) -> int:
    return 0 if isinstance(entity, FictitiousEntity) else entity.popularity


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")
