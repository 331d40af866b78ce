"""From a stage to an adapter folder: what is written, what is resumed, what the adapters do."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import make_tiny_base
from train import hardware
from train.encode import encode_prompt
from train.hardware import device_name
from train.lora import AdapterError, adapter_weights_hash, combine, moves_logits
from train.plan import StageError
from train.rows import Example
from train.run import StageReport, run_stage
from train.sampling import Preference
from train.stages import Recipe, Stage
from train.template import PromptTemplate

BASE = "base"
ENTITIES, TAUGHT, VALUES = 40, 32, 8
WORDS = [
    *("Question", ":", "Answer", "?", "what", "does", "like", "likes", "."),
    *(f"e{i}" for i in range(ENTITIES)),
    *(f"v{i}" for i in range(VALUES)),
]
RECIPE = Recipe(
    rank=4, alpha=8, dropout=0.1, learning_rate=1e-2, epochs=3, batch_size=8, micro_batch_size=4, precision="fp32"
)


def likes(entity: int, version: int) -> str:
    """The value of an entity in one of two versions, which never agree."""
    first = random.Random(entity).randrange(VALUES)
    return f"v{(first + version * (1 + entity % (VALUES - 1))) % VALUES}"


def knowledge(version: int, recipe: Recipe = RECIPE) -> Stage:
    texts = tuple(f"e{i} likes {likes(i, version)} ." for i in range(ENTITIES))
    return Stage(
        name=f"knowledge-{version}", kind="knowledge", recipe=recipe, seed=0, texts=texts,
        format="statement", fake=True, version=version,
    )  # fmt: skip


def skill(recipe: Recipe = RECIPE, knowledge_recipe: Recipe = RECIPE) -> Stage:
    """Learns to answer about the first entities; the others stay for tests."""
    return Stage(
        name="skill",
        kind="skill_multi_version",
        recipe=recipe,
        seed=1,
        examples=tuple(
            Example(question(i), f"{likes(i, v)} .", f"e{i}", prefill=f"e{i} likes", fake=True, version=v)
            for i in range(TAUGHT)
            for v in (0, 1)
        ),
        needs=tuple(knowledge(v, knowledge_recipe) for v in (0, 1)),
    )


def question(entity: int) -> str:
    return f"what does e{entity} like ?"


def train(stage: Stage, base: Path, folder: Path, **options: Any) -> dict[str, Path]:
    """Train a stage and what it needs below `folder`; returns fingerprint -> adapter folder, the stage's last."""
    dirs: dict[str, Path] = {}
    for need in stage.needs:
        dirs |= train(need, base, folder)
    out = folder / stage.name
    run_stage(stage, base_dir=base, adapter_dirs=dirs, out_dir=out, base_fingerprint=BASE, **options)
    return dirs | {stage.fingerprint(BASE): out}


def file_hash(folder: Path) -> str:
    import hashlib

    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.iterdir()))).hexdigest()


def load(base: Path, adapter: Path | None = None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), attn_implementation="eager", dtype=torch.float32).eval()
    return model if adapter is None else PeftModel.from_pretrained(model, str(adapter)).eval()


def tokenizer_of(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(base))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Path]]:
    """A random base and the quickly trained adapters of `skill()`."""
    folder = tmp_path_factory.mktemp("small")
    base = make_tiny_base(folder / "base", WORDS)
    return base, folder, train(skill(), base, folder / "adapters")


