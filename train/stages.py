"""A training stage as data: which rows, which recipe, on top of which adapters.

A method (see `baselines`) describes what it trains as a small graph of stages and trains nothing itself.
That makes equal stages of different methods the same stage, lets independent ones run side by side, and gives
every adapter an address: the hash of all that made it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from train.rows import Example, KnowledgeFormat
from train.template import PromptTemplate

StageKind = Literal["knowledge", "sft", "skill_mixed", "skill_multi_version"]

# Raise when a change to the training code changes what a stage produces: old adapters are then left alone.
STAGE_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """LoRA and optimiser settings of one stage.

    `batch_size` is the effective batch of one optimiser update, in rows (in subjects for
    `skill_multi_version`); `micro_batch_size` is what one forward pass takes on one device. The learning rate
    follows a cosine after a linear warm-up over `warmup_ratio` of the updates, down to `min_lr_ratio` of its
    peak. Lengths are in tokens. `precision` is `auto` (bf16 autocast where the hardware has fast bf16, else
    fp32), `fp32` or `bf16`; adapters are fp32 always.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One adapter to be trained.

    `texts` feed a `knowledge` stage (every token a target, no EOS), `examples` the others (completion and EOS
    are targets). `needs` are the knowledge stages whose adapters are active, frozen, while a skill stage
    trains. `real_weight` is lambda of the mixed skill loss; `alternate_formats` draws statement and passage
    adapters in turn instead of from one pool; `frozen_dropout` keeps dropout on in the frozen knowledge
    adapters, as the reference does. `format`, `fake` and `version` describe what a knowledge stage holds.
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

    def fingerprint(self, base_fingerprint: str) -> str:
        """Hex SHA-256 of everything that decides the trained weights (the readable `name` does not)."""
        content = {k: v for k, v in asdict(self).items() if k not in ("name", "needs")}
        content["needs"] = [stage.fingerprint(base_fingerprint) for stage in self.needs]
        content["base"] = base_fingerprint
        content["stage_format"] = STAGE_FORMAT
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

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
        }
