"""Did a model answer at all? Detection of responses that decline instead of stating facts about their topic.

A response is an abstention when it is empty, or when one of its first sentences refuses: it says that the writer
has no information, cannot answer, does not know the subject, or needs more context. A refusal only counts near
the beginning: "no information about his later life" at the end of a biography is not an abstention.
"""

from __future__ import annotations

import re

from factscore_mod.sentences import split_sentences

#: A refusal is looked for in this many sentences from the start.
OPENING_SENTENCES = 2

_APOLOGY = r"(?:i(?:'m| am) (?:so |very |really )?sorry|i apologi[sz]e|sorry|apologies|unfortunately|regrettably)"
_SELF = r"(?:i|we|the (?:provided |given |available )?(?:search )?(?:results?|context|documents?|sources?))"
_CANNOT = (
    r"(?:cannot|can't|can not|could not|couldn't|could n't|am not able to|'m not able to|am unable to|'m unable to"
    r"|was not able to|wasn't able to|was unable to|are unable to|were unable to|unable to)"
)
_HAVE_NOT = r"(?:do not|don't|does not|doesn't|did not|didn't|have no|has no|had no)"
_OFFER = (
    r"(?:find|locate|provide|give|offer|tell|write|create|generate|produce|answer|identify|verify|confirm|help"
    r"|assist|access|recognize|recognise|determine)"
)
_KNOWLEDGE = (
    r"(?:information|info|details?|data|knowledge|record|records|biograph\w*|results?|context|familiar|aware|recall"
    r"|know|sufficient|enough|any)"
)

# What the writer says of itself, or of the sources it was given.
_OWN_REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b{_SELF}\b[^.]{{0,30}}\b{_CANNOT} (?:\w+ ){{0,2}}{_OFFER}\b",
        rf"\b{_SELF}(?: currently| really| also)? {_HAVE_NOT}[^.]{{0,40}}\b{_KNOWLEDGE}\b",
        r"\bi(?:'m| am) not (?:sure (?:who|what|which)|familiar with|aware of)",
        r"\bi do(?: not|n't) know\b",
        r"\bthere (?:is|are) no (?:\w+ ){0,2}information\b[^.]*\b(?:search results?|provided|context|available)\b",
        r"\bas an ai\b[^.]*\b(?:cannot|can't|do not|don't|unable)\b",
    )
)
# What could also be a statement about the topic, and is a refusal only at the very beginning.
_OPENING_REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"^(?:{_APOLOGY}[^.]{{0,60}}?\b)?{_CANNOT} (?:\w+ ){{0,2}}{_OFFER}\b",
        rf"^(?:{_APOLOGY}[, ]+(?:but )?)?(?:there (?:is|are|was|were)|i found) (?:no|not (?:any|enough)|very little)"
        r" (?:\w+ ){0,4}(?:information|details?|data|records?|results?|biograph\w*|mention|person|evidence)\b",
        rf"^{_APOLOGY}\b[^.]*\b(?:no|not|n't|without)\b[^.]*\b(?:information|details?|context|data|results?)\b",
        r"\b(?:search )?(?:results?|context|documents?|sources?)\b[^.]{0,30}"
        r"\b(?:is|are|was|were) (?:not (?:about|related to|relevant)|unrelated to)\b",
        r"^no (?:relevant |specific |biographical )?(?:information|results?|data|details?)\b[^.]*"
        r"\b(?:found|available|provided)\b",
        r"^(?:unknown|n/a|none|no answer|not available|no information)\W*$",
    )
)


def is_abstention(text: str) -> bool:
    """Whether `text` declines to answer; empty text and text without a word is an abstention too."""
    opening = [sentence.text.replace("\u2019", "'").lower() for sentence in split_sentences(text)[:OPENING_SENTENCES]]
    if not opening:
        return True
    return any(refusal.search(opening[0]) for refusal in _OPENING_REFUSALS) or any(
        refusal.search(sentence) for sentence in opening for refusal in _OWN_REFUSALS
    )