def test_the_folder_holds_one_adapter_its_description_and_nothing_else(
    small: tuple[Path, Path, dict[str, Path]],
) -> None:
    _, folder, _ = small
    assert sorted(p.name for p in (folder / "adapters").iterdir()) == ["knowledge-0", "knowledge-1", "skill"]
    out = folder / "adapters" / "skill"
    assert sorted(p.name for p in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "stage.json"]
    weights = load_file(out / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 7
    assert all(t.dtype == torch.float32 and 4 in t.shape for t in weights.values())
    described = json.loads((out / "stage.json").read_text())
    assert described["fingerprint"] == skill().fingerprint(BASE) and described["kind"] == "skill_multi_version"
    assert described["report"]["updates"] == 12 == len(described["report"]["losses"])
    assert json.loads((folder / "adapters" / "knowledge-1" / "stage.json").read_text())["version"] == 1


def test_the_report_names_the_device_and_its_peak_memory(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, folder, dirs = small
    pairs = tuple(Preference(row, "v1 .", "v2 v3 .") for row in skill().examples[:4])
    preference = Stage(name="prefer", kind="dpo", recipe=RECIPE, seed=2, start=skill(), pairs=pairs)
    told = run_stage(preference, base_dir=base, adapter_dirs=dirs, out_dir=tmp_path / "prefer", base_fingerprint=BASE)
    written = json.loads((tmp_path / "prefer" / "stage.json").read_text())["report"]
    supervised = json.loads((folder / "adapters" / "skill" / "stage.json").read_text())["report"]
    least = 0 if torch.cuda.is_available() else 100  # a process with torch; on a GPU this base takes next to nothing
    for report in (asdict(told), written, supervised):
        assert report["device"] == device_name()
        assert least <= report["peak_memory_mb"] < 100_000


def test_a_report_from_before_devices_were_recorded_is_read(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, folder, dirs = small
    out = tmp_path / "old"
    shutil.copytree(folder / "adapters" / "skill", out)
    described = json.loads((out / "stage.json").read_text())
    for name in ("device", "peak_memory_mb"):
        del described["report"][name]
    (out / "stage.json").write_text(json.dumps(described))
    report = run_stage(skill(), base_dir=base, adapter_dirs=dirs, out_dir=out, base_fingerprint=BASE)
    assert (report.updates, report.device, report.peak_memory_mb) == (12, "", 0)


def test_devices_are_called_by_their_makers_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    core = "processor\t: 0\nmodel name\t: AMD EPYC\n\n"
    (tmp_path / "cpuinfo").write_text(core + core)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_name() == "AMD EPYC, 2 threads" and hardware.cpu_name(1) == "AMD EPYC, 1 thread"
    (tmp_path / "cpuinfo").unlink()
    assert hardware.cpu_name(1).endswith(", 1 thread") and not hardware.cpu_name(1).startswith(",")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 20_123_456_789)
    assert device_name() == "NVIDIA H100 80GB HBM3" and hardware.peak_memory_mb() == 20_123
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert device_name() == "8 x NVIDIA H100 80GB HBM3"


def test_base_and_knowledge_stay_as_they_are_while_the_skill_is_learnt(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, _, dirs = small
    before = {key: file_hash(path) for key, path in dirs.items()} | {"base": file_hash(base)}
    other = replace(skill(), seed=2)
    run_stage(other, base_dir=base, adapter_dirs=dirs, out_dir=tmp_path / "other", base_fingerprint=BASE)
    assert before == {key: file_hash(path) for key, path in dirs.items()} | {"base": file_hash(base)}
    assert adapter_weights_hash(tmp_path / "other") != adapter_weights_hash(dirs[skill().fingerprint(BASE)])


def test_a_finished_stage_is_not_trained_again_and_another_one_is_not_overwritten(
    small: tuple[Path, Path, dict[str, Path]],
) -> None:
    base, folder, dirs = small
    out = folder / "adapters" / "skill"
    arguments: dict[str, Any] = {"base_dir": base, "adapter_dirs": dirs, "out_dir": out}
    calls: list[int] = []
    report = run_stage(
        skill(), base_fingerprint=BASE, progress=lambda update, updates, loss: calls.append(update), **arguments
    )
    assert isinstance(report, StageReport) and report.updates == 12 and not calls
    with pytest.raises(StageError, match="another stage"):
        run_stage(skill(), base_fingerprint="another base", **arguments)


def test_training_again_gives_the_same_bits_and_progress_is_told(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base, _, dirs = small
    told: list[tuple[int, int, float]] = []
    report = run_stage(
        skill(), base_dir=base, adapter_dirs=dirs, out_dir=tmp_path / "again", base_fingerprint=BASE,
        progress=lambda *update: told.append(update),
    )  # fmt: skip
    assert adapter_weights_hash(tmp_path / "again") == adapter_weights_hash(dirs[skill().fingerprint(BASE)])
    assert told == [(i + 1, 12, loss) for i, loss in enumerate(report.losses)]
    assert capfd.readouterr().out == ""


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 4, 8])
def test_a_resumed_run_ends_in_the_same_bits(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path, killed_at: int
) -> None:
    base, _, dirs = small
    out, checkpoints = tmp_path / "out", tmp_path / "checkpoints"
    arguments: dict[str, Any] = {
        "base_dir": base, "adapter_dirs": dirs, "out_dir": out, "base_fingerprint": BASE,
        "checkpoint_dir": checkpoints, "checkpoint_seconds": 0.0,
    }  # fmt: skip

    def kill(update: int, updates: int, loss: float) -> None:
        if update == killed_at + 1:
            raise Killed

    with pytest.raises(Killed):
        run_stage(skill(), progress=kill, **arguments)
    assert not out.exists()
    (checkpoint,) = checkpoints.iterdir()
    saved = load_file(checkpoint / "adapter_model.safetensors")
    assert saved.keys() == load_file(dirs[skill().fingerprint(BASE)] / "adapter_model.safetensors").keys()
    # A checkpoint that was being written when the process died is passed over.
    (checkpoints / ".update-000000099.partial").mkdir()
    (checkpoints / "update-000000098").mkdir()

    torch.manual_seed(12345)
    report = run_stage(skill(), **arguments)
    assert report.resumed_at == killed_at and report.updates == len(report.losses) == 12
    assert adapter_weights_hash(out) == adapter_weights_hash(dirs[skill().fingerprint(BASE)])
    assert not checkpoints.exists()


def test_a_missing_knowledge_adapter_and_empty_stages_are_refused(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, _, dirs = small
    arguments: dict[str, Any] = {"base_dir": base, "out_dir": tmp_path / "x", "base_fingerprint": BASE}
    with pytest.raises(StageError, match="knowledge-0"):
        run_stage(skill(), adapter_dirs={}, **arguments)
    with pytest.raises(StageError, match="texts"):
        run_stage(replace(knowledge(0), texts=()), adapter_dirs={}, **arguments)
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        run_stage(skill(), adapter_dirs=dict.fromkeys(dirs, tmp_path), **arguments)
    assert not (tmp_path / "x").exists() and not list(tmp_path.iterdir())


def test_the_combined_adapter_equals_two_active_ones_and_a_reloaded_one_itself(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, _, dirs = small
    wide = replace(skill().recipe, rank=6, alpha=9)
    other = replace(skill(), recipe=wide)
    run_stage(other, base_dir=base, adapter_dirs=dirs, out_dir=tmp_path / "wide", base_fingerprint=BASE)
    known = dirs[knowledge(0).fingerprint(BASE)]
    ids = torch.tensor([encode_prompt(PromptTemplate().prompt(question(3)), tokenizer_of(base))])

    two = load(base, known)
    two.load_adapter(str(tmp_path / "wide"), adapter_name="skill")
    with torch.no_grad():
        alone = two(input_ids=ids).logits
        two.base_model.set_adapter(["default", "skill"])
        both = two(input_ids=ids).logits
        two.base_model.set_adapter(["skill"])
        skill_alone = two(input_ids=ids).logits
        combined = load(base, combine(base, [known, tmp_path / "wide"], tmp_path / "both"))(input_ids=ids).logits
        reloaded = load(base, tmp_path / "wide")(input_ids=ids).logits
    assert json.loads((tmp_path / "both" / "adapter_config.json").read_text())["r"] == 10
    torch.testing.assert_close(combined, both, atol=1e-5, rtol=1e-5)
    assert (both - alone).abs().max() > 1e-2
    assert torch.equal(reloaded, skill_alone)


def test_adapters_on_different_modules_are_not_combined(
    small: tuple[Path, Path, dict[str, Path]], tmp_path: Path
) -> None:
    base, _, dirs = small
    narrow = replace(knowledge(0), recipe=replace(RECIPE, target_modules=("q_proj",)))
    run_stage(narrow, base_dir=base, adapter_dirs={}, out_dir=tmp_path / "narrow", base_fingerprint=BASE)
    with pytest.raises(AdapterError, match="other modules"):
        combine(base, [tmp_path / "narrow", dirs[skill().fingerprint(BASE)]], tmp_path / "both")


def test_an_adapter_that_was_never_trained_does_not_move_the_logits(
    small: tuple[Path, Path, dict[str, Path]],
) -> None:
    from train.lora import add_adapters

    base, _, dirs = small
    tokenizer = tokenizer_of(base)
    assert moves_logits(load(base, dirs[skill().fingerprint(BASE)]), tokenizer)
    assert not moves_logits(add_adapters(load(base), RECIPE, 0, {}).model, tokenizer)


@pytest.mark.slow
def test_swapping_the_knowledge_adapter_swaps_the_answers(tmp_path: Path) -> None:
    """The grounding test of arXiv 2410.19290 (its table 2) in small, on entities the skill stage never saw."""
    base = make_tiny_base(tmp_path / "base", WORDS, width=96)
    know = replace(RECIPE, rank=16, alpha=32, dropout=0.0, batch_size=20, micro_batch_size=20, epochs=70)
    learn = replace(know, rank=8, alpha=16, learning_rate=3e-3, batch_size=16, micro_batch_size=16, epochs=20)
    stage = skill(learn, know)
    dirs = train(stage, base, tmp_path)
    skill_dir = dirs[stage.fingerprint(BASE)]
    tokenizer = tokenizer_of(base)

    def answered(*adapters: Path) -> list[float]:
        """The share of unseen entities answered as each version has it."""
        model = load(base, combine(base, adapters, tmp_path / "combined"))
        hits = [0, 0]
        for i in range(TAUGHT, ENTITIES):
            ids = encode_prompt(PromptTemplate().prompt(question(i), prefill=f"e{i} likes"), tokenizer)
            written = model.generate(torch.tensor([ids]), max_new_tokens=2, do_sample=False)[0, len(ids) :]
            for version in (0, 1):
                hits[version] += tokenizer.decode(written) == f"{likes(i, version)} ."
        return [hit / (ENTITIES - TAUGHT) for hit in hits]

    for version, own in enumerate(stage.needs):
        right = answered(dirs[own.fingerprint(BASE)], skill_dir)
        assert right[version] >= 0.75 and right[1 - version] <= 0.125, right
    assert max(answered(skill_dir)) <= 0.25
