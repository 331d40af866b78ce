"""Lexical verification: is a claim stated by the evidence?

No model and no download. A claim and its evidence are read as words, names and numbers: words are compared by
their stems, names and numbers as they are. Nine features say how much of the claim the evidence covers, how
closely together, and above all what is *missing*; a logistic model turns them into a score. Its coefficients are
constrained in sign (more coverage never lowers a score) and fitted by `scripts/fit_rules_verifier.py`.

Guards keep short claims strict. In a claim with few words each is decisive: one whose number, name or last word
(in English the place of the new information) is absent from the evidence is not supported, whatever its score.

Passages are prepared once and cached, because the claims of one topic share them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache

from factscore_mod.lexicon import fold
from factscore_mod.reading import Kind, Token, content_tokens, keys_in, negation_places, prepare
from factscore_mod.records import Passage

#: A claim is supported from this score on.
THRESHOLD = 0.5
#: In claims of at most so many decisive words no name or number, or no last word, may be missing.
SHORT_FOR_NAMES = 4
SHORT_FOR_WORDS = 3
#: In longer claims than this a negation often concerns a part that is not what the claim hinges on.
SHORT_FOR_NEGATION = 6
#: Two words of a claim are still a pair when this many words stand between them in the evidence.
REACH = 6
#: A negation concerns the words that follow it within this many.
NEGATION_REACH = 3

_PARENTHESIS = re.compile(r"\([^)]*\)")
_WEIGHTS: dict[Kind, float] = {"word": 1.0, "name": 1.3, "number": 1.5}


@dataclass(frozen=True, slots=True)
class Features:
    """What the score is computed from. *Decisive* words are the content words that do not name the topic.

    coverage: share of the claim's content words, the topic's included, that the evidence holds in the same form.
    window: weighted share of the decisive words that the best single sentence holds.
    pairs: share of neighbouring content words that the best sentence holds in the same order, near together.
    adjacency: how near together neighbouring decisive words stand at best, averaged; 1 is as near as in the claim.
    subject: 1 where the claim names the topic that it is about.
    missing_names, missing_numbers: log(1 + count) of those that the evidence does not hold.
    last_missing: 1 where the last decisive word is not in the evidence.
    log_evidence: log(1 + content words of the evidence); more text matches more by chance.
    """

    coverage: float
    window: float
    pairs: float
    adjacency: float
    subject: float
    missing_names: float
    missing_numbers: float
    last_missing: float
    log_evidence: float


@dataclass(frozen=True, slots=True)
class LexicalVerdict:
    """A verdict with its score in [0, 1], what decided it, and the features it was computed from."""

    supported: bool
    score: float
    reason: str
    features: Features


#: Fitted by scripts/fit_rules_verifier.py; see docs/calibration.md for what they reach and on which rows.
INTERCEPT = 0.195
COEFFICIENTS = Features(
    coverage=0.845,
    window=0.573,
    pairs=0.850,
    adjacency=0.945,
    subject=0.428,
    missing_names=-0.689,
    missing_numbers=-1.032,
    last_missing=-0.460,
    log_evidence=-0.154,
)


def verify_claim(claim: str, passages: Sequence[Passage], topic: str = "") -> LexicalVerdict:
    """Judge one claim against passages. `topic` is the entity that the response is about, or empty.

    Without passages, or for a claim without a content word, nothing is supported and the score is 0.
    """
    match = match_claim(claim, passages, topic)
    features = match.features()
    if not passages:
        return LexicalVerdict(False, 0.0, "no evidence was found", features)
    if not match.tokens:
        return LexicalVerdict(False, 0.0, "the claim has no content word", features)
    logit = INTERCEPT + sum(c * x for c, x in zip(astuple(COEFFICIENTS), astuple(features), strict=True))
    score = 1.0 / (1.0 + math.exp(-logit))
    missing = match.missing()
    reason = f"not in the evidence: {', '.join(missing)}" if missing else "every content word is in the evidence"
    guard = match.guard()
    if guard:
        score = min(score, math.nextafter(THRESHOLD, 0.0))
        reason = f"{guard}; {reason}" if missing else guard
    return LexicalVerdict(score >= THRESHOLD, score, reason, features)


@lru_cache(maxsize=1024)
def _forms_of(text: str) -> frozenset[str]:
    return frozenset(fold(word) for word in re.findall(r"[^\W_]+", _PARENTHESIS.sub("", text)))


@dataclass(frozen=True, slots=True)
class SentenceHit:
    """A sentence of the evidence that holds words of the claim.

    `places[i]` are the places of the claim's word i in it; `length` counts its content words; `negations` are the
    places of its negations.
    """

    places: dict[int, list[int]]
    length: int
    negations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Which words of a claim were found where.

    `tokens` are the claim's content words and `decisive` the positions of those that do not name the topic.
    `held[i]` says whether word i is in the evidence; `same_form[i]` whether in the same form. `hits` are the
    sentences of the evidence with any of the words; `negated` says whether the claim holds a negation.
    """

    tokens: tuple[Token, ...]
    decisive: tuple[int, ...]
    held: tuple[bool, ...]
    same_form: tuple[bool, ...]
    hits: tuple[SentenceHit, ...]
    names_topic: bool
    negated: bool
    evidence_size: int

    def features(self) -> Features:
        """The nine features of the claim."""
        tokens, decisive = self.tokens, self.decisive
        if not tokens:
            return Features(0, 0, 0, 0, 0, 0, 0, 0, math.log1p(self.evidence_size))
        forms = {token.form: same for token, same in zip(tokens, self.same_form, strict=True)}
        missing = [tokens[i].kind for i in decisive if not self.held[i]]
        return Features(
            coverage=sum(forms.values()) / len(forms),
            window=max((self._weight(hit.places) for hit in self.hits), default=0.0) / self._weight(decisive),
            pairs=self._pairs(),
            adjacency=self._adjacency(),
            subject=float(self.names_topic),
            missing_names=math.log1p(missing.count("name")),
            missing_numbers=math.log1p(missing.count("number")),
            last_missing=float(not self.held[decisive[-1]]),
            log_evidence=math.log1p(self.evidence_size),
        )

    def missing(self) -> tuple[str, ...]:
        """The decisive words that the evidence does not hold."""
        return tuple(self.tokens[i].form for i in self.decisive if not self.held[i])

    def guard(self) -> str:
        """Why this claim cannot be supported whatever its score, or an empty string."""
        gone = {self.tokens[i].kind for i in self.decisive if not self.held[i]}
        if len(self.decisive) <= SHORT_FOR_NAMES:
            if "number" in gone:
                return "a number is missing"
            if "name" in gone:
                return "a name is missing"
        if len(self.decisive) <= SHORT_FOR_WORDS and not self.held[self.decisive[-1]]:
            return "the last word is missing"
        if self._differs_in_one_word():
            return "a sentence says the same with another word"
        if len(self.decisive) <= SHORT_FOR_NEGATION and self._is_contradicted():
            return "claim and evidence differ in a negation"
        return ""

    def _differs_in_one_word(self) -> bool:
        """Whether one word is missing and a sentence holds all the others and at most one word more."""
        gone = [i for i in self.decisive if not self.held[i]]
        if len(gone) != 1 or len(self.decisive) < 2:
            return False
        others = [i for i in self.decisive if i != gone[0]]
        for hit in self.hits:
            if all(i in hit.places for i in others):
                matched = {place for places in hit.places.values() for place in places}
                if hit.length - len(matched) <= 1:
                    return True
        return False

    def _is_contradicted(self) -> bool:
        """Whether every sentence that covers the claim best is negated where the claim is not, or the reverse."""
        covered = [(self._weight(hit.places), hit) for hit in self.hits]
        best = max((weight for weight, _ in covered), default=0.0)
        if not best:
            return False
        return all(self._is_negated(hit) != self.negated for weight, hit in covered if weight == best)

    def _is_negated(self, hit: SentenceHit) -> bool:
        """Whether a negation stands close before a decisive word of the claim."""
        return any(
            0 < place - negation <= NEGATION_REACH
            for negation in hit.negations
            for i, places in hit.places.items()
            if i in self.decisive and self.tokens[i].kind == "word"
            for place in places
        )

    def _weight(self, indices: Iterable[int]) -> float:
        decisive = set(self.decisive)
        return sum(_WEIGHTS[self.tokens[i].kind] for i in indices if i in decisive)

    def _pairs(self) -> float:
        count = len(self.tokens) - 1
        if not count:
            return float(self.held[0])
        best = 0
        for hit in self.hits:
            places = hit.places
            kept = sum(
                any(0 <= b - a <= REACH for a in places[i] for b in places[i + 1]) for i in places if i + 1 in places
            )
            best = max(best, kept)
        return best / count

    def _adjacency(self) -> float:
        pairs = list(zip(self.decisive, self.decisive[1:], strict=False))
        if not pairs:
            return float(self.held[self.decisive[0]])
        nearness = 0.0
        for i, j in pairs:
            gaps = [
                # A reversed pair counts three times its distance: "A beat B" is not "B beat A".
                b - a if b > a else 3 * (a - b) + 1
                for hit in self.hits
                if i in hit.places and j in hit.places
                for a in hit.places[i]
                for b in hit.places[j]
            ]
            if gaps:
                nearness += 1.0 / (1.0 + max(0, min(gaps) - 1) / 4.0)
        return nearness / len(pairs)


