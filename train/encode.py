"""Rows to token ids: prompt and completion apart, one BOS, a trained EOS, truncation that says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.rows import Example
from train.template import PromptTemplate

log = logging.getLogger(__name__)


class EncodingError(ValueError):
    """A row cannot be turned into training tokens. The message quotes the row and the remedy."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training sequence. Tokens from `trained_from` on are targets; earlier ones carry no loss."""

    ids: tuple[int, ...]
    trained_from: int

    @property
    def targets(self) -> int:
        """How many tokens carry a loss. The first token of a sequence never does: nothing predicts it."""
        return len(self.ids) - max(self.trained_from, 1)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The sequences of a stage, in the order of its rows, and how many were cut at the maximal length."""

    rows: tuple[Encoded, ...]
    truncated: int


def encode_examples(
    examples: Sequence[Example], tokenizer: Any, template: PromptTemplate, max_length: int
) -> EncodedRows:
    """Encode supervised rows as BOS + prompt, then completion + EOS, with the loss on the latter.

    The two are tokenised apart, so that the border between them never depends on how a tokenizer merges
    characters and no marker has to be searched for. A row longer than `max_length` loses the end of its
    completion, EOS included (a cut answer must not teach the model to stop there). Raises EncodingError when
    a prompt leaves no room for an answer, when a text holds the BOS token, or when the tokenizer has no EOS.
    """
    if tokenizer.eos_token_id is None:
        raise EncodingError(
            f"{tokenizer.name_or_path}: the tokenizer has no EOS token, so a model could not learn to stop; "
            "set `eos_token` in its tokenizer_config.json"
        )
    if not examples:
        return EncodedRows((), 0)
    prompts = _tokenise(tokenizer, [template.prompt(row.prompt, row.prefill) for row in examples])
    completions = _tokenise(tokenizer, [template.completion(row.completion) for row in examples])
    encoded = []
    truncated = 0
    for row, prompt, completion in zip(examples, prompts, completions, strict=True):
        start = _with_bos(tokenizer, prompt, row.prompt)
        whole = [*start, *completion, tokenizer.eos_token_id]
        if not completion:
            raise EncodingError(f"the row with prompt {row.prompt!r} has an empty completion; leave it out")
        if len(start) >= max_length:
            raise EncodingError(
                f"the prompt {row.prompt!r} takes {len(start)} tokens and leaves no room for an answer in "
                f"max_length = {max_length}; raise max_length or leave the row out"
            )
        truncated += len(whole) > max_length
        encoded.append(Encoded(tuple(whole[:max_length]), trained_from=len(start)))
    _report_truncation(truncated, len(encoded), max_length)
    return EncodedRows(tuple(encoded), truncated)


def encode_texts(texts: Sequence[str], tokenizer: Any, max_length: int) -> EncodedRows:
    """Encode raw texts as continued pre-training does: BOS + text, every token a target, no EOS.

    Source: the knowledge recipes of UCSB-NLP-Chang/Prereq_tune. Raises EncodingError as `encode_examples`
    does.
    """
    if not texts:
        return EncodedRows((), 0)
    encoded = []
    truncated = 0
    for text, ids in zip(texts, _tokenise(tokenizer, list(texts)), strict=True):
        whole = _with_bos(tokenizer, ids, text)
        if len(whole) < 2:
            raise EncodingError(f"the knowledge text {text!r} has no token to learn; leave it out")
        truncated += len(whole) > max_length
        encoded.append(Encoded(tuple(whole[:max_length]), trained_from=0))
    _report_truncation(truncated, len(encoded), max_length)
    return EncodedRows(tuple(encoded), truncated)


def encode_prompt(text: str, tokenizer: Any) -> list[int]:
    """Token ids of a finished prompt as training sees it (one BOS where the tokenizer has one, no EOS)."""
    return _with_bos(tokenizer, _tokenise(tokenizer, [text])[0], text)


def _tokenise(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
    )["input_ids"]
    return ids


def _with_bos(tokenizer: Any, ids: list[int], text: str) -> list[int]:
    bos = tokenizer.bos_token_id
    if bos is None:
        return list(ids)
    # A tokenizer whose BOS doubles as the EOS or as a chat marker may meet it inside a text: that is an error
    # too, because a model reads everything before a BOS as another document.
    if bos in ids:
        raise EncodingError(f"the text {text!r} holds the BOS token {tokenizer.bos_token!r}; remove it")
    return [bos, *ids]


def _report_truncation(truncated: int, rows: int, max_length: int) -> None:
    if truncated:
        log.warning("%d of %d rows are longer than max_length = %d tokens and were cut", truncated, rows, max_length)
