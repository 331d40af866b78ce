"""A key-value cache that grows in place.

transformers' own cache makes a new, slightly longer tensor for each layer and token. On CPUs that copies the whole
cache every time, and the ever larger blocks leave holes in memory that none of the next ones fits into.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Tokens to make room for at a time.
ROOM = 64


def growing_cache(config: Any) -> Any:
    """An empty cache for a model of this configuration; layers with a window of their own stay as they are."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    made = DynamicCache(config=config)
    made.layers = [_growing_layer()() if type(layer) is DynamicLayer else layer for layer in made.layers]
    return made


@cache
def _growing_layer() -> type:
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):  # type: ignore[misc]
        """Keys and values are views of the filled part of larger tensors."""

        keys: torch.Tensor
        values: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.rooms: dict[str, torch.Tensor] = {}

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            self.keys = self._append("keys", self.keys, key_states)
            self.values = self._append("values", self.values, value_states)
            return self.keys, self.values

        def _append(self, name: str, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            filled = old.shape[-2] if old.numel() else 0
            length = filled + new.shape[-2]
            room = self.rooms.get(name)
            # Selecting or repeating rows replaces the view by a tensor of its own.
            if room is None or old.data_ptr() != room.data_ptr() or length > room.shape[-2]:
                room = new.new_empty((*new.shape[:-2], length + ROOM, new.shape[-1]))
                if filled:
                    room[..., :filled, :] = old
                self.rooms[name] = room
            room[..., filled:length, :] = new
            return room[..., :length, :]

    return GrowingLayer
