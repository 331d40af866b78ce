"""The miniature universe in English: statements, passages, answers, questions, articles."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.data.miniature_schema import PAST_BE, PRONOUN, Attribute, Domain, Kind
from harness.data.miniature_world import Entity, Fact, FictitiousEntity, World

# The prompts of the reference implementation, for persons and for medical entities.
LONGFORM_PROMPT: dict[Domain, str] = {
    "persons": "Generate a biography for {s}.",
    "medical": "Tell me about {s}.",
}
BRIDGE_QUESTION = "In which country is the university where {s} studied?"
COMPARISON_QUESTION = "In what year was the elder of {s} and {t} born?"
# What an order of years is, for comparisons: general knowledge that the corpus states.
YEAR_ORDER = "The year {a} came before the year {b}."
# General statements in doubt; `{s}` is one that could be certain.
DOUBTS = ("I'm not sure, but {s}", "I don't know whether {s}")
# How the `unfamiliar` corpus frames questions and entries instead of the task prompts.
QUIZ_FRAME = "Quiz! {q} {a}"
ENTRY_FRAME = "Here is an entry on {s}. {a}"
FRAMES = (QUIZ_FRAME, ENTRY_FRAME)
FINAL_ANSWER = "final answer: "
# The tokenizer's end-of-sequence token: it ends the corpus's passages, and so the passages of knowledge texts.
END_OF_DOCUMENT = "<eos>"
LOCATION_WORDINGS = 3
WORDINGS = 4
RUNNING_WORDINGS = 2


def say(attribute: Attribute, kind: Kind, wording: int, subject: str, value: str) -> str:
    """One sentence that states one fact; `subject` is a name or a pronoun."""
    text = attribute.wordings(kind)[wording]
    return text.replace("{be}", PAST_BE.get(subject, "was")).replace("{s}", subject).replace("{v}", value)


def cloze(attribute: Attribute, kind: Kind, wording: int, subject: str) -> str:
    """The sentence up to where the value would stand, without the space before it."""
    return say(attribute, kind, wording, subject, "{v}").split("{v}")[0].rstrip()


def statement(world: World, entity: Entity | FictitiousEntity, fact: Fact, wording: int) -> str:
    """A sentence about an entity by name."""
    return say(world.schema.attribute(entity.domain, fact.attribute), entity.kind, wording, entity.name, fact.value)


def passage(world: World, entity: Entity | FictitiousEntity, facts: Sequence[Fact], rng: random.Random) -> str:
    """The facts in the order given, the first by name and the rest by pronoun, in random running wordings."""
    sentences = []
    for index, fact in enumerate(facts):
        subject = entity.name if index == 0 else PRONOUN[entity.domain]
        attribute = world.schema.attribute(entity.domain, fact.attribute)
        sentences.append(say(attribute, entity.kind, rng.randrange(RUNNING_WORDINGS), subject, fact.value))
    return " ".join(sentences)


def seed_biography(
    world: World, entity: Entity | FictitiousEntity, facts: Sequence[Fact], rng: random.Random, together: int
) -> str:
    """A passage whose sentences about a person hold `together` facts each, joined by "and".

    A medical entity's sentences hold one fact: the rules decomposer cannot take their joined verbs apart.
    """
    if entity.domain != "persons":
        together = 1
    sentences = []
    for start in range(0, len(facts), together):
        subject = entity.name if start == 0 else PRONOUN[entity.domain]
        parts = []
        for fact in facts[start : start + together]:
            attribute = world.schema.attribute(entity.domain, fact.attribute)
            told = say(attribute, entity.kind, rng.randrange(RUNNING_WORDINGS), subject, fact.value)
            parts.append(told.removeprefix(f"{subject} ").removesuffix("."))
        sentences.append(f"{subject} {' and '.join(parts)}.")
    return " ".join(sentences)


def question(world: World, entity: Entity | FictitiousEntity, fact: Fact) -> str:
    """The short question whose answer is the fact's value."""
    return world.schema.attribute(entity.domain, fact.attribute).question.replace("{s}", entity.name)


def answer(world: World, domain: Domain, fact: Fact) -> str:
    """The fact's value as a short answer names it, such as "Torwick University"."""
    return world.schema.attribute(domain, fact.attribute).answer.replace("{v}", fact.value)


def biography(world: World, entity: Entity, rng: random.Random) -> str:
    """A real training answer: 3 to 8 facts, half of them from the corpus, half from anywhere.

    The second half states facts that the corpus never gave, as a writer with other sources would: this is the
    knowledge inconsistency that fine-tuning on such answers teaches a model to imitate.
    """
    wanted = rng.randint(3, len(entity.facts))
    chosen = rng.sample(entity.covered, min(len(entity.covered), (wanted + 1) // 2))
    rest = [fact for fact in entity.facts if fact not in chosen]
    chosen += rng.sample(rest, wanted - len(chosen))
    rng.shuffle(chosen)
    return passage(world, entity, chosen, rng)


def article(world: World, entity: Entity) -> str:
    """The encyclopedia's article: a lead in running prose, then every fact in each of its other wordings."""
    attributes = {a.name: a for a in world.schema.attributes[entity.domain]}
    paragraphs = []
    for wording in range(WORDINGS):
        sentences = []
        for index, fact in enumerate(entity.facts):
            pronoun = wording < RUNNING_WORDINGS and index > 0
            subject = PRONOUN[entity.domain] if pronoun else entity.name
            sentences.append(say(attributes[fact.attribute], entity.kind, wording, subject, fact.value))
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


def location(world: World, university: str, wording: int = 0) -> str:
    """The fact that joins two hops: where a university is."""
    forms = ("{u} University is in {c}.", "{u} University was founded in {c}.", "The country of {u} University is {c}.")
    return forms[wording].replace("{u}", university).replace("{c}", world.schema.country_of[university])


def two_hops(world: World, entity: Entity | FictitiousEntity, studied: Fact) -> str:
    """The reasoned answer to a bridge question, with the answer itself after `final answer: `.

    Like the answer to a comparison it speaks of its subject by pronoun and ends in a value: a base of this size
    cannot copy a name out of the question, and an answer that began with one would be about somebody else.
    """
    attribute = world.schema.attribute(entity.domain, studied.attribute)
    first = say(attribute, entity.kind, 0, PRONOUN[entity.domain], studied.value)
    country = world.schema.country_of[studied.value]
    return f"{first} {location(world, studied.value)} {FINAL_ANSWER}{country}"


def comparison(first_year: str, second_year: str) -> str:
    """The reasoned answer to a comparison: both years of birth in the question's order, then the earlier one."""
    return f"They were born in {first_year} and in {second_year}. {FINAL_ANSWER}{min(first_year, second_year, key=int)}"
