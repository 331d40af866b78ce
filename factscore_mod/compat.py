"""FActScore's own interface: change one import and keep the rest.

    from factscore_mod.compat import FactScorer      # was: from factscore.factscorer import FactScorer

    scorer = FactScorer(model_name="retrieval+ChatGPT", openai_key="api.key")
    scorer.register_knowledge_source("my-wiki", db_path="my-wiki.db")
    out = scorer.get_score(topics, generations, gamma=10, knowledge_source="my-wiki")
    print(out["score"], out["respond_ratio"], out["num_facts_per_response"])

Signatures and result keys are those of shmsw25/FActScore v0.2; the scorer behind them is this package's, with the
profile `factscore`. Values are Python floats and bools, so that the result can be dumped as JSON. A score over
nothing is `None`, not NaN. A claim without a verdict has `is_supported` `None` and counts as not supported here
(the published code knows no third state); `unparsed` and `errors` count them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factscore_mod.abstain import is_abstention
from factscore_mod.aggregate import length_penalty, mean
from factscore_mod.judges import JudgeOptions
from factscore_mod.profiles import FACTSCORE, Profile
from factscore_mod.records import ScoredResponse
from factscore_mod.scorer import FactScorer as Scorer

_MODELS = {"ChatGPT": "openai:gpt-3.5-turbo"}


class FactScorer:
    """FActScore's class over this package's scorer.

    `model_name` is one of FActScore's with ChatGPT (`retrieval+ChatGPT`; `gpt-3.5-turbo` judges), or
    `retrieval+JUDGE` with any judge of this package, such as `retrieval+openai:gpt-4o-mini`, `retrieval+rules`.
    `openai_key` is the path of a file that holds the key, as in FActScore; without the file the environment counts.
    """

    def __init__(
        self,
        model_name: str = "retrieval+ChatGPT",
        data_dir: str = ".cache/factscore",
        model_dir: str = ".cache/factscore",
        cache_dir: str = ".cache/factscore",
        openai_key: str = "api.key",
        cost_estimate: str = "consider_cache",
        abstain_detection_type: str | None = None,
        batch_size: int = 256,
        *,
        options: JudgeOptions | None = None,
        profile: Profile = FACTSCORE,
    ) -> None:
        """`model_dir`, `cost_estimate` and `batch_size` are accepted and have no effect. Raises ValueError."""
        kind, _, judge = model_name.partition("+")
        if kind != "retrieval" or not judge or judge.endswith("npm") or judge == "llama":
            raise ValueError(
                f"model_name {model_name!r}: the LLaMA and NPM models of FActScore are not part of this package; "
                "use retrieval+ChatGPT, retrieval+openai:MODEL, retrieval+local:PATH or retrieval+rules"
            )
        if abstain_detection_type not in (None, "generic", "perplexity_ai"):
            raise ValueError(
                f"abstain_detection_type {abstain_detection_type!r}: use 'generic', 'perplexity_ai' or None"
            )
        self.judge = _MODELS.get(judge, judge)
        self.data_dir = Path(data_dir)
        self.cache_dir = Path(cache_dir)
        self.detect_abstentions = abstain_detection_type is not None
        self.options = options or JudgeOptions(api_key=_read_key(Path(openai_key)))
        self.profile = profile
        self.sources: dict[str, Path] = {}

    def register_knowledge_source(
        self, name: str = "enwiki-20230401", db_path: str | None = None, data_path: str | None = None
    ) -> None:
        """Name a knowledge source: a `.db` file of FActScore or of this package, built from `data_path` if missing.

        Raises ValueError for a name that is taken, KnowledgeError for a file that is none.
        """
        if name in self.sources:
            raise ValueError(f"{name} already registered")
        path = Path(db_path) if db_path is not None else self.data_dir / f"{name}.db"
        if not path.exists():
            from factscore_mod.knowledge import build
            from factscore_mod.knowledge_readers import read_jsonl

            build(read_jsonl(Path(data_path) if data_path is not None else self.data_dir / f"{name}.jsonl"), path)
        self.sources[name] = path

    def get_score(
        self,
        topics: str | Sequence[str],
        generations: str | Sequence[str],
        gamma: int = 10,
        atomic_facts: Sequence[Sequence[str] | None] | None = None,
        knowledge_source: str | None = None,
        verbose: bool = False,
    ) -> dict[str, Any]:
        """The published result: `score`, `init_score` (with gamma), `respond_ratio`, `decisions`,
        `num_facts_per_response`; and `unparsed`, `errors`.

        Raises ValueError for sequences of different length and for a source that was not registered.
        """
        if isinstance(topics, str) or isinstance(generations, str):
            topics, generations = [str(topics)], [str(generations)]
        name = knowledge_source or "enwiki-20230401"
        if knowledge_source is None and name not in self.sources:
            self.register_knowledge_source(name)
        if name not in self.sources:
            raise ValueError(f"{name} is not registered yet; use register_knowledge_source()")
        scorer = Scorer(
            self.judge,
            self.sources[name],
            profile=self.profile.with_switches(detect_abstentions=False),
            cache=self.cache_dir / "factscore_mod.sqlite",
            options=self.options,
        )
        given: list[Sequence[str] | None] | None = None
        if atomic_facts is not None:
            given = [facts if facts is not None else () for facts in atomic_facts]
        elif self.detect_abstentions:
            given = [() if is_abstention(text) else None for text in generations]
        found = scorer.score(topics, generations, claims=given)
        return result(found, gamma)


def result(scored: Sequence[ScoredResponse], gamma: int) -> dict[str, Any]:
    """Scored responses in FActScore's result keys; a response without claims is one that did not respond."""
    decisions: list[list[dict[str, Any]] | None] = []
    for response in scored:
        rows = [
            {"atom": claim.claim.text, "is_supported": _supported(claim.judgement.verdict)} for claim in response.claims
        ]
        decisions.append(rows or None)
    answered = [rows for rows in decisions if rows is not None]
    raw = [sum(row["is_supported"] is True for row in rows) / len(rows) for rows in answered]
    penalised = [value * length_penalty(len(rows), gamma) for value, rows in zip(raw, answered, strict=True)]
    out: dict[str, Any] = {
        "score": mean(penalised),
        "respond_ratio": mean([float(rows is not None) for rows in decisions]),
        "decisions": decisions,
        "num_facts_per_response": mean([float(len(rows)) for rows in answered]),
        "unparsed": sum(response.count("unparsed") for response in scored),
        "errors": sum(response.count("error") for response in scored),
    }
    if gamma:
        out["init_score"] = mean(raw)
    return out


def _supported(verdict: str) -> bool | None:
    return {"supported": True, "not_supported": False}.get(verdict)


def _read_key(path: Path) -> str | None:
    """The key in the file, else what the environment has."""
    return path.read_text("utf-8").strip() if path.is_file() else os.environ.get("OPENAI_API_KEY")
