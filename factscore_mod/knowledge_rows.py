"""What articles become in a knowledge source: ready-made rows, a batch at a time.

The making of rows goes on where articles are read; the process that holds the SQLite file only inserts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factscore_mod import passages
from factscore_mod.knowledge_format import (
    FACTSCORE_SEPARATOR,
    POSITION_BITS,
    TITLE,
    WITHOUT_PARENTHESES,
    Document,
    KnowledgeError,
    Redirect,
    title_key,
    without_parentheses,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of some inputs, in order, for the tables of the same names (see `knowledge_format`).

    `redirects` have the number of the article that they came with as a fourth value, 0 where they came alone.
    `empty` are the numbers of the articles without text. `read` is the number of inputs up to and with this batch,
    `digest` the running hash over them.
    """

    documents: list[tuple[int, str, str, str]]
    names: list[tuple[str, int, int]]
    redirects: list[tuple[str, str, str, int]]
    titles: list[tuple[int, str]]
    passages: list[tuple[int, str]]
    empty: list[int]
    inputs: int
    read: int
    digest: str

    def without(self, numbers: set[int]) -> Batch:
        """The batch without these articles."""
        return Batch(
            [row for row in self.documents if row[0] not in numbers],
            [row for row in self.names if row[2] not in numbers],
            [row for row in self.redirects if row[3] not in numbers],
            [row for row in self.titles if row[0] not in numbers],
            [row for row in self.passages if row[0] >> POSITION_BITS not in numbers],
            [number for number in self.empty if number not in numbers],
            self.inputs,
            self.read,
            self.digest,
        )


def make_batch(
    items: Sequence[Document | Redirect], size: int | None, numbers: Sequence[int], read: int, digest: str
) -> Batch:
    """The rows of `items`, whose row numbers are `numbers`.

    `size` is the words a passage, `None` for a FActScore file: its text is cut already and is not stored again.
    Raises `KnowledgeError` for an article with more passages than can be numbered.
    """
    batch = Batch([], [], [], [], [], [], len(items), read, digest)
    for item, number in zip(items, numbers, strict=True):
        if isinstance(item, Redirect):
            batch.redirects.append((item.title, title_key(item.title), item.target, 0))
            continue
        if size is None:
            pieces = item.text.replace("<s>", " ").replace("</s>", " ").split(FACTSCORE_SEPARATOR)
        else:
            cuts = passages.cut(item.text, size)
            pieces = passages.split(item.text, cuts)
            batch.documents.append((number, item.title, item.text, f"[{','.join(map(str, cuts))}]"))
        if len(pieces) >= 1 << POSITION_BITS:
            raise KnowledgeError(f"article {item.title!r} has {len(pieces):,} passages; split the article")
        batch.redirects.extend((title, title_key(title), item.title, number) for title in item.redirects)
        key, bare = title_key(item.title), title_key(without_parentheses(item.title))
        batch.names.append((key, TITLE, number))
        if bare != key:
            batch.names.append((bare, WITHOUT_PARENTHESES, number))
        batch.titles.append((number, item.title))
        first = number << POSITION_BITS
        batch.passages.extend((first + index, f"{item.title}\n{piece}") for index, piece in enumerate(pieces))
        if not pieces:
            batch.empty.append(number)
    return batch
