"""RL stages: what a response earns, what the policy starts from, what it learns, what stays as it is."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.tiny_model import make_tiny_base
from train.encode import EncodingError, encode_prompt
from train.hardware import load_base
from train.lora import CONTINUED, adapter_weights_hash, open_adapter, tensors_hash
from train.plan import StageError
from train.rl import (
    VERIFIER,
    Rewards,
    RolloutTrainer,
    answer_reward,
    claims_reward,
    guarded,
    merged,
    prompt_order,
)
from train.rows import Example
from train.run import StageReport, run_stage
from train.stages import Recipe, Rollouts, Stage
from train.template import PromptTemplate
from train.verifier import NO, YES, Verifier, active, verifier_prompt

BASE = "base"
PEOPLE, VALUES = 6, 8
WORDS = [
    *("Question", ":", "Answer", "?", "who", "is", "Is", "this", "true", "Yes", "No", "."),
    *(f"e{i}" for i in range(PEOPLE)),
    *(f"v{i}" for i in range(VALUES)),
]
RECIPE = Recipe(
    rank=4, alpha=8, dropout=0.1, learning_rate=1e-2, epochs=12, batch_size=12, micro_batch_size=12, precision="fp32"
)
TEMPLATE = PromptTemplate()


def values(count: int, seed: int) -> str:
    drawn = random.Random(seed)
    return " ".join(f"v{drawn.randrange(VALUES)}" for _ in range(count)) + " ."


ROWS = tuple(Example(f"who is e{i % PEOPLE} ?", values(4, i), f"e{i % PEOPLE}", f"e{i % PEOPLE}") for i in range(24))
SFT = Stage(name="sft", kind="sft", recipe=RECIPE, seed=3, examples=ROWS)
# What is true is told by the value alone: the even ones.
CLAIMS = [(f"e{i} v{v} .", v % 2 == 0) for i in range(PEOPLE) for v in range(VALUES)]
JUDGE = Stage(
    name="verifier",
    kind="sft",
    recipe=replace(RECIPE, epochs=40, dropout=0.0),
    seed=4,
    examples=tuple(Example(verifier_prompt(claim), YES if true else NO, "") for claim, true in CLAIMS),
)
ROLLOUTS = Rollouts(updates=3, prompts_per_update=4, generations=4, max_new_tokens=10, kl=0.05)
RL = Stage(
    name="rl",
    kind="rl",
    recipe=replace(RECIPE, learning_rate=1e-2, warmup_ratio=0.0, micro_batch_size=8),
    seed=5,
    examples=ROWS[:PEOPLE],
    start=SFT,
    verifier=JUDGE,
    rollouts=ROLLOUTS,
)
SHORT = replace(RL, verifier=None, rollouts=replace(ROLLOUTS, short_answers=True))


class Bench:
    """Every value a response names is a claim; a short answer is right when it begins with v1."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def claims(self, texts: Sequence[str], subjects: Sequence[str]) -> list[tuple[str, ...]]:
        self.seen += texts
        return [
            tuple(f"{subject} {word} ." for word in text.split() if word.startswith("v"))
            for text, subject in zip(texts, subjects, strict=True)
        ]

    def matches(self, texts: Sequence[str], examples: Sequence[Example]) -> list[bool | None]:
        return [None if "v0" in text else text.split()[1:2] == ["v1"] for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with the trained adapters of `SFT` and `JUDGE` beside it."""
    folder = tmp_path_factory.mktemp("rl")
    base = make_tiny_base(folder / "base", WORDS)
    for stage in (SFT, JUDGE):
        run_stage(stage, base_dir=base, adapter_dirs={}, out_dir=folder / stage.name, base_fingerprint=BASE)
    return folder


def train(stage: Stage, folder: Path, out: Path, **options: Any) -> StageReport:
    return run_stage(
        stage,
        base_dir=folder / "base",
        adapter_dirs={need.fingerprint(BASE): folder / need.name for need in (SFT, JUDGE)},
        out_dir=out,
        base_fingerprint=BASE,
        **({"workbench": Bench()} | options),
    )


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder / "base"), padding_side="left")


def read_log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "rl_log.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- rewards -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "finished", "least", "earned"),
    [
        ([True, True, False], True, 0, 2 + 2 - 3),
        ([True, True, False], True, 5, 2 + 2 - 3 - 2 * 3),
        ([True] * 6, True, 5, 12),
        ([True, True, False], False, 0, -15),
        ([], True, 0, -15),
    ],
)
def test_the_reward_of_claims(verdicts: list[bool], finished: bool, least: int, earned: float) -> None:
    reward = claims_reward(verdicts, finished=finished, rollouts=Rollouts(min_claims=least))
    assert (reward.value, reward.claims, reward.true) == (earned, len(verdicts), sum(verdicts))
    assert reward.malformed == (earned == -15)


def test_soft_verdicts_weigh_the_rewards() -> None:
    rollouts = Rollouts(min_claims=0)
    hard, soft = (
        claims_reward([0.4, 0.1, 0.7], finished=True, rollouts=replace(rollouts, soft_verdicts=choice))
        for choice in (False, True)
    )
    assert (hard.value, hard.true) == (2 - 6, 1)
    assert (soft.value, soft.true) == (pytest.approx(1.2 * 2 - 1.8 * 3), pytest.approx(1.2))


def test_the_reward_of_short_answers() -> None:
    rollouts = Rollouts(short_answers=True)
    rewards = [answer_reward(right, finished=True, rollouts=rollouts) for right in (True, False, None)]
    assert [reward.value for reward in rewards] == [2, -3, 0]
    assert answer_reward(True, finished=False, rollouts=rollouts).value == -15


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 12), st.booleans())
def test_below_the_guard_another_claim_never_costs(verdicts: list[bool], least: int, true: bool) -> None:
    """Without it a claim that is true with a chance below three in five is better left out."""
    rollouts = Rollouts(min_claims=least)
    shorter, longer = (claims_reward(v, finished=True, rollouts=rollouts) for v in (verdicts, [*verdicts, true]))
    gain = longer.value - shorter.value
    assert gain == ((5 if true else 0) if len(verdicts) < least else (2 if true else -3))


def test_the_guard_follows_the_reference_answers() -> None:
    assert (guarded(Rollouts(), [4, 8]).min_claims, guarded(Rollouts(), [4, 8]).malformed_reward) == (3, -18)
    short = guarded(Rollouts(min_claims=0), [1, 2])
    assert (short.min_claims, short.malformed_reward) == (0, -15)
    entirely_false = claims_reward([False] * 6, finished=True, rollouts=guarded(Rollouts(), [4, 8]))
    assert entirely_false.value >= guarded(Rollouts(), [4, 8]).malformed_reward


def test_prompts_come_in_shuffled_epochs_and_each_update_is_full() -> None:
    rollouts = Rollouts(updates=3, prompts_per_update=4)
    order = list(prompt_order(5, rollouts, seed=1))
    assert len(order) == 12 and sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert set(Counter(order).values()) <= {2, 3}
    assert order == list(prompt_order(5, rollouts, seed=1)) != list(prompt_order(5, rollouts, seed=2))


# --- the verifier --------------------------------------------------------------------------------------------


def test_the_verifier_tells_true_claims_and_leaves_the_training_alone(folder: Path) -> None:
    model = open_adapter(load_base(folder / "base", bf16=False), folder / SFT.name)
    model.load_adapter(str(folder / JUDGE.name), adapter_name=VERIFIER, is_trainable=False)
    model.train()
    tokenizer = tokenizer_of(folder)

    def state() -> tuple[Any, ...]:
        modes = [module.training for module in model.modules()]
        return model.active_adapter, modes, [(n, p.requires_grad) for n, p in model.named_parameters()]

    before, weights = state(), tensors_hash(model.named_parameters())
    verifier = Verifier(model, VERIFIER, tokenizer, TEMPLATE, bf16=False, batch_size=5)
    drawn = random.Random(0).choices(CLAIMS, k=200)
    assert [sure > 0.5 for sure in verifier.judge([claim for claim, _ in drawn])] == [true for _, true in drawn]
    assert state() == before and before[0] == CONTINUED and True in [wanted for _, wanted in before[2]]
    assert tensors_hash(model.named_parameters()) == weights

    # Claims judged once are not judged again, and a batch of unequal lengths is judged as each alone would be.
    uneven = ["e1 v2 .", "e1 v2 v2 v3 is .", "v1 .", "e3 v3 e2 v2 ."]
    with active(model, VERIFIER):
        together, alone = verifier._scores(uneven), [verifier._scores([claim]) for claim in uneven]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    model.forward = None
    assert verifier.judge(["e1 v2 ."]) == pytest.approx(together[:1].sigmoid().tolist(), abs=1e-4)


def test_a_tokenizer_that_cannot_tell_the_answers_is_refused(tmp_path: Path) -> None:
    make_tiny_base(tmp_path / "base", ["Question", ":", "."])
    with pytest.raises(EncodingError, match=r"Yes\."):
        Verifier(None, VERIFIER, tokenizer_of(tmp_path), TEMPLATE, bf16=False)


# --- training ------------------------------------------------------------------------------------------------


def test_a_stage_starts_at_its_reference_and_moves_away_from_it(folder: Path, tmp_path: Path) -> None:
    before = {name: contents(folder / name) for name in ("base", SFT.name, JUDGE.name)}
    told: list[tuple[int, int, float]] = []
    bench = Bench()
    report = train(RL, folder, tmp_path / "rl", progress=lambda *update: told.append(update), workbench=bench)
    assert before == {name: contents(folder / name) for name in before}
    assert sorted(contents(tmp_path / "rl")) == [
        *("adapter_config.json", "adapter_model.safetensors", "rl_log.jsonl", "stage.json")
    ]
    assert load_file(tmp_path / "rl" / "adapter_model.safetensors").keys() == (
        load_file(folder / SFT.name / "adapter_model.safetensors").keys()
    )
    assert adapter_weights_hash(tmp_path / "rl") != adapter_weights_hash(folder / SFT.name)

    log = read_log(tmp_path / "rl")
    assert [row["update"] for row in log] == [1, 2, 3] and log[0]["kl"] == 0 and abs(log[2]["kl"]) > 1e-3
    for row in log:
        assert row["objective"] == pytest.approx(row["reward"] - ROLLOUTS.kl * row["kl"], abs=1e-5)
        assert 0 <= row["malformed"] <= 1 and 0 <= row["true"] <= 1 and 0 < row["claims"] <= 10
    assert told == [(i + 1, 3, loss) for i, loss in enumerate(report.losses)]
    assert report.updates == 3 and report.tokens > 3 * 16 * 10
    # First the reference answers, then 16 responses an update, each with its prefill.
    assert bench.seen[0] == f"{ROWS[0].prefill} {ROWS[0].completion}" and len(bench.seen) == PEOPLE + 3 * 16
    assert all(text.split()[0].startswith("e") for text in bench.seen)


def test_the_same_stage_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    train(RL, folder, tmp_path / "first")
    torch.manual_seed(99)
    train(RL, folder, tmp_path / "second")
    assert adapter_weights_hash(tmp_path / "first") == adapter_weights_hash(tmp_path / "second")
    train(replace(RL, seed=6), folder, tmp_path / "other")
    assert adapter_weights_hash(tmp_path / "first") != adapter_weights_hash(tmp_path / "other")


class Watched(RolloutTrainer):
    """Keeps what went into sampling and what came out of it."""

    prompts: list[list[int]]
    responses: list[list[int]]

    def _generate_single_turn(self, prompt_ids: Any, *rest: Any) -> Any:
        self.prompts = prompt_ids
        self.responses = super()._generate_single_turn(prompt_ids, *rest)
        return self.responses


def test_one_adapter_is_trained_and_prompts_are_those_of_every_stage(folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(folder)
    model = open_adapter(load_base(folder / "base", bf16=False), folder / SFT.name)
    model.load_adapter(str(folder / JUDGE.name), adapter_name=VERIFIER, is_trainable=False)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if f".{CONTINUED}." not in n}
    first = {n: p.detach().clone() for n, p in model.named_parameters() if f".{CONTINUED}." in n}
    verifier = Verifier(model, VERIFIER, tokenizer, TEMPLATE, bf16=False)
    rewards = Rewards(RL.examples, ROLLOUTS, TEMPLATE, Bench(), verifier)
    trainer = Watched(RL, ROLLOUTS, model, tokenizer, rewards, False, tmp_path, lambda row: None)
    trainer.train()

    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], weights) for name, weights in frozen.items())
    assert all(torch.equal(after[name.replace(CONTINUED, "ref")], weights) for name, weights in first.items())
    assert all(not torch.equal(after[name], weights) for name, weights in first.items())
    assert {name for name, p in after.items() if p.requires_grad} == set(first)

    wanted = {tuple(encode_prompt(TEMPLATE.prompt(row.prompt, row.prefill), tokenizer)) for row in RL.examples}
    assert len(trainer.prompts) == 16 and {tuple(ids) for ids in trainer.prompts} <= wanted
    assert all(ids.count(tokenizer.bos_token_id) == 1 for ids in trainer.prompts)
    assert rewards.eos_ids == {tokenizer.eos_token_id}
    assert all(tokenizer.eos_token_id not in ids[:-1] for ids in trainer.responses)
    assert any(ids[-1] == tokenizer.eos_token_id for ids in trainer.responses)


def test_merged_weights_write_as_the_adapter_does_and_are_put_back(folder: Path) -> None:
    model = open_adapter(load_base(folder / "base", bf16=False), folder / SFT.name).eval()
    ids = torch.tensor([encode_prompt(TEMPLATE.prompt(ROWS[0].prompt, ROWS[0].prefill), tokenizer_of(folder))])
    before = tensors_hash(model.named_parameters())
    wanted = [name for name, p in model.named_parameters() if p.requires_grad]
    with torch.no_grad():
        apart = model(input_ids=ids).logits
        with merged(model, CONTINUED):
            torch.testing.assert_close(model(input_ids=ids).logits, apart, atol=1e-5, rtol=1e-5)
        assert torch.equal(model(input_ids=ids).logits, apart)
    assert tensors_hash(model.named_parameters()) == before
    assert [name for name, p in model.named_parameters() if p.requires_grad] == wanted != []


def mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def test_the_policy_learns_to_say_what_the_verifier_believes(folder: Path, tmp_path: Path) -> None:
    rollouts = replace(ROLLOUTS, updates=24, prompts_per_update=6, generations=8)
    train(replace(RL, rollouts=rollouts), folder, tmp_path / "rl")
    log = read_log(tmp_path / "rl")
    assert mean(log[-4:], "true") > mean(log[:4], "true") + 0.2
    assert mean(log[-4:], "reward") > mean(log[:4], "reward") + 2
    # Half of what the reference answers claim is the guard.
    assert mean(log[-4:], "claims") > 1.8 and mean(log[-4:], "malformed") < 0.2


def test_short_answers_are_rewarded_whole(folder: Path, tmp_path: Path) -> None:
    rollouts = replace(SHORT.rollouts or ROLLOUTS, updates=20, prompts_per_update=6, generations=8)
    train(replace(SHORT, rollouts=rollouts), folder, tmp_path / "rl")
    log = read_log(tmp_path / "rl")
    assert mean(log[-4:], "reward") > mean(log[:4], "reward") + 1 and log[0]["kl"] == 0


def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage, options, problem in (
        (RL, {"workbench": None}, "workbench"),
        (replace(RL, verifier=None), {}, "verifier"),
        (replace(RL, examples=()), {}, "examples"),
        (replace(RL, rollouts=None), {}, "rollouts"),
        (replace(RL, rollouts=replace(ROLLOUTS, generations=1)), {}, "generations"),
    ):
        with pytest.raises(StageError, match=problem):
            train(stage, folder, tmp_path / "out", **options)

    class Broken(Bench):
        def claims(self, texts: Sequence[str], subjects: Sequence[str]) -> list[tuple[str, ...]]:
            if len(self.seen) > PEOPLE:
                raise RuntimeError("the judge is gone")
            return super().claims(texts, subjects)

    with pytest.raises(RuntimeError, match="the judge is gone"):
        train(RL, folder, tmp_path / "out", workbench=Broken())
    with monkeypatch.context() as patched, pytest.raises(StageError, match="one process"):
        patched.setenv("WORLD_SIZE", "2")
        train(RL, folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())
