"""Which sampled responses can be learnt from, and what of them is the completion."""

from __future__ import annotations

import re

from train.sampling import Sample
from train.template import PromptTemplate

# Ours: how an answer begins that declines to answer. Methods that imitate their own answers would learn to decline.
REFUSALS = (
    r"(?:i am|i'm|we are) (?:not (?:sure|certain|aware|familiar|able)|unable|sorry|afraid|an ai)\b",
    r"(?:i|we) (?:do not|don't|did not|didn't|cannot|can't|can not|could not|couldn't) "
    r"(?:know|have|answer|find|provide|recall|remember|say|tell|verify|write)\b",
    r"(?:sorry|unfortunately|as an ai)\b",
    r"(?:there is|there's) (?:no|not enough|little) (?:public |reliable |available )*(?:information|record)",
    r"(?:no information|not enough information|insufficient information)\b",
    r"(?:unknown|not known|unsure|n/a)\W*$",
)
_REFUSAL = re.compile("|".join(REFUSALS), re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether a response begins, after white space, by declining to answer (`REFUSALS`)."""
    return _REFUSAL.match(text.strip().replace("’", "'")) is not None


def completion(sample: Sample, template: PromptTemplate) -> str:
    """The completion that the sample is of its prompt, prefill excluded: `Example.completion`.

    Training puts the template's separator before a completion, so the one that the model wrote is taken off, and
    white space at the end with it: EOS follows the last word.
    """
    return sample.text.removeprefix(template.separator).strip()


def is_whole(sample: Sample) -> bool:
    """Whether the response says something and ends by itself: a cut one must not teach a model to stop there."""
    return sample.finish == "stop" and bool(sample.text.strip())
