"""How fast, and how safely, a knowledge source is built, and how fast its titles are found; beside FActScore's way.

    python -m benchmarks.knowledge_build                      # 20,000 articles of 5 kB
    python -m benchmarks.knowledge_build --documents 200000   # memory and speed at ten times the size

FActScore's algorithm is re-created in a few lines of our own (`factscore/retrieval.py`, `DocDB.build_db`): every
text is encoded, cut into windows of 256 tokens and decoded again, all rows are held, one commit comes at the end.
It is run with a byte-pair tokenizer in plain Python, as FActScore's is, and with one in Rust, which is the best
that could be made of it. Both are trained on the text, since RoBERTa's cannot be had offline.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

from benchmarks.zipf import articles
from factscore_mod.knowledge import KnowledgeSource, build
from factscore_mod.knowledge_readers import read_jsonl

WORDS = 850  # 5 kB
DISTINCT = 20_000
SEPARATOR = "####SPECIAL####SEPARATOR####"


def write_corpus(path: Path, number: int) -> None:
    """Articles; those beyond the first 20,000 have the sentences of an earlier one in another order."""
    generator = random.Random(1)
    first = []
    with path.open("w") as file:
        for title, text in articles(min(number, DISTINCT), WORDS):
            first.append(text)
            file.write(json.dumps({"title": title, "text": text}) + "\n")
        for index in range(DISTINCT, number):
            sentences = first[generator.randrange(DISTINCT)].split(". ")
            generator.shuffle(sentences)
            file.write(json.dumps({"title": f"Topic {index}", "text": ". ".join(sentences)}) + "\n")


def rows(path: Path, number: int) -> Iterator[tuple[str, str]]:
    with path.open() as file:
        for line in islice(file, number):
            row = json.loads(line)
            yield row["title"], row["text"]


# FActScore's algorithm


def factscore_build(path: Path, number: int, out: Path, encode: Callable[[str], list[int]], decode: Callable) -> float:
    """Articles a second."""
    began = time.perf_counter()
    connection = sqlite3.connect(out)
    connection.execute("CREATE TABLE documents (title PRIMARY KEY, text)")
    held = []
    for title, text in rows(path, number):
        ids = encode(text)
        windows = [decode(ids[start : start + 256]) for start in range(0, len(ids), 256)]
        held.append((title, SEPARATOR.join(windows)))
    connection.executemany("INSERT INTO documents VALUES (?, ?)", held)
    connection.commit()
    connection.close()
    return number / (time.perf_counter() - began)


class PlainBytePairs:
    """Byte-pair encoding in plain Python, words remembered, as slow tokenizers are written."""

    _piece = re.compile(r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+|\s+")

    def __init__(self, merges: list[tuple[str, str]], vocabulary: dict[str, int], alphabet: dict[int, str]) -> None:
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._vocabulary = vocabulary
        self._pieces = {number: piece for piece, number in vocabulary.items()}
        self._alphabet = alphabet
        self._bytes = {sign: byte for byte, sign in alphabet.items()}
        self._known: dict[str, list[str]] = {}

    def _merge(self, word: str) -> list[str]:
        if word in self._known:
            return self._known[word]
        parts = list(word)
        while len(parts) > 1:
            pairs = set(pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, sys.maxsize))
            if best not in self._ranks:
                break
            merged: list[str] = []
            place = 0
            while place < len(parts):
                if tuple(parts[place : place + 2]) == best:
                    merged.append("".join(best))
                    place += 2
                else:
                    merged.append(parts[place])
                    place += 1
            parts = merged
        self._known[word] = parts
        return parts

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._piece.findall(text):
            word = "".join(self._alphabet[byte] for byte in piece.encode())
            ids.extend(self._vocabulary[part] for part in self._merge(word))
        return ids

    def decode(self, ids: list[int]) -> str:
        signs = "".join(self._pieces[number] for number in ids)
        return bytearray(self._bytes[sign] for sign in signs).decode(errors="replace")


def references(path: Path, number: int, folder: Path) -> dict[str, float]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=50_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((text for _, text in rows(path, 2000)), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split()) for merge in model["merges"]]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    plain = PlainBytePairs(merges, model["vocab"], alphabet)
    _, sample = next(rows(path, 1))
    assert plain.decode(plain.encode(sample)) == sample
    return {
        "plain Python": factscore_build(path, number, folder / "plain.db", plain.encode, plain.decode),
        "Rust": factscore_build(
            path, number, folder / "rust.db", lambda text: tokenizer.encode(text).ids, tokenizer.decode
        ),
    }


# Ours, in a process of its own so that its memory can be told


def ours(corpus: Path, out: Path, *, kill_at: int = 0) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.knowledge_build", "--one", str(corpus), str(out), str(kill_at)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if kill_at:
        assert done.returncode == -signal.SIGKILL, done.stderr
        return {}
    assert done.returncode == 0, done.stderr
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def build_one(corpus: Path, out: Path, kill_at: int) -> None:
    def watch(read: int) -> None:
        if kill_at and read >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    report = build(read_jsonl(corpus), out, progress=watch)
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        json.dumps(
            {
                "documents": report.documents,
                "resumed_at": report.resumed_at,
                "seconds": report.seconds,
                "cpu": own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime,
                "reader_mb": own.ru_maxrss / 1024,
                "writer_mb": others.ru_maxrss / 1024,
                "file_mb": out.stat().st_size / 1e6,
            }
        )
    )


def content_hash(path: Path) -> str:
    """Hash of every row that look-ups read: all tables, and the postings of the full-text index."""
    digest = hashlib.blake2b(digest_size=16)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, passage_index, row)")
        for query in (
            *(f"SELECT * FROM {table} ORDER BY 1" for table in ("meta", "documents", "redirects", "common")),
            "SELECT * FROM names ORDER BY key, kind, document",
            "SELECT * FROM temp.terms",
        ):
            for row in connection.execute(query):
                digest.update(repr(row).encode())
    return digest.hexdigest()


def look_ups(path: Path, number: int) -> None:
    """Titles a second, by the way they are found. Every title begins with the same word: the hardest case of search."""
    ways = {
        "exact": "Topic {}",
        "normalised": "topic_{}",
        "search": "Topic {} of All",
        "none": "Nobody {} at All",
    }
    generator = random.Random(1)
    with KnowledgeSource.open(path) as source:
        source.resolve("warm up")
        for found, form in ways.items():
            done, began = 0, time.perf_counter()
            while (spent := time.perf_counter() - began) < 2:
                resolution = source.resolve(form.format(generator.randrange(number)))
                assert resolution.found == found, resolution
                done += 1
            print(f"titles found as {found}: {done / spent:,.0f} a second ({spent / done * 1e3:.3f} ms each)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--reference", type=int, default=600, help="articles for FActScore's algorithm")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--one", nargs=3, metavar=("CORPUS", "OUT", "KILL_AT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        build_one(Path(arguments.one[0]), Path(arguments.one[1]), int(arguments.one[2]))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        compare(Path(name), arguments.documents, arguments.reference, arguments.repeats)


def compare(folder: Path, number: int, reference: int, repeats: int) -> None:
    corpus, whole = folder / "corpus.jsonl", folder / "whole.db"
    write_corpus(corpus, number)
    size = corpus.stat().st_size / 1e6
    print(f"{number:,} articles, {size:.0f} MB")
    for repeat in range(repeats):
        whole.unlink(missing_ok=True)
        mine = ours(corpus, whole)
        speed = mine["documents"] / mine["seconds"]
        print(
            f"ours: {speed:,.0f} articles/s, {size / mine['seconds']:.1f} MB/s, "
            f"{mine['cpu'] / mine['documents'] * 1e3:.2f} ms CPU an article, peak memory "
            f"{mine['reader_mb']:.0f} MB reading + {mine['writer_mb']:.0f} MB writing, file {mine['file_mb']:.0f} MB"
        )
        made = folder / f"reference{repeat}"
        made.mkdir()
        for kind, theirs in references(corpus, min(reference, number), made).items():
            print(f"FActScore's algorithm, tokenizer in {kind}: {theirs:,.0f} articles/s; ours {speed / theirs:.0f} x")
    look_ups(whole, number)
    killed = folder / "killed.db"
    ours(corpus, killed, kill_at=number // 2)
    assert not killed.exists()
    resumed = ours(corpus, killed)
    equal = content_hash(killed) == content_hash(whole)
    print(f"killed at {number // 2:,}, resumed at {resumed['resumed_at']:,.0f}: content equal: {equal}")
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
