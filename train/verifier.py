"""A fact verifier: a language model that is asked whether a claim is true (Kang et al. 2024, arXiv 2403.05612, E.2).

It is trained as any answerer is, on claims with the verdicts of a judge, and answers "Yes." or "No.". Its prompt
is the claim and a question on its truth; the claim has to name its subject, for the verifier sees nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from train.encode import EncodingError, encode_prompt
from train.rows import Example
from train.sampling import JudgedSample
from train.template import PromptTemplate

if TYPE_CHECKING:
    import torch

YES, NO = "Yes.", "No."


def verifier_prompt(claim: str) -> str:
    """What the verifier is asked; the answer is `YES` or `NO`."""
    return f"{claim} Is this true?"


def verifier_examples(judged: Sequence[JudgedSample], prompts: Sequence[Example]) -> tuple[Example, ...]:
    """A row for every claim with a verdict, in the order in which the claims first come up.

    A claim that several responses make is one row. Where its verdicts differ the more frequent one counts, and
    "No." in a tie, for a reward should rather be too low. `prompts` are those of the sampling.
    """
    balance: dict[str, int] = {}
    subjects: dict[str, str] = {}
    for response in judged:
        for claim in response.claims:
            if claim.supported is not None:
                balance[claim.text] = balance.get(claim.text, 0) + (1 if claim.supported else -1)
                subjects.setdefault(claim.text, prompts[response.sample.prompt].subject)
    return tuple(
        Example(verifier_prompt(claim), YES if for_it > 0 else NO, subjects[claim]) for claim, for_it in balance.items()
    )


class Verifier:
    """The verdicts of one adapter of a model, each claim judged once.

    `model` is a PeftModel that may have an adapter in training besides: `judge` puts everything back that it
    changes. A verdict is the probability of "Yes." against that of "No.", that is, of their first tokens that
    differ. Above one half it is the greedy answer, wherever that is one of the two.
    """

    def __init__(
        self, model: Any, adapter: str, tokenizer: Any, template: PromptTemplate, *, bf16: bool, batch_size: int = 64
    ) -> None:
        self._model = model
        self._adapter = adapter
        self._tokenizer = tokenizer
        self._template = template
        self._bf16 = bf16
        self._batch_size = batch_size
        self._verdicts: dict[str, float] = {}
        self._shared, self._yes, self._no = _answer_tokens(tokenizer, template)

    def judge(self, claims: Sequence[str]) -> list[float]:
        """The probability that each claim is true."""
        asked = sorted(
            {claim for claim in claims if claim not in self._verdicts}, key=lambda claim: (len(claim), claim)
        )
        if asked:
            with active(self._model, self._adapter):
                for start in range(0, len(asked), self._batch_size):
                    batch = asked[start : start + self._batch_size]
                    self._verdicts |= dict(zip(batch, self._scores(batch).sigmoid().tolist(), strict=True))
        return [self._verdicts[claim] for claim in claims]

    def _scores(self, claims: Sequence[str]) -> torch.Tensor:
        """The logit of "Yes." less that of "No.", for each claim."""
        import torch

        prompts = [
            [*encode_prompt(self._template.prompt(verifier_prompt(claim)), self._tokenizer), *self._shared]
            for claim in claims
        ]
        device = next(self._model.parameters()).device
        longest = max(map(len, prompts))
        # The padding stands on the right, where under causal attention nothing looks: any token does.
        ids = torch.tensor([prompt + [prompt[-1]] * (longest - len(prompt)) for prompt in prompts], device=device)
        ends = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        kept, at = torch.unique(ends, return_inverse=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits.float()
        answers = logits[torch.arange(len(prompts), device=device), at]
        scores: torch.Tensor = answers[:, self._yes] - answers[:, self._no]
        return scores


@contextmanager
def active(model: Any, adapter: str) -> Iterator[None]:
    """Only this adapter active, in evaluation mode and without gradients; afterwards all is as it was."""
    import torch

    before, training = model.active_adapter, model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.set_adapter(adapter)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        model.set_adapter(before)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_(True)


def _answer_tokens(tokenizer: Any, template: PromptTemplate) -> tuple[list[int], int, int]:
    """The tokens that both answers begin with, and the next one of "Yes." and of "No."."""
    yes, no = (tokenizer(template.completion(a), add_special_tokens=False)["input_ids"] for a in (YES, NO))
    for at, (token, other) in enumerate(zip(yes, no, strict=False)):
        if token != other:
            return yes[:at], token, other
    raise EncodingError(f"{tokenizer.name_or_path}: the tokenizer has the same tokens for {YES!r} and {NO!r}")
