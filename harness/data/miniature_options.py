"""Switches of what fine-tuning reads in the miniature: rows and knowledge texts, never the world or its base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.data.certainty import Strata
from harness.data.cleaning import POPQA_CLEANING
from harness.data.miniature_world import MiniatureConfigError, checked_fields
from train.seeds import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniatureOptions:
    """The switches of `[source.options]`; the defaults change nothing.

    They enter no address of a base, so that a base is shared by all of them; adapters are addressed by rows.

    - `fictitious_subjects`: only so many fictitious training subjects a task, the first of a seeded shuffle, so
      that a larger number's subjects hold a smaller one's; 0 keeps all. For PopQA both domains count together.
    - `popqa_cleaning`: `original` adds questions that call their subject by the family name that it shares
      (of `ambiguous_share` of all family names and relations), `unambiguous` cleans that of them again
      (harness/data/cleaning.py), and `none` is the data in which there never were any.
    - `statements`: statement sets are `written` in the wordings of the corpus, or are made from seed biographies
      as `facts` or as `sentences` (harness/data/statements.py). A sentence of a person's seed biography holds
      `sentence_facts` facts.
    - `certain_paraphrases`, `unsure_paraphrases`, `certain_share`, `unsure_share`: the strata of task
      `popqa_controlled` (harness/data/certainty.py).
    """

    fictitious_subjects: int = 0
    popqa_cleaning: Literal["none", "original", "unambiguous"] = "none"
    ambiguous_share: float = 0.5
    statements: Literal["written", "facts", "sentences"] = "written"
    sentence_facts: int = 2
    certain_paraphrases: int = 8
    unsure_paraphrases: int = 1
    certain_share: float = 1 / 3
    unsure_share: float = 1 / 3

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str, ...]] = {
            "popqa_cleaning": ("none", *POPQA_CLEANING),
            "statements": ("written", "facts", "sentences"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise MiniatureConfigError(f"source.options: {name} must be one of {', '.join(values)}")
        if self.fictitious_subjects < 0:
            raise MiniatureConfigError("source.options: fictitious_subjects must not be negative")
        if self.sentence_facts < 1:
            raise MiniatureConfigError("source.options: sentence_facts must be at least 1")
        if not 0 < self.ambiguous_share <= 1:
            raise MiniatureConfigError("source.options: ambiguous_share must be above 0 and at most 1")
        try:
            _ = self.strata
        except ValueError as error:
            raise MiniatureConfigError(f"source.options: {error}") from error

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> MiniatureOptions:
        """From the TOML table `[source.options]`. Raises MiniatureConfigError naming the setting at fault."""
        return cls(**checked_fields(cls, table, "source.options"))

    @property
    def strata(self) -> Strata:
        """The strata of knowledge-controlled answers."""
        return Strata(
            certain=self.certain_paraphrases, unsure=self.unsure_paraphrases,
            certain_share=self.certain_share, unsure_share=self.unsure_share,
        )  # fmt: skip


def first_subjects(subjects: Iterable[str], count: int, seed: int) -> frozenset[str]:
    """The first `count` subjects of a seeded shuffle, all of them where count is 0 or too large.

    The order of the input does not matter, and the subjects of a smaller count are among those of a larger one.
    Source: `synthetic_num` of UCSB-NLP-Chang/Prereq_tune, which shuffles sorted titles.
    """
    names = sorted(set(subjects))
    generator(seed, "fictitious subjects").shuffle(names)
    return frozenset(names[:count] if count else names)
