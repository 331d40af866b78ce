"""The losses and gradients of the trainer, against plain computations of the same thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import make_tiny_base
from train.encode import Encoded, encode_examples
from train.lora import AdapterSwitch, add_adapters, save_adapter, tensors_hash
from train.plan import Plan
from train.rows import Example
from train.run import plan_stage, run_stage
from train.stages import Recipe, Stage
from train.template import PromptTemplate
from train.trainer import StageTrainer, learning_rate_factor

BASE = "base"
WORDS = ["Question", ":", "Answer", "who", "?", *(f"w{i}" for i in range(30))]
RECIPE = Recipe(
    rank=4, alpha=8, dropout=0.0, learning_rate=1e-2, batch_size=8, micro_batch_size=4, precision="fp32", epochs=1,
    weight_decay=0.1, warmup_ratio=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"), WORDS)


def knowledge(version: int | None, *, fake: bool = True) -> Stage:
    texts = tuple(f"w{i} w{(i * 7 + (version or 0)) % 30} ." for i in range(8))
    return Stage(
        name=f"k-{fake}-{version}", kind="knowledge", recipe=RECIPE, seed=0, texts=texts,
        format="statement", fake=fake, version=version,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapters(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    made = {}
    for stage in (knowledge(None), knowledge(None, fake=False), knowledge(1), knowledge(2)):
        run_stage(stage, base_dir=base_dir, adapter_dirs={}, out_dir=folder / stage.name, base_fingerprint=BASE)
        made[stage.fingerprint(BASE)] = folder / stage.name
    return made


def examples(fake: bool, start: int, count: int = 4) -> tuple[Example, ...]:
    return tuple(
        Example(f"who w{i} ?", " ".join(f"w{(i + j) % 30}" for j in range(1 + i % 3)), f"s{i}", fake=fake)
        for i in range(start, start + count)
    )


def mixed(**changes: Any) -> Stage:
    stage = Stage(
        name="mixed",
        kind="skill_mixed",
        recipe=RECIPE,
        seed=2,
        examples=examples(True, 0) + examples(False, 4),
        needs=(knowledge(None), knowledge(None, fake=False)),
        real_weight=0.5,
    )
    return replace(stage, **changes)


def tokenizer_of(base_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(base_dir))


def load(base_dir: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(base_dir), attn_implementation="eager", dtype=torch.float32)


def trained(
    stage: Stage, base_dir: Path, adapters: dict[str, Path], tmp_path: Path, plan: Plan | None = None
) -> tuple[AdapterSwitch, list[float], Plan, tuple[Encoded, ...]]:
    """Run the trainer itself, over the stage's plan or another, so that the model can be looked at afterwards."""
    rows = encode_examples(stage.examples, tokenizer_of(base_dir), stage.template, 64).rows
    plan = plan or plan_stage(stage, type("Rows", (), {"rows": rows})(), BASE)  # type: ignore[arg-type]
    wanted = {need.fingerprint(BASE): adapters[need.fingerprint(BASE)] for need in stage.needs}
    model = load(base_dir)
    model.requires_grad_(False)
    switch = add_adapters(model, stage.recipe, stage.seed, wanted)
    losses: list[float] = []
    StageTrainer(
        switch, plan, rows, recipe=stage.recipe, seed=stage.seed, pad_id=0, bf16=False,
        scratch_dir=tmp_path / "scratch", on_update=lambda update, loss: losses.append(loss),
    ).train()  # fmt: skip
    return switch, losses, plan, rows


def skill_of(switch: AdapterSwitch) -> list[torch.Tensor]:
    return [p.detach().clone() for p in switch.parameters]


