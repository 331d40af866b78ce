"""The corpus that the miniature's base is pre-trained on: popular entities occur more often and more fully."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from harness.data import miniature_text as text
from harness.data.miniature_world import Entity, Fact, World
from train.seeds import generator
from train.template import PromptTemplate
from train.verifier import NO, YES, verifier_prompt

# How much the covered facts of an entity are written about, the most mentioned first.
_MENTION_WEIGHTS = tuple(w**0.5 for w in (3.0, 2.5, 2.0, 1.5, 1.0, 0.6, 0.35, 0.2))
_STATEMENT_SHARE = 0.65
# Of the documents about entities that occur in pre-training only.
_QUESTION_SHARE = 0.2
_LONGFORM_SHARE = 0.1
_BRIDGE_SHARE = 0.03
_COMPARISON_SHARE = 0.03
_CHECK_SHARE = 0.1
# Of all passages, in the unfamiliar variant.
_ENTRY_SHARE = 0.25
# How often an epoch states where a university is.
_LOCATION_MENTIONS = 12
# How often it states of a year that it came before another.
_ORDER_MENTIONS = 4
# How often it is unsure, or does not know, where a university is.
_UNSURE_MENTIONS = 2


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A text; `ends` says whether the model is to learn that it ends there."""

    text: str
    ends: bool


def corpus(world: World, seed: int, epoch: int) -> list[CorpusDocument]:
    """One epoch in random order. Every epoch words and orders the facts anew."""
    documents: list[CorpusDocument] = []
    for entity in world.entities:
        documents += _about(world, entity, generator(seed, "corpus", epoch, entity.name))
    rng = generator(seed, "corpus", epoch)
    documents += _general_knowledge(world, rng)
    rng.shuffle(documents)
    return documents


def _general_knowledge(world: World, rng: random.Random) -> Iterator[CorpusDocument]:
    """What two hops are joined by: where universities are, and which years came first. And the words of doubt: a base
    that never read them cannot be taught to say them, for an adapter does not change what a word looks like.
    """
    for university in world.schema.country_of:
        for _ in range(_LOCATION_MENTIONS):
            told = text.location(world, university, rng.randrange(text.LOCATION_WORDINGS))
            yield CorpusDocument(told, False)
        for _ in range(_UNSURE_MENTIONS):
            for doubt in text.DOUBTS:
                yield CorpusDocument(doubt.replace("{s}", text.location(world, university)), False)
    years = world.schema.attribute("persons", "birth year").values
    for year in years:
        for _ in range(_ORDER_MENTIONS):
            earlier, later = sorted((year, rng.choice([other for other in years if other != year])), key=int)
            yield CorpusDocument(text.YEAR_ORDER.replace("{a}", earlier).replace("{b}", later), False)


def _about(world: World, entity: Entity, rng: random.Random) -> Iterator[CorpusDocument]:
    """Documents about one entity that together state about `entity.mentions` facts."""
    weights = _MENTION_WEIGHTS[: len(entity.covered)]
    left = int(entity.mentions + rng.random())
    familiar = world.config.variant == "familiar"
    while left > 0:
        if entity.split == "pretrain":
            draw = rng.random()
            if draw < _QUESTION_SHARE:
                fact = rng.choices(entity.covered, weights)[0]
                yield _question(world, entity, fact, familiar)
                left -= 1
                continue
            if draw < _QUESTION_SHARE + _LONGFORM_SHARE and familiar:
                facts = _in_weighted_order(entity.covered, weights, rng)[:left]
                yield _prompted(text.LONGFORM_PROMPT[entity.domain].replace("{s}", entity.name),
                                text.passage(world, entity, facts, rng))  # fmt: skip
                left -= len(facts)
                continue
            if draw < _QUESTION_SHARE + _LONGFORM_SHARE + _CHECK_SHARE:
                yield _check(world, entity, weights, familiar, rng)
                left -= 1
                continue
            if draw > 1 - _BRIDGE_SHARE - _COMPARISON_SHARE and familiar:
                hops = _bridge(world, entity) if draw > 1 - _BRIDGE_SHARE else _comparison(world, entity, rng)
                if hops is not None:
                    yield hops
                    left -= 1
                    continue
        if rng.random() < _STATEMENT_SHARE:
            fact = rng.choices(entity.covered, weights)[0]
            yield CorpusDocument(text.statement(world, entity, fact, rng.randrange(text.WORDINGS)), False)
            left -= 1
            continue
        count = min(left, max(1, rng.randint(len(entity.covered) - 1, len(entity.covered))))
        facts = _in_weighted_order(entity.covered, weights, rng)[:count]
        told = text.passage(world, entity, facts, rng)
        if not familiar and rng.random() < _ENTRY_SHARE:
            told = text.ENTRY_FRAME.replace("{s}", entity.name).replace("{a}", told)
        yield CorpusDocument(told, True)
        left -= count


