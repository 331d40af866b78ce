"""Statements made from passages: atomic facts that name their subject, or the sentences as they are.

What the paper compares in its figure 7: seed biographies taken apart into statements, against the same
biographies merely split into sentences, which hold several facts each and say "they" for their subject.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from factscore_mod.decompose import decompose_response
from factscore_mod.sentences import split_sentences
from train.rows import KnowledgeSet

HowStated = Literal["facts", "sentences"]


def statements(subject: str, passage: str, how: HowStated) -> tuple[str, ...]:
    """The statements of one passage about one subject, in order.

    `facts` are the claims of the rules decomposer (factscore_mod/decompose.py): each is atomic and names the
    subject. `sentences` are the passage's own, pronouns included.
    """
    sentences = split_sentences(passage)
    if how == "sentences":
        return tuple(sentence.text for sentence in sentences)
    return tuple(_singular(claim.text, subject) for claim in decompose_response(subject, sentences))


def statement_set(
    passages: Iterable[tuple[str, str]], how: HowStated, *, fake: bool, version: int | None
) -> KnowledgeSet:
    """The statement set of (subject, passage) pairs."""
    texts = tuple(text for subject, passage in passages for text in statements(subject, passage, how))
    return KnowledgeSet("statement", fake, version, texts)


def _singular(claim: str, subject: str) -> str:
    """A singular "they were" whose pronoun became a name is "was"."""
    were = f"{subject} were "
    return f"{subject} was {claim.removeprefix(were)}" if claim.startswith(were) else claim
