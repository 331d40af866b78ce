"""Reinforcement learning from a conservative reward (Kang et al. 2024, arXiv 2403.05612), through TRL's RLOO.

The policy goes on from the adapter of `start`, which is also the reference. Each update samples several
responses to each of some prompts. The reward of a response counts its claims by the verdict of a verifier that
was trained from the same base: where the base knows nothing, such a verifier says "No" rather than "Yes".

RLOO (Ahmadian et al. 2024, arXiv 2402.14740) takes the mean reward of a prompt's other responses for the baseline
of each. The log-ratio to the reference is subtracted from the reward, as in the PPO of Kang et al.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft.tuners.lora import Linear
from transformers import AutoTokenizer
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from train.encode import encode_prompt
from train.hardware import load_base, uses_bf16
from train.lora import CONTINUED, open_adapter, save_adapter, scale_narrowly
from train.plan import StageError
from train.rows import Example
from train.run import StageReport
from train.sampling import Workbench
from train.seeds import derive_seed, generator
from train.stages import Recipe, Rollouts, Stage
from train.template import PromptTemplate
from train.trainer import learning_rate_factor, only_training
from train.verifier import Verifier

LOG_FILE = "rl_log.jsonl"
VERIFIER = "verifier"

Progress = Callable[[int, int, float], None]


def train_rl(
    stage: Stage,
    base_dir: Path,
    folders: Mapping[str, Path],
    staging: Path,
    checkpoint_dir: Path | None,
    progress: Progress | None,
    workbench: Workbench | None,
) -> StageReport:
    """Train the policy and write its adapter, with `rl_log.jsonl` beside it, into `staging`.

    `folders` holds the adapters of `stage.start` and of `stage.verifier`, in this order. Of the recipe, rank,
    alpha, dropout and batch size do not count: the adapter is that of `start`, without dropout, and the batch is
    that of the rollouts, cut into equal parts of at most `micro_batch_size` responses. The losses of the report
    are mean rewards, with the penalty for leaving the reference and the sign turned. One process trains, and a
    killed run starts again from the beginning: `checkpoint_dir` stays unused. Raises StageError for a stage
    without what it needs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise StageError(f"stage {stage.name!r} (rl) trains in one process; start it without accelerate or torchrun")
    rollouts = stage.rollouts
    if rollouts is None or stage.start is None or not stage.examples or workbench is None:
        raise StageError(f"stage {stage.name!r} (rl): needs `rollouts`, `start`, `examples` and a workbench")
    if stage.verifier is None and not rollouts.short_answers:
        raise StageError(f"stage {stage.name!r} (rl): needs a `verifier`, or rollouts of short answers")
    if min(rollouts.updates, rollouts.prompts_per_update) < 1 or rollouts.generations < 2:
        raise StageError(f"rollouts: stage {stage.name!r} needs an update, a prompt and two generations at least")

    adapters = list(folders.values())
    tokenizer = AutoTokenizer.from_pretrained(str(base_dir), padding_side="left")
    bf16 = uses_bf16(stage.recipe.precision)
    model = open_adapter(load_base(base_dir, bf16=bf16), adapters[0])
    verifier = None
    if not rollouts.short_answers:
        model.load_adapter(str(adapters[1]), adapter_name=VERIFIER, is_trainable=False)
        verifier = Verifier(model, VERIFIER, tokenizer, stage.template, bf16=bf16)
    rewards = Rewards(stage.examples, rollouts, stage.template, workbench, verifier)
    log: list[dict[str, float]] = []
    started = time.monotonic()

    def after_update(row: dict[str, float]) -> None:
        log.append(row)
        if progress:
            progress(int(row["update"]), rollouts.updates, -row["objective"])

    scratch = staging / "scratch"
    trainer = RolloutTrainer(stage, rollouts, model, tokenizer, rewards, bf16, scratch, after_update)
    trainer.train()
    save_adapter(model, staging, base_dir, CONTINUED)
    shutil.rmtree(scratch, ignore_errors=True)
    (staging / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    losses = tuple(-row["objective"] for row in log)
    return StageReport(
        updates=rollouts.updates,
        tokens=int(trainer.state.num_input_tokens_seen),
        seconds=time.monotonic() - started,
        loss=losses[-1],
        losses=losses,
        precision="bf16" if bf16 else "fp32",
    )


# --- rewards -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward of one response; `claims` are those it makes, `true` how many of them the verifier believes."""

    value: float
    claims: int = 0
    true: float = 0.0
    malformed: bool = False


def claims_reward(verdicts: Sequence[float], *, finished: bool, rollouts: Rollouts) -> Reward:
    """The reward of a response for whose claims the verifier has these probabilities.

    Source: Kang et al. 2024, section 5 and their code, but for `min_claims` and `soft_verdicts` (see `Rollouts`),
    which are ours. `rollouts.min_claims` has to be a number here.
    """
    true = sum(verdicts) if rollouts.soft_verdicts else float(sum(verdict > 0.5 for verdict in verdicts))
    if not finished or not verdicts:
        return Reward(rollouts.malformed_reward, len(verdicts), true, malformed=True)
    missing = max(0, (rollouts.min_claims or 0) - len(verdicts))
    value = true * rollouts.true_reward + (len(verdicts) - true) * rollouts.false_reward
    return Reward(value + missing * rollouts.missing_reward, len(verdicts), true)


def answer_reward(right: bool | None, *, finished: bool, rollouts: Rollouts) -> Reward:
    """The reward of a short answer: right, wrong or, with `None`, declined (Kang et al. 2024, appendix E)."""
    if not finished:
        return Reward(rollouts.malformed_reward, malformed=True)
    if right is None:
        return Reward(0.0)
    return Reward(rollouts.true_reward if right else rollouts.false_reward, 1, int(right))


def guarded(rollouts: Rollouts, reference_claims: Sequence[int]) -> Rollouts:
    """The rollouts with `min_claims` and `malformed_reward` as the reference answers' numbers of claims ask.

    Without a `min_claims` of its own a response owes half of the claims of a mean reference answer. And a
    malformed response never earns more than a mean reference answer in which everything is false: where answers
    are longer than the five claims behind Kang et al.'s -15, being cut off would pay otherwise.
    """
    mean = sum(reference_claims) / len(reference_claims)
    least = round(mean / 2) if rollouts.min_claims is None else rollouts.min_claims
    return replace(
        rollouts, min_claims=least, malformed_reward=min(rollouts.malformed_reward, rollouts.false_reward * mean)
    )


class Rewards:
    """The reward function that TRL calls with the responses of one update."""

    def __init__(
        self,
        examples: Sequence[Example],
        rollouts: Rollouts,
        template: PromptTemplate,
        workbench: Workbench,
        verifier: Verifier | None,
    ) -> None:
        self._examples = examples
        self._template = template
        self._workbench = workbench
        self._verifier = verifier
        self.eos_ids: frozenset[int] = frozenset()
        if verifier:
            rollouts = guarded(
                rollouts, [len(claims) for claims in self._claims([e.completion for e in examples], examples)]
            )
        self.rollouts = rollouts

    def __call__(
        self,
        completions: list[str],
        completion_ids: list[list[int]],
        row: list[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        """One reward a response; `row` is the index of each response's example."""
        examples = [self._examples[i] for i in row]
        finished = [bool(ids) and ids[-1] in self.eos_ids for ids in completion_ids]
        rewards = self.of(completions, finished, examples)
        claims = sum(reward.claims for reward in rewards)
        log_metric("claims", claims / len(rewards))
        log_metric("malformed", sum(reward.malformed for reward in rewards) / len(rewards))
        if claims:
            log_metric("true", sum(reward.true for reward in rewards) / claims)
        return [reward.value for reward in rewards]

    def of(self, completions: Sequence[str], finished: Sequence[bool], examples: Sequence[Example]) -> list[Reward]:
        """The rewards of responses (texts without their prefill) to the prompts of these examples."""
        if self._verifier is None:
            right = self._workbench.matches(self._texts(completions, examples), examples)
            return [
                answer_reward(r, finished=f and bool(c.strip()), rollouts=self.rollouts)
                for r, f, c in zip(right, finished, completions, strict=True)
            ]
        claims = self._claims(completions, examples)
        verdicts = iter(self._verifier.judge([claim for found in claims for claim in found]))
        return [
            claims_reward([next(verdicts) for _ in found], finished=f, rollouts=self.rollouts)
            for found, f in zip(claims, finished, strict=True)
        ]

    def _claims(self, completions: Sequence[str], examples: Sequence[Example]) -> list[tuple[str, ...]]:
        return self._workbench.claims(self._texts(completions, examples), [example.subject for example in examples])

    def _texts(self, completions: Sequence[str], examples: Sequence[Example]) -> list[str]:
        return [
            e.prefill + self._template.separator + c.lstrip() if e.prefill else c.strip()
            for c, e in zip(completions, examples, strict=True)
        ]


# --- the trainer ---------------------------------------------------------------------------------------------


class RolloutTrainer(RLOOTrainer):  # type: ignore[misc]
    """RLOO over our prompts, tokens, seeds and schedule, with nothing saved and nothing sent anywhere.

    `model` is a PeftModel whose adapter `CONTINUED` is trained: TRL copies it to a frozen one called `ref`.
    `on_update` is told of each update: see `_AfterUpdate`.
    """

    def __init__(
        self,
        stage: Stage,
        rollouts: Rollouts,
        model: Any,
        tokenizer: Any,
        rewards: Rewards,
        bf16: bool,
        scratch: Path,
        on_update: Callable[[dict[str, float]], None],
    ) -> None:
        recipe = stage.recipe
        self._policy_seed = stage.seed
        self._bf16 = bf16
        self._in_fp32 = all(p.dtype == torch.float32 for p in model.parameters())
        order = list(prompt_order(len(stage.examples), rollouts, stage.seed))
        prompts = [stage.template.prompt(example.prompt, example.prefill) for example in stage.examples]
        optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(step, rollouts.updates, recipe)
        )
        super().__init__(
            model=model,
            reward_funcs=rewards,
            args=_arguments(recipe, rollouts, derive_seed(stage.seed, "rollouts") % 2**32, scratch),
            train_dataset=Dataset.from_dict({"prompt": [prompts[i] for i in order], "row": order}),
            processing_class=tokenizer,
            callbacks=[_AfterUpdate(on_update)],
            optimizers=(optimiser, schedule),
        )
        rewards.eos_ids = frozenset(self.eos_token_ids)
        scale_narrowly(model)  # the reference too, which is there only now
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Prompts as every other stage reads them: one BOS."""
        return [encode_prompt(prompt, self.processing_class) for prompt in prompts], None, {}

    def _generate_single_turn(self, *inputs: Any, **options: Any) -> Any:
        torch.manual_seed(derive_seed(self._policy_seed, "rollouts", self.state.global_step))
        if self._in_fp32:
            with merged(self.accelerator.unwrap_model(self.model), CONTINUED):
                return super()._generate_single_turn(*inputs, **options)
        with self._computing():
            return super()._generate_single_turn(*inputs, **options)

    def _get_per_token_logps_and_entropies(self, *inputs: Any, **options: Any) -> Any:
        with self._computing():
            return super()._get_per_token_logps_and_entropies(*inputs, **options)

    def _computing(self) -> torch.autocast:
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bf16)

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


@contextmanager
def merged(model: Any, adapter: str) -> Iterator[None]:
    """This adapter alone, added to the weights of an fp32 base; afterwards they are bit for bit as they were.

    Sampling from the merged weights takes two thirds of the time.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    before = [layer.base_layer.weight.data for layer in layers]
    with torch.no_grad():
        for layer, weight in zip(layers, before, strict=True):
            layer.base_layer.weight.data = weight + layer.get_delta_weight(adapter)
    try:
        with model.disable_adapter():
            yield
    finally:
        for layer, weight in zip(layers, before, strict=True):
            layer.base_layer.weight.data = weight


class _AfterUpdate(TrainerCallback):  # type: ignore[misc]
    """Tells of each update in a dict.

    `reward` is the mean reward; `kl` the mean log-ratio of a response to the reference, in nats; `objective` the
    reward less the weighted `kl`; `claims` the mean number of claims, `true` the share of them that the verifier
    believes (its mean probability, with soft verdicts), `malformed` the share of malformed responses, `tokens` the
    mean length.
    """

    def __init__(self, on_update: Callable[[dict[str, float]], None]) -> None:
        self._on_update = on_update

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "reward" not in logs:
            return
        tokens = logs["completions/mean_length"]
        kl = logs.get("kl", 0.0) * tokens
        row = {"update": state.global_step, "reward": logs["reward"], "kl": kl}
        row["objective"] = logs["reward"] - args.beta * kl
        row |= {name: logs[name] for name in ("claims", "true", "malformed") if name in logs}
        self._on_update({name: round(value, 6) for name, value in (row | {"tokens": tokens}).items()})


def prompt_order(prompts: int, rollouts: Rollouts, seed: int) -> Iterator[int]:
    """The prompts of all updates, one after another: one shuffled epoch after another."""
    wanted, epoch = rollouts.updates * rollouts.prompts_per_update, 0
    while wanted > 0:
        order = list(range(prompts))
        generator(seed, "rollout-order", epoch).shuffle(order)
        yield from order[:wanted]
        wanted -= prompts
        epoch += 1


def _arguments(recipe: Recipe, rollouts: Rollouts, seed: int, scratch: Path) -> RLOOConfig:
    """Everything that TRL has a default of its own for is said."""
    responses = rollouts.prompts_per_update * rollouts.generations
    micro = max(n for n in range(1, min(recipe.micro_batch_size, responses) + 1) if responses % n == 0)
    args = RLOOConfig(
        **only_training(recipe, rollouts.updates, scratch)
        | {"per_device_train_batch_size": micro, "logging_strategy": "steps", "logging_steps": 1},
        seed=seed,
        gradient_accumulation_steps=responses // micro,
        num_generations=rollouts.generations,
        num_iterations=1,
        epsilon=0.2,  # idle: with one iteration the ratio is 1
        beta=rollouts.kl,
        normalize_advantages=False,
        mask_truncated_completions=False,
        disable_dropout=True,
        shuffle_dataset=False,
        temperature=rollouts.temperature,
        top_p=1.0,
        top_k=0,
        max_completion_length=rollouts.max_new_tokens,
        use_vllm=False,
        log_completions=False,
    )
    args._n_gpu = min(args.n_gpu, 1)
    return args