def match_claim(claim: str, passages: Sequence[Passage], topic: str = "") -> Match:
    """Look the content words of a claim up in passages. The passages' titles count as evidence for names."""
    tokens = content_tokens(claim)
    topic_forms = _forms_of(topic)
    prepared = [prepare(passage.text) for passage in passages]
    titles = frozenset[str]().union(*(_forms_of(passage.title) for passage in passages))
    decisive = tuple(i for i, token in enumerate(tokens) if token.form not in topic_forms)
    names_topic = len(decisive) < len(tokens)

    held = [token.form in titles for token in tokens]
    same_form = [token.form in titles or any(token.form in passage.forms for passage in prepared) for token in tokens]
    hits: list[SentenceHit] = []
    for passage in prepared:
        found: dict[int, dict[int, list[int]]] = {}
        for i, token in enumerate(tokens):
            for key in keys_in(passage, token):
                held[i] = True
                for sentence in passage.where[key]:
                    found.setdefault(sentence, {}).setdefault(i, []).extend(passage.places[sentence][key])
        hits.extend(
            SentenceHit(places, passage.lengths[sentence], passage.negations[sentence])
            for sentence, places in found.items()
        )
    return Match(
        tokens,
        decisive or tuple(range(len(tokens))),
        tuple(held),
        tuple(same_form),
        tuple(hits),
        names_topic,
        bool(negation_places(claim)),
        sum(sum(passage.lengths) for passage in prepared),
    )
