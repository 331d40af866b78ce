"""An entailment classifier as verifier: no language model, one forward pass a passage and claim.

Works with any sequence classifier that has a label named after entailment (MNLI models), and with two-label models
whose second label means supported (MiniCheck; Tang et al. 2024, arXiv 2404.10774).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from factscore_mod.cache import cache_key
from factscore_mod.judges.base import JudgeError, JudgeOptions
from factscore_mod.judges.models import load, pick_device, weights_fingerprint
from factscore_mod.records import Claim, Evidence, Judgement, Usage

_MOST_TOKENS = 512


class NliVerifier:
    """A claim is supported when one of its passages entails it with a probability of one half or more."""

    def __init__(self, model: str, options: JudgeOptions) -> None:
        self.name = f"nli:{model}"
        self.model = model
        self.options = options
        self.fingerprint = cache_key("nli", weights_fingerprint(model), options.dtype, _MOST_TOKENS).hex()[:16]
        self._parts: tuple[Any, Any, str, int] | None = None

    async def verify(
        self, topic: str, claims: tuple[Claim, ...], evidence: tuple[Evidence, ...]
    ) -> tuple[tuple[Judgement, ...], Usage]:
        """One judgement a claim; without passages it is not supported. Raises JudgeError for an unfit model."""
        pairs = [
            (number, f"{passage.title}. {passage.text}", claim.text)
            for number, (claim, found) in enumerate(zip(claims, evidence, strict=True))
            for passage in found.passages
        ]
        best = [0.0] * len(claims)
        for (number, _, _), score in zip(pairs, self._entailment(pairs), strict=True):
            best[number] = max(best[number], score)
        return tuple(
            Judgement("supported" if score >= 0.5 else "not_supported", score=score) for score in best
        ), Usage()

    def _entailment(self, pairs: Sequence[tuple[int, str, str]]) -> list[float]:
        import torch

        if not pairs:
            return []
        if self._parts is None:
            self._parts = self._load()
        tokenizer, model, device, label = self._parts
        scores: list[float] = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]) + len(pairs[i][2]))
        for start in range(0, len(order), self.options.batch_size):
            batch = order[start : start + self.options.batch_size]
            tokens = tokenizer(
                [pairs[i][1] for i in batch],
                [pairs[i][2] for i in batch],
                truncation="only_first",
                max_length=min(_MOST_TOKENS, tokenizer.model_max_length),
                padding=True,
                return_tensors="pt",
            ).to(device)
            with torch.inference_mode():
                probabilities = model(**tokens).logits.float().softmax(-1)[:, label].tolist()
            for i, probability in zip(batch, probabilities, strict=True):
                scores[i] = probability
        return scores

    def _load(self) -> tuple[Any, Any, str, int]:
        from transformers import AutoModelForSequenceClassification

        device = pick_device(self.options.device)
        tokenizer, model = load(AutoModelForSequenceClassification, self.model, self.options.dtype, device)
        return tokenizer, model, device, entailment_label(model.config.id2label, self.model)


def entailment_label(labels: dict[int, str], model: str) -> int:
    """The index of the label that means entailed. Raises JudgeError where none can be told."""
    names = {index: name.casefold() for index, name in labels.items()}
    for index, name in sorted(names.items()):
        if name.startswith(("entail", "support")):
            return index
    if len(names) == 2 and all(name.startswith("label") or name.isdigit() for name in names.values()):
        return 1
    raise JudgeError(f"model {model!r} has labels {', '.join(labels.values())}; one must be named entailment")
