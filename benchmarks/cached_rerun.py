"""A repeated run: everything from the cache, nothing sent.

    python -m benchmarks.cached_rerun

Scores 10,000 claims with the mock judge in process, then again in a new process, whose whole time is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.judge_throughput import make_input

SCORE = """
import sys
from pathlib import Path
from factscore_mod.command import ScoreOptions, score_file
source, knowledge, out, profile = sys.argv[1:]
options = ScoreOptions("mock", profile=profile, use_claims=True, cache=Path(out, "cache.sqlite"))
result = score_file(Path(source), Path(knowledge), Path(out), options)
print(result.sent, result.cached, sum(len(r.claims) for r in result.responses))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=10_000)
    arguments = parser.parse_args()
    for profile in ("modified", "factscore"):
        with tempfile.TemporaryDirectory() as folder:
            source, knowledge = make_input(Path(folder), arguments.claims)
            out = Path(folder, "out")
            files = []
            for what in ("first run", "second run"):
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", SCORE, str(source), str(knowledge), str(out), profile],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                wall = time.perf_counter() - start
                sent, cached, claims = map(int, done.stdout.split())
                files.append([(out / name).read_bytes() for name in ("metrics.json",)])
                row = {"what": what, "profile": profile, "claims": claims, "wall_s": round(wall, 2), "sent": sent}
                print(json.dumps({**row, "from_cache": cached, "load": round(os.getloadavg()[0], 2)}), flush=True)
            print(json.dumps({"profile": profile, "metrics_equal": files[0] == files[1]}), flush=True)


if __name__ == "__main__":
    main()
