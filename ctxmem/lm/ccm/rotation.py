"""Rotary positions of keys, taken off and put on.

A memory's keys are kept without position. Slot j stands at position 1 + j when it is attended to, whatever step it came
from: position equals cache index, a conversation without end stays within the model's window, and a mean of slots is
taken in one frame. (The paper keeps the position at which a slot was made, and averages keys turned by different ones.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctxmem.errors import ModelError

_FIXED = {"default", "linear", "llama3", "yarn"}
"""Kinds of rotary positions whose angles do not depend on the length of the text."""


class Rotation:
    """The rotary positions of one model; all sums in fp32."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Read the model's angles.

        Raises:
            ModelError: it has none, or turns only a part of a key, or by angles that depend on the length of the text.
        """
        rotary = getattr(model.base_model, "rotary_emb", None)
        if rotary is None or not hasattr(rotary, "inv_freq"):
            raise ModelError("compressed memory needs a model with rotary positions")
        if getattr(rotary, "rope_type", "default") not in _FIXED:
            raise ModelError(f"compressed memory cannot use rotary positions of type {rotary.rope_type!r}")
        self._angles: Tensor = rotary.inv_freq.detach().float()
        self._scale = float(getattr(rotary, "attention_scaling", 1.0))
        heads = model.config.num_attention_heads
        size = getattr(model.config, "head_dim", None) or model.config.hidden_size // heads
        if 2 * self._angles.numel() != size:
            raise ModelError("compressed memory needs rotary positions over the whole of each key")

    def on(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Turn keys to their positions.

        Args:
            keys: (batch, heads, n, head size).
            positions: (batch, n) or (n,).
        """
        cos, sin = self._turns(positions.to(keys.device))
        return (keys * cos + _half(keys) * sin) * self._scale

    def off(self, keys: Tensor, positions: Tensor) -> Tensor:
        """The inverse of `on`."""
        cos, sin = self._turns(positions.to(keys.device))
        return (keys * cos - _half(keys) * sin) / self._scale

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None].float() * self._angles
        doubled = torch.cat((angles, angles), dim=-1)
        if doubled.dim() == 3:
            doubled = doubled[:, None]
        return doubled.cos(), doubled.sin()


def _half(keys: Tensor) -> Tensor:
    left, right = keys.chunk(2, dim=-1)
    return torch.cat((-right, left), dim=-1)
