"""The run folder: manifest, records, metrics and reports.

    manifest.json             what was run, on what, when, and where each adapter and generation is kept
    responses.jsonl           every prompt and response of every model
    claims.jsonl              every claim of the long-form responses, with its evidence and verdict
    metrics.json              every number of the leaderboard; equal bytes for equal runs
    leaderboard.md            the tables
    accuracy_vs_claims.png    and .svg: accuracy over the first k claims of every response
    report.html               the tables, the curves and every claim beside its evidence, in one file

Everything is written to a temporary name and renamed. What is expensive (bases, adapters, generations, scores)
is not kept here but under `harness.paths.home()`, addressed by the hash of all that made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.paths import write_json, write_lines, write_whole


@dataclass(frozen=True)
class RunFolder:
    """A run folder; created when first written to."""

    path: Path

    def check(self, fingerprint: str, resume: bool) -> None:
        """UserError if the folder holds another run, or this one and `resume` is off."""
        manifest = self.path / "manifest.json"
        if not manifest.exists():
            # A run that was killed right after tuning has left its trials.
            if self.path.exists() and any(path.name != "tuning.json" for path in self.path.iterdir()):
                raise UserError(f"{self.path} is not empty and holds no run; name another folder with --out")
            return
        if not resume:
            raise UserError(f"{self.path} already holds a run; drop --no-resume or name another folder with --out")
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))["fingerprint"]
        except (json.JSONDecodeError, KeyError) as error:
            raise UserError(f"{manifest} is damaged ({error}); delete it or name another folder with --out") from error
        if found != fingerprint:
            raise UserError(
                f"{self.path} holds another run (other models, tasks, seeds or settings); "
                "name another folder with --out, or repeat that run's command"
            )

    def json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        write_json(self.path / name, content)

    def text(self, name: str, content: str) -> None:
        """Write a text file."""
        write_whole(self.path / name, content)

    def lines(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write a JSON-lines file."""
        write_lines(self.path / name, rows)
