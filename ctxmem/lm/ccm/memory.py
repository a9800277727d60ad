"""A compressed memory and the model that writes and reads it, one step after the other.

Source: arXiv 2312.03414, section 3.1 and algorithm 1: run the new text and m compression tokens behind the memory so
far, keep the key/value states of those m, and take them into the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from ctxmem.errors import InvalidInput
from ctxmem.lm.causal import fingerprint
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.rotation import Rotation
from ctxmem.lm.ccm.update import CONCAT, Update


@dataclass(frozen=True, slots=True)
class Memory:
    """What some steps left behind. Never changed: a step makes a new one.

    Attributes:
        states: (2, layers, kv heads, slots, head size): keys without position, and values, in the model's format.
        steps: how many steps it took in.
        tokens: slots per group.
        update: the rule it grows by.
        maker: fingerprint of the model and the adapter whose states these are.
    """

    states: Tensor
    steps: int
    tokens: int
    update: Update
    maker: str

    @property
    def slots(self) -> int:
        """Key/value positions it takes in attention."""
        return self.states.shape[3]

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """The states by group, each of `tokens` slots."""
        return torch.split(self.states, self.tokens, dim=3) if self.slots else ()


class MemoryModel:
    """A language model with an adapter: writes memories, and gives caches to go on from. For one thread.

    Both stand on one device, and so does every memory.

    Attributes:
        model: the base model, frozen.
        adapter: its compression tokens.
        sink: the token that stands at position 0 of everything.
        maker: fingerprint of both.
    """

    def __init__(self, model: PreTrainedModel, adapter: Adapter, *, sink: int) -> None:
        self.model = model
        self.adapter = adapter
        self.sink = sink
        self.rotation = Rotation(model)
        self.maker = f"{fingerprint(model)}-{fingerprint(adapter)}-{sink}"
        self._sink_states = _states(self._read([sink], DynamicCache()), 1)

    def empty(self, update: Update = CONCAT, *, tokens: int = 4) -> Memory:
        """The memory before the first step.

        Args:
            update: the rule it will grow by.
            tokens: compression tokens per step, of those the adapter has.

        Raises:
            InvalidInput: the adapter has fewer.
        """
        if not 1 <= tokens <= self.adapter.most:
            raise InvalidInput(
                f"this adapter compresses a step to 1 to {self.adapter.most} slots, not {tokens}", param="tokens"
            )
        return Memory(self._sink_states[..., :0, :], 0, tokens, update, self.maker)

    def compress(self, memory: Memory, ids: Sequence[int]) -> Memory:
        """The memory after one more step.

        Args:
            memory: of this model; stays as it is.
            ids: the text of the step.

        Raises:
            InvalidInput: there is no text, it and the memory do not fit the model's window, or another model made the
                memory.
        """
        cache = self.cache(memory)
        self._check_room(memory, len(ids) + memory.tokens)
        if not ids:
            raise InvalidInput("a step to compress needs text", param="ids")
        self._read(ids, cache, compress=memory.tokens)
        positions = torch.arange(memory.tokens) + (1 + memory.slots + len(ids))
        keys, values = _states(cache, memory.tokens).float()
        new = torch.stack((self.rotation.off(keys, positions), values))
        groups = memory.update.step([group.float() for group in memory.groups], new, memory.steps + 1)
        states = torch.cat(groups, dim=3).to(self.model.dtype)
        return Memory(states, memory.steps + 1, memory.tokens, memory.update, self.maker)

    def cache(self, memory: Memory) -> DynamicCache:
        """A fresh cache that has read the sink and stands behind the memory; its length is the next position.

        Raises:
            InvalidInput: another model or adapter made the memory.
        """
        if memory.maker != self.maker:
            raise InvalidInput(f"this memory was made by {memory.maker}, not by {self.maker}", param="memory")
        keys, values = memory.states
        turned = self.rotation.on(keys.float(), 1 + torch.arange(memory.slots)).to(keys.dtype)
        layers = torch.cat((self._sink_states, torch.stack((turned, values))), dim=3)
        return DynamicCache([(layers[0, layer][None], layers[1, layer][None]) for layer in range(layers.shape[1])])

    def batch(self, memories: Sequence[Memory]) -> tuple[DynamicCache, Tensor]:
        """One cache for several sessions, and the (sessions, slots) mask of what is memory in it.

        Shorter memories are padded on the left, so positions are to be given with what is run behind them: each
        session's own count of ones, and on.

        Raises:
            InvalidInput: there is none, or another model made one.
        """
        if not memories:
            raise InvalidInput("a batch needs memories", param="memories")
        longest = 1 + max(memory.slots for memory in memories)
        padded, mask = [], torch.ones(len(memories), longest, dtype=torch.long)
        for at, memory in enumerate(memories):
            gap = longest - 1 - memory.slots
            mask[at, :gap] = 0
            padded.append([[pad(one[0], (0, 0, gap, 0)) for one in pair] for pair in _layers(self.cache(memory))])
        layers = zip(*padded, strict=True)
        return DynamicCache([tuple(map(torch.stack, zip(*layer, strict=True))) for layer in layers]), mask

    def join(self, memories: Sequence[Memory]) -> Memory:
        """One memory with the slots of several that were made on their own, such as those of retrieved passages.

        It cannot take in further steps by merging, so its rule is `concat`.

        Raises:
            InvalidInput: there is none, or they differ in maker or slots per step.
        """
        if not memories or len({(memory.maker, memory.tokens) for memory in memories}) > 1:
            raise InvalidInput("memories to join must come from one model with one number of tokens", param="memories")
        states = torch.cat([memory.states for memory in memories], dim=3)
        steps = states.shape[3] // memories[0].tokens
        return Memory(states, steps, memories[0].tokens, CONCAT, memories[0].maker)

    def _check_room(self, memory: Memory, more: int) -> None:
        window, needed = self.model.config.max_position_embeddings, 1 + memory.slots + more
        if needed > window:
            raise InvalidInput(f"memory and text need {needed} positions of the {window} that the model has")

    def _read(self, ids: Sequence[int], cache: DynamicCache, *, compress: int = 0) -> DynamicCache:
        """Run text, and behind it compression tokens, over a cache, which grows by them."""
        with torch.inference_mode():
            embedded: Tensor = self.model.get_input_embeddings()(torch.tensor([list(ids)], device=self.model.device))
            marks = self.adapter.tokens[:compress].to(embedded.dtype)[None]
            with self.adapter.at(torch.arange(len(ids), len(ids) + compress, device=embedded.device)):
                self.model.base_model(inputs_embeds=torch.cat((embedded, marks), dim=1), past_key_values=cache)
        return cache


def _states(cache: DynamicCache, last: int) -> Tensor:
    """The last positions of a cache of one text: (2, layers, kv heads, last, head size)."""
    pairs = [(keys[0, :, -last:], values[0, :, -last:]) for keys, values in _layers(cache)]
    return torch.stack([torch.stack(side) for side in zip(*pairs, strict=True)])


def _layers(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    return [(keys, values) for keys, values, _ in cache]
