"""Sentences -> atomic, self-contained claims, by rules.

One sentence is taken apart in this order: parentheses; independent and relative clauses, appositives and
participles; coordinated verbs; coordinated nouns; phrases of time. Each piece keeps its subject, and a pronoun
or a lone surname at its head is replaced by the topic, so that every claim can be verified alone. The
granularity follows FActScore's atomic facts (Min et al. 2023, section 3.1 and its annotation guidelines).

Where the rules do not understand a sentence they leave it whole: a claim that is too coarse is still true or
false, one that is cut wrongly is noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from factscore_mod.coordination import (
    coordinated_verbs,
    join_commas,
    noun_phrase_at_end,
    simple_predicates,
    split_commas,
)
from factscore_mod.grammar import (
    DATE,
    POSSESSIVE_PRONOUNS,
    SUBJECT_PRONOUNS,
    is_adverb,
    is_finite_verb,
    past_of_gerund,
)
from factscore_mod.lexicon import words_of
from factscore_mod.records import Claim, Sentence

#: No sentence yields more claims than this; a longer list is cut into its first items.
MAX_CLAIMS = 24

_CITATION = re.compile(r"\s*\[\d+(?:[,\-\u2013 ]+\d+)*\]")
_MARKUP = re.compile(r"[*_`#]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}")
_PERSONAL = re.compile(r"\b(?:he|she|his|her)\b", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_PARENTHESIS = re.compile(r"\s*\(([^()]*)\)")
_LIFE_SPAN = re.compile(rf"^(?:born |b\. )?({DATE}) ?[\u2013\u2014-] ?({DATE})$")
_BORN = re.compile(rf"^(?:born|b\.) (?:on |in )?(?P<date>{DATE})(?:,? (?P<rest>(?:in )?.+))?$")
_CLAUSE_BREAK = re.compile(
    r"\s*;\s*(?:however,\s*|and\s+|but\s+)?"
    r"|,?\s+(?:and|but|while|where|when|although|though|whereas)\s+(?=(?:he|she|they|it|his|her|their|its)\s)"
    r"|,?\s+(?:during|in|after|for|with|at|by|from|through)\s+which\s+(?=(?:he|she|they|it)\s)"
    r"|,\s+(?=(?:he|she|they)\s)"
)
_FRONT = re.compile(
    r"^(?P<front>(?:Born|In|On|At|During|After|Before|From|Since|Throughout|By|Between|Until|As|Following|With|For|Under)"
    r"\s[^,]{2,70}(?:, (?:19|20)\d\d)?),\s+(?P<rest>.+)$"
)
_DISCOURSE = re.compile(
    r"^(?:However|Additionally|Furthermore|Moreover|Also|Later|Finally|Eventually|Overall|Today|Currently|Meanwhile"
    r"|In addition|As a result|Subsequently|Notably|Then|And|But),?\s+(?=\S)"
)
_RELATIVE = re.compile(
    r",\s+(?P<pronoun>who|which|whose)\s+(?!(?:he|she|they|it|his|her)\s)(?P<body>[^,]+(?:, \d{4})?)(?P<end>,|$)"
)
_BORN_PHRASE = re.compile(r",\s+(?P<body>(?:born|died|known|named|nicknamed)\s[^,]{3,80})(?P<end>,|$)")
_APPOSITIVE = re.compile(r",\s+(?P<body>(?:an?|the|his|her|their)\s[^,]{3,80})(?P<end>,|$)")
_PARTICIPLE = re.compile(r",\s+(?:(?:and|while|also)\s+)*(?P<verb>[a-z]{3,}ing)\s(?P<rest>[^;]+)$")
_GERUND_JOINT = re.compile(r",? and ([a-z]{3,}ing)(?= )")
_NOT_PARTICIPLES = words_of("including during being following according regarding")


@dataclass(frozen=True, slots=True)
class _Clause:
    """A subject with its predicate, before it is written as a claim."""

    subject: str
    predicate: str


def decompose_response(topic: str, sentences: Iterable[Sentence]) -> tuple[Claim, ...]:
    """The claims of a response in reading order, without repetitions of the same wording."""
    sentences = tuple(sentences)
    # Where the response calls its topic "he" or "she", an "it" or a "they" is somebody or something else.
    personal = any(_PERSONAL.search(sentence.text) for sentence in sentences)
    claims: list[Claim] = []
    seen: set[str] = set()
    for sentence in sentences:
        for text in decompose_sentence(sentence.text, topic, personal=personal):
            if text.lower() not in seen:
                seen.add(text.lower())
                claims.append(Claim(text, sentence.index))
    return tuple(claims)


def decompose_sentence(sentence: str, topic: str = "", *, personal: bool = False) -> tuple[str, ...]:
    """The atomic claims of one sentence; `topic` is what a pronoun at its head refers to, or empty.

    `personal` says that the topic is called "he" or "she" elsewhere, so that "it" and "they" are not the topic.
    """
    text = _clean(sentence)
    if not re.search(r"\w", text) or text.endswith(("?", ":")):
        return ()
    text, written = _take_parentheses(text, topic)
    pieces = [
        f"{clause.subject} {predicate}".strip()
        for part in _independent(join_commas(text))
        for clause in _clauses_of(part)
        for predicate in simple_predicates(clause.predicate)
    ]
    written = [_finish(resolve_subject(piece, topic, personal=personal)) for piece in pieces] + written
    unique = dict.fromkeys(claim for claim in written if len(claim.split()) >= 3)
    return tuple(unique)[:MAX_CLAIMS] or (_finish(resolve_subject(text, topic, personal=personal)),)


def resolve_subject(text: str, topic: str, *, personal: bool = False) -> str:
    """Replace a pronoun, or a lone part of the topic's name, at the head of `text` by the topic."""
    topic = _PARENTHESIS.sub("", topic).strip()
    if not topic:
        return text
    head, _, rest = text.partition(" ")
    bare = head.strip(",").lower()
    if personal and bare in ("it", "its", "they", "their"):
        return text
    if bare in SUBJECT_PRONOUNS:
        return f"{topic} {rest}"
    if bare in POSSESSIVE_PRONOUNS:
        return f"{topic}'s {rest}"
    parts = topic.split()
    name, possessive, _ = head.partition("'s")
    if len(parts) > 1 and name in parts and name[:1].isupper() and not rest[:1].isupper():
        return f"{topic}{possessive} {rest}"
    return text


