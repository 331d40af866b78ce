"""Cut an article into passages of about so many words, at sentence borders."""

from __future__ import annotations

import re
from functools import lru_cache

# A title or an initial before a full stop does not end a sentence.
_ABBREVIATIONS = """
    adm al approx apr aug ave brig ca capt cf cmdr co col corp cpl dec dept dr ed eds est etc feb fig fl fr gen gov
    hon inc jan jr jul jun lt ltd maj mar messrs mr mrs ms mt no nos nov oct op pp pres prof rep rev sen sep sept
    sgt sr st vol vols vs
"""
_NO_END = frozenset(_ABBREVIATIONS.split())
# A stop and what closes behind it, then a capital or a digit; a stop of a script without spaces; a line's end.
# All begin with one set of characters, which makes the search four times as fast.
_BORDER = re.compile(
    r"""[.!?…。！？\n]
        (?: (?<=[.!?…])[.!?…]*["'”’)\]]*\s+(?=["'“‘(\[]*[^\Wa-z_]) | (?<=[。！？])\s* | (?<=\n)\n* )""",
    re.VERBOSE,
)
# A run of 24 characters counts as one word, so that scripts without spaces are cut too.
_LONGEST_WORD = 24


@lru_cache(maxsize=16)
def _window(size: int) -> re.Pattern[str]:
    return re.compile(rf"(?:\S{{1,{_LONGEST_WORD}}}+\s*+){{1,{size}}}+")


def _last_border(text: str, start: int, end: int) -> int | None:
    """Offset just behind the last sentence border that ends in `text[start:end]`; `None` where there is none."""
    best = None
    for match in _BORDER.finditer(text, start, end):
        stop = match.start()
        if text[stop] == "." and text[stop + 1 : stop + 2] != ".":
            word = text[max(start, stop - 12) : stop].rsplit(None, 1)[-1:]
            last = word[0].lstrip("(\"'").rsplit(".", 1)[-1] if word else ""
            if (len(last) == 1 and last.isalpha()) or last.lower() in _NO_END:
                continue
        best = match.end()
    return best


def cut(text: str, size: int) -> list[int]:
    """Ends of the passages of `text`, in characters: passage i is `text[ends[i - 1]:ends[i]]`.

    The first passage starts at 0. Each has at most `size` words and ends at the last sentence border of its
    second half where there is one.
    """
    window = _window(size)
    ends: list[int] = []
    start = len(text) - len(text.lstrip())
    while (match := window.match(text, start)) is not None:
        end = match.end()
        if end < len(text):
            # A border is only seen with what follows it, so the search looks one character ahead. It looks near
            # the end first: most sentences are shorter than that.
            middle = (start + end) // 2
            border = _last_border(text, max(middle, end - 250), end + 1) or _last_border(text, middle, end + 1)
            end = min(border or end, end)
        ends.append(end)
        start = end
    return ends


def split(text: str, ends: list[int]) -> list[str]:
    """The passages that `cut` found, white space round them removed."""
    return [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
