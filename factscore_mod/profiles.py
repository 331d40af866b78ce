"""The two ways to score, as named switches.

`factscore` is the published algorithm (Min et al. 2023, arXiv 2305.14251; repository shmsw25/FActScore).
`modified` is this project's own and the default. It is *not* the modification that the Prereq-Tune paper
used, which was never published.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Profile:
    """Every decision that changes a score, apart from the judge and the knowledge source.

    decomposition: `per_sentence` asks about each sentence alone, with demonstrations; `whole_response` asks
        once about numbered sentences in context, for claims that can be understood alone.
    fixed_demonstrations, picked_demonstrations: how many demonstrations precede a sentence, always the same
        ones and those nearest to it by BM25. Only for `per_sentence`.
    number_filter: drop a claim that has a number or date which its sentence does not have, and a claim that
        ends in a bare verb and repeats another (the published post-processing; it used spaCy's entities, ours
        a pattern of digits and month names). Only for `per_sentence`.
    deduplicate: claims of one response that are equal but for case, space and the final stop count once.
    passages: how many passages a claim is judged against.
    always_lead: the article's first passage is always among them.
    topic_in_query, query_words: what BM25 is asked with: the topic too or the claim alone; `words` are
        lower-cased without punctuation, `whitespace` cuts at spaces as the published code does.
    verification: `true_false` asks one question a claim; `structured` asks about many claims of one response.
    claims_per_call: the most claims in one structured call.
    embedder: the model of sentence-transformers that ranks passages where retrieval is `embedding` or `hybrid`
        (not with `bm25`, the default); FActScore's with GTR is `sentence-transformers/gtr-t5-large`.
    empty_reply_is_supported: a `true_false` reply with neither word counts as supported unless it holds
        `not`, `cannot`, `unknown` or `information`. So the published code does, even for an empty reply; here
        such a reply is `unparsed` unless this is switched on.
    detect_abstentions: a response that declines to answer has no claims. Off in the published default.
    gamma: a response of n <= gamma claims has its score multiplied by exp(1 - gamma / n) in `penalised`;
        0 switches the penalty off.
    """

    name: str
    decomposition: Literal["per_sentence", "whole_response"]
    fixed_demonstrations: int
    picked_demonstrations: int
    number_filter: bool
    deduplicate: bool
    passages: int
    always_lead: bool
    topic_in_query: bool
    query_words: Literal["words", "whitespace"]
    embedder: str
    verification: Literal["true_false", "structured"]
    claims_per_call: int
    empty_reply_is_supported: bool
    detect_abstentions: bool
    gamma: int

    @property
    def fingerprint(self) -> str:
        """A hash of all switches but `embedder`, which the retriever names in its own where it uses one."""
        switches = asdict(self)
        del switches["embedder"]
        return hashlib.sha256(json.dumps(switches, sort_keys=True).encode()).hexdigest()[:16]

    def with_switches(self, **switches: Any) -> Profile:
        """A copy with some switches changed; its name says so. Raises ValueError for an unknown one."""
        unknown = sorted(set(switches) - set(asdict(self)))
        if unknown:
            raise ValueError(f"profile {self.name!r} has no switch {', '.join(unknown)}; see {__name__}.Profile")
        changed = [f"{key}={value}" for key, value in sorted(switches.items()) if getattr(self, key) != value]
        if not changed:
            return self
        return replace(self, **{"name": f"{self.name}({', '.join(changed)})", **switches})


MODIFIED = Profile(
    name="modified",
    decomposition="whole_response",
    fixed_demonstrations=0,
    picked_demonstrations=0,
    number_filter=False,
    deduplicate=True,
    passages=5,
    always_lead=True,
    topic_in_query=False,
    query_words="words",
    embedder="sentence-transformers/all-MiniLM-L6-v2",
    verification="structured",
    claims_per_call=20,
    empty_reply_is_supported=False,
    detect_abstentions=True,
    gamma=0,
)

FACTSCORE = Profile(
    name="factscore",
    decomposition="per_sentence",
    fixed_demonstrations=7,
    picked_demonstrations=1,
    number_filter=True,
    deduplicate=False,
    passages=5,
    always_lead=False,
    topic_in_query=True,
    query_words="whitespace",
    embedder="sentence-transformers/gtr-t5-large",
    verification="true_false",
    claims_per_call=1,
    empty_reply_is_supported=False,
    detect_abstentions=False,
    gamma=10,
)

PROFILES = {profile.name: profile for profile in (MODIFIED, FACTSCORE)}


def get_profile(profile: str | Profile) -> Profile:
    """The profile of that name. Raises ValueError that lists the names."""
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}; the profiles are {', '.join(sorted(PROFILES))}")
    return PROFILES[profile]
