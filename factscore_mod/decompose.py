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

from factscore_mod.grammar import (
    AUXILIARIES,
    DATE,
    DETERMINERS,
    PASSIVE,
    POSSESSIVE_PRONOUNS,
    PREPOSITIONS,
    SUBJECT_PRONOUNS,
    TIME_PHRASE,
    article_for,
    is_adverb,
    is_finite_verb,
    past_of_gerund,
)
from factscore_mod.records import Claim, Sentence

#: No sentence yields more claims than this; a longer list is cut into its first items.
MAX_CLAIMS = 24

_CITATION = re.compile(r"\s*\[\d+(?:[,\-\u2013 ]+\d+)*\]")
_MARKUP = re.compile(r"[*_`#]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}")
_SPACE = re.compile(r"\s+")
_PARENTHESIS = re.compile(r"\s*\(([^()]*)\)")
_LIFE_SPAN = re.compile(rf"^(?:born |b\. )?({DATE}) ?[\u2013\u2014-] ?({DATE})$")
_BORN = re.compile(rf"^(?:born|b\.) (?:on |in )?(?P<date>{DATE})(?:,? (?P<rest>(?:in )?.+))?$")
_CLAUSE_BREAK = re.compile(
    r"\s*;\s*(?:however,\s*|and\s+|but\s+)?"
    r"|,?\s+(?:and|but|while|where|when|although|though|whereas)\s+(?=(?:he|she|they|it|his|her|their|its)\s)"
    r"|,\s+(?=(?:he|she|they)\s)"
)
_FRONT = re.compile(
    r"^(?P<front>(?:In|On|At|During|After|Before|From|Since|Throughout|By|Between|Until|As|Following|With|For|Under)"
    r"\s[^,]{2,70}(?:, (?:19|20)\d\d)?),\s+(?P<rest>.+)$"
)
_DISCOURSE = re.compile(
    r"^(?:However|Additionally|Furthermore|Moreover|Also|Later|Finally|Eventually|Overall|Today|Currently|Meanwhile"
    r"|In addition|As a result|Subsequently|Notably|Then|And|But),?\s+(?=\S)"
)
_RELATIVE = re.compile(r",\s+(?:who|which)\s+(?P<body>[^,]+(?:, \d{4})?)(?P<end>,|$)")
_APPOSITIVE = re.compile(r",\s+(?P<body>(?:an?|the|his|her|their)\s[^,]{3,80})(?P<end>,|$)")
_PARTICIPLE = re.compile(r",\s+(?:(?:and|while|also)\s+)*(?P<verb>[a-z]{3,}ing)\s(?P<rest>[^;]+)$")
_NOT_PARTICIPLES = frozenset(
    ["including", "during", "being", "following", "according", "regarding", "having"]
)
# Words that leave nothing to verify once a phrase of time is taken away from behind them.
_EMPTY = AUXILIARIES | PREPOSITIONS | DETERMINERS | {"been", "first", "again", "up", "known", "took", "place"}


@dataclass(frozen=True, slots=True)
class _Clause:
    """A subject with its predicate, before it is written as a claim."""

    subject: str
    predicate: str


def decompose_response(topic: str, sentences: Iterable[Sentence]) -> tuple[Claim, ...]:
    """The claims of a response in reading order, without repetitions of the same wording."""
    claims: list[Claim] = []
    seen: set[str] = set()
    for sentence in sentences:
        for text in decompose_sentence(sentence.text, topic):
            if text.lower() not in seen:
                seen.add(text.lower())
                claims.append(Claim(text, sentence.index))
    return tuple(claims)


def decompose_sentence(sentence: str, topic: str = "") -> tuple[str, ...]:
    """The atomic claims of one sentence; `topic` is what a pronoun at its head refers to, or empty."""
    text = _clean(sentence)
    if not re.search(r"\w", text) or text.endswith(("?", ":")):
        return ()
    text, extra = _take_parentheses(text, topic)
    clauses: list[_Clause] = []
    for part in _independent(text):
        clauses.extend(_clauses_of(part, topic))
    written: list[str] = []
    for clause in clauses:
        for predicate in _coordinated_verbs(clause.predicate):
            for item in _coordinated_nouns(predicate):
                written.extend(_write(clause.subject, piece, topic) for piece in _times(item))
    written.extend(extra)
    unique = dict.fromkeys(claim for claim in written if _is_claim(claim))
    return tuple(list(unique)[:MAX_CLAIMS]) or (_finish(resolve_subject(text, topic)),)


