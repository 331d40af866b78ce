"""Put a run's table and curve into the README, between its `result` marks.

python scripts/show_result.py leaderboards/mini/table1
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def excerpt(folder: Path) -> str:
    """The table of all tasks side by side of a leaderboard, and the curve."""
    text = (folder / "leaderboard.md").read_text(encoding="utf-8")
    section = text.partition("## All tasks side by side\n")[2]
    table = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    if table is None:
        raise SystemExit(f"{folder / 'leaderboard.md'} has no table of all tasks side by side")
    picture = (folder / "accuracy_vs_claims.png").resolve().relative_to(ROOT)
    curve = f"![Accuracy over the first k claims of every response, one line a model]({picture})"
    return f"{table.group().rstrip()}\n\n{curve}"


def main() -> None:
    """Rewrite the README."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- result -->")
    _, _, after = rest.partition("<!-- /result -->")
    shown = excerpt(Path(sys.argv[1]))
    readme.write_text(f"{before}<!-- result -->\n{shown}\n<!-- /result -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
