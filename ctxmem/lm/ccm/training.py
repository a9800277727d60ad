"""Trains an adapter: the model with the memory learns from the same model with the whole text.

The loss of a token is the divergence of its distribution behind the memory from that behind the full context, and a
share of plain next-token loss; every step of every conversation is supervised. Rule of update, slots per step and size
of steps change from batch to batch, so that one adapter serves many budgets.

Source: arXiv 2312.03414, section 3.3, for the parallel forward; distillation from the full-context teacher in place of
its plain loss needs no first round of fine-tuning, and leaves the base model as it is.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from ctxmem.errors import InvalidInput
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.files import save_adapter
from ctxmem.lm.ccm.memory import MemoryModel
from ctxmem.lm.ccm.parallel import Layout, Segments, lay_out, read
from ctxmem.lm.ccm.rows import ChatML, Conversation, cut, read_rows
from ctxmem.lm.ccm.update import Mode, Update
from ctxmem.lm.loading import Progress

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Knobs of one training run.

    Attributes:
        steps: optimiser steps.
        seconds: wall-clock limit; 0 for none. The learning rate falls towards whichever end comes first.
        batch: conversations per step.
        micro: of them in one forward pass.
        rate: peak learning rate.
        plain: weight of the plain next-token loss.
        most: tokens of a conversation that are read.
        sizes: tokens that a step has at least, one drawn per batch.
        tokens: slots per step, one drawn per batch.
        modes: rules of update, one drawn per batch.
        alone: share of batches whose steps are compressed out of sight of each other.
        every: steps between two checkpoints.
        seed: of everything drawn.
    """

    steps: int = 1000
    seconds: float = 0.0
    batch: int = 8
    micro: int = 4
    rate: float = 1e-3
    plain: float = 0.1
    most: int = 320
    sizes: tuple[int, ...] = (24, 40, 64)
    tokens: tuple[int, ...] = (2, 4, 8)
    modes: tuple[Mode, ...] = ("concat", "concat", "merge", "hybrid")
    alone: float = 0.15
    every: int = 20
    seed: int = 13


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one batch is trained with."""

    conversations: list[Segments]
    update: Update
    tokens: int
    chain: bool


class Training:
    """A run that can be interrupted at any point and goes on from its last checkpoint.

    Args:
        model: whose adapter is trained, in place.
        rows: conversations to learn from.
        folder: where checkpoints and the log are written.
        recipe: the knobs.

    Raises:
        InvalidInput: no row has two steps.
    """

    def __init__(self, model: MemoryModel, rows: Sequence[Conversation], *, folder: Path, recipe: Recipe) -> None:
        self.model, self.recipe, self.folder = model, recipe, folder
        self.rows = [row for row in rows if len(row.messages) > 1]
        if not self.rows:
            raise InvalidInput("no conversation has two messages")
        model.model.requires_grad_(requires_grad=False)
        self.learned = list(model.adapter.parameters())
        self.optimiser = torch.optim.AdamW(self.learned, lr=recipe.rate, weight_decay=0.0)
        self.step, self.spent = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._resume()

    def run(self, progress: Progress | None = None) -> None:
        """Train to the end of the recipe."""
        began = time.monotonic() - self.spent
        while self._gone() < 1:
            loss = self._learn(self.draw(self.step))
            self.spent = time.monotonic() - began
            if self.step % self.recipe.every == 0 or self._gone() >= 1:
                self._keep(loss)
            if progress:
                progress(f"step {self.step}, loss {loss:.3f}", min(1.0, self._gone()))

    def draw(self, step: int) -> Drawn:
        """The batch of a step; depends on the seed and the number of the step alone."""
        rng = random.Random(self.recipe.seed * 1_000_003 + step)
        size, tokens = rng.choice(self.recipe.sizes), rng.choice(self.recipe.tokens)
        update = Update(rng.choice(self.recipe.modes), bank=rng.choice((1, 2, 4)))
        found: list[Segments] = []
        while len(found) < self.recipe.batch:
            segments = cut(rng.choice(self.rows), step=size, most=self.recipe.most, rng=rng)
            if len(segments) > 1:
                found.append(segments)
        found.sort(key=lambda segments: sum(map(len, segments)))
        return Drawn(found, update, tokens, rng.random() >= self.recipe.alone)

    def _learn(self, drawn: Drawn) -> float:
        total = 0.0
        for start in range(0, len(drawn.conversations), self.recipe.micro):
            some = drawn.conversations[start : start + self.recipe.micro]
            share = len(some) / len(drawn.conversations)
            loss = share * self.loss(some, drawn)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * self._factor()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        return total

    def loss(self, conversations: Sequence[Segments], drawn: Drawn) -> Tensor:
        """The mean loss of the supervised tokens of some conversations, in nats."""
        model = self.model
        layout = lay_out(conversations, drawn.update, tokens=drawn.tokens, sink=model.sink, chain=drawn.chain)
        last = None if drawn.chain else [len(segments) - 1 for segments in conversations]
        taught = supervised(layout, last)
        head = model.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        student = log_softmax(head(read(model.model, model.adapter, layout, model.rotation)[taught]).float(), dim=-1)
        with torch.no_grad():
            teacher = log_softmax(head(full_states(model, conversations)[_in_full(layout, taught)]).float(), dim=-1)
        divergence = kl_div(student, teacher, log_target=True, reduction="batchmean")
        following = _next(layout)[taught].to(student.device)
        return divergence + self.recipe.plain * cross_entropy(student, following)

    def _gone(self) -> float:
        """Share of the run that is behind, by steps or by time, whichever is more."""
        timed = self.spent / self.recipe.seconds if self.recipe.seconds else 0.0
        return max(self.step / self.recipe.steps, timed)

    def _factor(self) -> float:
        """Learning rate's share of its peak: 15 steps up, then down a half cosine to a twentieth."""
        fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, self._gone())))
        return min(1.0, (self.step + 1) / 15) * fall

    def _keep(self, loss: float) -> None:
        state = {
            "adapter": self.model.adapter.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "recipe": asdict(self.recipe),
        }
        scratch = self.folder / f"{CHECKPOINT}.new"
        torch.save(state, scratch)
        os.replace(scratch, self.folder / CHECKPOINT)
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.spent, 1), "loss": round(loss, 4)}) + "\n")

    def _resume(self) -> None:
        state: Mapping[str, Any] = torch.load(self.folder / CHECKPOINT, map_location="cpu", weights_only=True)
        self.model.adapter.load_state_dict(state["adapter"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]


def train_adapter(
    rows: Path, folder: Path, *, model: str, recipe: Recipe, device: str | None = None, progress: Progress | None = None
) -> Training:
    """Train an adapter from a file of conversations, and write it.

    Args:
        rows: see `ctxmem.lm.ccm.rows`.
        folder: of the run; a run that is there goes on.
        model: base model, by packaged name, folder or hub id.
        recipe: the knobs.
        device: of torch, such as `cpu`; CUDA where there is one, when None.
        progress: told after each step.

    Raises:
        InvalidInput: the rows are wrong, or there is no such device.
        ModelError: the model is missing or cannot have such an adapter.
    """
    on = _device(device)
    lm = CausalLM.load(model, threads=torch.get_num_threads())
    chat = ChatML(lm.tokenizer)
    torch.manual_seed(recipe.seed)
    adapter = Adapter(lm.model)
    embedding = lm.model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    adapter.start_from(embedding.weight[chat.end])
    memory_model = MemoryModel(nn.Module.to(lm.model, on), adapter.to(on), sink=chat.start)
    training = Training(memory_model, read_rows(rows, lm.tokenizer), folder=folder, recipe=recipe)
    training.run(progress)
    note = {"recipe": asdict(recipe), "steps": training.step, "seconds": round(training.spent)}
    save_adapter(adapter, lm.model, folder, sink=chat.start, note=note)
    return training


def supervised(layout: Layout, only: Sequence[int] | None = None) -> Tensor:
    """(b, l) truth: text that stands behind a memory and has its next token in the same step.

    Args:
        layout: of the batch.
        only: for each conversation the one step that is supervised; all but the first when None.
    """
    text = (layout.kinds < 0) & (layout.segment >= 0)
    follows = torch.zeros_like(text)
    follows[:, :-1] = text[:, 1:] & (layout.segment[:, 1:] == layout.segment[:, :-1])
    behind = layout.segment > 0 if only is None else layout.segment == torch.tensor(only)[:, None]
    return text & follows & behind


def full_states(model: MemoryModel, conversations: Sequence[Segments]) -> Tensor:
    """(b, n, hidden size) states of the base model over the sink and the whole text of each conversation, padded."""
    texts = [[model.sink, *(token for segment in segments for token in segment)] for segments in conversations]
    length = max(map(len, texts))
    device = model.model.device
    ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts], device=device)
    mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts], device=device)
    states: Tensor = model.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return states


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such name, or torch was built without it
        raise InvalidInput(f"torch cannot train on {name!r}: {error}", param="device") from error


def _in_full(layout: Layout, taught: Tensor) -> tuple[Tensor, Tensor]:
    """Where the taught positions stand in `full_states`: there are no compression tokens before them."""
    conversation, position = taught.nonzero(as_tuple=True)
    before = (layout.kinds >= 0).cumsum(1)
    return conversation, position - before[conversation, position]


def _next(layout: Layout) -> Tensor:
    """(b, l) the token after each position."""
    return layout.ids.roll(-1, dims=1)
