"""What the rules know about English grammar: verbs, pronouns, dates, and the look of a noun phrase.

Recognition is by closed lists and endings; there is no tagger, so that nothing has to be downloaded.
"""

from __future__ import annotations

import re

from factscore_mod.lexicon import words_of

AUXILIARIES = words_of(
    """
    is are was were am be has have had does do did will would can could may might must shall should
    """
)

# Base form, past and participle where they differ from the regular ones.
_IRREGULAR = """
become became become; begin began begun; break broke broken; bring brought brought; build built built;
buy bought bought; catch caught caught; choose chose chosen; come came come; cut cut cut; deal dealt dealt;
draw drew drawn; drive drove driven; fall fell fallen; feel felt felt; fight fought fought; find found found;
fly flew flown; forsake forsook forsaken; get got gotten; give gave given; go went gone; grow grew grown;
hear heard heard; hide hid hidden; hit hit hit; hold held held; keep kept kept; know knew known; lay laid laid;
lead led led; leave left left; lend lent lent; lose lost lost; make made made; mean meant meant; meet met met;
overcome overcame overcome; oversee oversaw overseen; pay paid paid; put put put; read read read; ride rode ridden;
rise rose risen; run ran run; say said said; see saw seen; seek sought sought; sell sold sold; send sent sent;
set set set; shoot shot shot; show showed shown; sing sang sung; sit sat sat; speak spoke spoken;
spend spent spent; stand stood stood; steal stole stolen; strike struck struck; swim swam swum; take took taken;
teach taught taught; tell told told; think thought thought; throw threw thrown; undergo underwent undergone;
understand understood understood; undertake undertook undertaken; wear wore worn; win won won;
withdraw withdrew withdrawn; write wrote written; rewrite rewrote rewritten; bear bore born
"""

_PRESENT = """
plays works lives serves stars includes contains holds makes has writes teaches leads runs owns appears features
affects causes involves occurs helps remains continues began becomes represents belongs resides competes coaches
performs enjoys produces provides focuses treats results refers specializes specialises hosts tours directs manages
represents inspires advocates encourages explores tells follows covers comes goes takes gives shares sings speaks
dies marries studies attends receives wins carries requires leads means reduces prevents inhibits blocks increases
consists describes combines collaborates trains supports divides splits develops
"""

IRREGULAR_PAST: dict[str, str] = {}
for _entry in _IRREGULAR.replace("\n", " ").split(";"):
    _base, _past, _participle = _entry.split()
    IRREGULAR_PAST[_base] = _past

_PASTS = frozenset(IRREGULAR_PAST.values())
_PRESENTS = frozenset(_PRESENT.split())
# Words that end like a past form and are not one, or are mostly adjectives before a noun.
_NOT_VERBS = words_of(
    """
    united hundred sacred red bed wed need seed speed feed breed indeed led-in naked wicked beloved
    talented gifted renowned celebrated acclaimed esteemed respected so-called aged embed shed left set
    cut put read lay hit distinguished accomplished dedicated skilled varied limited related advanced
    noted untitled unreleased exaggerated aforementioned animated extended selected
    """
)
_ADVERBS = words_of(
    """
    also later then subsequently eventually soon currently now formerly previously originally first once
    often initially finally still already never always even ultimately briefly quickly regularly widely
    """
)
#: Participles that stay passive when they are coordinated with another ("was born in A and raised in B").
PASSIVE = words_of(
    """
    born raised educated known considered regarded buried married named based brought bred credited
    inducted
    elected appointed awarded nominated promoted selected drafted arrested tortured killed executed sentenced
    """
)

SUBJECT_PRONOUNS = words_of(
    """
    he she they it
    """
)
POSSESSIVE_PRONOUNS = words_of(
    """
    his her their its
    """
)
PREPOSITIONS = words_of(
    """
    in on at of for from by with as to into about under during after before against between among
    through over across around including like such than via within since until towards toward near
    alongside
    """
)
DETERMINERS = words_of(
    """
    a an the his her their its this that these those several many some two three four
    """
)

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan\.?|Feb\.?|Mar\.?|Apr\.?|Jun\.?|Jul\.?|Aug\.?|Sept?\.?|Oct\.?|Nov\.?|Dec\.?)"
)
_YEAR = r"(?:1[0-9]{3}|20[0-9]{2})"
DATE = (
    rf"(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?[,\u201a]? {_YEAR}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}[,\u201a]? {_YEAR}"
    rf"|{_MONTH}[,\u201a]? {_YEAR}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?|(?:early |mid-?|late |the )*{_YEAR}s?)"
)
#: A phrase of time: `in 1990`, `on May 5, 1950`, `from 1990 to 1995`, `between 1990 and 1995`.
TIME_PHRASE = re.compile(
    rf",? ?\b(?:from {DATE} (?:to|until|through) (?:{DATE}|the present|present)|between {DATE} and {DATE}"
    rf"|(?:in|on|since|until|by|during|around|circa) (?:the )?(?:early |mid-?|late )?{DATE}(?: and (?:the )?{DATE})?)"
    r"(?=[\s,.;]|$)"
)


def is_finite_verb(word: str, previous: str = "") -> bool:
    """Whether a word, given the one before it, looks like the verb of a clause."""
    lowered = word.lower().strip(",.;:\"'")
    if not lowered or (word[0].isupper() and lowered not in AUXILIARIES):
        return False
    before = previous.lower().strip(",.;:\"'")
    if lowered in AUXILIARIES:
        return True
    if before in DETERMINERS or before in PREPOSITIONS or lowered in _NOT_VERBS or ("-" in lowered and before):
        return lowered.startswith("co-") and lowered.endswith("ed") and before not in DETERMINERS
    return lowered in _PASTS or lowered in _PRESENTS or (lowered.endswith("ed") and len(lowered) > 4)


def is_adverb(word: str) -> bool:
    """Whether a word may stand between a subject and its verb."""
    lowered = word.lower().strip(",")
    return lowered in _ADVERBS or (word[:1].islower() and lowered.endswith("ly") and len(lowered) > 4)


def past_of_gerund(word: str) -> str | None:
    """`winning` -> `won`, `playing` -> `played`; None for a word that is not a gerund."""
    lowered = word.lower()
    if not lowered.endswith("ing") or len(lowered) < 6:
        return None
    root = lowered[:-3]
    candidates = [root, root + "e"]
    if len(root) > 2 and root[-1] == root[-2]:
        candidates.append(root[:-1])
    for candidate in candidates:
        if candidate in IRREGULAR_PAST:
            return IRREGULAR_PAST[candidate]
    if root.endswith("y") and len(root) > 1 and root[-2] not in "aeiou":
        return root[:-1] + "ied"
    return root + "ed"


def article_for(phrase: str) -> str:
    """`a` or `an`, by the first letter."""
    return "an" if phrase[:1].lower() in "aeiou" and not phrase.lower().startswith(("uni", "eu", "one")) else "a"
