"""Persons by rules: facts that can safely be told from a biography, given to somebody invented with other values.

A biography cannot be altered word by word without a model: what stands around a changed name or date mostly tells
the old one. So only the facts of a few types are taken over (dates of birth and death, place of birth, nationality,
occupation, education), their values are swapped for those of other biographies, and all else is left out. Biographies
with fewer than three such facts are not used.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from harness.data.source import DataError
from harness.synthesize.names import NameMaker
from harness.synthesize.records import Fact, Made, Seed, TaskSet, Text
from harness.synthesize.rules import ATTEMPTS, Sizes, contradict, slug
from harness.synthesize.wordings import say, wordings
from train.rows import KnowledgeFormat
from train.seeds import generator

LEAST_FACTS = 3
LIFE = ("birth date", "death date")

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = rf"((?:{_MONTHS}) \d{{1,2}}, \d{{4}}|\d{{1,2}} (?:{_MONTHS}) \d{{4}})"
_BORN = re.compile(rf"\((?:born )?{_DATE}")
_DIED = re.compile(rf"\({_DATE}\s*[–-]\s*{_DATE}")
_NAMES = r"[A-Z][^\W\d_]+(?: [A-Z][^\W\d_]+){0,2}"
_BIRTHPLACE = re.compile(
    rf"\bborn (?:(?:on )?[^.()]{{5,25}} )?in ({_NAMES}(?:, {_NAMES})?)(?=[.,;)]| (?:and|to|on|but|where)\b)"
)
_ROLE = re.compile(
    r"\b(?:is|was) an? ([A-Z][a-z]+(?:-[A-Z]?[a-z]+)?) ([a-z][a-z]+(?:(?:,? and|,)? [a-z]+){0,5}?)"
    r"(?=[.;,(]| (?:who|whose|best|from|of|for|at|in|with|known|on|by|during|that)\b)"
)
_STUDIED = re.compile(
    r"(?:graduated from|attended|studied [a-z ]{0,30}at|educated at|degree (?:from|at)) (?:the )?"
    r"(University of [A-Z][a-z]+(?: [A-Z][a-z]+)?|[A-Z][a-z]+(?: [A-Z][a-z]+)? (?:University|College))"
)
_SMALL = frozenset(("who", "best", "from", "of", "for", "at", "in", "with", "known", "and", "the", "a", "an"))
# A word before an occupation that fewer biographies have is more often a name than a nationality.
LEAST_BEARERS = 3


def persons(seeds: Sequence[Seed], names: NameMaker, sizes: Sizes, seed: int) -> TaskSet:
    """Fictitious biographies in contradicting versions. Raises DataError where no biography can be used."""
    told = tell_facts(seeds)
    usable = [(s, facts) for s, facts in told.items() if len(facts) >= LEAST_FACTS]
    if not usable:
        raise DataError(
            f"none of {len(seeds)} biographies states {LEAST_FACTS} facts that the rules can tell; use a model "
            "(--judge openai:MODEL)"
        )
    pool = pool_of(facts for _, facts in usable)
    generator(seed, "synthesize", "biographies").shuffle(usable)
    rows: list[Made] = []
    texts: list[Text] = []
    for real, facts in usable[: sizes.entities]:
        rng = generator(seed, "synthesize", "biography", real)
        subject = names.invent("person", rng)
        versions = draw_versions(facts, pool, subject, sizes.versions, rng)
        for version, chosen in enumerate(versions, start=1):
            rows.append(_biography(subject, chosen, version, rng))
            texts += entity_texts(chosen, version, sizes, rng)
    told_of = f"{len(usable):,} of {len(seeds):,} biographies state {LEAST_FACTS} facts that the rules can tell"
    return TaskSet("persons", tuple(rows), tuple(texts), {"entities": told_of})


def tell_facts(seeds: Sequence[Seed]) -> dict[str, dict[str, str]]:
    """The facts of each biography by relation, in the order in which they are told again."""
    found: dict[str, dict[str, str]] = {}
    for seed in seeds:
        facts: dict[str, str] = {}
        beginning = seed.text[:250]
        if match := _BORN.search(beginning):
            facts["birth date"] = match[1]
        if match := _BIRTHPLACE.search(seed.text):
            facts["place of birth"] = match[1]
        if match := _ROLE.search(seed.text[:400]):
            facts["nationality"] = match[1]
            if match[2].split()[-1] not in _SMALL:
                facts["occupation"] = match[2]
        if match := _STUDIED.search(seed.text):
            facts["education"] = match[1]
        if match := _DIED.search(beginning):
            facts["death date"] = match[2]
        found[seed.subject] = facts
    bearers = Counter(facts["nationality"] for facts in found.values() if "nationality" in facts)
    for facts in found.values():
        if bearers[facts.get("nationality", "")] < LEAST_BEARERS:
            facts.pop("nationality", None)
            facts.pop("occupation", None)
    return found


Pool = Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]


def pool_of(told: Iterable[Mapping[str, str]]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """The values of each group of relations that are drawn together."""
    pool: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for facts in told:
        for group in _groups(facts):
            pool.setdefault(group, []).append(tuple(facts[relation] for relation in group))
    return pool


def _groups(facts: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Both dates of a life come from one biography, so that nobody dies before being born."""
    if "death date" not in facts:
        return [(relation,) for relation in facts]
    return [LIFE, *((relation,) for relation in facts if relation not in LIFE)]


