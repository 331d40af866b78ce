"""HotpotQA by rules: questions whose answer takes two fictitious facts, and the texts of real rows.

Bridges go from a made-up subject to another made-up one and on to a real value; comparisons set two made-up
subjects side by side. They come in the proportion of the published set. Questions are of our own templates: the
published ones are written by people and have none. Answers take the form of the real rows, "final answer: X".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.files import Record, read_jsonl
from harness.data.local import HOTPOTQA_TRAIN
from harness.data.normalise import hotpotqa_kind, hotpotqa_row
from harness.synthesize.names import NameMaker
from harness.synthesize.records import Fact, Made, TaskSet, Text
from harness.synthesize.rules import Relations, Sizes, draw_values, fact_texts, slug
from harness.synthesize.wordings import wordings
from train.seeds import generator

# Of 7,405 questions of the published validation set 1,487 are comparisons.
COMPARISONS = 0.2

# The first relation leads to the second one's subject.
BRIDGES = (
    ("director", "place of birth", "In what city was the director of {s} born?"),
    ("author", "place of birth", "In what city was the author of {s} born?"),
    ("producer", "religion", "What is the religion of the producer of {s}?"),
    ("composer", "father", "Who is the father of the composer of {s}?"),
    ("screenwriter", "mother", "Who is the mother of the screenwriter for {s}?"),
    ("father", "occupation", "What is the occupation of the father of {s}?"),
    ("mother", "place of birth", "In what city was the mother of {s} born?"),
    ("place of birth", "country", "In what country is the city where {s} was born?"),
    ("capital", "country", "In what country is the capital of {s}?"),
)
SAME = (
    ("director", "Were {s} and {t} directed by the same person?"),
    ("author", "Were {s} and {t} written by the same author?"),
    ("place of birth", "Were {s} and {t} born in the same city?"),
    ("country", "Are {s} and {t} in the same country?"),
)
WHICH = (
    ("director", "Which one was directed by {v}, {s} or {t}?"),
    ("author", "Which one was written by {v}, {s} or {t}?"),
    ("place of birth", "Who was born in {v}, {s} or {t}?"),
    ("capital", "Which one has {v} as its capital, {s} or {t}?"),
)


@dataclass(frozen=True, slots=True)
class _Maker:
    relations: Relations
    names: NameMaker

    def fact(self, subject: str, relation: str, rng: random.Random) -> Fact:
        return draw_values(self.relations.values[relation], subject, 1, rng)[0]

    def has(self, *relations: str) -> bool:
        return all(self.relations.values.get(relation) for relation in relations)

    def invent(self, relation: str, rng: random.Random) -> str:
        return self.names.invent(wordings()[relation].kind, rng)


def hotpotqa(folder: Path, relations: Relations, names: NameMaker, sizes: Sizes, seed: int) -> TaskSet:
    """Rows and texts of HotpotQA. With several versions there are bridges alone."""
    maker = _Maker(relations, names)
    comparisons = round(COMPARISONS * sizes.entities) if sizes.versions == 1 else 0
    rows: list[Made] = []
    for index in range(sizes.entities):
        rng = generator(seed, "synthesize", "two hops", index)
        rows += _comparison(maker, rng) if index < comparisons else _bridge(maker, sizes.versions, rng)
    texts = [text for row in rows for text in fact_texts(row, sizes, seed)]
    real = _real(folder, sizes.real, seed)
    return TaskSet(
        "hotpotqa",
        (*rows, *(row for row, _ in real)),
        (*dict.fromkeys(texts), *dict.fromkeys(text for _, told in real for text in told)),
        {"real": f"{len(real):,} training rows of the source have paragraphs"},
    )


def _bridge(maker: _Maker, versions: int, rng: random.Random) -> list[Made]:
    first, second, question = rng.choice([bridge for bridge in BRIDGES if maker.has(bridge[1])])
    subject = maker.invent(first, rng)
    rows: list[Made] = []
    values = draw_values(maker.relations.values[second], subject, versions, rng)
    for version, value in enumerate(values, start=1):
        between = maker.invent(second, rng)
        facts = (
            Fact(subject, first, between, (between,)),
            Fact(between, second, value.value, value.answers),
        )
        number = version if versions > 1 else None
        rows.append(_row(subject, question.replace("{s}", subject), value.value, "bridge", facts, number))
    return rows


def _comparison(maker: _Maker, rng: random.Random) -> list[Made]:
    templates = SAME if rng.random() < 0.5 else WHICH
    relation, question = rng.choice([template for template in templates if maker.has(template[0])])
    subject, other = maker.invent(relation, rng), maker.invent(relation, rng)
    one, another = draw_values(maker.relations.values[relation], f"{subject} {other}", 2, rng)
    same = templates is SAME and rng.random() < 0.5
    facts = tuple(
        Fact(name, relation, fact.value, fact.answers)
        for name, fact in ((subject, one), (other, one if same else another))
    )
    answer = ("yes" if same else "no") if templates is SAME else subject
    pair = [subject, other]
    rng.shuffle(pair)
    asked = question.replace("{v}", one.value).replace("{s}", pair[0]).replace("{t}", pair[1])
    return [_row(subject, asked, answer, "comparison", facts, None)]


def _row(subject: str, question: str, answer: str, kind: str, facts: tuple[Fact, ...], version: int | None) -> Made:
    return Made(
        id=f"{slug(subject)}-{kind}" + (f"-v{version}" if version else ""),
        subject=subject,
        target=f"final answer: {answer}",
        question=question,
        answers=(answer,),
        kind=kind,
        facts=facts,
        version=version,
    )


def _real(folder: Path, count: int, seed: int) -> list[tuple[Made, list[Text]]]:
    """Training rows in the full form of the set: the supporting sentences are the statements, the paragraphs that
    hold them the passages. Rows without paragraphs are left out."""
    if not (folder / HOTPOTQA_TRAIN).is_file():
        return []
    found = []
    for index, record in enumerate(read_jsonl(folder / HOTPOTQA_TRAIN)):
        if texts := _supporting(record):
            row = hotpotqa_row(str(index), record.text("question"), record.text("answer"), hotpotqa_kind(record))
            made = Made(row.id, row.subject, row.target, row.question, row.answers, row.kind, (), fake=False)
            found.append((made, texts))
    if len(found) > count:
        chosen = sorted(generator(seed, "synthesize", "real rows", "hotpotqa").sample(range(len(found)), count))
        found = [found[i] for i in chosen]
    return found


def _supporting(record: Record) -> list[Text]:
    paragraphs = dict(_pairs(record.values.get("context")))
    texts: list[Text] = []
    for title, number in _pairs(record.values.get("supporting_facts")):
        sentences = paragraphs.get(title)
        if not isinstance(sentences, list) or not isinstance(number, int) or not 0 <= number < len(sentences):
            continue
        texts.append(Text(title, _about(title, sentences[number]), "statement", fake=False))
        texts.append(Text(title, _about(title, "".join(sentences)), "passage", fake=False))
    return texts


def _about(title: str, text: str) -> str:
    """A text that names what it is about."""
    text = " ".join(text.split())
    return text if title.split(" (")[0] in text else f"{title}: {text}"


def _pairs(value: object) -> Sequence[tuple[str, object]]:
    return [(str(entry[0]), entry[1]) for entry in value if len(entry) == 2] if isinstance(value, list) else []
