"""How sure a model is of a claim: the confidence scores of FactTune, which need no reference text.

FactTune (Tian et al. 2023, arXiv 2311.08401) has a large model turn each claim into a question, lets the base answer
it many times, groups equal answers, and takes the share of the largest group (`max_confidence`) or the expected
share (`expected_confidence`). Ours: the question is a cloze, the claim up to its last content words, which a base
completes without having been told how; no second model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words that carry no fact of their own: articles, prepositions, conjunctions, forms of be, have and do, pronouns.
FUNCTION_WORDS = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "some", "any", "of", "in", "on", "at", "to", "from", "for",
    "by", "with", "without", "within", "into", "onto", "over", "under", "after", "before", "during", "since",
    "until", "about", "against", "among", "between", "through", "across", "near", "as", "than", "like", "and", "or",
    "but", "nor", "so", "is", "was", "were", "are", "be", "been", "being", "am", "has", "have", "had", "do", "does",
    "did", "will", "would", "can", "could", "may", "might", "must", "shall", "should", "he", "she", "it", "they",
    "we", "you", "i", "him", "her", "them", "us", "his", "hers", "its", "their", "theirs", "our", "your", "my",
    "who", "whom", "whose", "which", "what", "when", "where", "there", "also", "not",
))  # fmt: skip
# At most so many lower-case words are left for the base to complete ("marine biology").
MOST_WORDS = 3

_TRAILING = " \t\n.!?;:,\"'”’)]}"
_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*|,")
_ARTICLES = frozenset(("a", "an", "the"))


def cloze(claim: str) -> str:
    """The beginning of a claim that a base has to complete, or "" for a claim of one word.

    What is left out, with all after it, are the last content words of the claim: a run of capitalised words and
    numbers ("12 March 1903", "Nobel Prize") is left out whole, and so are up to three other words. A function word
    ends the run, and the first word of the claim that is neither capitalised nor a number is kept: the predicate
    usually begins there.

    >>> cloze("Ada Lovelace was born on 10 December 1815.")
    'Ada Lovelace was born on'
    >>> cloze("Ada Lovelace studied marine biology.")
    'Ada Lovelace studied'
    """
    words = claim.rstrip(_TRAILING).split()
    contents = [index for index, word in enumerate(words) if _is_content(word)]
    if len(words) < 2 or not contents or contents[-1] == 0:
        return ""
    last = contents[-1]
    predicate = next((i for i, word in enumerate(words) if not _is_name(word)), None)
    named = _is_name(words[last])
    start = last
    while start > 1 and _is_content(words[start - 1]) and _is_name(words[start - 1]) == named:
        if not named and (start - 1 == predicate or last - start + 1 == MOST_WORDS):
            break
        start -= 1
    if named and start == 1 and _is_name(words[0]):
        # Nothing but a name stands before: it is the subject, of which the last word alone is left out.
        start = last
    return " ".join(words[:start])


def group(answers: Sequence[str]) -> list[int]:
    """The sizes of the groups of answers that say the same, in the order of their first members.

    An answer joins the first group whose first member it equals (`same_answer`). Empty answers are in no group.
    """
    heads: list[tuple[str, ...]] = []
    sizes: list[int] = []
    for answer in answers:
        words = normalise(answer)
        if not words:
            continue
        for index, head in enumerate(heads):
            if same_answer(head, words):
                sizes[index] += 1
                break
        else:
            heads.append(words)
            sizes.append(1)
    return sizes


def max_confidence(answers: Sequence[str]) -> float:
    """The share of all answers in the largest group (FactTune's `aq_max_conf`), 0 when all are empty.

    Raises ValueError when there is no answer.
    """
    return max(_shares(answers), default=0.0)


def expected_confidence(answers: Sequence[str]) -> float:
    """The chance that two draws from the answers agree: the sum of p^2 over the groups, 0 when all are empty.

    Raises ValueError when there is no answer.
    """
    return sum(share * share for share in _shares(answers))


def normalise(answer: str) -> tuple[str, ...]:
    """The words of the first line of an answer, lower-case and without punctuation and articles.

    Commas stay as words of their own, except at either end (`same_answer` reads them). An answer that begins with
    "yes" or "no" is that word.
    """
    lines = answer.strip().splitlines()
    words = [word for word in _WORD.findall(lines[0].lower()) if word not in _ARTICLES] if lines else []
    while words and words[0] == ",":
        words.pop(0)
    while words and words[-1] == ",":
        words.pop()
    return tuple(words[:1] if words and words[0] in ("yes", "no") else words)


def same_answer(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two normalised answers say the same: the string heuristic of FactTune, in our words.

    They hold the same words; or one ends with the other ("Marie Curie", "Curie") and no comma stands before that
    end ("Paris, France" is not "France"); or one is the plural of the other.
    """
    if {*one} - {","} == {*other} - {","}:
        return True
    short, long = sorted((tuple(one), tuple(other)), key=len)
    before = len(long) - len(short)
    if short and before and long[before:] == short:
        return long[before - 1] != ","
    if short and not before and long[:-1] == short[:-1]:
        single, plural = sorted((short[-1], long[-1]), key=len)
        return plural in (f"{single}s", f"{single}es")
    return False


def _shares(answers: Sequence[str]) -> list[float]:
    if not answers:
        raise ValueError("answers: there is none; ask the model at least once")
    return [size / len(answers) for size in group(answers)]


def _is_content(word: str) -> bool:
    bare = word.strip(_TRAILING + "(“\"'[{").lower()
    return any(character.isalnum() for character in bare) and bare not in FUNCTION_WORDS


def _is_name(word: str) -> bool:
    first = word.lstrip("(“\"'[{")[:1]
    return first.isupper() or first.isdigit()