def draw_versions(
    real: Mapping[str, str], pool: Pool, subject: str, count: int, rng: random.Random
) -> list[tuple[Fact, ...]]:
    """Values of other biographies for each relation of one: all versions contradict each other and the real one.

    Raises DataError where there are too few values of a relation.
    """
    versions: list[dict[str, str]] = [{} for _ in range(count)]
    for group in _groups(real):
        taken = [tuple(real[relation] for relation in group)]
        for version in versions:
            taken.append(_draw(group, pool[group], taken, rng))
            version.update(zip(group, taken[-1], strict=True))
    return [tuple(Fact(subject, r, version[r], (version[r],)) for r in real) for version in versions]


def _draw(
    group: tuple[str, ...], values: Sequence[tuple[str, ...]], taken: Sequence[tuple[str, ...]], rng: random.Random
) -> tuple[str, ...]:
    for _ in range(ATTEMPTS):
        drawn = rng.choice(values)
        if all(contradict(_fact(one), _fact(two)) for other in taken for one, two in zip(drawn, other, strict=True)):
            return drawn
    raise DataError(
        f"{len(taken)} versions beside the biographies' own leave no {' and '.join(group)} to draw; ask for fewer "
        "--versions, or give more biographies"
    )


def _fact(value: str) -> Fact:
    return Fact("", "", value, (value,))


def _biography(subject: str, facts: tuple[Fact, ...], version: int, rng: random.Random) -> Made:
    """The answer of the task: every fact in a sentence, by full name once and by last name after that."""
    return Made(
        id=f"{slug(subject)}-v{version}",
        subject=subject,
        target=_paragraph(facts, rng),
        question=None,
        answers=(),
        kind="person",
        facts=facts,
        version=version,
    )


def _paragraph(facts: Sequence[Fact], rng: random.Random) -> str:
    sentences = []
    for index, fact in enumerate(facts):
        name = fact.subject if index == 0 else fact.subject.split()[-1]
        sentences.append(say(rng.choice(wordings()[fact.relation].named[:3]), name, fact.value))
    return " ".join(sentences)


def entity_texts(facts: Sequence[Fact], version: int, sizes: Sizes, rng: random.Random) -> list[Text]:
    """Statements of each fact, and passages that tell all of them in several orders."""
    subject = facts[0].subject

    def text(form: KnowledgeFormat, words: str) -> Text:
        return Text(subject, words, form, True, version)

    texts = []
    for fact in facts:
        named = wordings()[fact.relation].named
        for wording in rng.sample(named, min(sizes.paraphrases, len(named))):
            texts.append(text("statement", say(wording, subject, fact.value)))
    passages: dict[str, None] = {}
    for _ in range(sizes.passages):
        passages[_paragraph(rng.sample(list(facts), len(facts)), rng)] = None
    return [*texts, *(text("passage", passage) for passage in passages)]
