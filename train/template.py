"""The prompt template: how a question becomes the text a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.rows import Example


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A plain-text template, the reference's `Question: ...` / `Answer:` form by default.

    `question` must hold `{question}` and end where the answer begins; `separator` stands between that and the
    answer, and belongs to the answer's tokens (so that ` Paris` is one token where the tokenizer has it).
    Source: UCSB-NLP-Chang/Prereq_tune, the chat template of its recipes.
    """

    question: str = "Question: {question}\nAnswer:"
    separator: str = " "
    shot_separator: str = "\n\n"

    def prompt(self, question: str, prefill: str = "", shots: Sequence[Example] = ()) -> str:
        """The text up to where the model starts to write; `shots` are solved examples put before it."""
        solved = [self.prompt(s.prompt, s.prefill) + self.completion(s.completion) for s in shots]
        asked = self.question.replace("{question}", question)
        if prefill:
            asked += self.separator + prefill
        return self.shot_separator.join([*solved, asked])

    def completion(self, answer: str) -> str:
        """The text the model is to write after `prompt`, without the end-of-sequence token."""
        return self.separator + answer
