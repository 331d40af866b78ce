"""Stages that TRL trains: what its trainers are told, and that an update is the formula's however it is cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import test_train_dpo, test_train_rl
from tests.test_train_dpo import PREFER
from tests.test_train_rl import BASE, RL, SFT, SHORT, TEMPLATE, Bench, Watched, tokenizer_of
from tests.tiny_model import make_tiny_base
from train import dpo, rl
from train.dpo import PairTrainer, encode_pairs, plan_pairs
from train.hardware import load_base
from train.lora import open_adapter
from train.rl import Reward, Rewards
from train.run import run_stage
from train.stages import Recipe, Rollouts, Stage

# None of these is what TRL or transformers would take by itself.
RECIPE = Recipe(
    learning_rate=3e-3, weight_decay=0.07, beta1=0.8, beta2=0.95, max_grad_norm=0.3, batch_size=6, micro_batch_size=5,
    gradient_checkpointing=False, precision="fp32",
)  # fmt: skip
ROLLOUTS = Rollouts(updates=7, prompts_per_update=4, generations=3, temperature=0.9, max_new_tokens=11, kl=0.3)


def told(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, arguments: Callable[[], Any]) -> tuple[set[str], Any]:
    """The names of the values that a module gives to TRL's configuration, and the configuration made of them."""
    real, given = getattr(module, name), set()

    def watched(**values: Any) -> Any:
        given.update(values)
        return real(**values)

    monkeypatch.setattr(module, name, watched)
    return given, arguments()


def values(config: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in wanted}


SAID_OF_BOTH = {
    "bf16": False,  # `precision` of the recipe decides: the trainers here cast by themselves
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "disable_dropout": True,
    "max_grad_norm": 0.3,
    "save_strategy": "no",
    "eval_strategy": "no",
    "report_to": [],
    "remove_unused_columns": False,
}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rloo_is_told_what_it_would_assume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpointing: bool
) -> None:
    recipe = replace(RECIPE, gradient_checkpointing=checkpointing)
    given, config = told(
        monkeypatch, rl, "RLOOConfig", lambda: rl._arguments(recipe, ROLLOUTS, seed=5, scratch=tmp_path)
    )
    wanted = SAID_OF_BOTH | {
        "gradient_checkpointing": checkpointing,
        "max_steps": 7,
        "num_generations": 3,
        "per_device_train_batch_size": 4,  # of 12 responses the largest equal part of at most 5
        "gradient_accumulation_steps": 3,
        "num_iterations": 1,
        "epsilon": 0.2,
        "beta": 0.3,
        "normalize_advantages": False,
        "mask_truncated_completions": False,
        "shuffle_dataset": False,
        "temperature": 0.9,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": 11,
        "use_vllm": False,
        "seed": 5,
    }
    assert values(config, wanted) == wanted and set(wanted) <= given
    # All responses of an update are sampled before its first part is trained on, and serve once.
    assert config.generation_batch_size == 12 and config.steps_per_generation == 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dpo_is_told_what_it_would_assume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpointing: bool) -> None:
    stage = replace(PREFER, beta=0.3, seed=2**32 + 9, recipe=replace(RECIPE, gradient_checkpointing=checkpointing))
    given, config = told(monkeypatch, dpo, "DPOConfig", lambda: dpo._arguments(stage, 7, str(tmp_path)))
    wanted = SAID_OF_BOTH | {
        "gradient_checkpointing": checkpointing,
        "max_steps": 7,
        "per_device_train_batch_size": 1,  # an item of the data is a whole micro-batch
        "beta": 0.3,
        "loss_type": ["sigmoid"],
        "label_smoothing": 0.0,
        "precompute_ref_log_probs": True,
        "max_length": None,  # encoding has cut the rows
        "learning_rate": 3e-3,
        "weight_decay": 0.07,
        "seed": 9,
    }
    assert values(config, wanted) == wanted and set(wanted) <= given


# --- one update ----------------------------------------------------------------------------------------------


class Kept(Rewards):
    """Keeps the rewards that it gave last."""

    last: list[float]

    def of(self, *responses: Any) -> list[Reward]:
        rewards = super().of(*responses)
        self.last = [reward.value for reward in rewards]
        return rewards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("responses")
    make_tiny_base(folder / "base", list(dict.fromkeys([*test_train_rl.WORDS, *test_train_dpo.WORDS])))
    run_stage(SFT, base_dir=folder / "base", adapter_dirs={}, out_dir=folder / "sft", base_fingerprint=BASE)
    return folder


def start(folder: Path) -> Any:
    return open_adapter(load_base(folder / "base", bf16=False), folder / "sft")


def log_probability(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """The summed log-probability of a response, from plain transformers."""
    log_probs = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
    at = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    return log_probs[at, torch.tensor(response)].sum()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def taken(trainer: Any, beta1: float) -> dict[str, torch.Tensor]:
    """The gradient that AdamW was given in its first update: Adam and clipping would hide one of the wrong scale."""
    state = trainer.optimizer.state
    return {n: state[p]["exp_avg"].cpu() / (1 - beta1) for n, p in trainer.model.named_parameters() if p.requires_grad}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], said: str) -> None:
    assert found.keys() == expected.keys() and max(g.abs().max() for g in expected.values()) > 0.02
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3, msg=lambda m: f"{said}: {m}")


