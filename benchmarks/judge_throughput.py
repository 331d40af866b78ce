"""Claims a second through an OpenAI-compatible judge, the whole command from start to files.

    python -m benchmarks.judge_throughput

A mock server in a process of its own answers after 50 ms. Measured are: the official SDK called in a serial loop (the
pattern of FActScore and VeriScore); this package with one call a claim; the same while 30 % of the requests meet a
fault; and the default profile, which asks about many claims at once. One JSON object a line. Client and server share
the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from factscore_mod.aggregate import summary
from factscore_mod.command import CLAIMS
from factscore_mod.knowledge import Document, build
from factscore_mod.outputs import read_responses

CLAIMS_PER_RESPONSE = 20

SERVER = """
import sys
from factscore_mod.mock_server import MockOptions, serve_mock
latency, rate = map(float, sys.argv[1:])
serve_mock(MockOptions(latency=latency, fault_rate=rate, stall=10), ready=lambda url: print(url, flush=True))
"""

OURS = """
import sys
from pathlib import Path
from factscore_mod.command import ScoreOptions, score_file
from factscore_mod.judges import JudgeOptions
source, knowledge, out, url, profile, concurrency, timeout = sys.argv[1:]
engine = JudgeOptions(base_url=url, concurrency=int(concurrency), timeout=float(timeout))
options = ScoreOptions("openai:mock", profile=profile, use_claims=True, cache=Path(out, "cache.sqlite"), engine=engine)
score_file(Path(source), Path(knowledge), Path(out), options)
"""

SERIAL = """
import sys, time
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="none")
start = time.perf_counter()
for i in range(int(sys.argv[2])):
    text = "word " * 1200 + str(i)
    client.chat.completions.create(model="mock", messages=[{"role": "user", "content": text}], max_tokens=5)
print(time.perf_counter() - start)
"""


@contextmanager
def server(latency: float, fault_rate: float) -> Iterator[str]:
    """The base URL of a mock server in another process."""
    command = [sys.executable, "-c", SERVER, str(latency), str(fault_rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.replace("/v1", "/stats")) as answer:
        return dict(json.load(answer))


def make_input(folder: Path, claims: int) -> tuple[Path, Path]:
    """Generations with their claims, and articles of about 1,200 words a prompt."""
    people = [f"Person {i}" for i in range(claims // CLAIMS_PER_RESPONSE)]

    def article(i: int) -> str:
        return " ".join(
            f"{people[i]} spent the year {1500 + i + year} in the town of Number {year} among friends and rivals."
            for year in range(90)
        )

    build([Document(name, article(i)) for i, name in enumerate(people)], folder / "knowledge.db")
    rows = [
        {
            "topic": name,
            "output": f"{name} lived.",
            "claims": [f"{name} spent the year {1500 + i + n} in Number {n}." for n in range(CLAIMS_PER_RESPONSE)],
        }
        for i, name in enumerate(people)
    ]
    source = folder / "generations.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return source, folder / "knowledge.db"


def measure(name: str, claims: int, latency: float, faults: float, profile: str, concurrency: int) -> dict[str, Any]:
    """One run of the whole command."""
    with tempfile.TemporaryDirectory() as folder, server(latency, faults) as url:
        source, knowledge = make_input(Path(folder), claims)
        out = Path(folder, "out")
        timeout = "2" if faults else "60"
        arguments = [str(source), str(knowledge), str(out), url, profile, str(concurrency), timeout]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", OURS, *arguments], check=True)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        metrics = summary(list(read_responses(out / CLAIMS)))
        requests = stats(url)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "what": name,
        "claims": metrics["claims"],
        "claims_per_second": round(claims / wall, 1),
        "wall_s": round(wall, 2),
        "client_cpu_s": round(cpu, 2),
        "claims_lost": claims - int(metrics["claims_judged"] or 0),
        "requests": requests["requests"],
        "good_answers_per_claim": round(requests["answered"] / claims, 3),
        "faults": requests["faults"],
        "most_in_flight": requests["at_once"],
    }


def measure_serial(latency: float, calls: int) -> dict[str, Any]:
    with server(latency, 0) as url:
        done = subprocess.run(
            [sys.executable, "-c", SERIAL, url, str(calls)], check=True, capture_output=True, text=True
        )
    wall = float(done.stdout)
    return {"what": "SDK in a serial loop (start-up not counted)", "claims_per_second": round(calls / wall, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    claims, latency, concurrency = arguments.claims, arguments.latency, arguments.concurrency
    print(json.dumps({"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "latency_s": latency}))
    for _ in range(arguments.repeat):
        print(json.dumps(measure_serial(latency, 100)), flush=True)
        for name, faults, profile in (
            ("ours, one call a claim", 0.0, "factscore"),
            ("ours, one call a claim, 30 % faults", 0.3, "factscore"),
            ("ours, default profile", 0.0, "modified"),
        ):
            print(json.dumps(measure(name, claims, latency, faults, profile, concurrency)), flush=True)


if __name__ == "__main__":
    main()
