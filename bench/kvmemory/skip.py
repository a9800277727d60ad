"""The positions of the paper, as an ablation: text counts on as if there were no compression tokens (`skip`).

A slot keeps the rotary position at which it was made, text goes on behind the text before it, and merging takes the
mean of keys that were turned by different positions. So positions grow with the conversation up to the model's window,
where slots in place (`ctxmem.lm.ccm.rotation`) end at 1 + slots.

Source: arXiv 2312.03414, section 3.1, and the authors' `pos_id_offset`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from ctxmem.lm.ccm.memory import MemoryModel
from ctxmem.lm.ccm.update import Update


def skipped(
    model: MemoryModel, steps: Sequence[Sequence[int]], update: Update, *, tokens: int
) -> tuple[DynamicCache, int]:
    """A cache with the sink and the memory of these steps, and the position at which text goes on."""
    groups: tuple[Tensor, ...] = ()
    sink, position = _read(model, [model.sink], _cache([]), 0, 0), 1
    for t, ids in enumerate(steps, start=1):
        new = _read(model, ids, _cache([sink, *groups]), position, tokens)[..., -tokens:, :]
        groups = update.step([group.float() for group in groups], new.float(), t)
        position += len(ids)
    return _cache([sink, *groups]), position


def _read(model: MemoryModel, ids: Sequence[int], cache: DynamicCache, position: int, tokens: int) -> Tensor:
    """(layers, 2, kv heads, n, head size): keys, turned, and values of the cache after text and compression tokens."""
    embed, past = model.model.get_input_embeddings(), cache.get_seq_length()
    length = len(ids) + tokens
    with torch.inference_mode():
        embedded = embed(torch.tensor([list(ids)]))
        marks = model.adapter.tokens[:tokens].to(embedded.dtype)[None]
        with model.adapter.at(torch.arange(len(ids), length)):
            model.model.base_model(
                inputs_embeds=torch.cat((embedded, marks), dim=1),
                past_key_values=cache,
                position_ids=torch.arange(position, position + length)[None],
                attention_mask=torch.ones(1, past + length, dtype=torch.long),
            )
    return torch.stack([torch.stack((keys[0], values[0])) for keys, values, _ in cache])


def _cache(parts: Sequence[Tensor]) -> DynamicCache:
    """A cache of these parts, one behind the other, in the number format of the first."""
    if not parts:
        return DynamicCache()
    whole = torch.cat([part.to(parts[0].dtype) for part in parts], dim=-2)
    return DynamicCache([(layer[0][None], layer[1][None]) for layer in whole])
