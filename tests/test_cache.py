"""The reply cache: what is paid once is never paid again, whatever happens to processes and files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.budget import Budget
from factscore_mod.cache import CacheError, ReplyCache, cache_key
from factscore_mod.chat import Ask, Ledger, Reply
from factscore_mod.profiles import FACTSCORE
from factscore_mod.scorer import FactScorer
from tests.judging import honest, knowledge, scripted_judge

TOPICS = ["Ada Lovelace", "Marie Curie", "Grace Hopper"]
TEXTS = [
    "Ada Lovelace was born in London in 1815. She was a French painter.",
    "Marie Curie was born in Warsaw in 1867.",
    "Grace Hopper was born in New York City in 1906.",
]


def test_values_come_back_in_another_connection(tmp_path: Path) -> None:
    with ReplyCache(tmp_path / "c.sqlite") as cache:
        cache.put(cache_key("a", 1), "Grüße\n" * 1000)
        cache.put_many([(cache_key(i), str(i)) for i in range(100)])
        cache.put(cache_key("a", 1), "newer")
    with ReplyCache(tmp_path / "c.sqlite") as cache:
        assert cache.get(cache_key("a", 1)) == "newer"
        assert [cache.get(cache_key(i)) for i in range(100)] == [str(i) for i in range(100)]
        assert cache.get(cache_key("missing")) is None
        assert len(cache) == 101 and cache.corrupt == 0


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_keys_depend_on_values_and_not_on_their_order(parts: dict[str, object]) -> None:
    backwards = dict(reversed(list(parts.items())))
    assert cache_key(parts) == cache_key(backwards)
    assert cache_key(parts) != cache_key(parts, None)


def test_damaged_rows_are_skipped_counted_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    keys = [cache_key(i) for i in range(4)]
    with ReplyCache(path) as cache:
        cache.put_many([(key, f"value {i}") for i, key in enumerate(keys)])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE replies SET value = substr(value, 1, 3) WHERE key = ?", (keys[0],))
        db.execute("UPDATE replies SET value = NULL WHERE key = ?", (keys[1],))
        db.execute("UPDATE replies SET value = 'text' WHERE key = ?", (keys[2],))
    with ReplyCache(path) as cache:
        assert [cache.get(key) for key in keys] == [None, None, None, "value 3"]
        assert cache.corrupt == 3
        cache.put(keys[0], "again")
        assert cache.get(keys[0]) == "again"


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_cache_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(CacheError, match=r"c\.sqlite"):
        ReplyCache(path)
    assert time.monotonic() - start < 5
    assert path.read_bytes() == content


def test_a_cache_cut_short_never_loops(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with ReplyCache(path) as cache:
        cache.put_many([(cache_key(i), os.urandom(2000).hex()) for i in range(200)])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    path.write_bytes(path.read_bytes()[:100_000])
    try:
        with ReplyCache(path) as cache:
            found = [cache.get(cache_key(i)) for i in range(200)]
            assert cache.corrupt > 0 and None in found
    except CacheError as problem:
        assert "name another file" in str(problem)


def _write_many(path: Path, first: int) -> None:
    with ReplyCache(path) as cache:
        for i in range(first, first + 150):
            cache.put(cache_key(i), f"value {i}")


def test_four_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(path, 100 * n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with ReplyCache(path) as cache:
        assert [cache.get(cache_key(i)) for i in range(450)] == [f"value {i}" for i in range(450)]
        assert cache.corrupt == 0


def _write_for_ever(path: Path) -> None:
    with ReplyCache(path) as cache:
        for i in range(10**9):
            cache.put(cache_key(i), f"value {i}")
            print(i, flush=True)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_what_was_put_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "c.sqlite"
    code = (
        f"from tests.test_cache import _write_for_ever; from pathlib import Path; _write_for_ever(Path({str(path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = -1
    for line in process.stdout:
        last = int(line)
        if last >= 50:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with ReplyCache(path) as cache:
        assert [cache.get(cache_key(i)) for i in range(last + 1)] == [f"value {i}" for i in range(last + 1)]


@pytest.mark.parametrize("profile", ["modified", "factscore"])
def test_a_second_run_sends_nothing_and_gives_the_same(tmp_path: Path, profile: str) -> None:
    first = FactScorer("mock", knowledge(), profile=profile, cache=tmp_path / "c.sqlite")
    scored = first.score(TOPICS, TEXTS)
    assert first.ledger.sent > 0
    second = FactScorer("mock", knowledge(), profile=profile, cache=tmp_path / "c.sqlite")
    again = second.score(TOPICS, TEXTS)
    assert second.ledger.sent == 0 and second.ledger.cached == first.ledger.sent
    assert [r.claims for r in again] == [r.claims for r in scored]
    assert [r.usage.prompt_tokens for r in again] == [r.usage.prompt_tokens for r in scored]


def test_replies_are_kept_even_where_the_response_was_not_finished(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    ledger = Ledger(ReplyCache(cache))
    from factscore_mod.chat import CallFailed

    judge, _ = scripted_judge(
        lambda ask: honest(ask) if ask.stage == "decompose" else CallFailed("down"), ledger=ledger
    )
    [scored] = FactScorer(judge, knowledge(), cache=ledger.cache).score(TOPICS[:1], TEXTS[:1])
    assert scored.count("error") == 2
    judge, second = scripted_judge(honest, ledger=ledger)
    [scored] = FactScorer(judge, knowledge(), cache=ledger.cache).score(TOPICS[:1], TEXTS[:1])
    assert scored.count("error") == 0, "errors are not kept"
    assert second.count("decompose") == 0 and second.count("verify") == 1


def test_model_settings_and_prompt_text_are_in_the_key(tmp_path: Path) -> None:
    ledger = Ledger(ReplyCache(tmp_path / "c.sqlite"))
    judge, engine = scripted_judge(honest, ledger=ledger)
    scorer = FactScorer(judge, knowledge(), cache=ledger.cache)
    scorer.score(TOPICS[:1], TEXTS[:1])
    paid = len(engine.asks)
    for change in ("model", "settings", "text", "profile"):
        changed, engine = scripted_judge(
            honest,
            FACTSCORE if change == "profile" else scorer.profile,
            ledger,
            "json" if change == "settings" else "line",
        )
        if change == "model":
            changed, engine = _another_model(ledger)
        text = TEXTS[1] if change == "text" else TEXTS[0]
        profile = FACTSCORE if change == "profile" else scorer.profile
        FactScorer(changed, knowledge(), profile=profile, cache=ledger.cache).score(TOPICS[:1], [text])
        assert len(engine.asks) >= paid, change


def _another_model(ledger: Ledger):  # type: ignore[no-untyped-def]
    _, engine = scripted_judge(honest, ledger=ledger)
    engine.model = "another"
    from factscore_mod.chat import Chat
    from factscore_mod.judges import Judge
    from factscore_mod.judges.prompted import StructuredVerifier, WholeDecomposer
    from factscore_mod.profiles import MODIFIED

    chat = Chat(engine, ledger)
    return Judge("another", WholeDecomposer(chat), StructuredVerifier(chat, MODIFIED)), engine


def test_equal_requests_at_the_same_time_are_sent_once(tmp_path: Path) -> None:
    ledger = Ledger(ReplyCache(tmp_path / "c.sqlite"))
    judge, engine = scripted_judge(honest, ledger=ledger)
    scored = FactScorer(judge, knowledge()).score(TOPICS[:1] * 50, TEXTS[:1] * 50)
    assert len(engine.asks) == 2
    assert len({r.claims for r in scored}) == 1


def test_an_unreadable_reply_is_paid_for_once(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "c.sqlite")
    for expected in (3, 0):
        ledger = Ledger(cache, Budget())
        judge, engine = scripted_judge(lambda ask: Reply("?") if ask.stage == "verify" else honest(ask), ledger=ledger)
        text = "Marie Curie was born in Warsaw in 1867."
        [scored] = FactScorer(judge, knowledge(), cache=cache).score(["Marie Curie"], [text])
        assert scored.count("unparsed") == 1
        assert engine.count("verify") == expected


def test_asks_are_plain_data() -> None:
    ask = Ask("verify", "p", "s", "u", as_json="J", as_line="L")
    assert ask.message("json") == "u\n\nJ" and ask.message("line") == "u\n\nL"
