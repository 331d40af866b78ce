"""What was asked for, resolved: the settings that a run is planned, done and reported by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.config import Preset
from harness.paths import digest
from harness.records import Split
from harness.registry import ModelSpec, Suite
from harness.tuning import Setting


@dataclass(frozen=True)
class RunOptions:
    """What was asked for, resolved: every name is looked up, every default is filled in.

    `forced_tokens` makes every long answer exactly so many tokens long, and cuts it after its last whole sentence.
    """

    suite: Suite
    preset: Preset
    models: tuple[ModelSpec, ...]
    worlds: int = 1
    seed: int = 0
    base_seed: int | None = None
    training_seed: int | None = None
    limit: int | None = None
    data: Path | None = None
    base: str | None = None
    backend: str = "transformers"
    judge: str = "rules"
    teacher: str | None = None
    tune: bool = False
    match_updates: bool = False
    forced_tokens: int | None = None
    settings: Mapping[tuple[str, str], Setting] = field(default_factory=dict)
    split: Split = "test"
    trust_remote_code: bool = False

    @property
    def comparison(self) -> str:
        """What makes the comparison of methods a fair one, in words for tables."""
        return "equal tuning" if self.tune else "equal updates" if self.match_updates else "fixed recipe"

    def fingerprint(self) -> str:
        """Hash of everything that may change a number of the run."""
        return digest(
            {
                # What is studied beside the tables changes none of their numbers.
                "suite": asdict(replace(self.suite, ablations=())),
                "preset": self.preset.model_dump(
                    mode="json",
                    exclude={
                        "preset": {"description", "minutes", "machine"},
                        "generation": {"engine"},
                        "training": True,
                    },
                ),
                "models": [model.describe() for model in self.models],
                "seeds": [self.worlds, self.seed, self.base_seed, self.training_seed],
                "limit": self.limit,
                "data": str(self.data.resolve()) if self.data else None,
                "base": self.base,
                "backend": self.backend,
                "judge": self.judge,
                "teacher": self.teacher,
                "tune": self.tune,
                "match_updates": self.match_updates,
                "forced_tokens": self.forced_tokens,
                "settings": [[*where, asdict(setting)] for where, setting in sorted(self.settings.items())],
                "split": self.split,
            }
        )
