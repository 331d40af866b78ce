"""The shape of a Llama-like base, and what computing with it takes: parameters, operations, memory.

Counts are of multiplications and additions in matrix products; everything else is left out. `N` stands for the
weights of the layers' matrices, `T` for tokens. A frozen base under LoRA takes 2 N T forward and 2 N T backward: its
own weights get no gradient, which saves the third part of the usual 6 N T. The adapter itself takes 6 n T (n its
parameters), a frozen adapter beside it 4 n T. Attention scores take 2 d s a token and layer forward (s the length of
the row, d the width of all heads, half of the square because attention looks back) and twice that backward. The
output layer takes 4 V h for every target alone, because logits are made nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.stages import Recipe

FP32 = 4
BF16 = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder with gated MLPs and grouped-query attention, by the names of a transformers config."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """From a config.json. Raises ValueError naming a field that is missing."""
        needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        if missing := [name for name in needed if not isinstance(config.get(name), int)]:
            raise ValueError(f"the model's config has no `{missing[0]}`: it is no model of the Llama family")
        heads = config["num_attention_heads"]
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def attention_width(self) -> int:
        """All query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """All key heads together (and all value heads)."""
        return self.num_key_value_heads * self.head_dim

    def matrices(self) -> dict[str, tuple[int, int]]:
        """The matrices of one layer by their module's name: (inputs, outputs)."""
        h, i, a, kv = self.hidden_size, self.intermediate_size, self.attention_width, self.key_value_width
        return {
            "q_proj": (h, a),
            "k_proj": (h, kv),
            "v_proj": (h, kv),
            "o_proj": (a, h),
            "gate_proj": (h, i),
            "up_proj": (h, i),
            "down_proj": (i, h),
        }

    @property
    def matrix_weights(self) -> int:
        """N: the weights of all layers' matrices, embeddings and output layer left out."""
        return self.num_hidden_layers * sum(inputs * outputs for inputs, outputs in self.matrices().values())

    @property
    def parameters(self) -> int:
        """Everything."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.matrix_weights + embeddings + (2 * self.num_hidden_layers + 1) * self.hidden_size

    def adapter_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """The parameters of a LoRA adapter."""
        sizes = self.matrices()
        return self.num_hidden_layers * rank * sum(sum(sizes[name]) for name in targets if name in sizes)

    def training_flops(
        self, tokens: float, targets: float, squares: float, trained: int, frozen: int = 0, checkpointing: bool = False
    ) -> float:
        """Forward and backward over rows of together `tokens` tokens, of which `targets` carry a loss.

        `squares` is the sum of the rows' squared lengths, `trained` and `frozen` the parameters of the adapters. With
        gradient checkpointing the forward pass is made twice.
        """
        forward = 2 * (self.matrix_weights + trained + frozen) * tokens + self._scores(squares)
        head = 4 * self.vocab_size * self.hidden_size * targets
        backward = 2 * (self.matrix_weights + 2 * trained + frozen) * tokens + 2 * self._scores(squares)
        return forward * (2 if checkpointing else 1) + backward + head

    def reading_flops(self, tokens: float, squares: float, adapter: int = 0) -> float:
        """One forward pass without a gradient, as over a prompt."""
        return 2 * (self.matrix_weights + adapter) * tokens + self._scores(squares)

    def _scores(self, squares: float) -> float:
        return 2 * self.num_hidden_layers * self.attention_width * squares

    def cache_bytes(self, bytes_a_number: int = BF16) -> int:
        """The key-value cache of one token."""
        return 2 * self.num_hidden_layers * self.key_value_width * bytes_a_number

    def activation_bytes(self, tokens: int, targets: int, bytes_a_number: int, checkpointing: bool = False) -> int:
        """What the backward pass needs of one micro-batch of so many tokens, padding included.

        By our count of what transformers' Llama keeps a token and layer under LoRA: two norms in fp32 (16 h bytes),
        the inputs of the seven adapted matrices after dropout with their masks, queries, keys and values before and
        after rotation, the attention's output and three vectors of the MLP. Attention scores are not kept (SDPA).
        """
        h, i, kv, b = self.hidden_size, self.intermediate_size, self.key_value_width, bytes_a_number
        layer = 16 * h + (b + 1) * (6 * h + i) + 2 * b * (self.attention_width + 2 * kv) + b * h + 3 * b * i
        layers = self.num_hidden_layers
        kept = tokens * (layers * b * h + layer) if checkpointing else tokens * layers * layer
        logits = targets * self.vocab_size * (b + 2 * FP32)
        return kept + logits


def training_memory(
    shape: Shape, recipe: Recipe, frozen: int, tokens: int, targets: int, bytes_a_number: int
) -> dict[str, int]:
    """Bytes by part while a stage trains: its largest micro-batch has so many tokens and targets.

    Adapters are in fp32; the trained one has a gradient and two moments besides. `frozen` are the parameters of the
    knowledge adapters, which are all loaded.
    """
    trained = shape.adapter_parameters(recipe.rank, recipe.target_modules)
    return {
        "base": shape.parameters * bytes_a_number,
        "adapters": (frozen + trained) * FP32,
        "gradients and optimiser": 3 * trained * FP32,
        "activations": shape.activation_bytes(tokens, targets, bytes_a_number, recipe.gradient_checkpointing),
    }
