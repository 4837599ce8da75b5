"""A key-value cache that grows in blocks.

transformers' own cache copies itself at every token to append one position, which costs more than the forward pass of a
small model. Shapes: R rows, H key-value heads, T tokens, D head width.
"""

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_BLOCK = 64
"""Positions by which a full buffer grows at least."""


class GrowingLayer(DynamicLayer):
    """Keys and values as views of buffers that have room at their end."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (R, H, T, D) keys and values, and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_buffer, self._value_buffer = key_states, value_states
            self._length = 0
        end = self._length + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            self._key_buffer = self._grown(self._key_buffer, end)
            self._value_buffer = self._grown(self._value_buffer, end)
        self._key_buffer[:, :, self._length : end] = key_states
        self._value_buffer[:, :, self._length : end] = value_states
        self._length = end
        return self._set_views()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices`, in this order; a row may be named more than once."""
        if self.is_initialized:
            keys, values = self._set_views()
            self._key_buffer, self._value_buffer = keys[indices], values[indices]
            self._set_views()

    def _grown(self, buffer: torch.Tensor, end: int) -> torch.Tensor:
        rows, heads, _, width = buffer.shape
        grown = buffer.new_zeros(rows, heads, max(end, self._length + _BLOCK), width)  # (R, H, T, D)
        grown[:, :, : self._length] = buffer[:, :, : self._length]
        return grown

    def _set_views(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._key_buffer[:, :, : self._length], self._value_buffer[:, :, : self._length]
        self.keys, self.values = keys, values
        return keys, values


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model; its sliding-window and linear-attention layers stay transformers' own."""
    cache = DynamicCache(config=config)
    # transformers leaves the constructor untyped.
    new_layer: Any = GrowingLayer
    cache.layers = [new_layer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = GrowingLayer
    return cache