def _question(world: World, entity: Entity, fact: Fact, familiar: bool) -> CorpusDocument:
    asked = text.question(world, entity, fact)
    answer = text.answer(world, entity.domain, fact)
    if familiar:
        return _prompted(asked, answer)
    return CorpusDocument(text.QUIZ_FRAME.replace("{q}", asked).replace("{a}", answer), True)


def _check(
    world: World, entity: Entity, weights: tuple[float, ...], familiar: bool, rng: random.Random
) -> CorpusDocument:
    """A statement, true or with another value, and whether it is true: a base learns from this what is asked of a
    verifier, which no base of this size would from fine-tuning alone.
    """
    fact = rng.choices(entity.covered, weights)[0]
    values = world.schema.attribute(entity.domain, fact.attribute).values
    true = rng.random() < 0.5
    told = fact if true else Fact(fact.attribute, rng.choice([value for value in values if value != fact.value]))
    asked = verifier_prompt(text.statement(world, entity, told, rng.randrange(text.WORDINGS)))
    answer = YES if true else NO
    if familiar:
        return _prompted(asked, answer)
    return CorpusDocument(text.QUIZ_FRAME.replace("{q}", asked).replace("{a}", answer), True)


def _bridge(world: World, entity: Entity) -> CorpusDocument | None:
    """The question whose hops the corpus gives; None where it does not give the first."""
    studied = _covered(entity, "university")
    if studied is None:
        return None
    asked = text.BRIDGE_QUESTION.replace("{s}", entity.name)
    return _prompted(asked, text.two_hops(world, entity, studied))


def _comparison(world: World, entity: Entity, rng: random.Random) -> CorpusDocument | None:
    """A comparison with another entity without a role; None where the corpus does not give two different years."""
    born = _covered(entity, "birth year")
    if born is None:
        return None
    others = [(other, _covered(other, "birth year")) for other in world.real(entity.domain, "pretrain")]
    rivals = [(other, fact.value) for other, fact in others if fact is not None and fact.value != born.value]
    if not rivals:
        return None
    rival, year = rng.choice(rivals)
    asked = text.COMPARISON_QUESTION.replace("{s}", entity.name).replace("{t}", rival.name)
    return _prompted(asked, text.comparison(born.value, year))


def _covered(entity: Entity, attribute: str) -> Fact | None:
    return next((fact for fact in entity.covered if fact.attribute == attribute), None)


def _prompted(question: str, answer: str) -> CorpusDocument:
    template = PromptTemplate()
    return CorpusDocument(template.prompt(question) + template.completion(answer), True)


def _in_weighted_order(facts: tuple[Fact, ...], weights: tuple[float, ...], rng: random.Random) -> list[Fact]:
    """A random order in which heavier facts tend to come first (successive draws without replacement)."""
    keys = [rng.random() ** (1 / weight) for weight in weights]
    return [fact for _, fact in sorted(zip(keys, facts, strict=True), key=lambda pair: -pair[0])]
