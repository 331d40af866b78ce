"""Retrieval: BM25 against rank_bm25, evidence for known and unknown topics, embeddings, fusion."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from factscore_mod.bm25 import ArticleIndex
from factscore_mod.command import ScoreOptions, score_file
from factscore_mod.knowledge import Document, KnowledgeSource, build
from factscore_mod.retrieval import Retriever
from factscore_mod.retrieval_embedding import fuse
from factscore_mod.tokens import numbers, whitespace, words

TOPICS = ("childhood", "schooling", "travels", "marriages", "inventions", "lawsuits", "gardens", "funerals")


def article(name: str) -> str:
    """Eight passages of 16 words (an odd one 17), each on one topic."""
    return " ".join(
        f"The life of {name} had much to do with {topic} and with number {place} of them."
        for place, topic in enumerate(TOPICS)
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeSource:
    out = tmp_path_factory.mktemp("retrieval") / "wiki.db"
    documents = [
        Document("Ada Byron", article("Ada"), ("Countess of Lovelace",)),
        Document("Max Frisch", article("Max") + " He loved zeppelins."),
        Document("Nothing", ""),
    ]
    build(documents, out, passage_words=17)
    return KnowledgeSource.open(out)


# Scores


tokens_of_passages = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(passages=tokens_of_passages, query=st.lists(st.sampled_from("abcdefghxyz"), max_size=10))
def test_scores_equal_rank_bm25(passages: list[list[str]], query: list[str]) -> None:
    ours = ArticleIndex(passages)
    assert ours.scores(query).tolist() == BM25Okapi(passages).get_scores(query).tolist()


def test_equal_scores_keep_the_order_of_the_article() -> None:
    assert ArticleIndex([["a"], ["b"], ["a"], ["b"]]).top(["z"], 3) == [0, 1, 2]


def test_passages_without_words_have_score_zero() -> None:
    assert ArticleIndex([[], []]).top(["a"], 5) == [0, 1]


# Tokens


def test_words_fold_case_accents_plurals_and_drop_stop_words() -> None:
    assert words("The Cities of Zürich's\u00a0ＮＩＣＥ buses, in 1,500!") == [
        "city",
        "zurich",
        "nice",
        "buse",
        "1",
        "500",
    ]
    assert words("gas status class ladies") == ["gas", "status", "class", "lady"]


def test_both_numbers_of_a_noun_are_searched_for() -> None:
    assert numbers("city") == ("city", "cities")
    assert numbers("planets") == ("planets", "planet")
    assert numbers("1990s") == ("1990s",)


def test_whitespace_is_factscores_tokenisation() -> None:
    assert whitespace("<s>Ada, wrote.</s><s>She died.</s>") == ["Ada,", "wrote.She", "died."]


# Evidence


def test_claim_gets_the_passages_that_match_and_the_lead(source: KnowledgeSource) -> None:
    evidence = Retriever(source, k=3).for_claims("Ada Byron", ["She had gardens.", "Her lawsuits were many."])
    assert [[passage.index for passage in one.passages][:2] for one in evidence] == [[0, 6], [0, 5]]
    assert {len(one.passages) for one in evidence} == {3}
    assert {(one.found, one.title) for one in evidence} == {("exact", "Ada Byron")}


def test_lead_is_forced_in_only_when_asked(source: KnowledgeSource) -> None:
    claims = ["She had gardens."]
    assert Retriever(source, k=1).for_claims("Ada Byron", claims)[0].passages[0].index == 0
    assert Retriever(source, k=1, always_lead=False).for_claims("Ada Byron", claims)[0].passages[0].index == 6


def test_way_the_topic_was_found_is_kept_and_counted(source: KnowledgeSource) -> None:
    retriever = Retriever(source)
    for topic, found in [
        ("Ada Byron", "exact"),
        ("ada byron", "normalised"),
        ("Countess of Lovelace", "normalised"),
        ("Max Rudolf Frisch", "search"),
    ]:
        (evidence,) = retriever.for_claims(topic, ["Something about gardens."])
        assert evidence.found == found
        assert evidence.title in ("Ada Byron", "Max Frisch")
    assert retriever.counts == {"exact": 1, "normalised": 2, "search": 1}


@pytest.mark.parametrize("topic", ["", "Somebody Unheard-of", "Nothing"])
def test_claims_without_an_article_are_searched_for_one_by_one(source: KnowledgeSource, topic: str) -> None:
    """OpenFActScore drops responses on unknown titles, FActScore stops at an assertion."""
    claims = ["Max loved zeppelins.", "Qwertz uiop."]
    found, missed = Retriever(source).for_claims(topic, claims)
    assert (found.found, found.title) == ("search", "")
    assert "zeppelins" in found.passages[0].text
    assert (missed.found, missed.passages) == ("none", ())


def test_topic_helps_the_search_where_the_claim_has_a_pronoun(source: KnowledgeSource) -> None:
    (evidence,) = Retriever(source, k=1).for_claims("Frisch of Zurich", ["He had gardens."])
    assert evidence.passages[0].title == "Max Frisch"
    assert "gardens" in evidence.passages[0].text


def test_no_claims_no_evidence(source: KnowledgeSource) -> None:
    assert Retriever(source).for_claims("Ada Byron", []) == ()


def test_threads_share_a_retriever(source: KnowledgeSource) -> None:
    retriever = Retriever(source, k=2)
    claims = [f"She had {topic}." for topic in TOPICS]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: retriever.for_claims("Ada Byron", claims), range(64)))
    assert set(found) == {found[0]}
    assert retriever.counts["exact"] == 64


def test_more_articles_than_are_kept(tmp_path: Path) -> None:
    report = build((Document(f"Person {n}", article(f"P{n}")) for n in range(100)), tmp_path / "wiki.db")
    retriever = Retriever(KnowledgeSource.open(report.path))
    for number in [*range(100), *range(100)]:
        (evidence,) = retriever.for_claims(f"Person {number}", ["gardens"])
        assert evidence.title == f"Person {number}"


def test_fingerprint_holds_every_switch(source: KnowledgeSource) -> None:
    retrievers = [
        Retriever(source),
        Retriever(source, k=4),
        Retriever(source, always_lead=False),
        Retriever(source, topic_in_query=True),
        Retriever(source, tokenize="whitespace"),
        Retriever(source, method="embedding", embedder=Letters()),
        Retriever(source, method="hybrid", embedder=Letters()),
    ]
    assert len({retriever.fingerprint for retriever in retrievers}) == len(retrievers)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"method": "bm52"}, {"tokenize": "bpe"}])
def test_wrong_switches_are_named(source: KnowledgeSource, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retriever(source, **wrong)  # type: ignore[arg-type]


# The published algorithm


def published(topic: str, claim: str, passages: list[str], k: int) -> list[int]:
    """FActScore's BM25 branch in our words: white space tokens, index of the article, topic and claim as query."""
    index = BM25Okapi([text.replace("<s>", "").replace("</s>", "").split() for text in passages])
    scores = index.get_scores(f"{topic} {claim.strip()}".split())
    return [int(place) for place in np.argsort(-scores, kind="stable")[:k]]


