"""All steps of many conversations in one forward pass, for training.

Every attention layer hands its keys and values to a cache. `ParallelMemory` is a cache that gathers those of the
compression tokens, mixes them into the memories after each step, and gives them back as further columns; a mask says
which segment sees which memory. No model is patched.

Source: arXiv 2312.03414, section 3.3 and figure 4. There a merged memory stands at extra tokens whose states are
replaced inside the attention; here it needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ctxmem.errors import InvalidInput
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.rotation import Rotation
from ctxmem.lm.ccm.update import Update

Segments = Sequence[Sequence[int]]
"""One conversation as token ids by step; each step but the last is compressed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands: b conversations, length l, c compression tokens and r memory slots in each, padded.

    Attributes:
        ids: (b, l) tokens; those of compression tokens are any.
        kinds: (b, l) number of the compression token at a position, -1 for text.
        segment: (b, l) step of a position, -1 for the sink and for padding.
        positions: (b, l) rotary positions.
        compressed: (b, c) positions in `ids` of the compression tokens, step by step; padded with 0, the sink.
        mix: (b, r, c) the slots as weights over compression tokens.
        slots: (b, r) rotary positions of the slots.
        sees: (b, 1, l, l + r) what each position attends to.
    """

    ids: Tensor
    kinds: Tensor
    segment: Tensor
    positions: Tensor
    compressed: Tensor
    mix: Tensor
    slots: Tensor
    sees: Tensor

    @property
    def rows(self) -> Tensor:
        """Compression tokens as rows of the flattened (b * l) input."""
        return (self.kinds.flatten() >= 0).nonzero().flatten()

    def to(self, device: torch.device) -> Layout:
        """The same on a device; a layout is drawn up on the CPU."""
        return Layout(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def lay_out(conversations: Sequence[Segments], update: Update, *, tokens: int, sink: int, chain: bool = True) -> Layout:
    """Lay conversations out: sink, segment, compression tokens, segment, compression tokens, ..., last segment.

    Args:
        conversations: at least one, each of at least one segment, none empty.
        update: how memory takes in a step.
        tokens: compression tokens per step.
        sink: the token at position 0 that everything sees.
        chain: compress a step in sight of the memory of those before it; otherwise each on its own, and only the last
            segment sees the memory. Memories made on their own can be joined in any order.

    Raises:
        InvalidInput: there is an empty conversation or segment.
    """
    if not conversations or any(not segments or not all(segments) for segments in conversations):
        raise InvalidInput("a conversation to lay out needs segments, and each of them tokens", param="conversations")
    drafts = [_Draft.of(segments, update, tokens, sink, chain=chain) for segments in conversations]
    length = max(len(draft.ids) for draft in drafts)
    slots = max(len(draft.slots) for draft in drafts)
    columns = max(len(draft.compressed) for draft in drafts)
    sees = torch.zeros(len(drafts), 1, length, length + slots, dtype=torch.bool)
    sees[..., 0] = True  # also padding sees something: a row without any column has no softmax
    mix = torch.zeros(len(drafts), slots, columns)
    for at, draft in enumerate(drafts):
        own, memory = draft.sees()
        sees[at, 0, : own.shape[0], : own.shape[1]] |= own
        sees[at, 0, : own.shape[0], length : length + memory.shape[1]] = memory
        mix[at, : draft.mix.shape[0], : draft.mix.shape[1]] = draft.mix
    return Layout(
        ids=_padded([draft.ids for draft in drafts], 0),
        kinds=_padded([draft.kinds for draft in drafts], -1),
        segment=_padded([draft.segment for draft in drafts], -1),
        positions=_padded([draft.positions for draft in drafts], 0),
        compressed=_padded([draft.compressed for draft in drafts], 0),
        mix=mix,
        slots=_padded([draft.slots for draft in drafts], 0),
        sees=sees,
    )


@dataclass(slots=True)
class _Draft:
    """One conversation of a `Layout`; `sees_slots[j]` are the numbers of the slots that segment j sees."""

    ids: list[int]
    kinds: list[int]
    segment: list[int]
    positions: list[int]
    compressed: list[int]
    mix: Tensor
    slots: list[int]
    sees_slots: list[list[int]]

    @classmethod
    def of(cls, segments: Segments, update: Update, tokens: int, sink: int, *, chain: bool) -> _Draft:
        mix, slots, sees_slots = _memories(len(segments), update, tokens, chain=chain)
        draft = cls([sink], [-1], [-1], [0], [], mix, slots, sees_slots)
        for step, text in enumerate(segments):
            last = step == len(segments) - 1
            draft._add(step, text, 0 if last else tokens)
        return draft

    def _add(self, step: int, text: Sequence[int], tokens: int) -> None:
        start, count = len(self.ids), len(text) + tokens
        first = 1 + len(self.sees_slots[step])
        self.ids += [*text, *[0] * tokens]
        self.kinds += [*[-1] * len(text), *range(tokens)]
        self.segment += [step] * count
        self.positions += range(first, first + count)
        self.compressed += range(start + len(text), start + count)

    def sees(self) -> tuple[Tensor, Tensor]:
        """(length, length) and (length, slots): a position sees its segment up to itself, and its segment's memory."""
        segment = torch.tensor(self.segment)
        own = (segment[:, None] == segment[None, :]).tril()
        memory = torch.zeros(len(segment), len(self.slots), dtype=torch.bool)
        for step, seen in enumerate(self.sees_slots):
            memory[segment == step] = torch.isin(torch.arange(len(self.slots)), torch.tensor(seen, dtype=torch.long))
        return own, memory


