"""Lexical verification: is a claim stated by the evidence?

No model and no download. A claim and its evidence are read as words, numbers and names; words are stemmed and a
few relations are mapped to one key (`born` and `birth`, `wife` and `married`). The features say how much of the
claim one short stretch of the evidence covers and, above all, what of it is *missing*: a claim is as good as its
least supported part. A logistic model of the features gives the score. Guards keep short claims strict: a claim
whose number, name or final word (in English the new information) is absent from the evidence is not supported,
however many other words match.

Passages are prepared once and cached, because the claims of one topic share them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache

from factscore_mod.lexicon import MONTHS, NEGATIONS, NUMBER_WORDS, STOP_WORDS, fold, key
from factscore_mod.records import Passage
from factscore_mod.sentences import split_sentences

THRESHOLD = 0.5

_TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th|s)?\b|[^\W\d_]+(?:['’.\-][^\W\d_]+)*\.?(?<!\.)|n't")
_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)(st|nd|rd|th|s)?$")


@dataclass(frozen=True, slots=True)
class Token:
    """A content word: its comparison key, its kind, and its position among all tokens of the text."""

    key: str
    kind: str  # "word", "name" or "number"
    position: int
    surface: str


@dataclass(frozen=True, slots=True)
class Features:
    """What the verdict is computed from; every one lies in [0, 1] except the two logarithms."""

    coverage: float
    window_coverage: float
    pair_coverage: float
    number_missing: float
    name_missing: float
    last_missing: float
    missing_count: float
    negation: float
    log_claim: float
    log_evidence: float


@dataclass(frozen=True, slots=True)
class LexicalVerdict:
    """A verdict with its score in [0, 1] and what decided it."""

    supported: bool
    score: float
    reason: str
    features: Features


INTERCEPT = -3.2
COEFFICIENTS = Features(
    coverage=2.5,
    window_coverage=2.5,
    pair_coverage=1.0,
    number_missing=-2.0,
    name_missing=-1.5,
    last_missing=-1.0,
    missing_count=-0.5,
    negation=-1.0,
    log_claim=0.0,
    log_evidence=0.0,
)


def tokens_of(text: str) -> tuple[tuple[Token, ...], bool]:
    """The content tokens of a text, and whether it holds a negation."""
    found: list[Token] = []
    negated = False
    for position, match in enumerate(_TOKEN.finditer(text)):
        surface = match.group()
        if surface.endswith(("'s", "’s")):
            surface = surface[:-2]
        number = _NUMBER.match(surface)
        if number:
            digits = number.group(1).replace(",", "")
            found.append(Token(digits + ("s" if number.group(2) == "s" else ""), "number", position, surface))
            continue
        folded = fold(surface).replace("’", "'")
        if folded in NEGATIONS or folded.endswith("n't"):
            negated = True
            continue
        if folded in STOP_WORDS and not (len(surface) > 1 and surface.isupper()):
            continue
        if folded in NUMBER_WORDS:
            found.append(Token(NUMBER_WORDS[folded], "number", position, surface))
        elif surface[0].isupper() and folded not in MONTHS:
            found.append(Token(key(folded), "name", position, surface))
        else:
            for part in folded.split("-"):
                if part and part not in STOP_WORDS:
                    found.append(Token(key(part), "word", position, surface))
    return tuple(found), negated


@dataclass(frozen=True, slots=True)
class PreparedPassage:
    """A passage's sentences as key -> positions, with an index from key to the sentences that hold it."""

    sentences: tuple[dict[str, list[int]], ...]
    negated: tuple[bool, ...]
    where: dict[str, tuple[int, ...]]
    prefixes: dict[str, tuple[str, ...]]
    size: int


@lru_cache(maxsize=4096)
def prepare(text: str) -> PreparedPassage:
    """Tokenise a passage once; cached by its text."""
    sentences: list[dict[str, list[int]]] = []
    negated: list[bool] = []
    where: dict[str, list[int]] = {}
    size = 0
    for sentence in split_sentences(text):
        tokens, negative = tokens_of(sentence.text)
        positions: dict[str, list[int]] = {}
        for token in tokens:
            positions.setdefault(token.key, []).append(token.position)
        for word in positions:
            where.setdefault(word, []).append(len(sentences))
        sentences.append(positions)
        negated.append(negative)
        size += len(tokens)
    prefixes: dict[str, list[str]] = {}
    for word in where:
        if len(word) >= 5 and word[0] != "=":
            prefixes.setdefault(word[:5], []).append(word)
    return PreparedPassage(
        tuple(sentences),
        tuple(negated),
        {word: tuple(indices) for word, indices in where.items()},
        {prefix: tuple(words) for prefix, words in prefixes.items()},
        size,
    )


