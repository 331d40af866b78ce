"""Sentences of a response, with their character offsets.

The default splitter is `nupunkt`, whose model is part of its package: every machine splits alike and nothing is
downloaded. NLTK's punkt is a named option for comparison with published runs; its data must be installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal

from factscore_mod.lexicon import words_of
from factscore_mod.records import Sentence

Splitter = Literal["nupunkt", "punkt"]

_LINE = re.compile(r"[^\n\r\u2028\u2029]+")
_LIST_MARKER = re.compile(r"\s*(?:[-*\u2022\u2013]\s+|#{1,6}\s+|\(?\d{1,2}[.)]\s+(?=\S))")
_HAS_WORD = re.compile(r"\w")
# nupunkt's learnt list of abbreviations holds ordinary words ("carpenter", "mason"), after which it never ends a
# sentence. A long word before a capital does end one, unless it is among the few long abbreviations of English.
_LONG_WORD_END = re.compile(r"\b([^\W\d_]{4,})[.!?][\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(]?[A-Z])")
_LONG_ABBREVIATIONS = words_of(
    """
    adml approx assn assoc asst atty benj blvd bros calif capt cent chas cmdr col comdr cont corp dept dist elec
    elev engr esqr exec fig figs govt hist hons illus inst intl lieut maths messrs mich minn mmes natl okla orig
    oreg paras penn penna phila pres prof profs prov publ rept retd robt secy sept sgts supt suppl tenn thos trans
    treas univ vols wash
    """
)


class SplitterUnavailable(ValueError):
    """The chosen sentence splitter is unknown or its data is not installed."""


def split_sentences(text: str, splitter: Splitter = "nupunkt") -> tuple[Sentence, ...]:
    """The sentences of `text` in reading order; `text[s.start:s.end] == s.text` for each of them.

    A line break always ends a sentence (headings and list items are not joined to what follows) and a list
    marker before a sentence is left out of it. Pieces with no letter or digit are dropped.

    Raises:
        SplitterUnavailable: for an unknown splitter, or for `punkt` where its data is not installed.
    """
    spans = _spans_function(splitter)
    sentences: list[Sentence] = []
    for line in _LINE.finditer(text):
        marker = _LIST_MARKER.match(line.group())
        offset = line.start() + (marker.end() if marker else 0)
        body = text[offset : line.end()]
        for start, end in spans(body):
            piece = body[start:end]
            if not _HAS_WORD.search(piece):
                continue
            start += offset + len(piece) - len(piece.lstrip())
            stripped = piece.strip()
            sentences.append(Sentence(len(sentences), stripped, start, start + len(stripped)))
    return tuple(sentences)


@lru_cache(maxsize=2)
def _spans_function(splitter: Splitter) -> Callable[[str], Iterator[tuple[int, int]]]:
    if splitter == "nupunkt":
        import nupunkt

        def nupunkt_spans(body: str) -> Iterator[tuple[int, int]]:
            for start, end in nupunkt.sent_spans(body):
                for match in _LONG_WORD_END.finditer(body, start, end):
                    if match.group(1).lower() not in _LONG_ABBREVIATIONS:
                        yield start, match.end()
                        start = match.end()
                yield start, end

        return nupunkt_spans
    if splitter == "punkt":
        from nltk.tokenize.punkt import PunktTokenizer

        try:
            tokenizer = PunktTokenizer("english")
        except LookupError as error:
            raise SplitterUnavailable(
                "sentence splitter 'punkt' needs NLTK's punkt_tab data, which is not installed; "
                "run `python -m nltk.downloader punkt_tab` or use the default splitter 'nupunkt'"
            ) from error

        def punkt_spans(body: str) -> Iterator[tuple[int, int]]:
            yield from tokenizer.span_tokenize(body)

        return punkt_spans
    raise SplitterUnavailable(f"unknown sentence splitter {splitter!r}; choose 'nupunkt' or 'punkt'")
