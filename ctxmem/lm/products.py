"""Products of bf16 matrices at the pace the processor has for fp32, where it has no instructions for bf16.

There torch is five times slower in bf16 than in fp32 (AVX2, 64 to 1,024 rows). So a part of the weights at a time is
widened to fp32, which takes little beside the product itself. The weights stay bf16 in memory, and the results differ
by no more than the rounding of sums. One or two rows, as in decoding, wait for memory and not for the processor: they
are multiplied as they are.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

FEW = 2
"""Rows that are multiplied as they are."""

PART = 2**22
"""Weights that are widened at once: 16 MB."""


@cache
def has_bf16() -> bool:
    """Whether this processor has instructions for bf16."""
    here = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return here and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """States @ weight.T + bias, in the number format of `states`.

    Args:
        states: (..., width).
        weight: (out, width).
        bias: (out,).

    Returns:
        (..., out).
    """
    width = weight.shape[1]
    slow = states.device.type == "cpu" and states.dtype is weight.dtype is torch.bfloat16 and not has_bf16()
    if not slow or states.numel() <= FEW * width:
        return linear(states, weight, bias)
    wide = states.float()
    parts = [linear(wide, part.float()).to(states.dtype) for part in torch.split(weight, max(1, PART // width))]
    made = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return made if bias is None else made + bias


def widen(model: nn.Module) -> None:
    """Have a model's linear layers multiply by `product`; where the processor has bf16, leave them as they are."""
    if has_bf16():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = _Widened


class _Widened(nn.Linear):
    """A linear layer that multiplies by `product`."""

    def forward(self, input: Tensor) -> Tensor:
        return product(input, self.weight, self.bias)