def resolve_subject(text: str, topic: str) -> str:
    """Replace a pronoun, or a lone part of the topic's name, at the head of `text` by the topic."""
    if not topic:
        return text
    head, _, rest = text.partition(" ")
    bare = head.strip(",").lower()
    if bare in SUBJECT_PRONOUNS:
        return f"{topic} {rest}"
    if bare in POSSESSIVE_PRONOUNS:
        return f"{topic}'s {rest}"
    parts = topic.split()
    name, possessive, _ = head.partition("'s")
    if len(parts) > 1 and name in parts and name[:1].isupper() and not rest.startswith(tuple(parts)):
        return f"{topic}{possessive} {rest}"
    return text


def _clean(sentence: str) -> str:
    text = _MARKUP.sub("", _CITATION.sub("", sentence))
    text = _SPACE.sub(" ", text).strip().strip('"\u201c\u201d').strip()
    return _DISCOURSE.sub("", text) if not _FRONT.match(text) else text


def _finish(text: str) -> str:
    text = _SPACE.sub(" ", text).strip(" ,;:.\u2013\u2014-")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _is_claim(text: str) -> bool:
    return len(text.split()) >= 3


def _write(subject: str, predicate: str, topic: str) -> str:
    return _finish(resolve_subject(f"{subject} {predicate}".strip(), topic))


def _take_parentheses(text: str, topic: str) -> tuple[str, list[str]]:
    """Dates of life become claims of their own; a year after a title is kept in place; the rest is dropped."""
    extra: list[str] = []
    subject = topic or text.split(" (")[0]

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
    return (
        f"on {date}" if re.search(r"\b\d{1,2}\b(?!\d)", date) and re.search(r"[A-Z]", date) else f"in {date}"
    )


def _independent(text: str) -> list[str]:
    """Clauses that have their own subject."""
    parts = [part.strip(" ,") for part in _CLAUSE_BREAK.split(text)]
    return [part for part in parts if part]


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


def _clauses_of(text: str, topic: str) -> list[_Clause]:
    front = _FRONT.match(text)
    adverbial = ""
    if front and _split_subject(front["rest"]):
        text = front["rest"]
        adverbial = front["front"][:1].lower() + front["front"][1:]
    clauses: list[_Clause] = []

    participle = _PARTICIPLE.search(text)
    if participle and participle["verb"] not in _NOT_PARTICIPLES:
        past = past_of_gerund(participle["verb"])
        text = text[: participle.start()]
    else:
        participle = None

    for pattern, verb in ((_RELATIVE, ""), (_APPOSITIVE, "is ")):
        while match := pattern.search(text):
            owner = _antecedent(text[: match.start()])
            if not owner or (pattern is _APPOSITIVE and not match["end"] and " and " in match["body"]):
                break
            clauses.append(_Clause(owner, verb + match["body"]))
            before, after = text[: match.start()], text[match.end() :]
            text = before + " " + after.strip() if after.strip() else before

    main = _split_subject(text)
    if main is None:
        return clauses or [_Clause("", text)]
    subject, predicate = main[0].strip(" ,"), main[1]
    if adverbial:
        predicate = f"{predicate.rstrip('.')} {adverbial}"
    found = [_Clause(subject, predicate), *clauses]
    if participle and past:
        found.append(_Clause(subject, f"{past} {participle['rest']}"))
    return found


def _antecedent(before: str) -> str:
    """The noun phrase that ends `before`: what a relative clause or an appositive is about."""
    words = before.split(" ")
    if not words:
        return ""
    if _split_subject(before) is None:
        return before
    taken: list[str] = []
    for word in reversed(words):
        if (
            word[:1].isupper()
            or word[:1].isdigit()
            or word[:1] == '"'
            or (taken and word in ("of", "the", "and"))
        ):
            taken.insert(0, word)
        else:
            break
    while taken and taken[0] in ("of", "the", "and"):
        taken.pop(0)
    return " ".join(taken)


