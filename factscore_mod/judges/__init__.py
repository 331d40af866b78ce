"""Judges by name.

| name | decomposes | verifies |
|---|---|---|
| `rules` | yes | yes |
| `openai:MODEL` | yes | yes |
| `local:PATH-or-id` | yes | yes |
| `transformers:PATH-or-id`, `vllm:PATH-or-id` | yes | yes |
| `nli:PATH-or-id` | no (`rules` does) | yes |
| `mock` | yes | yes |
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from factscore_mod.judges.base import DecompositionFailed, Judge, JudgeError, JudgeOptions
from factscore_mod.profiles import MODIFIED, Profile
from factscore_mod.records import Decomposer, Verifier

if TYPE_CHECKING:
    from factscore_mod.chat import Chat, Engine, Ledger

__all__ = ["JUDGES", "DecompositionFailed", "Judge", "JudgeError", "JudgeOptions", "make_engine", "make_judge"]

JUDGES = {
    "rules": "embedded rules: free, deterministic, nothing to download",
    "openai:MODEL": "a model behind any OpenAI-compatible endpoint",
    "local:PATH-or-id": "a causal language model in process (vLLM where it is there with a GPU, else transformers)",
    "transformers:PATH-or-id": "the same, always by transformers",
    "vllm:PATH-or-id": "the same, always by vLLM",
    "nli:PATH-or-id": "an entailment classifier for verification; claims are made by `rules`",
    "mock": "a deterministic stand-in for a language model, in process",
}


def make_judge(
    judge: str = "rules",
    *,
    decomposer: str | Decomposer | None = None,
    verifier: str | Verifier | None = None,
    profile: Profile = MODIFIED,
    options: JudgeOptions | None = None,
    ledger: Ledger | None = None,
) -> Judge:
    """The judge of that name; `decomposer` and `verifier` replace one half of it, by name or as an object.

    `ledger` holds the reply cache and the budget. Raises JudgeError for an unknown name or an incomplete one.
    """
    options = options or JudgeOptions()
    if ledger is not None and ledger.dry:
        options = replace(options, api_key=options.api_key or "not needed for a dry run")
    first = decomposer if decomposer is not None else judge
    second = verifier if verifier is not None else judge
    if isinstance(first, str) and first.startswith("nli:"):
        first = "rules"
    chats: dict[str, Chat] = {}
    made_first = _decomposer(first, profile, options, ledger, chats) if isinstance(first, str) else first
    made_second = _verifier(second, profile, options, ledger, chats) if isinstance(second, str) else second
    halves = (first, second)
    return Judge(
        name=made_first.name if made_first.name == made_second.name else f"{made_first.name}+{made_second.name}",
        decomposer=made_first,
        verifier=made_second,
        synchronous=all(isinstance(half, str) and half.startswith(("rules", "nli:")) for half in halves),
        closeables=tuple(chats.values()),
    )


def _decomposer(
    spec: str, profile: Profile, options: JudgeOptions, ledger: Ledger | None, chats: dict[str, Chat]
) -> Decomposer:
    if spec == "rules":
        from factscore_mod.judges.rules import RulesDecomposer

        return RulesDecomposer()
    from factscore_mod.judges.prompted import SentenceDecomposer, WholeDecomposer

    chat = _chat(spec, options, ledger, chats)
    if profile.decomposition == "per_sentence":
        return SentenceDecomposer(chat, profile)
    return WholeDecomposer(chat)


def _verifier(
    spec: str, profile: Profile, options: JudgeOptions, ledger: Ledger | None, chats: dict[str, Chat]
) -> Verifier:
    if spec == "rules":
        from factscore_mod.judges.rules import RulesVerifier

        return RulesVerifier()
    if spec.startswith("nli:"):
        from factscore_mod.judges.nli import NliVerifier

        return NliVerifier(_model_name(spec), options)
    from factscore_mod.judges.prompted import StructuredVerifier, TrueFalseVerifier

    chat = _chat(spec, options, ledger, chats)
    if profile.verification == "true_false":
        return TrueFalseVerifier(chat, profile)
    return StructuredVerifier(chat, profile)


def _chat(spec: str, options: JudgeOptions, ledger: Ledger | None, chats: dict[str, Chat]) -> Chat:
    """The model of that name behind cache and budget; made once for both halves of a judge."""
    if spec not in chats:
        from factscore_mod.chat import Chat, Ledger

        chats[spec] = Chat(make_engine(spec, options), ledger or Ledger(), options.reasks)
    return chats[spec]


def make_engine(spec: str, options: JudgeOptions) -> Engine:
    """The language model of that name. Raises JudgeError for `rules` and `nli`, which are none, and unknown names."""
    if spec == "mock":
        from factscore_mod.judges.mock import MockEngine

        return MockEngine()
    if spec.startswith("openai:"):
        from factscore_mod.judges.openai import OpenAIEngine

        return OpenAIEngine(_model_name(spec), options)
    if spec.startswith(("local:", "transformers:", "vllm:")):
        from factscore_mod.judges.vllm import VllmEngine, usable

        if spec.startswith("vllm:") or (spec.startswith("local:") and usable(options.device)):
            return VllmEngine(_model_name(spec), options)
        from factscore_mod.judges.local import LocalEngine

        return LocalEngine(_model_name(spec), options)
    raise JudgeError(f"no judge {spec!r}; the judges are {', '.join(JUDGES)}")


def _model_name(spec: str) -> str:
    kind, _, model = spec.partition(":")
    if not model:
        raise JudgeError(f"judge {spec!r} names no model; write {kind}:MODEL")
    return model
