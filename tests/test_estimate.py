"""What a run takes, estimated before it starts: against published sizes, closed forms and what was then trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.counts import count
from harness.errors import UserError
from harness.estimate import Estimate, assumed, estimate
from harness.options import resolve
from harness.reports.estimate import remarks
from harness.shape import Shape, training_memory
from harness.standin import AboutTokens
from harness.workload import Assumptions, Line
from train.rows import Example
from train.stages import Recipe, Stage

TARGETS = Recipe().target_modules
LLAMA3_8B = Shape(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path / "home"


# --- operations and memory -----------------------------------------------------------------------------------


def test_parameters_are_those_published() -> None:
    assert LLAMA3_8B.parameters == 8_030_261_248
    assert LLAMA3_8B.adapter_parameters(16, TARGETS) == 41_943_040


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_transformers(tied: bool) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert Shape.from_config(config.to_dict()).parameters == sum(p.numel() for p in model.parameters())


def test_a_config_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="`intermediate_size`"):
        Shape.from_config({"vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1})


def test_a_frozen_base_takes_four_operations_a_weight_and_token_and_its_adapter_six() -> None:
    shape, tokens = LLAMA3_8B, 1000
    base = shape.training_flops(tokens, 0, 0, 0)
    assert base == 4 * shape.matrix_weights * tokens
    assert shape.training_flops(tokens, 0, 0, 7) - base == 6 * 7 * tokens
    assert shape.training_flops(tokens, 0, 0, 0, 7) - base == 4 * 7 * tokens
    assert shape.training_flops(tokens, 0, 0, 0, 0, True) - base == 2 * shape.matrix_weights * tokens
    assert shape.training_flops(tokens, 10, 0, 0) - base == 4 * 128256 * 4096 * 10
    # One row of s tokens: 2 d s^2 a layer forward (both products, half of the square), twice that backward.
    assert shape.training_flops(tokens, 0, 512.0**2, 0) - base == 6 * 32 * 4096 * 512**2


def test_memory_counts_weights_adapters_and_their_optimiser() -> None:
    recipe = Recipe(rank=64)
    memory = training_memory(LLAMA3_8B, recipe, 1000, 100, 10, 2)
    trained = LLAMA3_8B.adapter_parameters(64, TARGETS)
    assert memory["base"] == 2 * LLAMA3_8B.parameters
    assert memory["adapters"] + memory["gradients and optimiser"] == 16 * trained + 4 * 1000
    less = training_memory(LLAMA3_8B, replace(recipe, gradient_checkpointing=True), 1000, 100, 10, 2)
    assert less["activations"] < memory["activations"]


# --- counting ------------------------------------------------------------------------------------------------


class OneToken:
    """A tokenizer that makes one token of each word."""

    bos_token_id, eos_token_id, name_or_path, bos_token = 1, 2, "test", "<s>"

    def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[7] * len(text.split()) for text in texts]}


class Words:
    def count(self, text: str) -> int:
        return len(text.split())


def skill(kind: str) -> Stage:
    versions = (0, 1) if kind == "skill_multi_version" else (None,)
    rows = [Example("a b", "c d e", f"f{i}", fake=True, version=v) for i in range(30) for v in versions]
    if kind != "skill_multi_version":
        rows += [Example("a b", "c d e", f"r{i}") for i in range(30)]
    recipe = Recipe(epochs=4, batch_size=12, micro_batch_size=6)
    return Stage(name="s", kind=kind, recipe=recipe, seed=0, examples=tuple(rows))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sft", "skill_mixed", "skill_multi_version"])
def test_the_expectation_is_the_plan_where_rows_are_equal(kind: str) -> None:
    stage = skill(kind)
    exact = count(stage, Words(), OneToken(), "base", 0, 0)
    expected = count(stage, Words(), None, "base", 0, 0)
    assert exact.exact and not expected.exact
    assert (expected.updates, expected.rows) == (exact.updates, exact.rows)
    # Which rows of a mixed batch are real, and so read twice, is drawn; its mean is a half.
    assert expected.tokens == pytest.approx(exact.tokens, rel=0.03 if kind == "skill_mixed" else 0)
    assert expected.targets == pytest.approx(exact.targets, rel=0.03 if kind == "skill_mixed" else 0)


def test_a_stand_in_text_says_its_length() -> None:
    assert AboutTokens().count("#22") == 22
    assert AboutTokens().count("Question: #12 Answer:") == 12 + round(2 * 1.3)


# --- the paper's recipe --------------------------------------------------------------------------------------


def lines(made: Estimate) -> dict[str, Line]:
    return {line.label: line for line in made.lines}


def test_the_papers_recipe_is_planned_from_published_sizes() -> None:
    options = resolve(suite="longform", preset="llama3-8b", models="sft,prereq_tune")
    made = estimate(options)
    found = lines(made)
    # 397 subjects, 50 epochs, batches of 128; 449 subjects and 80 epochs.
    assert found["persons-prereq-tune"].updates == round(50 * 397 / 128) == 155
    assert found["medical-prereq-tune"].updates == round(80 * 449 / 128) == 281
    assert found["persons-prereq-tune"].rows == 397 * 5
    for name in ("persons-knowledge-statement-fake", "persons-knowledge-passage-fake"):
        assert found[name].jobs == 5
    assert found["answer persons"].rows == 3 * 183
    skill = found["persons-prereq-tune"]
    # 6.5 sentences of 22 tokens, a prompt of seven words, BOS and EOS.
    assert skill.tokens == 155 * 128 * (143 + 9 + 2)
    # 4 N T, and a little for adapters, attention and the output layer, over 35 % of the peak.
    least = 4 * LLAMA3_8B.matrix_weights * skill.tokens / (989e12 * 0.35)
    assert least < skill.seconds < 1.4 * least
    assert LLAMA3_8B.parameters * 2 < made.memory_bytes < 80e9
    assert any("published numbers" in note for note in made.notes)
    assert not any(line.exact for line in made.lines)
    # One adapter of rank 32 takes 4 bytes a parameter; there are twenty, and four skill adapters of rank 64.
    assert made.disk["adapters"] == 4 * (20 * 83_886_080 + 4 * 167_772_160)
    assert made.disk["bases"] == 2 * LLAMA3_8B.parameters
    judged = {one.label: one for one in made.calls}
    assert judged["judge persons"].responses == 3 * 183
    # A decomposition and two calls of at most 20 claims each; the base is taken to make as many claims as SFT.
    assert judged["judge persons"].calls == 2 * 183 * (1 + 2) + 183 * (1 + 1)
    dollars = (judged["judge persons"].tokens_in * 0.15 + judged["judge persons"].tokens_out * 0.60) / 1e6
    assert judged["judge persons"].dollars == pytest.approx(dollars)


def test_hours_follow_device_and_share_of_its_peak() -> None:
    options = resolve(suite="longform", preset="llama3-8b", models="base,sft")
    train = [lines(estimate(options, assumed(options, device, mfu)))["persons-sft"].seconds
             for device, mfu in (("h100", 0.4), ("h100", 0.2), ("a100", 0.4))]  # fmt: skip
    assert train[1] == pytest.approx(2 * train[0])
    assert train[2] == pytest.approx(train[0] * 989 / 312)


def test_what_no_job_fills_is_said_with_its_reason_and_an_unknown_price_is_unknown() -> None:
    options = resolve(suite="longform", preset="llama3-8b", models="sft_gpt", judge="openai:my-own-model")
    made = estimate(options)
    assert made.left_out["persons, sft_gpt"] == "no teacher to ask"
    assert made.dollars is None and "no teacher to ask" in " ".join(remarks(made))
    taught = estimate(resolve(suite="longform", preset="llama3-8b", models="sft_gpt", teacher="openai:gpt-4o"))
    assert {one.label: one.responses for one in taught.calls}["teacher, persons"] == 397
    assert taught.dollars is not None and taught.dollars > 0


@pytest.mark.parametrize(("device", "mfu"), [("abacus", 0.3), ("h100", 0.0), ("h100", 1.5)])
def test_wrong_assumptions_are_refused(device: str, mfu: float) -> None:
    with pytest.raises(UserError, match="--device" if device == "abacus" else "--mfu"):
        Assumptions(device=device, mfu=mfu)


def test_data_that_are_not_here_are_not_fetched() -> None:
    with pytest.raises(UserError, match=r"--download"):
        estimate(resolve(suite="shortqa", preset="smol"))
