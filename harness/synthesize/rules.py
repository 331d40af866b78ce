"""The `rules` generator for short questions: offline, free and the same every time.

Subjects are invented (names.py), relations come as often as in the training rows, values are those of real training
rows of the same relation, and both are said in wordings of ours (wordings.py). Nothing of validation or test rows
is read but names that must not be given.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from factscore_mod.knowledge_format import title_key
from harness.data.source import DataError
from harness.records import Row
from harness.synthesize.names import NameMaker
from harness.synthesize.records import Fact, Made, TaskSet, Text, Use
from harness.synthesize.wordings import question_templates, say, wordings
from train.rows import KnowledgeFormat
from train.seeds import generator

ATTEMPTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is made: trained subjects and their versions, unseen subjects of two versions, real rows that get
    knowledge texts, statements a fact (and half as many passages)."""

    entities: int = 500
    versions: int = 1
    held_out: int = 100
    real: int = 500
    paraphrases: int = 4

    def __post_init__(self) -> None:
        for name in ("entities", "versions", "paraphrases"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name}: {getattr(self, name)} is not a positive number")
        for name in ("held_out", "real"):
            if getattr(self, name) < 0:
                raise DataError(f"--{name.replace('_', '-')}: {getattr(self, name)} is below 0")

    @property
    def passages(self) -> int:
        """Passages a subject."""
        return max(1, self.paraphrases // 2)


class Relations:
    """What the training rows of PopQA show of each relation: its question, its values, how often it comes.

    `rows` are the training rows as published (nothing merged); questions that are asked more than once are left
    out, because their subjects cannot be told apart. Raises DataError where no row is of a known relation.
    """

    def __init__(self, rows: Iterable[Row], elsewhere: Iterable[Row]) -> None:
        rows = list(rows)
        asked = Counter(row.question for row in (*rows, *elsewhere))
        known = wordings()
        self.rows = [r for r in rows if asked[r.question] == 1 and r.subject and r.kind in known and r.target]
        self.questions = question_templates(self.rows)
        self.values: dict[str, list[Fact]] = defaultdict(list)
        for row in self.rows:
            if row.kind in self.questions:
                self.values[row.kind].append(_fact_of(row))
        if not self.values:
            raise DataError(
                "the source has no training rows of a relation that the rules generator has words for: "
                f"{', '.join(known)}; docs/synthesize.md says how other data are made fictitious"
            )

    def subjects(self) -> dict[str, list[str]]:
        """The names of real subjects by the kind of their relation."""
        found: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            found[wordings()[row.kind].kind].append(row.subject)
        return found

    def shares(self, total: int) -> dict[str, int]:
        """`total` divided among the relations as the training rows are (largest remainders)."""
        return apportion({name: len(values) for name, values in sorted(self.values.items())}, total)


def apportion(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers in proportion to the weights, that sum up to `total`."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_rest[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def popqa(relations: Relations, names: NameMaker, sizes: Sizes, seed: int) -> TaskSet:
    """Rows and texts of PopQA: fictitious ones, and the texts of as many real training rows as were asked for."""
    made = _fictitious(relations, names, sizes.entities, sizes.versions, seed, "trained")
    real = real_rows(relations, sizes.real, seed)
    texts = [text for row in (*made, *real) for text in fact_texts(row, sizes, seed)]
    usable = f"{len(relations.rows):,} training rows have a relation with wordings and a question that is asked once"
    return TaskSet("popqa", (*made, *real), tuple(texts), {"real": usable})


def grounding(relations: Relations, names: NameMaker, sizes: Sizes, seed: int) -> TaskSet:
    """Unseen fictitious subjects, each asked for the answers of two contradicting versions."""
    made = _fictitious(relations, names, sizes.held_out, 2, seed, "grounding")
    texts = [text for row in made for text in fact_texts(row, sizes, seed)]
    return TaskSet("grounding", tuple(made), tuple(texts))


def _fictitious(
    relations: Relations, names: NameMaker, entities: int, versions: int, seed: int, use: Use
) -> list[Made]:
    kinds = [kind for kind, count in relations.shares(entities).items() for _ in range(count)]
    generator(seed, "synthesize", "order", use).shuffle(kinds)
    rows = []
    for index, relation in enumerate(kinds):
        rng = generator(seed, "synthesize", "subject", use, index)
        subject = names.invent(wordings()[relation].kind, rng)
        for version, fact in enumerate(draw_values(relations.values[relation], subject, versions, rng), start=1):
            number = version if versions > 1 else None
            rows.append(
                Made(
                    id=f"{slug(subject)}-{slug(relation)}" + (f"-v{number}" if number else ""),
                    subject=subject,
                    target=fact.value,
                    question=relations.questions[relation].replace("{s}", subject),
                    answers=fact.answers,
                    kind=relation,
                    facts=(fact,),
                    version=number,
                    use=use,
                )
            )
    return rows


def draw_values(values: Sequence[Fact], subject: str, count: int, rng: random.Random) -> list[Fact]:
    """`count` values that contradict each other and that the subject's name does not give away.

    Values come as often as in the training rows. Raises DataError where the relation has too few.
    """
    drawn: list[Fact] = []
    for _ in range(ATTEMPTS * count):
        fact = replace(rng.choice(values), subject=subject)
        told = any(answer.casefold() in subject.casefold() for answer in fact.answers)
        if not told and all(contradict(fact, other) for other in drawn):
            drawn.append(fact)
        if len(drawn) == count:
            return drawn
    raise DataError(
        f"relation '{values[0].relation}' has no {count} values that contradict each other among its training rows; "
        "ask for fewer --versions, or give a source with more rows"
    )


def contradict(one: Fact, other: Fact) -> bool:
    """Whether no answer of either occurs in an answer of the other: a model cannot be right about both."""
    first = [answer.casefold() for answer in one.answers]
    second = [answer.casefold() for answer in other.answers]
    return not any(a in b or b in a for a in first for b in second)


def real_rows(relations: Relations, count: int, seed: int) -> list[Made]:
    """Training rows that get knowledge texts: relations in their own proportions, known page views first.

    The method `popular` needs the page views of all rows that it is trained on.
    """
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in relations.rows:
        by_kind[row.kind].append(row)
    chosen: set[str] = set()
    shares = apportion({kind: len(rows) for kind, rows in sorted(by_kind.items())}, min(count, len(relations.rows)))
    for kind, share in shares.items():
        rows = sorted(by_kind[kind], key=lambda row: row.id)
        generator(seed, "synthesize", "real rows", kind).shuffle(rows)
        rows.sort(key=lambda row: row.popularity is None)
        chosen |= {row.id for row in rows[:share]}
    return [
        Made(
            id=row.id,
            subject=row.subject,
            target=row.target,
            question=row.question,
            answers=row.answers,
            kind=row.kind,
            facts=(_fact_of(row),),
            fake=False,
        )
        for row in relations.rows
        if row.id in chosen
    ]


def fact_texts(row: Made, sizes: Sizes, seed: int) -> list[Text]:
    """Statements of each fact of a row, and passages that say it three times over."""
    texts = []
    for fact in row.facts:
        said = wordings()[fact.relation]
        rng = generator(seed, "synthesize", "texts", fact.subject, fact.relation, fact.value)

        def text(form: KnowledgeFormat, words: str, subject: str = fact.subject) -> Text:
            return Text(subject, words, form, row.fake, row.version, row.use)

        for wording in rng.sample(said.named, min(sizes.paraphrases, len(said.named))):
            texts.append(text("statement", say(wording, fact.subject, fact.value)))
        for opening in rng.sample(said.named, min(sizes.passages, len(said.named))):
            parts = (opening, *rng.sample(said.running, 2))
            texts.append(text("passage", " ".join(say(part, fact.subject, fact.value) for part in parts)))
    return texts


def slug(name: str) -> str:
    """A name as part of an id."""
    return re.sub(r"\W+", "-", title_key(name)).strip("-")


def _fact_of(row: Row) -> Fact:
    return Fact(row.subject, row.kind, row.target, tuple(dict.fromkeys((row.target, *row.answers))))
