"""A `harness score` that is killed in the middle: the same command ends in the same files and pays nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from factscore_mod.judges.mock import answer
from factscore_mod.mock_server import MockOptions, running_mock
from tests.judging import ARTICLES, knowledge

RESPONSES = 24
CONCURRENCY = 4
KEY = "sk-not-a-key"


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    path = tmp_path / "generations.jsonl"
    topics = list(ARTICLES)
    rows = [
        {"topic": topics[n % len(topics)], "output": f"{ARTICLES[topics[n % len(topics)]]} This is answer {n}."}
        for n in range(RESPONSES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Till:
    """A judge's replies, each request counted by its text."""

    def __init__(self) -> None:
        self.paid: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def reply(self, system: str, user: str, as_json: bool) -> str:
        with self._lock:
            self.paid[system, user] += 1
        return answer(system, user, as_json=as_json)


def start(arguments: list[str], home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"HARNESS_HOME": str(home), "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "import sys; from harness.cli import main; main(sys.argv[1:])", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("profile", ["modified", "factscore"])
def test_killed_scoring_ends_in_the_same_files_and_pays_nothing_twice(
    generations: Path, tmp_path: Path, profile: str
) -> None:
    till = Till()
    with running_mock(MockOptions(latency=0.02, reply=till.reply)) as server:

        def score(name: str) -> subprocess.Popen[str]:
            options = {
                "--knowledge": knowledge(),
                "--judge": "openai:mock",
                "--base-url": server.base_url,
                "--concurrency": CONCURRENCY,
                "--profile": profile,
                "--out": tmp_path / name,
            }
            arguments = [str(part) for pair in options.items() for part in pair]
            return start(["score", str(generations), *arguments], tmp_path / f"home of {name}")

        finish(score("whole"))
        asked = till.paid.copy()
        assert set(asked.values()) == {1}

        till.paid.clear()
        process = score("killed")
        while sum(till.paid.values()) < len(asked) // 2:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(0.1)  # the server still answers what it has in hand
        assert not (tmp_path / "killed" / "claims.jsonl").exists()
        before = till.paid.copy()
        assert len(before) < len(asked)

        finish(score("killed"))
        assert till.paid.keys() == asked.keys()
        twice = [text for text, count in till.paid.items() if count > 1]
        assert len(twice) <= CONCURRENCY, "only what was on its way when the process died can be asked for again"
        assert set(twice) <= before.keys()
        assert till.paid.total() == len(asked) + len(twice)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
