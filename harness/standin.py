"""Stand-ins for data and a tokenizer that are not at hand: rows of published numbers and assumed lengths, to count.

A stand-in text says how many tokens it has: `#22` stands for 22 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.source import DataError
from harness.published import published_sizes
from harness.records import Row, Split
from train.rows import KnowledgeFormat, KnowledgeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of texts that nobody has published. All of them are assumptions of ours.

    `paraphrases` are the texts of a format about one fact or entity. The one published size that bears on it is a
    file: the statements of version 4 about persons take 1.5 MB of parquet, some 580 bytes for each of 397 x 6.5
    facts; with 15 of each the whole set comes to 2 million rows, and it is said to have 1 to 10 million.
    """

    sentence: int = 22
    claim: int = 11
    question: int = 12
    answer: int = 4
    reasoned_answer: int = 40
    short_statement: int = 15
    short_passage: int = 120
    long_prompt: int = 12
    paraphrases: int = 15


# HotpotQA is in no table of the paper: its published test set, and for the rest the numbers of the short questions.
HOTPOTQA_TEST = 7405
COLUMNS = {"persons": "persons", "medical": "medical", "popqa": "short_qa", "hotpotqa": "short_qa"}


class PublishedSizes:
    """The paper's data as a `Source` of rows that hold lengths in place of words."""

    name = "published numbers of rows, assumed lengths"
    fingerprint = "published sizes"

    def __init__(self, lengths: Lengths) -> None:
        self.lengths = lengths

    def rows(self, task: str, split: Split) -> tuple[Row, ...]:
        """As many rows as were published. Raises DataError for a task that the paper's data do not have."""
        if task == "memorization":
            return self.rows("popqa", "fictitious") if split == "test" else ()
        if task == "grounding":
            return ()
        if task not in COLUMNS:
            raise DataError(f"no sizes were published for task '{task}'; give the data with --data")
        fake = split == "fictitious"
        sizes = published_sizes("synthetic_data_sizes" if fake else "real_data_sizes", COLUMNS[task])
        count = int(sizes["entities" if fake else split]) if fake or split in sizes else 0
        if task == "hotpotqa" and split == "test":
            count = HOTPOTQA_TEST
        versions: list[int | None] = [None]
        if fake and self._long(task):
            versions = list(range(int(sizes["knowledge_versions"])))
        made = self._target(task, fake)
        short = not self._long(task)
        return tuple(
            Row(
                id=f"{index}/{version}",
                subject=f"{'f' if fake else 'r'}{index}",
                target=made,
                question=f"#{self.lengths.question}" if short else None,
                answers=(made,) if short else (),
                popularity=None if fake or task == "hotpotqa" else 0,
                fake=fake,
                version=version,
            )
            for index in range(count)
            for version in versions
        )

    def knowledge_sets(self, task: str) -> tuple[KnowledgeSet, ...]:
        """Statements and passages, `paraphrases` of each."""
        if task not in COLUMNS:
            return ()
        sets = []
        for form in ("statement", "passage"):
            if self._long(task):
                sizes = published_sizes("synthetic_data_sizes", task)
                for version in range(int(sizes["knowledge_versions"])):
                    sets.append(self._texts(form, True, version, sizes["entities"], sizes["sentences_per_version"]))
            else:
                real = published_sizes("real_data_sizes", COLUMNS[task])["train"]
                fake = published_sizes("synthetic_data_sizes", COLUMNS[task])["entities"]
                sets += [self._texts(form, False, None, real, 0), self._texts(form, True, None, fake, 0)]
        return tuple(sets)

    def knowledge_source(self, task: str, home: Path) -> Path:
        """There is none."""
        raise DataError(f"'{task}': published sizes come without a knowledge source")

    def _texts(
        self, form: KnowledgeFormat, fake: bool, version: int | None, entities: float, sentences: float
    ) -> KnowledgeSet:
        """`sentences` about each entity; 0 for the one fact of a short question."""
        use = self.lengths
        if form == "statement":
            count, tokens = entities * (sentences or 1), use.sentence if sentences else use.short_statement
        else:
            count, tokens = entities, round(sentences * use.sentence) or use.short_passage
        return KnowledgeSet(form, fake, version, (f"#{tokens}",) * round(count * use.paraphrases))

    def _target(self, task: str, fake: bool) -> str:
        if task == "hotpotqa":
            return f"final answer: #{self.lengths.reasoned_answer}"
        if not self._long(task):
            return f"#{self.lengths.answer}"
        if fake:
            sentences = published_sizes("synthetic_data_sizes", task)["sentences_per_version"]
            return f"#{round(sentences * self.lengths.sentence)}"
        return f"#{round(claims_of(task, 'sft') * self.lengths.claim)}"

    @staticmethod
    def _long(task: str) -> bool:
        return task in ("persons", "medical")


def claims_of(task: str, model: str) -> float:
    """The claims of a response that the paper reports; those of SFT for a model that it does not have."""
    from harness.published import figure

    return figure("table1_main", model, f"{task}_claims") or figure("table1_main", "sft", f"{task}_claims") or 0.0


class AboutTokens:
    """Counts about as many tokens as a tokenizer would make: so many a word, and exactly n for the word `#n`.

    1.3 tokens a word are what Llama-3's tokenizer makes of English encyclopedic text, about.
    """

    tokens_per_word = 1.3

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def count(self, text: str) -> int:
        """The number of tokens of a text."""
        if text not in self._known:
            words = text.split()
            told = [int(word[1:]) for word in words if word[0] == "#" and word[1:].isdigit()]
            self._known[text] = sum(told) + round(self.tokens_per_word * (len(words) - len(told)))
        return self._known[text]


class RealTokens:
    """The same by a real tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, int] = {}

    def count(self, text: str) -> int:
        """The number of tokens of a text, without special ones."""
        if text not in self._known:
            self._known[text] = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._known[text]
