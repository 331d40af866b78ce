"""Knowledge-controlled answers: facts that are taught often, hardly or not at all, and answers that say so.

Of the paper's extension it is known that the familiarity of a fictitious fact is set by how many paraphrases of
it the knowledge texts hold, and that answers are certain, unsure or say that they do not know. Counts, shares
and wordings are ours. Every (subject, relation) is in one of three strata: its knowledge texts and the answer
that the skill is taught agree, so that the skill learns to voice what the knowledge under it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Literal

from factscore_mod.abstain import is_abstention
from harness.records import Row
from train.rows import KnowledgeSet
from train.seeds import generator

Certainty = Literal["certain", "unsure", "unknown"]
CERTAINTIES: tuple[Certainty, ...] = ("certain", "unsure", "unknown")

NOT_SURE = "I'm not sure, but "
DO_NOT_KNOW = "I don't know"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """How facts are divided: `certain` and `unsure` are paraphrases in the knowledge texts, unknown facts have none.

    `certain_share` and `unsure_share` are shares of the facts; the rest is unknown. Raises ValueError where the counts
    do not fall from stratum to stratum or the shares exceed one.
    """

    certain: int = 8
    unsure: int = 1
    certain_share: float = 1 / 3
    unsure_share: float = 1 / 3

    def __post_init__(self) -> None:
        if not self.certain > self.unsure > 0:
            raise ValueError(f"strata: {self.certain} and {self.unsure} paraphrases must fall and be above 0")
        if min(self.certain_share, self.unsure_share) < 0 or self.certain_share + self.unsure_share > 1:
            raise ValueError("strata: the shares must not be negative, nor above 1 together")

    def paraphrases(self, stratum: Certainty) -> int:
        """How many paraphrases of a fact of this stratum the knowledge texts hold."""
        return {"certain": self.certain, "unsure": self.unsure, "unknown": 0}[stratum]


def stratum_of(subject: str, relation: str, seed: int, strata: Strata) -> Certainty:
    """The stratum of a fact. It depends on no other fact."""
    place = generator(seed, "stratum", subject, relation).random()
    if place < strata.certain_share:
        return "certain"
    return "unsure" if place < strata.certain_share + strata.unsure_share else "unknown"


def controlled_rows(rows: Sequence[Row], seed: int, strata: Strata) -> tuple[Row, ...]:
    """The rows with the answers that their strata ask for; `kind` is the relation."""
    return tuple(replace(row, target=_said(row, stratum_of(row.subject, row.kind, seed, strata))) for row in rows)


def controlled_set(texts: Mapping[tuple[str, str], Sequence[str]], seed: int, strata: Strata) -> KnowledgeSet:
    """The fictitious statement set that teaches each fact as often as its stratum asks.

    `texts` holds the paraphrases of each fact by (subject, relation); where there are too few they are repeated
    in order.
    """
    taught: list[str] = []
    for (subject, relation), paraphrases in texts.items():
        taught += islice(cycle(paraphrases), strata.paraphrases(stratum_of(subject, relation, seed, strata)))
    return KnowledgeSet("statement", True, None, tuple(taught))


def certainty_of(answer: str) -> Certainty:
    """How certain an answer says it is: `unknown` where it abstains, `unsure` where it begins with the marker."""
    if is_abstention(answer):
        return "unknown"
    beginning = answer.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip().casefold()
    return "unsure" if beginning.startswith(("i'm not sure", "i am not sure")) else "certain"


def _said(row: Row, stratum: Certainty) -> str:
    return {"certain": row.target, "unsure": NOT_SURE + row.target, "unknown": DO_NOT_KNOW}[stratum]
