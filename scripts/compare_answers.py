"""Compare what two runs answered, word for word: how many answers are equal, and which are not.

    python scripts/compare_answers.py RUN_A RUN_B --at-least 0.98 --models base,sft

For backends that must give the same greedy answers. Leaves with status 1 where fewer are equal, or where the two
runs did not answer the same items. `--models` are those that must be alike: what learns from sampled answers is
another model wherever other numbers were drawn; the others are shown only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

Key = tuple[int, str, str, str]


def answers(run: Path) -> dict[Key, str]:
    """The answers of a run by world, task, model and item."""
    with (run / "responses.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {(row["world"], row["task"], row["model"], row["item_id"]): row["text"] for row in rows}


def main() -> None:
    """Print a line a task and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("--at-least", type=float, default=1.0, help="the share that must be equal")
    parser.add_argument("--models", help="comma-separated; all of them by default")
    words = parser.parse_args()
    first, second = map(answers, words.runs)
    if first.keys() != second.keys():
        sys.exit(f"{len(first.keys() ^ second.keys())} items were answered in one run alone")
    total = Counter(key[1:3] for key in first)
    equal = Counter(key[1:3] for key in first if first[key] == second[key])
    distinct = {where: len({first[key] for key in first if key[1:3] == where}) for where in total}
    for (task, model), count in sorted(total.items()):
        print(f"{task:20} {model:20} {equal[task, model]:6} of {count} equal, {distinct[task, model]} distinct")
    models = words.models.split(",") if words.models else {model for _, model in total}
    if missing := set(models) - {model for _, model in total}:
        sys.exit(f"no answers of {', '.join(sorted(missing))}")
    counted = sum(count for (_, model), count in total.items() if model in models)
    alike = sum(count for (_, model), count in equal.items() if model in models)
    share = alike / counted
    print(f"{alike} of {counted} equal ({share:.2%})")
    if share < words.at_least:
        sys.exit(f"fewer than {words.at_least:.2%}")


if __name__ == "__main__":
    main()