def _clean(sentence: str) -> str:
    text = _MARKUP.sub("", _CITATION.sub("", sentence))
    text = _SPACE.sub(" ", text).strip().strip('"\u201c\u201d').strip()
    return _DISCOURSE.sub("", text) if not _FRONT.match(text) else text


def _finish(text: str) -> str:
    text = _SPACE.sub(" ", split_commas(text)).strip(" ,;:.\u2013\u2014-")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _take_parentheses(text: str, topic: str) -> tuple[str, list[str]]:
    """Dates of life become claims of their own; a year after a title is kept in place; the rest is dropped."""
    extra: list[str] = []
    subject = _PARENTHESIS.sub("", topic).strip() or text.split(" (")[0]

    def replacement(match: re.Match[str]) -> str:
        inner = match.group(1).strip()
        first = not extra and len(text[: match.start()].split()) <= 6
        span, born = _LIFE_SPAN.match(inner), _BORN.match(inner)
        if span and first and re.search(r"\d{4}", span.group(1)):
            extra.append(_finish(f"{subject} was born {_on(span.group(1))}"))
            extra.append(_finish(f"{subject} died {_on(span.group(2))}"))
            return ""
        if born and first:
            extra.append(_finish(f"{subject} was born {_on(born['date'])}"))
            if born["rest"]:
                extra.append(_finish(f"{subject} was born in {born['rest'].removeprefix('in ')}"))
            return ""
        return f" ({inner})" if re.fullmatch(r"\d{4}(?:[\u2013-]\d{2,4})?", inner) else ""

    return _PARENTHESIS.sub(replacement, text), extra