def _alternatives(token: Token, passage: PreparedPassage) -> tuple[str, ...]:
    """Keys of the passage that count as this token: itself, or for common words a longer or shorter relative."""
    if token.key in passage.where:
        return (token.key,)
    if token.kind == "number":
        if token.key.endswith("s") and len(token.key) == 5:  # a decade holds its years
            return tuple(year for year in passage.where if year[:3] == token.key[:3] and len(year) == 4)
        return ()
    if token.kind == "word" and len(token.key) >= 5:
        return tuple(
            other
            for other in passage.prefixes.get(token.key[:5], ())
            if _shared_prefix(token.key, other) >= 0.75 * max(len(token.key), len(other))
        )
    return ()


def _shared_prefix(a: str, b: str) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


_WEIGHT = {"word": 1.0, "name": 1.3, "number": 1.5}


def features_of(claim: str, passages: Sequence[Passage], topic: str = "") -> tuple[Features, tuple[str, ...]]:
    """The features of a claim against passages, and the surface forms of what is missing.

    Words of the topic, and of the article's title, count as given: evidence about the topic speaks of it as
    "he" or "it".
    """
    tokens, negated = tokens_of(claim)
    given = {token.key for token in tokens_of(topic)[0]}
    titles = {token.key for passage in passages for token in tokens_of(passage.title)[0]}
    prepared = [prepare(passage.text) for passage in passages]
    subject = given & titles if titles else given

    decisive = [token for token in tokens if token.key not in subject]
    weights = [_WEIGHT[token.kind] for token in decisive]
    total = sum(weights)
    size = sum(p.size for p in prepared)
    if not decisive:
        present = bool(tokens) and bool(prepared)
        return Features(present, present, present, 0, 0, 0, 0, 0, 0.0, math.log1p(size)), ()

    matched = [False] * len(decisive)
    window_best, pair_best, window_negated = 0.0, 0.0, False
    for passage in prepared:
        hits: dict[int, dict[int, list[int]]] = {}
        for index, token in enumerate(decisive):
            for other in _alternatives(token, passage):
                matched[index] = True
                for sentence in passage.where[other]:
                    hits.setdefault(sentence, {}).setdefault(index, []).extend(
                        passage.sentences[sentence][other]
                    )
        for sentence, found in hits.items():
            covered = sum(weights[index] for index in found)
            following = hits.get(sentence + 1, {})
            # Half weight for what only the neighbouring sentence holds: facts about one subject often run on.
            covered += 0.5 * sum(weights[index] for index in following if index not in found)
            pairs = _ordered_pairs(found, len(decisive))
            if (covered, pairs) > (window_best, pair_best):
                window_best, pair_best = covered, pairs
                window_negated = passage.negated[sentence]
    for index, token in enumerate(decisive):
        if not matched[index] and token.key in titles:
            matched[index] = True

    def share_missing(kind: str) -> float:
        of_kind = [hit for hit, token in zip(matched, decisive, strict=True) if token.kind == kind]
        return of_kind.count(False) / len(of_kind) if of_kind else 0.0

    missing = tuple(token.surface for hit, token in zip(matched, decisive, strict=True) if not hit)
    features = Features(
        coverage=sum(w for w, hit in zip(weights, matched, strict=True) if hit) / total,
        window_coverage=min(1.0, window_best / total),
        pair_coverage=pair_best,
        number_missing=share_missing("number"),
        name_missing=share_missing("name"),
        last_missing=float(not matched[-1]),
        missing_count=math.log1p(len(missing)),
        negation=float(negated != window_negated),
        log_claim=math.log(len(decisive)),
        log_evidence=math.log1p(size),
    )
    return features, missing


def _ordered_pairs(found: dict[int, list[int]], length: int, reach: int = 6) -> float:
    """The share of neighbouring claim tokens that stand in the same order, at most `reach` apart, in a sentence."""
    if length < 2:
        return float(bool(found))
    kept = 0
    for index in range(length - 1):
        first, second = found.get(index), found.get(index + 1)
        if first and second and any(0 <= b - a <= reach for a in first for b in second):
            kept += 1
    return kept / (length - 1)


def verify_claim(claim: str, passages: Sequence[Passage], topic: str = "") -> LexicalVerdict:
    """Judge one claim against passages. `topic` is the entity that the response is about, or empty."""
    features, missing = features_of(claim, passages, topic)
    logit = INTERCEPT + sum(c * x for c, x in zip(astuple(COEFFICIENTS), astuple(features), strict=True))
    score = 1.0 / (1.0 + math.exp(-logit))
    reason = f"missing: {', '.join(missing)}" if missing else "every content word is in the evidence"
    if not passages:
        return LexicalVerdict(False, 0.0, "no evidence", features)
    guard = _guard(features)
    if guard and score >= THRESHOLD:
        score = math.nextafter(THRESHOLD, 0.0)
        reason = f"{guard}; {reason}"
    return LexicalVerdict(score >= THRESHOLD, score, reason, features)


def _guard(features: Features) -> str:
    """Why a claim cannot be supported whatever its score, or an empty string."""
    if math.exp(features.log_claim) > 5:
        return ""
    if features.number_missing:
        return "a number of a short claim is not in the evidence"
    if features.last_missing:
        return "the final word of a short claim is not in the evidence"
    return ""
