"""From the words of a command line to `RunOptions`, with every problem reported at once."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.ablations.ablation import ABLATIONS
from harness.ablations.engine import prepare
from harness.backends.vllm import install
from harness.bases import adapter_fingerprint
from harness.config import Preset, load_preset
from harness.errors import Problems, UserError
from harness.needs import lacking, needs_judge, tried, unasked
from harness.paths import home
from harness.plan import plan_run
from harness.registry import (
    BACKENDS,
    JUDGES,
    METHODS,
    MODELS,
    TASKS,
    ModelSpec,
    Suite,
    get_suite,
    read_models,
    served_model,
)
from harness.run_options import RunOptions

FREE_BYTES = 2 * 1024**3
SERVED = ("openai:", "openai-chat:")


class Unresolved(Problems):
    """All that is wrong with the words of a command, and the options as far as they could be made of the others."""

    def __init__(self, problems: Iterable[str], options: RunOptions | None) -> None:
        super().__init__(problems)
        self.options = options


def has_gpu() -> bool:
    """Whether an NVIDIA or AMD GPU is at hand, told without loading torch."""
    return Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists() or shutil.which("nvidia-smi") is not None


def default_backend() -> str:
    """`vllm` on a GPU where vLLM's build for it is installed, else `transformers`."""
    try:
        version("vllm")
    except PackageNotFoundError:
        return "transformers"
    return "vllm" if has_gpu() else "transformers"


def default_preset() -> str:
    """`mini` where there is no GPU, else the real 135M model."""
    return "smol" if has_gpu() else "mini"


def resolve(
    *,
    suite: str,
    preset: str | None = None,
    models: str | None = None,
    worlds: int = 1,
    seed: int = 0,
    base_seed: int | None = None,
    training_seed: int | None = None,
    variant: str | None = None,
    limit: int | None = None,
    data: Path | None = None,
    fictitious: Path | None = None,
    base: str | None = None,
    adapters: Sequence[str] = (),
    models_file: Path | None = None,
    backend: str | None = None,
    judge: str | None = None,
    teacher: str | None = None,
    tune: bool = False,
    match_updates: bool = False,
    only: str | None = None,
    base_url: str | None = None,
    trust_remote_code: bool = False,
) -> RunOptions:
    """Look every name up and fill every default in; Unresolved lists all that is wrong."""
    problems: list[str] = []
    found_suite: Suite | None = None
    found_preset: Preset | None = None
    try:
        found_suite = get_suite(suite)
    except UserError as error:
        problems.append(f"--suite: {error}")
    if found_suite and only:
        found_suite = _only(found_suite, only, problems)
    try:
        found_preset = load_preset(preset or default_preset())
    except Problems as error:
        problems += error.problems
    except UserError as error:
        problems.append(f"--preset: {error}")
    if found_preset and variant is not None:
        if found_preset.source.kind != "miniature":
            problems.append("--variant: only the miniature's presets (mini, tiny) have variants")
        elif variant not in ("familiar", "unfamiliar"):
            problems.append(f"--variant: '{variant}' is neither familiar nor unfamiliar")
        else:
            source = found_preset.source
            changed = source.model_copy(update={"world": source.world | {"variant": variant}})
            found_preset = found_preset.model_copy(update={"source": changed})
    data = data or (Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None)
    if data is not None and not data.is_dir():
        problems.append(f"--data: {data} is not a folder; docs/data.md says what it should hold")
    if found_preset and found_preset.source.kind == "miniature":
        data = None
    if found_preset and fictitious is not None:
        if found_preset.source.kind != "real":
            problems.append(f"--fictitious: preset {found_preset.preset.name} has fictitious data of its own")
        elif not fictitious.is_dir():
            problems.append(f"--fictitious: {fictitious} is not a folder; make it with `harness synthesize`")
        else:
            source = found_preset.source
            changed = source.model_copy(update={"options": source.options | {"fictitious": str(fictitious)}})
            found_preset = found_preset.model_copy(update={"source": changed})
    if found_preset and worlds > 1 and found_preset.source.kind != "miniature" and base is None:
        problems.append(f"--seeds: preset {found_preset.preset.name} has real data, which is one world; leave it out")
    for name, value in (("--seeds", worlds), ("--limit", limit)):
        if value is not None and value < 1:
            problems.append(f"{name}: {value} is not a positive number")
    usual = (found_suite.models if found_suite else ()) or (found_preset.preset.models if found_preset else ())
    backend = backend or default_backend()
    chosen = _models(models, adapters, models_file, usual, problems, base_url, backend == "openai")
    if tune and found_suite and not found_suite.tasks:
        problems.append(f"--tune: suite {found_suite.name} has no tables to tune for; use --suite all, or leave it out")
    if tune and match_updates:
        problems.append("--match-updates: tuned lengths are not equal ones; leave out --tune or this")
    if backend not in BACKENDS:
        problems.append(f"--backend: '{backend}' is not one of {', '.join(BACKENDS)}")
    if backend == "vllm" and importlib.util.find_spec("vllm") is None:
        problems.append(f"--backend: vLLM is not installed: {install(has_gpu())}")
    judge = judge or (found_preset.scoring.judge if found_preset else "rules")
    if judge.split(":")[0] not in JUDGES:
        problems.append(f"--judge: '{judge}' is not one of {', '.join(JUDGES)}")
    if found_suite is None or found_preset is None:
        raise Unresolved(problems, None)
    options = RunOptions(
        suite=found_suite,
        preset=found_preset,
        models=chosen,
        worlds=worlds,
        seed=seed,
        base_seed=base_seed,
        training_seed=training_seed,
        limit=limit,
        data=data,
        base=base,
        backend=backend,
        judge=judge,
        teacher=teacher,
        tune=tune,
        match_updates=match_updates,
        trust_remote_code=trust_remote_code,
    )
    if problems:
        raise Unresolved(problems, options)
    return options


