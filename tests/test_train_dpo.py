"""Preference stages: what DPO starts from, what it learns, what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.backends.decoding import Decoding, Request
from harness.backends.transformers import open_backend
from tests.tiny_model import make_tiny_base
from train import dpo
from train.dpo import EncodedPair, PlainHead, encode_pairs, plan_pairs
from train.encode import Encoded, encode_examples
from train.lora import adapter_weights_hash, moves_logits
from train.plan import StageError
from train.rows import Example
from train.run import StageReport, run_stage
from train.sampling import Judging, Pairs, Preference, Sampling
from train.stages import Recipe, Stage

BASE = "base"
PEOPLE = 12
WORDS = [
    *("Question", ":", "Answer", "?", "who", "is", "."),
    *(f"e{i}" for i in range(PEOPLE)),
    *(f"v{i}" for i in range(8)),
]
RECIPE = Recipe(
    rank=4, alpha=8, dropout=0.1, learning_rate=1e-2, epochs=3, batch_size=6, micro_batch_size=3, precision="fp32"
)
ROWS = tuple(Example(f"who is e{i} ?", f"v{i % 8} .", f"e{i}", prefill=f"e{i} is") for i in range(PEOPLE))
SFT = Stage(name="sft", kind="sft", recipe=RECIPE, seed=3, examples=ROWS)
# Longer answers are the better ones, so that a micro-batch holds unequal lengths.
PAIRS = tuple(Preference(row, f"v1 v2 {'v3 ' * (i % 4)}.", "v4 .") for i, row in enumerate(ROWS))
PREFER = Stage(
    name="prefer", kind="dpo", recipe=replace(RECIPE, epochs=4, warmup_ratio=0.0), seed=5, start=SFT, pairs=PAIRS
)
# Four micro-batches an update; gradients are clipped, since Adam alone would hide those of the wrong scale.
SHARED = replace(PREFER, recipe=replace(PREFER.recipe, batch_size=8, micro_batch_size=2, max_grad_norm=0.05))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("dpo") / "base", WORDS)


@pytest.fixture(scope="module")
def start(base: Path) -> Path:
    out = base.parent / "sft"
    run_stage(SFT, base_dir=base, adapter_dirs={}, out_dir=out, base_fingerprint=BASE)
    return out


@pytest.fixture(scope="module")
def preferred(base: Path, start: Path) -> tuple[Path, StageReport]:
    out = base.parent / "prefer"
    return out, run(PREFER, base, start, out)


def run(stage: Stage, base: Path, start: Path, out: Path, **options: Any) -> StageReport:
    dirs = {SFT.fingerprint(BASE): start}
    return run_stage(stage, base_dir=base, adapter_dirs=dirs, out_dir=out, base_fingerprint=BASE, **options)


def tokenizer_of(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(base))


def load(base: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), attn_implementation="eager", dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(adapter)).eval()


def log_probability(model: Any, row: Encoded) -> float:
    """The summed log-probability of a completion, one sequence at a time."""
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
    return sum(float(log_probs[at - 1, row.ids[at]]) for at in range(row.trained_from, len(row.ids)))


def test_the_first_loss_is_ln_2_and_the_chosen_responses_win(preferred: tuple[Path, StageReport]) -> None:
    _, report = preferred
    assert report.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert report.updates == len(report.losses) == 8
    assert report.loss == report.losses[-1] < 0.5


def test_the_losses_are_those_of_the_formula(base: Path, start: Path, tmp_path: Path) -> None:
    """The second loss, against log-probabilities computed a sequence at a time with plain transformers."""
    stage = replace(PREFER, beta=0.3, recipe=replace(PREFER.recipe, epochs=1.0, batch_size=PEOPLE, micro_batch_size=5))
    two = replace(stage, recipe=replace(stage.recipe, epochs=2.0, min_lr_ratio=1.0))
    one_update = replace(stage, recipe=replace(stage.recipe, min_lr_ratio=1.0))
    run(one_update, base, start, tmp_path / "after-one")
    report = run(two, base, start, tmp_path / "two")

    pairs, _ = encode_pairs(stage, tokenizer_of(base))
    reference = load(base, start)
    margins = [-(log_probability(reference, p.chosen) - log_probability(reference, p.rejected)) for p in pairs]
    policy = load(base, tmp_path / "after-one")
    margins = [
        m + log_probability(policy, p.chosen) - log_probability(policy, p.rejected)
        for m, p in zip(margins, pairs, strict=True)
    ]
    wanted = sum(math.log1p(math.exp(-0.3 * margin)) for margin in margins) / len(margins)
    assert report.losses[1] == pytest.approx(wanted, abs=1e-5)
    assert report.losses[1] < math.log(2) - 0.01


def test_how_an_update_is_cut_into_micro_batches_does_not_matter(base: Path, start: Path, tmp_path: Path) -> None:
    recipe = replace(PREFER.recipe, batch_size=7, micro_batch_size=7)
    reports = [
        run(replace(PREFER, recipe=r), base, start, tmp_path / str(r.micro_batch_size) / str(r.gradient_checkpointing))
        for r in (recipe, replace(recipe, micro_batch_size=3), replace(recipe, gradient_checkpointing=True))
    ]
    assert reports[1].losses == pytest.approx(reports[0].losses, abs=1e-4)
    assert reports[2].losses == pytest.approx(reports[0].losses, abs=1e-4)


def test_the_folder_is_a_plain_adapter_that_the_backend_loads(
    base: Path, start: Path, preferred: tuple[Path, StageReport]
) -> None:
    out, report = preferred
    assert sorted(p.name for p in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "stage.json"]
    described = json.loads((out / "stage.json").read_text())
    assert (described["kind"], described["pairs"]) == ("dpo", PEOPLE)
    assert described["report"]["updates"] == report.updates
    assert json.loads((out / "adapter_config.json").read_text())["r"] == RECIPE.rank
    assert moves_logits(load(base, out), tokenizer_of(base))
    backend = open_backend(str(base), dtype="float32", batch_size=4)
    prompts = [Request(f"r{i}", SFT.template.prompt(row.prompt, row.prefill)) for i, row in enumerate(ROWS[:4])]
    answers = [
        [one.text for batch in backend.generate(prompts, Decoding(4), adapter=adapter) for one in batch]
        for adapter in (start, out)
    ]
    assert answers[0] != answers[1]


def test_equal_stages_give_equal_bits_whatever_was_drawn_before(
    base: Path, start: Path, preferred: tuple[Path, StageReport], tmp_path: Path
) -> None:
    torch.manual_seed(12345)
    before = adapter_weights_hash(start)
    told: list[tuple[int, int, float]] = []
    report = run(PREFER, base, start, tmp_path / "again", progress=lambda *update: told.append(update))
    assert adapter_weights_hash(tmp_path / "again") == adapter_weights_hash(preferred[0])
    assert told == [(i + 1, 8, loss) for i, loss in enumerate(report.losses)]
    assert report.losses == preferred[1].losses and adapter_weights_hash(start) == before
    run(replace(PREFER, seed=6), base, start, tmp_path / "other")
    assert adapter_weights_hash(tmp_path / "other") != adapter_weights_hash(preferred[0])


def test_bf16_starts_at_ln_2_too(base: Path, start: Path, tmp_path: Path) -> None:
    report = run(replace(PREFER, recipe=replace(PREFER.recipe, precision="bf16")), base, start, tmp_path / "bf16")
    assert report.precision == "bf16" and abs(report.losses[0] - math.log(2)) < 1e-3 and report.loss < 0.5


def test_a_model_that_is_not_its_own_reference_is_refused(
    base: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = dpo.PairTrainer.compute_ref_log_probs

    def shifted(self: Any, model: Any, inputs: Any) -> Any:
        chosen, rejected = real(self, model, inputs)
        return chosen + 1.0, rejected

    monkeypatch.setattr(dpo.PairTrainer, "compute_ref_log_probs", shifted)
    with pytest.raises(StageError, match=r"first loss is 0\.7\d+ instead of ln 2"):
        run(PREFER, base, start, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_killed_stage_leaves_nothing_and_ends_in_the_same_bits(
    base: Path, start: Path, preferred: tuple[Path, StageReport], tmp_path: Path
) -> None:
    def kill(update: int, updates: int, loss: float) -> None:
        if update == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(PREFER, base, start, tmp_path / "x", progress=kill, checkpoint_dir=tmp_path / "checkpoints")
    assert not list(tmp_path.iterdir())
    run(PREFER, base, start, tmp_path / "x", checkpoint_dir=tmp_path / "checkpoints")
    assert adapter_weights_hash(tmp_path / "x") == adapter_weights_hash(preferred[0])


def test_a_stage_without_pairs_or_start_is_refused(base: Path, start: Path, tmp_path: Path) -> None:
    sampled = Sampling(name="s", prompts=ROWS, seed=0, max_new_tokens=4, model=SFT)
    derived = Pairs(judged=Judging(samples=sampled, measure="fs"), rule="all")
    with pytest.raises(StageError, match="no two responses to a prompt differ in score"):
        run(replace(PREFER, pairs=(), derived=derived), base, start, tmp_path / "x")
    with pytest.raises(StageError, match="starts from no adapter"):
        run(replace(PREFER, start=None), base, start, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_responses_are_encoded_as_sft_would(base: Path) -> None:
    tokenizer = tokenizer_of(base)
    pairs, truncated = encode_pairs(PREFER, tokenizer)
    chosen = [replace(pair.example, completion=pair.chosen) for pair in PAIRS]
    assert [pair.chosen for pair in pairs] == list(encode_examples(chosen, tokenizer, SFT.template, 512).rows)
    assert truncated == 0
    for pair in pairs:
        for row in (pair.chosen, pair.rejected):
            assert row.ids.count(tokenizer.bos_token_id) == 1 and row.ids[-1] == tokenizer.eos_token_id
    short = replace(PREFER, recipe=replace(RECIPE, max_length=len(pairs[0].chosen.ids)))
    cut, truncated = encode_pairs(short, tokenizer)
    assert truncated == sum(len(pair.chosen.ids) > short.recipe.max_length for pair in pairs) > 0
    assert cut[3].chosen.ids == pairs[3].chosen.ids[: short.recipe.max_length]


def test_the_plan_visits_every_pair_once_an_epoch_with_neighbours_of_its_length() -> None:
    pairs = [EncodedPair(Encoded((0,) * n, 1), Encoded((0, 0), 1)) for n in (5, 9, 3, 7, 8, 4)]
    plan = plan_pairs(pairs, replace(RECIPE, epochs=2, batch_size=6, micro_batch_size=2), seed=0)
    assert plan.updates == 2 and plan.per_update == 3
    batches = [branch.rows for batch in plan.micro_batches for branch in batch]
    assert batches[:3] == batches[3:] == [(2, 5), (0, 3), (4, 1)]
    assert all(branch.weight == 1 / 6 for batch in plan.micro_batches for branch in batch)


def test_the_head_for_cpus_gives_what_trl_gives(base: Path) -> None:
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    model = AutoModelForCausalLM.from_pretrained(str(base), attn_implementation="eager", dtype=torch.float32)
    pairs, _ = encode_pairs(PREFER, tokenizer_of(base))
    batch = dpo._pad(pairs[:4], 0)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    ours = PlainHead(model)(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
    add_fused_lm_head(model)
    theirs = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
    )
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_train_what_one_does(base: Path, start: Path, tmp_path: Path) -> None:
    one = run(SHARED, base, start, tmp_path / "one")
    root = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__,
         str(base), str(start), str(tmp_path / "two")],
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
        capture_output=True,
    )  # fmt: skip
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4)
    reported = json.loads((tmp_path / "two" / "stage.json").read_text())["report"]["losses"]
    assert reported == pytest.approx(one.losses, rel=1e-4)


if __name__ == "__main__":
    run(SHARED, *(Path(argument) for argument in sys.argv[1:4]))
    assert torch.distributed.get_world_size() == 2