def _coordinated_verbs(predicate: str) -> list[str]:
    """`was born in A and grew up in B` -> two predicates; an auxiliary is not carried over unless it must be."""
    words = predicate.split(" ")
    cuts = [0]
    for index in range(1, len(words) - 1):
        joined = words[index] in ("and", "but") or words[index - 1].endswith(",")
        if not joined:
            continue
        start = index + 1 if words[index] in ("and", "but") else index
        verb = start
        while verb < len(words) - 1 and is_adverb(words[verb]):
            verb += 1
        if verb < len(words) - 1 and is_finite_verb(words[verb]) and words[verb][-1] not in ",.":
            cuts.append(index)
    pieces = [" ".join(words[a:b]) for a, b in zip(cuts, [*cuts[1:], len(words)], strict=True)]
    passive = words[0] in ("is", "was", "were", "are")
    result: list[str] = []
    for number, piece in enumerate(pieces):
        piece = re.sub(r"^(?:and|but)\s+", "", piece).strip(" ,")
        first = next((w for w in piece.split(" ") if not is_adverb(w)), "")
        if number and passive and first in PASSIVE:
            piece = f"{words[0]} {piece}"
        if piece:
            result.append(piece)
    return result


def _coordinated_nouns(predicate: str) -> list[str]:
    """`is an actor, director, and writer` -> three predicates with the words before and after the list."""
    text = predicate.rstrip(". ")
    match = re.search(r"^(?P<before>.*?)(?P<items>(?:[^,]+, )+?[^,]*?,? ?\b(?:and|or) )(?P<last>.+)$", text)
    if match:
        found = _split_items(text)
        if found:
            return found
    pair = re.search(r"^(?P<left>.+?) and (?P<right>.+)$", text)
    if pair and "between" not in text:
        return _split_pair(pair["left"], pair["right"]) or [text]
    return [text]


def _split_items(text: str) -> list[str]:
    parts = re.split(r",\s+(?:and |or )?", text)
    if len(parts) < 2:
        return []
    if not re.search(r",\s+(?:and|or) ", text):
        head, joint, tail = parts[-1].partition(" and ")
        if not joint:
            return []
        parts = [*parts[:-1], head, tail]
    if len(parts) < 3 or any(not part or len(part.split()) > 8 for part in parts[1:]):
        return []
    prefix, first = _item_start(parts[0])
    if not first:
        return []
    items = [first, *parts[1:]]
    return [_with_prefix(prefix, item, first) for item in items]


def _split_pair(left: str, right: str) -> list[str]:
    prefix, first = _item_start(left)
    if not first or len(right.split()) > 8 or len(first.split()) > 6:
        return []
    lone_names = " " not in first and first[:1].isupper() and right[:1].isupper()
    if lone_names and prefix.endswith((" of", " for")):
        return []
    return [_with_prefix(prefix, first, first), _with_prefix(prefix, right, first)]


def _item_start(text: str) -> tuple[str, str]:
    """Cut the words before a list from its first item, at the last preposition, verb or article."""
    words = text.split(" ")
    for index in range(len(words) - 1, -1, -1):
        word = words[index].lower()
        previous = words[index - 1] if index else ""
        if (
            word in PREPOSITIONS
            or word in AUXILIARIES
            or index == 0
            or is_finite_verb(words[index], previous)
        ):
            return " ".join(words[: index + 1]), " ".join(words[index + 1 :])
    return "", text


def _with_prefix(prefix: str, item: str, first: str) -> str:
    """Put an item after the prefix, with an article if the first item had one and this one needs it."""
    head = first.split(" ")[0].lower()
    own = item.split(" ")[0].lower()
    if own in PREPOSITIONS and prefix.split(" ")[-1].lower() in PREPOSITIONS:
        prefix = prefix.rpartition(" ")[0]
    if head in ("a", "an") and own not in DETERMINERS and own not in PREPOSITIONS and item[:1].islower():
        item = f"{article_for(item)} {item}"
    return f"{prefix} {item}"


def _times(predicate: str) -> list[str]:
    """A predicate with a phrase of time gives two claims: without it, and with it."""
    match = TIME_PHRASE.search(predicate)
    if not match:
        return [predicate]
    rest = re.sub(
        r"^((?:was|were|is) born|died), ", r"\1 ", predicate[: match.start()] + predicate[match.end() :]
    )
    life = re.match(r"(?:was|were|is) born\b|died\b", predicate)
    if not life and sum(not is_adverb(word) and word.lower() not in _EMPTY for word in rest.split()) < 2:
        return [predicate]
    if life:
        return [
            *([rest] if rest.strip() != life.group() else []),
            f"{life.group()} {match.group().strip(' ,')}",
        ]
    return [rest, predicate]
