"""The embedded judge: decomposition and verification by rules. Free, deterministic, and with nothing to download."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from factscore_mod.decompose import decompose_response
from factscore_mod.records import Claim, Evidence, Judgement, Sentence, Usage
from factscore_mod.verify import verify_claim

_DECOMPOSITION = ("coordination.py", "decompose.py", "grammar.py", "lexicon.py")
_VERIFICATION = ("lexicon.py", "reading.py", "sentences.py", "verify.py")


@cache
def _source_hash(files: tuple[str, ...]) -> str:
    """A hash of the rules' own source: changed rules are another judge to every cache."""
    digest = hashlib.sha256()
    for file in files:
        digest.update((Path(__file__).parent.parent / file).read_bytes())
    return digest.hexdigest()[:16]


class RulesDecomposer:
    """Splits sentences into claims by rules (`factscore_mod.decompose`)."""

    name = "rules"

    def __init__(self) -> None:
        self.fingerprint = f"rules-decompose:{_source_hash(_DECOMPOSITION)}"

    async def decompose(
        self, topic: str, text: str, sentences: tuple[Sentence, ...]
    ) -> tuple[tuple[Claim, ...], Usage]:
        """Claims in reading order; nothing is sent anywhere, so the usage is empty."""
        return decompose_response(topic, sentences), Usage()


class RulesVerifier:
    """Judges claims by what of them the evidence states (`factscore_mod.verify`)."""

    name = "rules"

    def __init__(self) -> None:
        self.fingerprint = f"rules-verify:{_source_hash(_VERIFICATION)}"

    async def verify(
        self, topic: str, claims: tuple[Claim, ...], evidence: tuple[Evidence, ...]
    ) -> tuple[tuple[Judgement, ...], Usage]:
        """One judgement a claim, in order; `reason` names what is missing from the evidence."""
        return tuple(self.judge(topic, claim, found) for claim, found in zip(claims, evidence, strict=True)), Usage()

    @staticmethod
    def judge(topic: str, claim: Claim, evidence: Evidence) -> Judgement:
        """The judgement on one claim, without an event loop."""
        # Only in the topic's own article does the topic go without saying; elsewhere its name has to be found too.
        own_article = evidence.found in ("exact", "normalised")
        verdict = verify_claim(claim.text, evidence.passages, topic if own_article else "")
        return Judgement(
            verdict="supported" if verdict.supported else "not_supported",
            score=verdict.score,
            reason=verdict.reason,
        )