def test_factscore_profile_retrieves_what_the_published_algorithm_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    vocabulary = [f"word{number}" for number in range(60)]
    pieces = []
    for _ in range(12):
        chosen = generator.choice(vocabulary, size=40)
        pieces.append(f"<s>Kim {' '.join(chosen[:20])}.</s><s>{' '.join(chosen[20:])}.</s>")
    path = tmp_path / "enwiki.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE documents (title PRIMARY KEY, text)")
        connection.execute(
            "INSERT INTO documents VALUES ('Kim Lee', ?)", ("####SPECIAL####SEPARATOR####".join(pieces),)
        )
    retriever = Retriever.factscore(KnowledgeSource.open(path))
    claims = [f"Kim {' '.join(generator.choice(vocabulary, size=5))}. " for _ in range(40)]
    for claim, evidence in zip(claims, retriever.for_claims("Kim Lee", claims), strict=True):
        assert [passage.index for passage in evidence.passages] == published("Kim Lee", claim, pieces, 5)


# Embeddings


class Letters:
    """An embedder that counts letters."""

    name = "letters"

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.encoded += len(texts)
        counts = np.array([[text.lower().count(chr(97 + place)) for place in range(26)] for text in texts], float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_embedding_ranks_by_likeness_and_encodes_an_article_once(source: KnowledgeSource) -> None:
    embedder = Letters()
    retriever = Retriever(source, method="embedding", embedder=embedder, k=1, always_lead=False)
    passages = source.passages("Ada Byron")
    for passage in passages:
        (evidence,) = retriever.for_claims("Ada Byron", [f"{passage.title} {passage.text}"])
        assert evidence.passages == (passage,)
    assert embedder.encoded == 2 * len(passages)


def test_hybrid_fuses_both_rankings(source: KnowledgeSource) -> None:
    retriever = Retriever(source, method="hybrid", embedder=Letters(), k=8, always_lead=False)
    (evidence,) = retriever.for_claims("Ada Byron", ["She had gardens."])
    claim, passages = "She had gardens.", source.passages("Ada Byron")
    lexical = ArticleIndex([words(passage.text) for passage in passages]).top(words(claim), 8)
    vectors = Letters().encode([f"{passage.title} {passage.text}" for passage in passages])
    dense = [int(place) for place in np.argsort(-(vectors @ Letters().encode([claim])[0]), kind="stable")]
    assert [passage.index for passage in evidence.passages] == fuse([lexical, dense])


def test_profile_names_the_embedder_and_the_results_tell_it(
    source: KnowledgeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FActScore's ranking by GTR is the profile `factscore` with the method `embedding`."""

    class Named(Letters):
        def __init__(self, model: str) -> None:
            super().__init__()
            self.name = model

    monkeypatch.setattr("factscore_mod.retrieval.SentenceEmbedder", Named)
    gtr, small = "sentence-transformers/gtr-t5-large", "sentence-transformers/all-MiniLM-L6-v2"
    generations = tmp_path / "generations.jsonl"
    generations.write_text('{"topic": "Ada Byron", "output": "Ada had gardens."}\n')

    def scored(**options: str) -> dict[str, Any]:
        score_file(generations, source.path, tmp_path / "out", ScoreOptions(**options))  # type: ignore[arg-type]
        return json.loads((tmp_path / "out" / "metrics.json").read_text())  # type: ignore[no-any-return]

    runs = [
        scored(profile="factscore", retrieval="embedding"),
        scored(profile="factscore"),
        scored(retrieval="hybrid"),
        scored(retrieval="hybrid", embedder="my/model"),
    ]
    assert [run["embedder"] for run in runs] == [gtr, None, small, "my/model"]
    assert len({run["scorer"] for run in runs}) == len(runs)
    assert Retriever.factscore(source, method="embedding").embedder.name == gtr  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["embedding", "hybrid"])
def test_embeddings_rerank_what_the_search_found(source: KnowledgeSource, method: str) -> None:
    retriever = Retriever(source, method=method, embedder=Letters(), k=2)  # type: ignore[arg-type]
    found, missed = retriever.for_claims("", ["Max loved zeppelins.", "Qwertz uiop."])
    assert found.found == "search"
    assert len(found.passages) == 1 + (len(source.search("Max loved zeppelins.", 8)) > 1)
    assert missed.found == "none"


def test_fusion_is_reciprocal_rank() -> None:
    # 0 and 2 have 1/61 + 1/63 each, 1 has 2/62, which is less; of equals the earlier comes first.
    assert fuse([[0, 1, 2], [2, 1, 0]]) == [0, 2, 1]
    assert fuse([[3, 0], [3, 0]]) == [3, 0]


def test_absent_extra_is_told_with_its_remedy(source: KnowledgeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"\[embedding\].*bm25"):
        Retriever(source, method="embedding")
