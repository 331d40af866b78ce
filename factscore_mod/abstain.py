"""Did a model answer at all? Detection of responses that decline instead of stating facts about their topic.

A response is an abstention when it is empty, or when a refusal is its substance: the writer has no information,
cannot answer, does not know the subject, or needs more context. That is so when the first sentence refuses, or when
the second does after a first that only talks about the writer, the question or the sources. A refusal after a
statement ("... is a Welsh painter. I have no information about his later life."), or one that goes on with a
statement in the same sentence ("I do not know much about her, but she was born in 1950"), leaves an answer.
"""

from __future__ import annotations

import re

from factscore_mod.sentences import split_sentences

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


# A first sentence that states nothing about the topic: courtesy, the writer's own business, the question, the sources.
_TALK = re.compile(
    rf"^(?:{_APOLOGY}\b|thank|thanks\b|hello\b|hi\b|sure\b|certainly\b|of course\b"
    r"|(?:that's )?(?:a )?(?:good|great) question"
    r"|as an ai\b|please\b|let me\b|i(?:'d| would| will|'ll)\b|i(?:'m| am) (?:an?|just|only|here|happy|glad|not)\b"
    r"|i (?:understand|appreciate|see|searched|looked|checked|have (?:searched|looked|checked|read))\b"
    r"|(?:the|this|these|those|all)(?: \w+)? (?:search )?(?:results?|context|documents?|sources?|passages?)\b)"
    r"|\?\W*$"
)
# What follows a refusal in its own sentence and states something.
_STATEMENT_AFTER = re.compile(
    r"\b(?:but|however|though|although)\b[^.]*"
    r"(?:\b(?:he|she|they) (?:is|was|are|were|has|had|have)\b|\b1\d{3}\b|\b20\d\d\b)"
)


def is_abstention(text: str) -> bool:
    """Whether `text` declines to answer; empty text and text without a word is an abstention too."""
    opening = [sentence.text.replace("\u2019", "'").lower() for sentence in split_sentences(text)[:2]]
    if not opening:
        return True
    first = opening[0]
    if _refuses(first, _OWN_REFUSALS + _OPENING_REFUSALS):
        return True
    return len(opening) > 1 and _TALK.search(first) is not None and _refuses(opening[1], _OWN_REFUSALS)


def _refuses(sentence: str, refusals: tuple[re.Pattern[str], ...]) -> bool:
    """Whether some refusal is in the sentence and no statement follows it there."""
    matches = [match for refusal in refusals if (match := refusal.search(sentence))]
    return bool(matches) and not _STATEMENT_AFTER.search(sentence, min(match.end() for match in matches))