def _on(date: str) -> str:
    return f"on {date}" if re.search(r"\b\d{1,2}\b(?!\d)", date) and re.search(r"[A-Z]", date) else f"in {date}"


def _independent(text: str) -> list[str]:
    """Clauses that have their own subject; a piece without a verb ("In 1999, ...") stays with what follows."""
    parts: list[str] = []
    start = 0
    for cut in _CLAUSE_BREAK.finditer(text):
        piece = text[start : cut.start()].strip(" ,")
        if _split_subject(piece):
            parts.append(piece)
            start = cut.end()
    return [*parts, text[start:].strip(" ,")]


def _split_subject(text: str) -> tuple[str, str] | None:
    """Subject and predicate at the first finite verb, or None where none is found."""
    words = text.split(" ")
    for index, word in enumerate(words[1:], start=1):
        if is_finite_verb(word, words[index - 1]):
            start = index
            while start > 1 and is_adverb(words[start - 1]):
                start -= 1
            return " ".join(words[:start]), " ".join(words[start:])
    return None


def _clauses_of(text: str) -> list[_Clause]:
    front = _FRONT.match(text)
    adverbial = ""
    clauses: list[_Clause] = []
    if front and _split_subject(front["rest"]):
        text = front["rest"]
        adverbial = front["front"][:1].lower() + front["front"][1:]

    participle = _PARTICIPLE.search(text)
    past = None
    if participle and participle["verb"] not in _NOT_PARTICIPLES:
        past = "has" if participle["verb"] == "having" else past_of_gerund(participle["verb"])
        text = text[: participle.start()]

    for pattern, copula in ((_RELATIVE, ""), (_BORN_PHRASE, "was "), (_APPOSITIVE, "is ")):
        while match := pattern.search(text):
            owner = _antecedent(text[: match.start()], wide=not copula)
            if not owner or (copula and _is_list_item(match["body"], text[match.end() :])):
                break
            if not copula and match["pronoun"] == "whose":
                owner += "'s"
            clauses.append(_Clause(owner, copula + match["body"]))
            after = text[match.end() :].strip()
            text = f"{text[: match.start()]} {after}".strip()

    main = _split_subject(text)
    if main is None:
        return clauses or [_Clause("", text)]
    subject, predicate = main[0].strip(" ,"), main[1].rstrip(".")
    if adverbial.startswith("born "):
        clauses.append(_Clause(subject, f"was {adverbial}"))
    elif adverbial:
        # Behind the last of several verbs it would be read with that one alone.
        first, *others = coordinated_verbs(predicate)
        clauses[:0] = [_Clause(subject, other) for other in others]
        predicate = f"{first} {adverbial}"
    found = [_Clause(subject, predicate), *clauses]
    if participle and past:
        first, *others = _GERUND_JOINT.split(participle["rest"])
        found.append(_Clause(subject, f"{past} {first}"))
        for verb, rest in zip(others[::2], others[1::2], strict=True):
            found.append(_Clause(subject, f"{past_of_gerund(verb) or verb}{rest}"))
    return found


def _is_list_item(body: str, after: str) -> bool:
    """Whether what looks like an appositive is a member of a list: `an Oscar, a Tony Award, and an Emmy`."""
    if not after:
        return " and " in body
    return after.lstrip().startswith(("and ", "or ")) and body.split(" ")[-1][:1].isupper()


def _antecedent(before: str, *, wide: bool) -> str:
    """The noun phrase that ends `before`: what a relative clause or an appositive is about.

    Names are recognised by their capitals. `wide` also takes a phrase in lower case behind the last preposition
    or verb ("his acting skills, which ...").
    """
    if _split_subject(before) is None:
        return before
    words = before.split(" ")
    start = len(words)
    while start and (
        words[start - 1][:1] in '"\u201c' or words[start - 1][:1].isupper() or words[start - 1] in ("of", "the")
    ):
        start -= 1
    while start < len(words) and words[start] in ("of", "the"):
        start += 1
    if start < len(words) or not wide:
        return " ".join(words[start:])
    phrase = noun_phrase_at_end(before)
    return phrase if len(phrase.split()) > 1 else ""
