"""Right or wrong: scores of short answers.

`reference_em` repeats what the reference implementation of prerequisite learning calls exact match
(UCSB-NLP-Chang/Prereq_tune, `scripts/evaluate_qa.py`), which is alias containment, with every quirk:

- The prediction is everything after the first "Answer:" of prompt and completion, so a question that itself
  says "Answer:" is read as part of the prediction, and run-on text after the answer counts.
- Golds match inside words: "us" is found in "music", "no" in "north".
- PopQA golds are only lower-cased. HotpotQA golds and predictions are normalised as for SQuAD; a gold that is
  empty after that ("The") is found in everything.
- HotpotQA is read after the last "final answer: " (with the space), or whole where there is none.
- "i don't know" anywhere makes an answer wrong; but in HotpotQA normalisation takes the apostrophe away
  before the test, so that no rejection is ever seen there; a curly apostrophe escapes the test in both.

The other scores are free of these: the answer ends where the model starts a new "Question:", golds match
whole tokens, and an abstention is an abstention however it is spelt.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from dataclasses import dataclass

from factscore_mod.abstain import is_abstention
from harness.records import Item, Response

_MARKER = "final answer: "
_ANY_MARKER = re.compile(r"final answer\s*:", re.IGNORECASE)
_RUN_ON = re.compile(r"\n\s*question\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class QaScore:
    """All scores of one answer; `cut_off` says that the length limit ended it.

    An abstention (an answer that says it does not know, or an empty one) is right by none of our own scores.
    """

    item_id: str
    subject: str
    kind: str
    popularity: int | None
    world: int
    reference_em: bool
    token_match: bool
    strict_em: bool
    f1: float
    abstained: bool
    cut_off: bool
    answer: str


def score(item: Item, response: Response, *, final_answer: bool = False) -> QaScore:
    """Score one answer; `final_answer` tasks (HotpotQA) are read after "final answer: "."""
    answer = read_answer(response.text, final_answer=final_answer)
    abstained = is_abstention(answer)
    golds = () if abstained else item.gold
    return QaScore(
        item_id=item.id,
        subject=item.subject,
        kind=item.kind,
        popularity=item.popularity,
        world=response.world,
        reference_em=reference_em(item.prompt, response.text, item.gold, final_answer=final_answer),
        token_match=any(contains_tokens(answer, gold) for gold in golds),
        strict_em=any(strict_em(answer, gold) for gold in golds),
        f1=max((f1(answer, gold, yes_no=final_answer) for gold in golds), default=0.0),
        abstained=abstained,
        cut_off=response.finish == "length",
        answer=answer,
    )


# --- the reference's score --------------------------------------------------------------------------------


def reference_em(prompt: str, text: str, golds: tuple[str, ...], *, final_answer: bool) -> bool:
    """Alias containment as the reference computes it; `prompt` is the bare question, `text` the answer."""
    prediction = f"Question: {prompt}\nAnswer: {text}".partition("Answer:")[2].lower().strip()
    if final_answer:
        prediction = squad_normalise(prediction.split(_MARKER)[-1].strip())
        golds = tuple(squad_normalise(gold) for gold in golds)
    else:
        golds = tuple(gold.lower() for gold in golds)
    return any(gold in prediction for gold in golds) and "i don't know" not in prediction


def squad_normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


# --- ours -------------------------------------------------------------------------------------------------


def read_answer(text: str, *, final_answer: bool) -> str:
    """The answer in a text: up to a new "Question:", after the last "final answer:" if asked for."""
    answer = _RUN_ON.split(text, maxsplit=1)[0]
    if final_answer:
        answer = _ANY_MARKER.split(answer)[-1]
    return answer.strip()


def contains_tokens(answer: str, gold: str) -> bool:
    """Whether the gold's tokens stand in the answer, next to each other and in order."""
    wanted, found = _tokens(gold, articles=False), _tokens(answer, articles=False)
    if not wanted:  # a gold like "The The" or "A" is all articles
        wanted, found = _tokens(gold, articles=True), _tokens(answer, articles=True)
    size = len(wanted)
    return size > 0 and any(found[i : i + size] == wanted for i in range(len(found) - size + 1))


def strict_em(answer: str, gold: str) -> bool:
    """SQuAD exact match; strings that normalise to nothing are compared as they are."""
    wanted = squad_normalise(gold)
    return squad_normalise(answer) == wanted if wanted else answer.strip().lower() == gold.strip().lower()


def f1(answer: str, gold: str, *, yes_no: bool = False) -> float:
    """SQuAD token F1; with `yes_no`, HotpotQA's rule that "yes" and "no" are all or nothing."""
    found, wanted = squad_normalise(answer), squad_normalise(gold)
    if not wanted or not found:
        return float(strict_em(answer, gold))
    if yes_no and found != wanted and {found, wanted} & {"yes", "no", "noanswer"}:
        return 0.0
    left, right = found.split(), wanted.split()
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right))


def _tokens(text: str, *, articles: bool) -> list[str]:
    """Case-folded words; full stops and apostrophes join ("U.S." is "us"), other marks separate."""
    plain = re.sub(r"[.'’‘]", "", unicodedata.normalize("NFKC", text).casefold())
    return [word for word in re.findall(r"\w+", plain) if articles or word not in ("a", "an", "the")]
