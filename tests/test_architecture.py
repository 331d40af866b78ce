"""The house rules that a machine can hold: floors, lazy imports, nothing executed from disk."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "factscore_mod": {"factscore_mod"},
    "train": {"train"},
    "baselines": {"train", "baselines"},
    "harness": {"train", "baselines", "factscore_mod", "harness"},
}
SOURCES = [path for package in FLOORS for path in sorted((ROOT / package).rglob("*.py"))]


def imported_modules(tree: ast.AST) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up_a_floor(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text()))} & set(FLOORS)
    assert ours <= FLOORS[package]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_from_disk_is_executed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not imported_modules(tree) & {"pickle", "cPickle", "dill", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "torch.load", "yaml.load", "os.system"}, f"{name} at line {node.lineno}"
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("shell") != "True", f"shell=True at line {node.lineno}"


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(result.stdout.splitlines())


HEAVY = {"torch", "transformers", "vllm", "datasets", "matplotlib", "peft", "openai", "scipy", "nltk"}


def test_help_imports_nothing_heavy() -> None:
    loaded = loaded_by("import harness.cli\ntry: harness.cli.main(['--help'])\nexcept SystemExit: pass")
    assert not loaded & (HEAVY | {"numpy"})


def test_the_registries_load_without_torch() -> None:
    loaded = loaded_by(
        "from harness.registry import METHODS, MODELS, TASKS\nMETHODS.names(), MODELS.names(), TASKS.names()"
    )
    assert not loaded & HEAVY
