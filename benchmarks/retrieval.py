"""How fast evidence is found: inside an article, and in a corpus of 20,000 passages.

    python -m benchmarks.retrieval

Beside it, on the same text: rank_bm25 built anew for every claim (FActScore-turbo's way), rank_bm25 built once an
article (FActScore's), and rank_bm25 over the whole corpus. Passages have 120 to 180 words, as Wikipedia's
paragraphs do; each claim takes its words from one passage, so that what is found can be checked.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rank_bm25 import BM25Okapi

from benchmarks.zipf import ZipfText
from factscore_mod.knowledge import Document, KnowledgeSource, build
from factscore_mod.retrieval import Retriever

CLAIMS = 30  # an article
SECONDS = 1.0  # a measurement


def rate(work: Callable[[], int]) -> float:
    """Units of `work` a second, over at least `SECONDS`."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS:
        done += work()
    return done / spent


def claims_of(passages: Sequence[str], number: int, generator: np.random.Generator) -> list[tuple[int, str]]:
    """Claims of 12 words, each from one passage whose position comes with it."""
    chosen = []
    for _ in range(number):
        place = int(generator.integers(len(passages)))
        words = passages[place].split()
        start = int(generator.integers(len(words) - 12))
        chosen.append((place, " ".join(words[start : start + 12])))
    return chosen


def within_articles(folder: Path, passages: int, repeats: int) -> None:
    text, generator = ZipfText(1), np.random.default_rng(2)
    articles = 40
    documents, claims = [], []
    for _ in range(articles):
        pieces = [text.article(int(generator.integers(120, 181))) for _ in range(passages)]
        documents.append(pieces)
        claims.append(claims_of(pieces, CLAIMS, generator))
    out = folder / f"articles{passages}.db"
    # One article a passage list: FActScore's format keeps the given borders.
    write_factscore(out, documents)
    source = KnowledgeSource.open(out)

    right = 0

    def ours() -> int:
        nonlocal right
        right = 0
        retriever = Retriever(source)  # with nothing kept from the round before
        for number, asked in enumerate(claims):
            for (place, _), evidence in zip(
                asked, retriever.for_claims(f"Topic {number}", [claim for _, claim in asked]), strict=True
            ):
                right += place in (passage.index for passage in evidence.passages)
        return articles * CLAIMS

    def once() -> int:
        for pieces, asked in zip(documents, claims, strict=True):
            index = BM25Okapi([piece.split() for piece in pieces])
            for _, claim in asked:
                np.argsort(-index.get_scores(claim.split()))[:5]
        return articles * CLAIMS

    def anew() -> int:
        for pieces, asked in zip(documents[:4], claims[:4], strict=True):
            for _, claim in asked:
                np.argsort(-BM25Okapi([piece.split() for piece in pieces]).get_scores(claim.split()))[:5]
        return 4 * CLAIMS

    for _ in range(repeats):
        mine, built_once, rebuilt = rate(ours), rate(once), rate(anew)
        print(
            f"article of {passages:>2} passages: ours {mine:,.0f} claims/s; rank_bm25 built once {built_once:,.0f} "
            f"({mine / built_once:.1f} x), built for each claim {rebuilt:,.0f} ({mine / rebuilt:.0f} x); "
            f"own passage in the evidence {right / articles / CLAIMS:.1%}"
        )


def write_factscore(path: Path, documents: list[list[str]]) -> None:
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE documents (title PRIMARY KEY, text)")
        rows = ((f"Topic {n}", "####SPECIAL####SEPARATOR####".join(pieces)) for n, pieces in enumerate(documents))
        connection.executemany("INSERT INTO documents VALUES (?, ?)", rows)


def over_the_corpus(folder: Path, passages: int, repeats: int) -> None:
    text, generator = ZipfText(3), np.random.default_rng(4)
    pieces = [text.article(int(generator.integers(120, 181))) for _ in range(passages)]
    report = build((Document(f"Topic {n}", piece) for n, piece in enumerate(pieces)), folder / "corpus.db")
    assert report.passages == passages
    source = KnowledgeSource.open(report.path)
    claims = claims_of(pieces, 600, generator)
    index = BM25Okapi([piece.split() for piece in pieces])
    right = 0

    def ours() -> int:
        nonlocal right
        found = [source.search(claim, 5) for _, claim in claims]
        right = sum(f"Topic {place}" in {p.title for p in got} for (place, _), got in zip(claims, found, strict=True))
        return len(claims)

    def whole() -> int:
        for _, claim in claims[:3]:
            np.argsort(-index.get_scores(claim.split()))[:5]
        return 3

    for _ in range(repeats):
        mine, theirs = rate(ours), rate(whole)
        print(
            f"corpus of {passages:,} passages: ours {mine:,.0f} claims/s; rank_bm25 {theirs:.1f} "
            f"({mine / theirs:.0f} x); own passage in the evidence {right / len(claims):.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=int, default=20_000, help="passages of the corpus")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for passages in (5, 20, 60):
            within_articles(Path(name), passages, arguments.repeats)
        over_the_corpus(Path(name), arguments.corpus, arguments.repeats)


if __name__ == "__main__":
    main()