def _memories(segments: int, update: Update, tokens: int, *, chain: bool) -> tuple[Tensor, list[int], list[list[int]]]:
    """The distinct slots of all memories: their weights, their positions, and which ones each segment sees.

    A group that stands unchanged at the same place in two memories is the same slots.
    """
    steps = segments - 1
    known: dict[tuple[int, tuple[float, ...]], int] = {}
    sees: list[list[int]] = []
    for step, groups in enumerate(update.weights(steps)):
        shown = groups if chain or step == steps else groups[:0]
        keys = [(place, tuple(weights.tolist())) for place, weights in enumerate(shown)]
        numbers = [known.setdefault(key, len(known)) for key in keys]
        sees.append([number * tokens + token for number in numbers for token in range(tokens)])
    slots = [1 + place * tokens + token for place, _ in known for token in range(tokens)]
    weights = torch.tensor([weights for _, weights in known]).reshape(len(known), steps)
    return torch.kron(weights, torch.eye(tokens)), slots, sees


def _padded(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filling] * (length - len(row))] for row in rows], dtype=torch.long)


class ParallelMemory(DynamicCache):
    """Gives each attention layer the memories of a `Layout` as further keys and values. Keeps nothing."""

    def __init__(self, layout: Layout, rotation: Rotation) -> None:
        super().__init__()
        self._layout = layout
        self._rotation = rotation
        self._at = torch.gather(layout.positions, 1, layout.compressed)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The keys and values of this pass, and behind them those of the slots: (b, heads, l + r, head size)."""
        where = self._layout.compressed[:, None, :, None].expand(-1, key_states.shape[1], -1, key_states.shape[-1])
        keys = self._rotation.off(key_states.gather(2, where).float(), self._at)
        values = value_states.gather(2, where).float()
        mix = self._layout.mix[:, None]
        slots = self._rotation.on(mix @ keys, self._layout.slots)
        return (
            torch.cat((key_states, slots.to(key_states.dtype)), dim=2),
            torch.cat((value_states, (mix @ values).to(value_states.dtype)), dim=2),
        )


def read(model: PreTrainedModel, adapter: Adapter, layout: Layout, rotation: Rotation) -> Tensor:
    """Run the layout on the model's device: (b, l, hidden size) states of the last layer, before the head."""
    layout = layout.to(model.device)
    embed = model.get_input_embeddings()
    embedded: Tensor = embed(layout.ids)
    compressing = layout.kinds >= 0
    embedded = embedded.masked_scatter(
        compressing[..., None], adapter.tokens[layout.kinds[compressing]].to(embedded.dtype)
    )
    with adapter.at(layout.rows):
        states: Tensor = model.base_model(
            inputs_embeds=embedded,
            attention_mask=_mask(layout.sees, model, embedded.dtype),
            position_ids=layout.positions,
            past_key_values=ParallelMemory(layout, rotation),
            use_cache=False,
        ).last_hidden_state
    return states


def _mask(sees: Tensor, model: PreTrainedModel, dtype: torch.dtype) -> Tensor:
    """As the model's attention wants it: eager attention adds the mask, the others take truth values."""
    if model.config._attn_implementation != "eager":
        return sees
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
