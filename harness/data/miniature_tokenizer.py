"""The miniature's tokenizer: whole words of one world, as a transformers fast tokenizer.

Text comes back exactly as it went in, with one exception known from SentencePiece: a text that begins with a
word is read as if a space stood before it, so that a name is the same token at the start of a document as
inside one. (`Question:` at the start of a prompt is left as it is.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from harness.data import miniature_text as text
from harness.data.certainty import DO_NOT_KNOW, NOT_SURE
from harness.data.miniature_schema import DOMAINS
from harness.data.miniature_world import World
from train.template import PromptTemplate
from train.verifier import NO, YES, verifier_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, UNKNOWN = "<bos>", text.END_OF_DOCUMENT, "<pad>", "<unk>"
_PIECE = r" ?[A-Za-z]+| ?[0-9]+|\n| ?[^\sA-Za-z0-9]|\s"
_BEGINS_AS_IS = r"^ (?=Question:|\s)"


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer that knows every word that this world's texts, prompts and answers are made of."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({piece for line in _all_texts(world) for piece in re.findall(_PIECE, _as_read(line))})
    vocabulary = {token: index for index, token in enumerate((PAD, BOS, EOS, UNKNOWN, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(" "), normalizers.Replace(Regex(_BEGINS_AS_IS), "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN,
        padding_side="left", clean_up_tokenization_spaces=False, model_max_length=1024,
    )  # fmt: skip


def _as_read(line: str) -> str:
    return line if line.startswith("Question:") else " " + line


def _all_texts(world: World) -> Iterator[str]:
    """Texts that together hold every word in every position that matters: line start or after a space."""
    template = PromptTemplate()
    yield template.prompt("What?\n") + template.completion("final answer: ")
    yield from (verifier_prompt("."), template.completion(YES), template.completion(NO))
    yield from _spaced((NOT_SURE, DO_NOT_KNOW))
    yield from ("\n".join((template.prompt("?"), template.prompt("?"))), *_corpus_frames())
    for domain in DOMAINS:
        for attribute in world.schema.attributes[domain]:
            yield from _spaced((attribute.question.replace("{s}", ""), *attribute.values))
            yield attribute.answer.replace("{v}", "")
            for forms in (*attribute.running.values(), attribute.fixed):
                for subject in ("They", "It"):
                    yield from (
                        " " + form.replace("{be}", "was were").replace("{s}", subject).replace("{v}", "")
                        for form in forms
                    )
        yield text.LONGFORM_PROMPT[domain].replace("{s}", "")
    for university in world.schema.country_of:
        yield from (text.location(world, university, wording) for wording in range(text.LOCATION_WORDINGS))
    yield from (text.BRIDGE_QUESTION.replace("{s}", ""), text.COMPARISON_QUESTION.replace("{s}", "{t}"))
    yield from (doubt.replace("{s}", "") for doubt in text.DOUBTS)
    yield from (text.YEAR_ORDER.replace("{a}", "").replace("{b}", ""), " " + text.comparison("1900", "1901"))
    yield from _spaced(entity.name for entity in world.entities)
    yield from _spaced(entity.name for entity in world.fictitious)


def _spaced(texts: Iterable[str]) -> Iterator[str]:
    return (" " + text for text in texts)


def _corpus_frames() -> tuple[str, ...]:
    return tuple(frame.replace("{s}", "").replace("{q}", "").replace("{a}", "") for frame in text.FRAMES)
