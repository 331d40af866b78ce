"""One predicate -> several: coordinated verbs, coordinated nouns, and phrases of time."""

from __future__ import annotations

import re

from factscore_mod.grammar import (
    AUXILIARIES,
    DATE,
    DETERMINERS,
    PASSIVE,
    PREPOSITIONS,
    TIME_PHRASE,
    article_for,
    is_adverb,
    is_finite_verb,
)
from factscore_mod.lexicon import COUNTRIES

# Words that leave nothing to verify once a phrase of time is taken away from behind them.
_EMPTY = AUXILIARIES | PREPOSITIONS | DETERMINERS | {"been", "first", "again", "up", "known", "took", "place"}
_CAPITALISED = r"[A-Z][\w.'\u2019-]*(?: [A-Z][\w.'\u2019-]*)*"
# "Paris, France" after a preposition is one place; "Paris, Rome, and Oslo" is a list.
_PLACE = re.compile(
    rf"\b(?P<head>(?:in|at|from|to|of|near) {_CAPITALISED}), (?P<tail>{_CAPITALISED})(?!,? (?:and|or) [A-Z]|, [A-Z])"
)
_DATE_COMMA = re.compile(DATE)
_EXAMPLES = re.compile(r"^(?P<before>.+?,? (?:including|such as|like|namely)) (?P<items>.+)$")
_KNOWN = re.compile(
    r"^(?P<copula>(?:is|was) an? .+?),? (?P<known>(?:(?:best|also|widely|perhaps|most) )*known (?:for|as) .+)$"
)
_BORN = re.compile(r"^(?P<copula>(?:is|was) an? .+?),? (?P<born>born (?:on|in) .+)$")
_WHO = re.compile(r"^(?P<copula>(?:is|was) (?:an?|the) [^,]+?),? who (?P<rest>.+)$")
_COPULA = re.compile(r"^(?P<copula>is|was) an? (?P<words>(?:[\w-]+ ){0,2}?)(?P<country>[A-Z][a-z]+) (?P<rest>[a-z].*)$")
_RELATIVES = frozenset({"where", "which", "whom", "whose"})
_LIST = re.compile(r",? (?:and|or) ")
_COMMA = "\u201a"


def join_commas(text: str) -> str:
    """Replace the commas inside dates and places by a look-alike, so that they do not split lists."""
    text = _DATE_COMMA.sub(lambda match: match.group().replace(",", _COMMA), text)
    return _PLACE.sub(lambda match: f"{match['head']}{_COMMA} {match['tail']}", text)


def split_commas(text: str) -> str:
    """Undo `join_commas`."""
    return text.replace(_COMMA, ",")


def simple_predicates(predicate: str) -> list[str]:
    """All splits in turn: verbs, `known for`, nouns, nationality, time."""
    result: list[str] = []
    who = _WHO.match(predicate)
    if who:
        return [*simple_predicates(who["copula"]), *simple_predicates(who["rest"])]
    for verb in coordinated_verbs(predicate):
        known, born = _KNOWN.match(verb), _BORN.match(verb)
        parts = [verb]
        if known:
            parts = [known["copula"], f"{known['copula'].split(' ')[0]} {known['known']}"]
        elif born:
            parts = [born["copula"], f"was {born['born']}"]
        for part in parts:
            for item in _coordinated_nouns(part):
                for single in _nationality(item):
                    result.extend(_times(single))
    return result


def coordinated_verbs(predicate: str) -> list[str]:
    """`was born in A and grew up in B` -> both; the auxiliary is carried over to a bare passive participle."""
    words = predicate.split(" ")
    cuts = [0]
    # What stands behind "where" or "which" has a subject of its own.
    end = next((i for i, word in enumerate(words) if word.strip(",") in _RELATIVES), len(words))
    for index in range(1, end):
        joint = words[index] in ("and", "but")
        if not joint and not words[index - 1].endswith(","):
            continue
        verb = index + 1 if joint else index
        while verb < len(words) - 1 and is_adverb(words[verb]):
            verb += 1
        if verb < len(words) and is_finite_verb(words[verb]) and not words[verb].endswith(","):
            if _only_verbs(words[cuts[-1] : index]):
                return [predicate]  # "wrote, produced and directed films": the object belongs to all
            cuts.append(index)
    result: list[str] = []
    for start, end in zip(cuts, [*cuts[1:], len(words)], strict=True):
        piece = re.sub(r"^(?:and|but)\s+", "", " ".join(words[start:end])).strip(" ,")
        first = next((word for word in piece.split(" ") if not is_adverb(word)), "")
        if start and words[0] in ("is", "was", "were", "are") and first in PASSIVE:
            piece = f"{words[0]} {piece}"
        if piece:
            result.append(piece)
    return result


def _only_verbs(words: list[str]) -> bool:
    content = [word for word in words if not is_adverb(word) and word.lower() not in AUXILIARIES | {"been", "and"}]
    return len(content) <= 1


def _coordinated_nouns(predicate: str) -> list[str]:
    """`is an actor, director, and writer` -> three predicates with the words before the list."""
    text = predicate.rstrip(". ")
    examples = _EXAMPLES.match(text)
    if examples:
        items = _items(examples["items"])
        whole = re.sub(r",? (?:including|such as|like|namely)$", "", examples["before"])
        return [whole, *(f"{examples['before']} {item}" for item in items)]
    main, tail, _ = text.partition(", with ")
    if tail:
        return [*_coordinated_nouns(main), text]
    if "between" in text or not _RELATIVES.isdisjoint(text.split(" ")):
        return [text]
    found = _listed(text)
    return found if len(found) > 1 else _paired(text)