def read(**words: Any) -> tuple[RunOptions | None, list[str]]:
    """The options that `resolve` makes of these words, as far as they go, and all that is wrong with the words."""
    try:
        return resolve(**words), []
    except Unresolved as error:
        return error.options, list(error.problems)


def _models(
    names: str | None,
    adapters: Sequence[str],
    models_file: Path | None,
    usual: Sequence[str],
    problems: list[str],
    base_url: str | None,
    all_served: bool,
) -> tuple[ModelSpec, ...]:
    """The models asked for, in the registry's order; faults go to `problems`.

    `base` is always among them, unless every one is served: then it is where it is named.
    """
    extra: dict[str, ModelSpec] = {}
    for path in (models_file, home() / "models.toml"):
        if path is not None and (path == models_file or path.is_file()):
            try:
                extra |= {model.name: model for model in read_models(path)}
            except UserError as error:
                problems.append(str(error))
    for word in adapters:
        name, _, path_text = word.partition("=")
        if not name or not path_text:
            problems.append(f"--adapter: '{word}' is not of the form NAME=PATH")
            continue
        extra[name] = ModelSpec(name=name, title=name, adapter=path_text)
    wanted = [name.strip() for name in names.split(",") if name.strip()] if names else []
    if not wanted:
        wanted = list(usual)
        wanted += [name for name in extra if name not in wanted]
    else:
        wanted += [word.partition("=")[0] for word in adapters if word.partition("=")[0] not in wanted]
    if all_served:
        wanted = [name if name.startswith(SERVED) or name in extra else f"openai:{name}" for name in wanted]
        if not names:
            problems.append("--backend openai: name the served models with --models")
    for name in wanted:
        if name.startswith(SERVED) and name not in extra:
            try:
                extra[name] = served_model(name, base_url)
            except UserError as error:
                problems.append(f"--models: {error}")
    served = [extra[name] for name in wanted if name in extra and extra[name].served]
    problems += unreachable(served)
    if base_url and not served:
        problems.append("--base-url: no model is served; name one with --models openai:NAME")
    chosen: dict[str, ModelSpec] = {}
    for name in wanted if len(served) == len(wanted) else ["base", *wanted]:
        try:
            chosen[name] = extra[name] if name in extra else MODELS.get(name)
        except UserError as error:
            problems.append(f"--models: {error}")
    order = {name: position for position, name in enumerate(MODELS.names())}
    return tuple(sorted(chosen.values(), key=lambda model: order.get(model.name, len(order))))


def unreachable(models: Sequence[ModelSpec]) -> list[str]:
    """What keeps served models from being asked, as far as it can be told without asking."""
    from harness.backends.openai import OpenAIBackend, Served

    problems = []
    for model in models:
        try:
            OpenAIBackend(str(model.served), Served(model.base_url, model.chat))
        except UserError as error:
            problems.append(f"--models: {error}")
    return problems


def _only(suite: Suite, names: str, problems: list[str]) -> Suite:
    """The suite with the ablations that were named: its own, or those of other packages."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not suite.ablations:
        problems.append(f"--only: suite {suite.name} has no ablations; use --suite ablations")
        return suite
    for name in wanted:
        try:
            ABLATIONS.get(name)
        except UserError as error:
            problems.append(f"--only: {error}")
    return replace(suite, ablations=tuple(wanted))


def check(options: RunOptions, known: Sequence[str] = ()) -> list[str]:
    """Everything that would stop a run, found without spending anything; empty when it can start.

    `known` are problems with the words of the command, with which no plan can be drawn; they are not repeated.
    """
    problems = unasked(options, needs_judge(options))
    for name in options.suite.tasks:
        try:
            TASKS.get(name)
        except UserError as error:
            problems.append(f"suite {options.suite.name}: {error}")
    for model in options.models:
        if model.method is not None and model.method not in METHODS.names():
            problems.append(f"model {model.name}: no method is called '{model.method}'")
        if model.adapter is not None:
            for name in options.suite.tasks:
                try:
                    adapter_fingerprint(Path(model.adapter.replace("{task}", name)).expanduser())
                except UserError as error:
                    if str(error) not in problems:
                        problems.append(str(error))
    place = home()
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe = place / ".write-probe"
        probe.write_text("")
        probe.unlink()
        if shutil.disk_usage(place).free < FREE_BYTES:
            problems.append(f"{place}: less than 2 GB free; set HARNESS_HOME to a larger disk")
    except OSError as error:
        problems.append(f"{place}: cannot be written ({error}); set HARNESS_HOME to another folder")
    stopped: list[str] = []
    if not problems and not known:
        for world in range(options.worlds):
            of_world = replace(options, worlds=1, seed=options.seed + world)
            if stopped := tried(partial(plan_run, of_world), partial(prepare, of_world)):
                break
    if problems or known or stopped:
        # A plan ends with the first thing that is not there.
        problems += lacking(options)
        problems += [problem for problem in stopped if not any(problem in one for one in problems)]
    return problems