@pytest.mark.parametrize("kind", ["sft", "skill_mixed"])
def test_four_micro_batches_equal_one(kind: Any, base_dir: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=4)
    stage = mixed(kind=kind, recipe=recipe, needs=mixed().needs if kind != "sft" else (), alternate_formats=False)
    whole, whole_losses, _, _ = trained(
        replace(stage, recipe=replace(recipe, micro_batch_size=8)), base_dir, adapters, tmp_path
    )
    cut, cut_losses, plan, _ = trained(
        replace(stage, recipe=replace(recipe, micro_batch_size=2)), base_dir, adapters, tmp_path
    )
    assert plan.per_update == 4 and len(cut_losses) == 4
    assert cut_losses == pytest.approx(whole_losses, rel=1e-4)
    for a, b in zip(skill_of(whole), skill_of(cut), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def multi_version(versions: tuple[int, ...], micro_batch_size: int) -> Stage:
    """Sixteen subjects with answers of unequal lengths in each version; two updates an epoch."""
    rows = (
        Example(
            f"who w{i} ?", " ".join(f"w{(i + v + j) % 30}" for j in range(1 + i % 4)), f"s{i}", fake=True, version=v
        )
        for i in range(16)
        for v in versions
    )
    return Stage(
        name="versions",
        kind="skill_multi_version",
        recipe=replace(RECIPE, epochs=2, micro_batch_size=micro_batch_size),
        seed=2,
        examples=tuple(rows),
        needs=tuple(knowledge(v) for v in versions),
        alternate_formats=False,
    )


def assert_trained_alike(one: tuple[AdapterSwitch, list[float], Any, Any], other: Any) -> None:
    assert len(one[1]) == 4 and one[1] == pytest.approx(other[1], rel=1e-4)
    for a, b in zip(skill_of(one[0]), skill_of(other[0]), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("micro_batch_size", [2, 1])
def test_four_micro_batches_of_one_version_equal_one(
    micro_batch_size: int, base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    whole = trained(multi_version((1,), 8), base_dir, adapters, tmp_path)
    cut = trained(multi_version((1,), micro_batch_size), base_dir, adapters, tmp_path)
    assert (whole[2].per_update, cut[2].per_update) == (1, 8 // micro_batch_size)
    assert_trained_alike(whole, cut)


def test_micro_batches_of_different_versions_add_up_to_one_with_all_of_their_branches(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Each micro-batch draws a version, so the same rows are read only where the plan is the same."""
    stage = multi_version((1, 2), 2)
    cut = trained(stage, base_dir, adapters, tmp_path)
    plan = cut[2]
    updates = [plan.micro_batches[i : i + 4] for i in range(0, len(plan.micro_batches), 4)]
    needs = {need.fingerprint(BASE): need.version for need in stage.needs}
    assert plan.per_update == 4 and any(len({needs[b.knowledge] for (b,) in update}) == 2 for update in updates)
    at_once = Plan(tuple(tuple(branch for (branch,) in update) for update in updates), 1)
    assert_trained_alike(trained(stage, base_dir, adapters, tmp_path, at_once), cut)


def plain_loss(
    stage: Stage, base_dir: Path, adapters: dict[str, Path], skill: dict[str, torch.Tensor], rows: tuple[Encoded, ...]
) -> torch.Tensor:
    """The mixed loss by hand: adapters multiplied into the weights, one unpadded row at a time, no peft."""
    model = load(base_dir)
    fake_key, real_key = (need.fingerprint(BASE) for need in stage.needs)

    def weights(*deltas: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        made = {name: p.detach() for name, p in model.named_parameters()}
        for delta in deltas:
            for key, a in delta.items():
                if ".lora_A." in key:
                    name = key.removeprefix("base_model.model.").replace(".lora_A", "")
                    made[name] = made[name] + 2.0 * delta[key.replace("lora_A", "lora_B")] @ a
        return made

    def nll(row: Encoded, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = torch.tensor([row.ids])
        logits = torch.func.functional_call(model, parameters, (ids,)).logits[0, :-1]
        picked = logits.log_softmax(-1)[torch.arange(len(row.ids) - 1), ids[0, 1:]]
        return -picked[row.trained_from - 1 :].sum()

    knows = {key: load_file(adapters[key] / "adapter_model.safetensors") for key in (fake_key, real_key)}
    joint, alone, tokens, real_tokens = torch.zeros(()), torch.zeros(()), 0, 0
    for example, row in zip(stage.examples, rows, strict=True):
        targets = len(row.ids) - row.trained_from
        joint = joint + nll(row, weights(knows[fake_key if example.fake else real_key], skill))
        tokens += targets
        if not example.fake:
            alone = alone + nll(row, weights(skill))
            real_tokens += targets
    return joint / tokens + stage.real_weight * alone / real_tokens


def test_the_mixed_loss_and_its_update_equal_a_plain_computation(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    stage = mixed(recipe=replace(RECIPE, epochs=2, max_grad_norm=1e9))
    model = load(base_dir)
    start = add_adapters(model, stage.recipe, stage.seed, {})
    save_adapter(start.model, tmp_path / "start", base_dir)
    skill = load_file(tmp_path / "start" / "adapter_model.safetensors")
    rows = encode_examples(stage.examples, tokenizer_of(base_dir), PromptTemplate(), 64).rows

    parameters = {name: tensor.clone().requires_grad_() for name, tensor in skill.items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    expected = []
    for update in range(2):  # eight rows and batches of eight: every update reads every row
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * learning_rate_factor(update, 2, stage.recipe)
        loss = plain_loss(stage, base_dir, adapters, parameters, rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        expected.append(loss.item())

    switch, losses, _, _ = trained(stage, base_dir, adapters, tmp_path)
    assert losses == pytest.approx(expected, rel=1e-5)
    save_adapter(switch.model, tmp_path / "end", base_dir)
    for name, tensor in load_file(tmp_path / "end" / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, parameters[name].detach(), atol=1e-4, rtol=1e-3)


def test_gradient_checkpointing_changes_nothing_though_adapters_switch(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, dropout=0.1, epochs=3)
    plain, plain_losses, _, _ = trained(mixed(recipe=recipe), base_dir, adapters, tmp_path)
    checkpointed, losses, _, _ = trained(
        mixed(recipe=replace(recipe, gradient_checkpointing=True)), base_dir, adapters, tmp_path
    )
    assert losses == pytest.approx(plain_losses, rel=1e-5)
    for a, b in zip(skill_of(plain), skill_of(checkpointed), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_only_the_skill_adapter_has_gradients_and_only_it_changes(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    stage = mixed()
    model = load(base_dir)
    wanted = {need.fingerprint(BASE): adapters[need.fingerprint(BASE)] for need in stage.needs}
    model.requires_grad_(False)
    before = add_adapters(model, stage.recipe, stage.seed, wanted)
    others = {n: p.clone() for n, p in before.model.named_parameters() if ".skill." not in n}
    first = skill_of(before)

    switch, _, _, _ = trained(stage, base_dir, adapters, tmp_path)
    after = dict(switch.model.named_parameters())
    assert tensors_hash(others.items()) == tensors_hash((n, after[n]) for n in others)
    assert len([n for n in others if ".lora_" in n]) == 2 * 2 * 14
    assert all(not torch.equal(a, b) for a, b in zip(first, skill_of(switch), strict=True))
    for name, parameter in switch.model.named_parameters():
        assert parameter.requires_grad == (".skill." in name)
        assert parameter.grad is None or ".skill." in name


def test_frozen_dropout_is_on_by_default_and_can_be_turned_off(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    noisy = replace(knowledge(None), recipe=replace(RECIPE, dropout=0.5))
    run_stage(noisy, base_dir=base_dir, adapter_dirs={}, out_dir=tmp_path / "noisy", base_fingerprint=BASE)
    known = {"noisy": tmp_path / "noisy"}
    for frozen_dropout in (True, False):
        model = load(base_dir)
        switch = add_adapters(model, RECIPE, 0, known, frozen_dropout=frozen_dropout)
        switch.activate("noisy")
        switch.model.train()
        ids = torch.tensor([[1, 5, 6, 7]])
        with torch.no_grad():
            outputs = [switch.model(input_ids=ids).logits for _ in range(2)]
        assert torch.equal(*outputs) != frozen_dropout


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    recipe = Recipe(warmup_ratio=0.1, min_lr_ratio=0.05)
    factors = [learning_rate_factor(step, 100, recipe) for step in range(101)]
    assert factors[:10] == sorted(factors[:10]) and 0 < factors[0] < 0.2
    assert factors[10] == 1 and factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.525) and factors[100] == pytest.approx(0.05)