def _items(text: str) -> list[str]:
    """The members of `A, B, and C` or `A and B`; the text itself where it is no list of short members."""
    parts = _until_joint([part.strip(" ,") for part in text.split(", ")])
    last = re.sub(r"^(?:and|or) ", "", parts[-1])
    parts = [*parts[:-1], *(_LIST.split(last, maxsplit=1) if last == parts[-1] else [last])]
    if len(parts) < 2 or any(not part or len(part.split()) > 8 for part in parts):
        return [text]
    return parts


def _listed(text: str) -> list[str]:
    parts = text.split(", ")
    if len(parts) < 2:
        return [text]
    if any(part.split(" ")[0].lower() in PREPOSITIONS for part in parts[1:]):
        return _adjuncts(parts)
    parts = _until_joint(parts)
    if parts[-1].startswith(("and ", "or ")):
        parts[-1] = parts[-1].partition(" ")[2]
    else:
        joint = _LIST.search(parts[-1])
        if not joint:
            return [text]
        parts = [*parts[:-1], parts[-1][: joint.start()], parts[-1][joint.end() :]]
    if len(parts) < 3 or any(not part or len(part.split()) > 8 for part in parts[1:]):
        return [text]
    prefix, first = _item_start(parts[0], parts[1])
    if not first or any(is_finite_verb(part.split(" ")[0]) for part in parts[1:]):
        return [text]
    return [_with_prefix(prefix, item, first) for item in (first, *parts[1:])]


def _adjuncts(parts: list[str]) -> list[str]:
    """`was born on D, in P, to M` -> one predicate for each phrase; what begins otherwise stays with its left."""
    words = parts[0].split(" ")
    verb = next((i for i, word in enumerate(words) if i and word.lower() in PREPOSITIONS), len(words))
    phrases = [parts[0]]
    for part in parts[1:]:
        if part.split(" ")[0].lower() in PREPOSITIONS:
            phrases.append(f"{' '.join(words[:verb])} {part}")
        else:
            phrases[-1] += f", {part}"
    return phrases


def _paired(text: str) -> list[str]:
    left, joint, right = text.partition(" and ")
    if not joint or "," in text:
        return [text]
    prefix, first = _item_start(left, right)
    if is_finite_verb(right.split(" ")[0]):
        return [text]
    if not first or len(right.split()) > 8 or len(first.split()) > 6:
        return [text]
    if " " not in first and first[:1].isupper() and right[:1].isupper() and prefix.endswith((" of", " for")):
        return [text]  # a name, as in "Secretary of Trade and Industry"
    return [_with_prefix(prefix, first, first), _with_prefix(prefix, right, first)]


def _until_joint(parts: list[str]) -> list[str]:
    """The parts up to the one that begins with "and" or "or", which ends a list."""
    for index, part in enumerate(parts):
        if part.startswith(("and ", "or ")):
            return parts[: index + 1]
    return parts


def _item_start(text: str, second: str = "") -> tuple[str, str]:
    """Cut the words before a list from its first item, after the last preposition or verb.

    Where the second item begins with an article, so does the first, which then begins at the first article:
    in "was the head of the club and a pilot" it is not "the club".
    """
    words = text.split(" ")
    if second.split(" ")[0].lower() in ("a", "an", "the"):
        for index, word in enumerate(words[1:], start=1):
            if word.lower() in ("a", "an", "the"):
                return " ".join(words[:index]), " ".join(words[index:])
    for index in range(len(words) - 1, -1, -1):
        word = words[index].lower()
        previous = words[index - 1] if index else ""
        if word in PREPOSITIONS or word in AUXILIARIES or not index or is_finite_verb(words[index], previous):
            return " ".join(words[: index + 1]), " ".join(words[index + 1 :])
    return "", text


def noun_phrase_at_end(text: str) -> str:
    """The words behind the last preposition or verb of a text."""
    return _item_start(text)[1]


def _with_prefix(prefix: str, item: str, first: str) -> str:
    """Put an item after the prefix, with an article if the first item had one and this one needs it."""
    head = first.split(" ")[0].lower()
    own = item.split(" ")[0].lower()
    if own in PREPOSITIONS and prefix.split(" ")[-1].lower() in PREPOSITIONS:
        prefix = prefix.rpartition(" ")[0]
    if head in ("a", "an") and own not in DETERMINERS and own not in PREPOSITIONS and item[:1].islower():
        item = f"{article_for(item)} {item}"
    return f"{prefix} {item}"


def _nationality(predicate: str) -> list[str]:
    """`is a retired Swedish golfer` -> `is Swedish`, `is a retired golfer`."""
    match = _COPULA.match(predicate)
    if not match or match["country"].lower() not in COUNTRIES or "-" in match["country"]:
        return [predicate]
    rest = f"{match['words']}{match['rest']}"
    return [f"{match['copula']} {match['country']}", f"{match['copula']} {article_for(rest)} {rest}"]


def _times(predicate: str) -> list[str]:
    """A predicate with a phrase of time gives two: without it, and with it; of a birth or death, place and time."""
    match = TIME_PHRASE.search(predicate)
    if not match:
        return [predicate]
    rest = predicate[: match.start()] + predicate[match.end() :]
    rest = re.sub(r"^((?:was|were|is) born|died), ", r"\1 ", rest)
    life = re.match(r"(?:was|were|is) born\b|died\b", predicate)
    if life:
        return [
            *([rest] if rest.strip() != life.group() else []),
            f"{life.group()} {match.group().strip(' ,')}",
        ]
    if sum(not is_adverb(word) and word.lower() not in _EMPTY for word in rest.split()) < 2:
        return [predicate]
    return [rest, predicate]