def one_update(
    stage: Stage, folder: Path, scratch: Path, tokenizer: Any = None
) -> tuple[Watched, list[float], dict[str, torch.Tensor]]:
    """The RL trainer after its first update, the rewards, and the gradient."""
    rollouts = replace(stage.rollouts or ROLLOUTS, updates=1)
    rewards = Kept(stage.examples, rollouts, TEMPLATE, Bench(), None)
    tokenizer = tokenizer or tokenizer_of(folder)
    trainer = Watched(stage, rollouts, start(folder), tokenizer, rewards, False, scratch, lambda row: None)
    trainer.train()
    return trainer, rewards.last, taken(trainer, stage.recipe.beta1)


def test_the_gradient_of_rl_is_the_formulas_however_an_update_is_cut(folder: Path, tmp_path: Path) -> None:
    """-1/n sum (r - mean r of the prompt's other responses) log p(response), one unpadded sequence at a time."""
    recipe = replace(RL.recipe, micro_batch_size=16, max_grad_norm=1e9)
    first, rewards, whole = one_update(replace(SHORT, recipe=recipe), folder, tmp_path / "whole")
    assert len(rewards) == 16 and len(set(rewards)) > 1
    model, size = start(folder).eval(), first.args.num_generations
    for i, (prompt, response) in enumerate(zip(first.prompts, first.responses, strict=True)):
        group = rewards[i // size * size : i // size * size + size]
        advantage = rewards[i] - (sum(group) - rewards[i]) / (size - 1)
        (-advantage * log_probability(model, prompt, response) / len(rewards)).backward()
    assert_equal(whole, gradients(model), "whole")

    for micro, checkpointing in ((4, False), (1, False), (4, True)):
        changed = replace(recipe, micro_batch_size=micro, gradient_checkpointing=checkpointing)
        stage = replace(SHORT, recipe=changed)
        again, earned, gradient = one_update(stage, folder, tmp_path / f"{micro}-{checkpointing}")
        assert again.args.gradient_accumulation_steps == 16 // micro
        assert again.model.is_gradient_checkpointing == checkpointing
        assert (again.responses, earned) == (first.responses, rewards)
        assert_equal(gradient, gradients(model), f"{micro} at a time, checkpointing {checkpointing}")

    # Llama 3 comes without a token for padding, for which TRL then takes EOS.
    without = tokenizer_of(folder)
    without.pad_token = None
    again, earned, gradient = one_update(replace(SHORT, recipe=recipe), folder, tmp_path / "unpadded", without)
    assert again.processing_class.pad_token == without.eos_token
    assert (again.responses, earned) == (first.responses, rewards)
    assert_equal(gradient, gradients(model), "padded with EOS")


@pytest.mark.parametrize(("micro", "checkpointing"), [(7, False), (3, False), (1, False), (3, True)])
def test_the_gradient_of_dpo_is_the_formulas_however_an_update_is_cut(
    folder: Path, tmp_path: Path, micro: int, checkpointing: bool
) -> None:
    """At the start every margin is 0: the gradient of -beta / 2 mean (log p(chosen) - log p(rejected))."""
    recipe = replace(PREFER.recipe, batch_size=7, micro_batch_size=micro, epochs=0.1, max_grad_norm=1e9,
                     gradient_checkpointing=checkpointing)  # fmt: skip
    stage, tokenizer, losses = replace(PREFER, recipe=recipe, beta=0.4), tokenizer_of(folder), []
    pairs, _ = encode_pairs(stage, tokenizer)
    plan = plan_pairs(pairs, recipe, stage.seed)
    trainer = PairTrainer(start(folder), plan, pairs, stage=stage, tokenizer=tokenizer, bf16=False,
                          scratch=str(tmp_path), on_update=losses.append)  # fmt: skip
    trainer.train()
    assert plan.updates == len(losses) == 1 and losses[0] == pytest.approx(math.log(2), abs=1e-5)

    model, read = start(folder).eval(), [i for (branch,) in plan.micro_batches for i in branch.rows]
    for i in read:
        for sign, row in ((1, pairs[i].chosen), (-1, pairs[i].rejected)):
            ids = list(row.ids)
            scored = log_probability(model, ids[: row.trained_from], ids[row.trained_from :])
            (-sign * stage.beta / 2 * scored / len(read)).backward()
    assert len(read) == 7
    assert_equal(taken(trainer, recipe.beta1), gradients(model), "dpo")


def test_the_optimiser_of_rl_is_the_recipes(folder: Path, tmp_path: Path) -> None:
    trainer, _, _ = one_update(replace(SHORT, recipe=replace(RECIPE, warmup_ratio=0.0)), folder, tmp_path)
    (group,) = trainer.optimizer.param_groups
    assert (group["initial_lr"], group["betas"], group["weight_decay"]) == (3e-3, (0.8, 0.95), 0.07)
    assert all(m.p == 0 for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout))
