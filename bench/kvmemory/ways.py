"""Ways to keep a conversation in few key/value positions, each giving a cache to predict from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from transformers import DynamicCache

from bench.kvmemory.skip import skipped
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.files import load_adapter
from ctxmem.lm.ccm.memory import MemoryModel
from ctxmem.lm.ccm.rows import ChatML
from ctxmem.lm.ccm.update import CONCAT, Update

Steps = Sequence[list[int]]
"""A conversation as token ids, step by step."""

SEED = 7
MERGED = 8
"""Slots of the merged memory, which does not grow."""


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a conversation: a cache, the position that comes next, and how many positions it holds."""

    cache: DynamicCache
    position: int
    slots: int


Way = Callable[[Steps], Left]


class Ways:
    """One model with one adapter, and what is compared with it.

    Args:
        lm: the base model.
        adapter: folder of the trained adapter.
        tokens: positions per step that a way may keep.
    """

    def __init__(self, lm: CausalLM, adapter: Path, *, tokens: int = 4) -> None:
        self.lm, self.chat, self.tokens = lm, ChatML(lm.tokenizer), tokens
        torch.manual_seed(SEED)
        blank = Adapter(lm.model)
        blank.start_from(lm.model.get_parameter("model.embed_tokens.weight").detach()[self.chat.end])
        self.blank = MemoryModel(lm.model, blank, sink=self.chat.start)
        trained, sink = load_adapter(adapter, lm.model)
        self.trained = MemoryModel(lm.model, trained, sink=sink)

    def all(self) -> dict[str, Way]:
        """Every way, all but the first two within `tokens` positions per step behind the sink."""
        return {
            "no context": self.none,
            "full context": self.full,
            **self.training_free(),
            **self.memories(),
            "CCM-concat, paper's positions": lambda steps: self.skipping(steps, CONCAT, self.tokens),
            "CCM-merge, paper's positions": lambda steps: self.skipping(steps, Update("merge"), MERGED),
        }

    def training_free(self) -> dict[str, Way]:
        """What needs no training."""
        return {
            "last tokens, read alone": lambda steps: self._text(joined(steps)[-self._room(steps) :]),
            "sink + window": lambda steps: self._pressed(steps, _recent),
            "KeyDiff": lambda steps: self._pressed(steps, _keydiff),
            "key norm": lambda steps: self._pressed(steps, _keynorm),
            "CCM untrained": lambda steps: self.memory(steps, CONCAT, model=self.blank),
        }

    def memories(self) -> dict[str, Way]:
        """Compressed memories by the trained adapter."""
        hybrid = Update("hybrid", bank=1)
        return {
            "CCM-concat": lambda steps: self.memory(steps, CONCAT),
            "CCM-merge": lambda steps: self.memory(steps, Update("merge"), tokens=MERGED),
            "CCM-hybrid": lambda steps: self.memory(steps, hybrid),
            "CCM-concat + window": self.windowed,
        }

    def none(self, steps: Steps) -> Left:
        """The sink alone."""
        return self._text([])

    def full(self, steps: Steps) -> Left:
        """All of it."""
        return self._text(joined(steps))

    def memory(
        self, steps: Steps, update: Update, *, tokens: int | None = None, model: MemoryModel | None = None
    ) -> Left:
        """A compressed memory."""
        model = model or self.trained
        memory = model.empty(update, tokens=tokens or self.tokens)
        for ids in steps:
            memory = model.compress(memory, ids)
        return Left(model.cache(memory), 1 + memory.slots, memory.slots)

    def windowed(self, steps: Steps) -> Left:
        """Half of the room is a memory, behind which the newest tokens are read as they are, as the service does."""
        slots = (self.tokens + 1) // 2
        behind = self._room(steps) - slots * len(steps)
        older, newest = _parted(steps, behind)
        left = self.memory(older, CONCAT, tokens=slots)
        if newest:
            with torch.inference_mode():
                self.lm.model.base_model(input_ids=torch.tensor([newest]), past_key_values=left.cache)
        held = left.slots + len(newest)
        return Left(left.cache, 1 + held, held)

    def skipping(self, steps: Steps, update: Update, tokens: int) -> Left:
        """The same adapter's memory at the positions of the paper, which it was not trained with."""
        cache, position = skipped(self.trained, steps, update, tokens=tokens)
        return Left(cache, position, cache.get_seq_length() - 1)

    def losses(self, left: Left, texts: Steps) -> list[Tensor]:
        """Nats of each token but the first of each text, all read side by side behind what is left."""
        longest, past = max(map(len, texts)), left.cache.get_seq_length()
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        layers = [(keys, values) for keys, values, _ in left.cache]
        with torch.inference_mode():
            logits = self.lm.model(
                input_ids=ids,
                past_key_values=DynamicCache(
                    [tuple(one.expand(len(texts), -1, -1, -1) for one in pair) for pair in layers]
                ),
                position_ids=(left.position + torch.arange(longest)).expand(len(texts), -1),
                attention_mask=torch.ones(len(texts), past + longest, dtype=torch.long),
            ).logits[:, :-1]
        nats = cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
        return [row[: len(text) - 1] for row, text in zip(nats, texts, strict=True)]

    def _room(self, steps: Steps) -> int:
        return self.tokens * len(steps)

    def _text(self, ids: Sequence[int]) -> Left:
        cache = DynamicCache()
        with torch.inference_mode():
            self.lm.model.base_model(input_ids=torch.tensor([[self.chat.start, *ids]]), past_key_values=cache)
        return Left(cache, 1 + len(ids), len(ids))

    def _pressed(self, steps: Steps, choose: Callable[[Tensor, int], Tensor]) -> Left:
        """The full key/value cache cut to its sink and the room there is, chosen per layer and head."""
        whole, layers = self.full(steps), []
        slots = min(self._room(steps), whole.slots)
        for keys, values, _ in whole.cache:
            kept = choose(keys[0, :, 1:], slots).sort(-1).values + 1
            kept = torch.cat((torch.zeros_like(kept[:, :1]), kept), dim=1)[None, ..., None]
            where = kept.expand(-1, -1, -1, keys.shape[-1])
            layers.append((keys.gather(2, where), values.gather(2, where)))
        return Left(DynamicCache(layers), whole.position, slots)


def _parted(steps: Steps, count: int) -> tuple[list[list[int]], list[int]]:
    """The conversation without its newest tokens, and these; a step that is among them as a whole is gone."""
    older: list[list[int]] = []
    newest: list[int] = []
    for ids in reversed(steps):
        at = max(0, len(ids) - count + len(newest))
        older, newest = [ids[:at], *older] if at else older, [*ids[at:], *newest]
    return older, newest


def joined(steps: Steps) -> list[int]:
    """All tokens of a conversation."""
    return [token for step in steps for token in step]


def _recent(keys: Tensor, slots: int) -> Tensor:
    length = keys.shape[1]
    return torch.arange(length - slots, length).expand(keys.shape[0], -1)


def _keydiff(keys: Tensor, slots: int) -> Tensor:
    """Keys least like the mean key (Park et al. 2025, arXiv 2504.15364)."""
    mean = normalize(keys.float(), dim=-1).mean(1, keepdim=True)
    return cosine_similarity(keys.float(), mean, dim=-1).topk(slots, largest=False).indices


def _keynorm(keys: Tensor, slots: int) -> Tensor:
    """Keys of the smallest norm (Devoto et al. 2024, arXiv 2406.11430)."""
    return keys.float().norm(dim=-1).topk(slots, largest=False).indices
