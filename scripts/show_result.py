"""Put a run's tables and curve into the README, between its `result` marks.

python scripts/show_result.py leaderboards/mini/first-run
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def excerpt(folder: Path) -> str:
    """The headline table of each task of a leaderboard, and the curve."""
    text = (folder / "leaderboard.md").read_text(encoding="utf-8")
    parts = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        table = re.search(r"(?:^\|.*\n)+", body, flags=re.MULTILINE)
        if table and title != "How to read this":
            parts.append(f"**{title}**\n\n{table.group().rstrip()}")
    picture = (folder / "accuracy_vs_claims.png").resolve().relative_to(ROOT)
    parts.append(f"![Accuracy over the first k claims of every response, one line a model]({picture})")
    return "\n\n".join(parts)


def main() -> None:
    """Rewrite the README."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- result -->")
    _, _, after = rest.partition("<!-- /result -->")
    shown = excerpt(Path(sys.argv[1]))
    readme.write_text(f"{before}<!-- result -->\n{shown}\n<!-- /result -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
