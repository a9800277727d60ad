"""A memory as bytes: a safetensors file whose metadata says what it is.

The states are kept as they are in memory, or as int8 with one scale per vector, which halves them; the paper keeps
fp16. For SmolLM2-135M a slot takes 23 kB in bf16 and 12 kB in int8.
"""

from __future__ import annotations

import json
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ctxmem.errors import InvalidInput
from ctxmem.lm.ccm.memory import Memory
from ctxmem.lm.ccm.update import Update

Packing = Literal["exact", "int8"]
_NAME = "ctxmem"
_FORMAT = "1"


def pack(memory: Memory, packing: Packing = "exact") -> bytes:
    """The memory as bytes that `unpack` reads."""
    update = memory.update
    about = {
        "format": _FORMAT,
        "maker": memory.maker,
        "steps": memory.steps,
        "tokens": memory.tokens,
        "mode": update.mode,
        "bank": update.bank,
        "rate": update.rate,
        "dtype": str(memory.states.dtype).removeprefix("torch."),
    }
    tensors = {"states": memory.states.contiguous()} if packing == "exact" else _small(memory.states)
    return save(tensors, metadata={_NAME: json.dumps(about)})


def unpack(blob: bytes, maker: str) -> Memory:
    """The memory in some bytes.

    Args:
        blob: what `pack` made.
        maker: fingerprint of the model that is to read it, `MemoryModel.maker`.

    Raises:
        InvalidInput: the bytes are damaged, or another model or adapter made the memory.
    """
    try:
        tensors = load(blob)
        about = json.loads(json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"][_NAME])
        dtype = getattr(torch, about["dtype"])
        states = tensors["states"]
        if "scales" in tensors:
            states = (states.float() * tensors["scales"].float()).to(dtype)
        update = Update(about["mode"], bank=about["bank"], rate=about["rate"])
        memory = Memory(states, about["steps"], about["tokens"], update, about["maker"])
        sound = states.dim() == 5 and memory.slots == update.groups(memory.steps) * memory.tokens
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"these bytes hold no compressed memory: {error}", param="blob") from error
    if not sound or not bool(torch.isfinite(states).all()):
        raise InvalidInput("this compressed memory is damaged", param="blob")
    if memory.maker != maker:
        raise InvalidInput(f"this memory was made by {memory.maker}, not by {maker}", param="blob")
    return memory


def _small(states: Tensor) -> dict[str, Tensor]:
    """int8 vectors and their scales."""
    scales = states.float().abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
    return {"states": (states.float() / scales).round().to(torch.int8), "scales": scales.half()}
