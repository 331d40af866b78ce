"""A training stage as data: which rows, which recipe, on top of which adapters.

A method (see `baselines`) describes what it trains as a small graph of stages and trains nothing itself.
That makes equal stages of different methods the same stage, lets independent ones run side by side, and gives
every adapter an address: the hash of all that made it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Literal

from train.rows import Example, KnowledgeFormat, plain
from train.sampling import Derived, Preference, describe, samplings
from train.template import PromptTemplate

StageKind = Literal["knowledge", "sft", "skill_mixed", "skill_multi_version", "dpo", "rl"]

# Raise when a change to the training code changes what a stage produces: old adapters are then left alone.
STAGE_FORMAT = 2
# Of the recipe; off by default.
LATER_FIELDS = ("group_by_length",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """LoRA and optimiser settings of one stage.

    `batch_size` is the effective batch of one optimiser update, in rows (in subjects for
    `skill_multi_version`); `micro_batch_size` is what one forward pass takes on one device. The learning rate
    follows a cosine after a linear warm-up over `warmup_ratio` of the updates, down to `min_lr_ratio` of its
    peak. Lengths are in tokens. `precision` is `auto` (bf16 autocast where the hardware has fast bf16, else
    fp32), `fp32` or `bf16`; adapters are fp32 always. With `group_by_length` the rows of an update that are of
    similar length share a micro-batch in the skill stages, too, as they always do in the others; ours, it saves
    padding where an update has several micro-batches, and changes which rows share a draw of a knowledge adapter.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    learning_rate: float = 3e-5
    epochs: float = 1.0
    batch_size: int = 32
    micro_batch_size: int = 32
    warmup_ratio: float = 0.1
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    max_length: int = 512
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    group_by_length: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How an `rl` stage samples and rewards (Kang et al. 2024, arXiv 2403.05612).

    Each update samples `generations` responses to each of `prompts_per_update` prompts at `temperature`. A
    response earns `true_reward` for every claim the verifier calls true and `false_reward` for every other; a
    malformed one (cut off, or without a claim) earns `malformed_reward`, or what a mean reference answer earns
    with everything in it false where that is less. `kl` weights the log-ratio to the reference in the reward.
    Short answers earn `true_reward` or `false_reward` as a whole, and 0 for declining to answer. With
    `soft_verdicts`, ours, a claim earns the two rewards in the proportion of the verifier's probabilities of yes and
    no: a verifier that rarely finds yes the likelier one can still tell better claims from worse.

    `min_claims` is the guard, ours, against answers that shrink to one safe claim, as they should wherever
    fewer than three claims in five are true: every claim short of it earns `missing_reward`, by default as much
    as a false one, so that below it a guess never costs more than silence and above it the reward is that of
    the paper. `None` is half of the mean number of claims of the reference answers; 0 is no guard.
    """

    updates: int = 40
    prompts_per_update: int = 24
    generations: int = 4
    temperature: float = 1.0
    max_new_tokens: int = 256
    true_reward: float = 2.0
    false_reward: float = -3.0
    malformed_reward: float = -15.0
    missing_reward: float = -3.0
    min_claims: int | None = None
    kl: float = 0.5
    soft_verdicts: bool = False
    short_answers: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One adapter to be trained.

    `texts` feed a `knowledge` stage (every token a target, no EOS), `examples` the others (completion and EOS
    are targets). `needs` are the knowledge stages whose adapters are active, frozen, while a skill stage
    trains. `real_weight` is lambda of the mixed skill loss; `alternate_formats` draws statement and passage
    adapters in turn instead of from one pool; `frozen_dropout` keeps dropout on in the frozen knowledge
    adapters, as the reference does. `format`, `fake` and `version` describe what a knowledge stage holds.

    `dpo` and `rl` stages go on from the adapter of `start`, which is also their reference model. `derived` says
    what `examples` (or the `pairs` of a `dpo` stage) are made of, where they are made of samples; the fields
    themselves are filled in before training and do not count in the fingerprint. `beta` is that of DPO. An `rl`
    stage samples the prompts of `examples` and judges claims with the adapter of `verifier`.
    """

    name: str
    kind: StageKind
    recipe: Recipe
    seed: int
    template: PromptTemplate = field(default_factory=PromptTemplate)
    examples: tuple[Example, ...] = ()
    texts: tuple[str, ...] = ()
    format: KnowledgeFormat | None = None
    fake: bool | None = None
    version: int | None = None
    needs: tuple[Stage, ...] = ()
    real_weight: float = 0.5
    alternate_formats: bool = True
    frozen_dropout: bool = True
    start: Stage | None = None
    derived: Derived | None = None
    pairs: tuple[Preference, ...] = ()
    beta: float = 0.1
    verifier: Stage | None = None
    rollouts: Rollouts | None = None

    def prerequisites(self) -> tuple[Stage, ...]:
        """The stages whose adapters must be there first, for training or for the samples that it learns from."""
        sampled = samplings(self.derived)[0].model if self.derived else None
        return (*self.needs, *(stage for stage in (self.start, self.verifier, sampled) if stage is not None))

    def fingerprint(self, base_fingerprint: str) -> str:
        """Hex SHA-256 of everything that decides the trained weights (the readable `name` does not)."""
        content: dict[str, object] = {"own": self._own}
        content["needs"] = [stage.fingerprint(base_fingerprint) for stage in self.needs]
        content["start"] = self.start.fingerprint(base_fingerprint) if self.start else None
        content["verifier"] = self.verifier.fingerprint(base_fingerprint) if self.verifier else None
        content["derived"] = describe(self.derived, base_fingerprint) if self.derived else None
        content["base"] = base_fingerprint
        content["stage_format"] = STAGE_FORMAT
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _own(self) -> str:
        """Hash of the stage's own settings and rows, without those of the stages it rests on."""
        left_out = {"name", "needs", "start", "verifier", "derived"} | (
            {"examples", "pairs"} if self.derived else set()
        )
        own = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in left_out}
        # Fields that came later count where they change something, so that older adapters keep their addresses.
        own["recipe"] = {k: v for k, v in asdict(self.recipe).items() if k not in LATER_FIELDS or v}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    def label(self) -> dict[str, object]:
        """What a reader of the adapter's folder wants to know; written beside the weights."""
        return {
            "name": self.name,
            "kind": self.kind,
            "format": self.format,
            "fake": self.fake,
            "version": self.version,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "examples": len(self.examples),
            "texts": len(self.texts),
            "pairs": len(self.pairs),
        }
