"""Words of a text for lexical retrieval: lower-case, accents and stop words dropped, plurals folded.

`words` feeds BM25 inside an article. `whitespace` is the tokenisation of FActScore's BM25 branch, kept for its
profile.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import filterfalse

_STOP_WORDS = """
    a about after all also although an and any are as at be became because been before being between both but by
    can could did do does during each either few for from further had has have having he her here hers herself him
    himself his how however i if in into is it its itself just later like many may me might more most much must
    my myself neither no nor not of off often on once one only or other others our ours out over own per s same
    several she should since so some such t than that the their theirs them themselves then there these they this
    those though through thus to too two under until up upon us very was we well were what when where whether
    which while who whom whose why will with within without would yet you your yours
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_WORD = re.compile(r"[^\W_]+")
_COMBINING = re.compile(r"[\u0300-\u036f]+")
# Upper case to lower case, all but letters and digits to spaces: one pass where `_WORD` needs a match a word.
_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}


def fold(text: str) -> str:
    """Lower-case, compatibility forms and accents removed: `Ångström` becomes `angstrom`."""
    if text.isascii():
        return text.lower()
    return _COMBINING.sub("", unicodedata.normalize("NFKD", text.lower()))


def _stem(word: str) -> str:
    """The S-stemmer (Harman 1991, "How effective is suffixing?", JASIS 42): plurals only, so names survive."""
    if len(word) < 4 or word[-1] != "s":
        return word
    if word.endswith("ies"):
        return word if word.endswith(("eies", "aies")) else word[:-3] + "y"
    if word.endswith("es"):
        return word if word.endswith(("aes", "ees", "oes")) else word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]


def numbers(word: str) -> tuple[str, ...]:
    """`word` with its singular and plural, for an index without a stemmer."""
    stem = _stem(word)
    if len(stem) < 3 or not stem.isalpha():
        return (word,)
    plural = stem[:-1] + "ies" if stem.endswith("y") else stem + "s"
    return tuple(dict.fromkeys((word, stem, plural)))


def _split(text: str) -> list[str]:
    return text.translate(_ASCII).split() if text.isascii() else _WORD.findall(fold(text))


def content_words(text: str) -> list[str]:
    """The words of `text` that are not stop words, in order, repeats and endings kept."""
    return list(filterfalse(STOP_WORDS.__contains__, _split(text)))


class _Stems(dict[str, str]):
    """The stem of each word asked for, empty for a stop word; forgets all when it has grown large."""

    def __missing__(self, word: str) -> str:
        if len(self) >= 1 << 17:
            self.clear()
        stem = "" if word in STOP_WORDS else _stem(word)
        self[word] = stem
        return stem


_stems = _Stems()


def words(text: str) -> list[str]:
    """`content_words` with plurals folded."""
    return [stem for word in _split(text) if (stem := _stems[word])]


def whitespace(text: str) -> list[str]:
    """What FActScore's `get_bm25_passages` feeds BM25: its tokenizer's markers removed, split at white space."""
    return text.replace("<s>", "").replace("</s>", "").split()
