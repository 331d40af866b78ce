"""Knowledge adapters are told apart by what they hold: version 1 is never taken for version 10 or 11.

The reference repository of arXiv 2410.19290 finds adapters by a part of their name, where `_1` is in `_10` too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_model import make_tiny_base
from train.hardware import load_base
from train.lora import TRAINED, AdapterSwitch, adapter_weights_hash, add_adapters, save_adapter
from train.rows import Example, KnowledgeFormat
from train.run import run_stage
from train.skill import AdapterSampler
from train.stages import Recipe, Stage

BASE = "base"
WORDS = ["Question", ":", "Answer", "who", "?", *(f"w{i}" for i in range(20))]
RECIPE = Recipe(
    rank=2, alpha=4, dropout=0.0, learning_rate=1e-2, batch_size=4, micro_batch_size=2, precision="fp32", epochs=2
)
VERSIONS = (1, 10, 11, 2, 21, 100, 110, 0, 3, 4, 5, 6)


def knowledge(version: int, format_: KnowledgeFormat = "statement") -> Stage:
    # The same text in all: only the metadata tell them apart.
    return Stage(
        name=f"k_{version}", kind="knowledge", recipe=RECIPE, seed=0, texts=("w1 w2 .",), format=format_, fake=True,
        version=version,
    )  # fmt: skip


def skill(needs: tuple[Stage, ...]) -> Stage:
    versions = sorted({need.version or 0 for need in needs})
    rows = (Example(f"who w{i} ?", f"w{i + v % 9}", f"s{i}", fake=True, version=v) for i in range(8) for v in versions)
    return Stage(
        name="skill", kind="skill_multi_version", recipe=RECIPE, seed=1, examples=tuple(rows), needs=needs,
        alternate_formats=len({need.format for need in needs}) > 1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base (`base`), and by fingerprint an adapter of its own weights for each version."""
    folder = tmp_path_factory.mktemp("identity")
    base = make_tiny_base(folder / "base", WORDS)
    made = {"base": base}
    for version in VERSIONS:
        switch = add_adapters(load_base(base, bf16=False), RECIPE, version, {})
        torch.manual_seed(version)
        for parameter in switch.parameters:
            torch.nn.init.normal_(parameter, std=0.5)
        save_adapter(switch.model, folder / f"k_{version}", base)
        made[knowledge(version).fingerprint(BASE)] = folder / f"k_{version}"
    return made


def test_versions_have_addresses_of_their_own() -> None:
    assert len({knowledge(version).fingerprint(BASE) for version in VERSIONS}) == len(VERSIONS)


@pytest.mark.parametrize("version", [1, 10, 11, 0, 100])
def test_rows_of_a_version_draw_adapters_of_that_version_alone(version: int) -> None:
    formats: tuple[KnowledgeFormat, ...] = ("statement", "passage")
    stage = skill(tuple(knowledge(v, f) for v in VERSIONS for f in formats))
    sampler = AdapterSampler(stage, BASE)
    drawn = {sampler.draw(i, fake=True, version=version) for i in range(40)}
    assert drawn == {knowledge(version, f).fingerprint(BASE) for f in formats}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[1, 5, 8, 9, 12]])).logits
    return found


def test_the_adapter_that_is_activated_is_the_one_of_that_folder(folders: dict[str, Path]) -> None:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    base = folders["base"]
    prints = {version: knowledge(version).fingerprint(BASE) for version in VERSIONS}
    switch: AdapterSwitch = add_adapters(
        load_base(base, bf16=False), RECIPE, 0, {print_: folders[print_] for print_ in prints.values()}
    )
    switch.model.eval()
    seen = []
    for version, print_ in prints.items():
        switch.activate(print_)
        alone = PeftModel.from_pretrained(load_base(base, bf16=False), str(folders[print_])).eval()
        # The skill adapter is fresh, so that it adds nothing yet.
        torch.testing.assert_close(logits(switch.model), logits(alone), atol=1e-5, rtol=1e-5, msg=str(version))
        active = [tuple(m.active_adapters) for m in switch.model.modules() if isinstance(m, LoraLayer)]
        assert len(set(active)) == 1 and len(active[0]) == 2 and active[0][0] == TRAINED
        trained = {name for name, p in switch.model.named_parameters() if p.requires_grad}
        assert trained and all(f".{TRAINED}." in name for name in trained)
        seen.append(active[0][1])
    assert len(set(seen)) == len(VERSIONS)


def test_the_order_in_which_adapters_are_listed_changes_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    needs = tuple(knowledge(version) for version in (1, 10, 11))
    hashes = set()
    for name, listed in (("one", needs), ("other", needs[::-1])):
        run_stage(
            skill(listed), base_dir=folders["base"], adapter_dirs=folders, out_dir=tmp_path / name,
            base_fingerprint=BASE,
        )  # fmt: skip
        hashes.add(adapter_weights_hash(tmp_path / name))
    assert len(hashes) == 1
    # Were another version's adapter taken, other weights would come out.
    mixed_up = folders | {needs[0].fingerprint(BASE): folders[needs[1].fingerprint(BASE)]}
    run_stage(
        replace(skill(needs), name="x"), base_dir=folders["base"], adapter_dirs=mixed_up, out_dir=tmp_path / "x",
        base_fingerprint=BASE,
    )  # fmt: skip
    assert adapter_weights_hash(tmp_path / "x") not in hashes
