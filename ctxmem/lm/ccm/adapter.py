"""The conditional LoRA: low-rank changes of the attention projections that act at the compression tokens alone.

Source: arXiv 2312.03414, section 3.2. There the change is computed for every token and multiplied by zero; here it is
computed for the rows of compression tokens. Without any, a projection's own output object passes through, so a text
that does not compress sees the base model bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctxmem.errors import InvalidInput, ModelError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class LowRank(nn.Module):
    """x -> scale * (x down^T) up^T, zero at first. Weights and sums are fp32."""

    def __init__(self, path: str, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.path = path
        self.scale = scale
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The change for (n, in) inputs: (n, out) in fp32."""
        return self.scale * (x.float() @ self.down.T @ self.up.T)


class Adapter(nn.Module):
    """Compression tokens for one model: their embeddings, and what they change. For one thread.

    Attributes:
        tokens: (most, hidden size) embeddings of the compression tokens, fp32.
        changes: one `LowRank` per attention projection.
        rank: of the changes.
        alpha: they are multiplied by `alpha / rank`.
    """

    def __init__(self, model: PreTrainedModel, *, most: int = 8, rank: int = 16, alpha: float = 32.0) -> None:
        """Hook a fresh adapter into a model, which stays as it is until `at` is entered.

        Args:
            model: a decoder whose layers have `self_attn.q_proj` and so on.
            most: compression tokens per step, at most.
            rank: of the changes.
            alpha: see `Adapter`.

        Raises:
            InvalidInput: a number is below 1.
            ModelError: the model has no such projections.
        """
        super().__init__()
        if most < 1 or rank < 1:
            raise InvalidInput(f"an adapter needs at least one token and rank 1, not {most} and {rank}", param="rank")
        self.rank, self.alpha = rank, alpha
        self._rows: Tensor | None = None
        linears = _projections(model)
        self.changes = nn.ModuleList(LowRank(path, linear, rank, alpha / rank) for path, linear in linears.items())
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        spread = float(embedding.weight.detach().float().std())
        self.tokens = nn.Parameter(torch.empty(most, embedding.embedding_dim).normal_(std=spread))
        self._hooks = [
            linear.register_forward_hook(self._hook(change))
            for linear, change in zip(linears.values(), self.changes, strict=True)
        ]

    @property
    def most(self) -> int:
        """Compression tokens it has."""
        return self.tokens.shape[0]

    def start_from(self, embedding: Tensor, *, noise: float = 0.02) -> None:
        """Set all compression tokens to a token's (hidden size,) embedding, with a little noise to tell them apart."""
        with torch.no_grad():
            spread = noise * float(embedding.float().std())
            self.tokens.copy_(embedding.float() + spread * torch.randn_like(self.tokens))

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def at(self, rows: Tensor) -> Iterator[None]:
        """Be active at these rows of a flattened (batch * length) input of the forward within."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    def _hook(self, change: nn.Module) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def add(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            rows = self._rows
            if rows is None or not rows.numel():
                return None
            delta: Tensor = change(inputs[0].flatten(0, -2)[rows])
            return output.flatten(0, -2).index_add(0, rows, delta.to(output.dtype)).view_as(output)

        return add


def _projections(model: PreTrainedModel) -> dict[str, nn.Linear]:
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] in PROJECTIONS
    }
    if not found:
        raise ModelError(f"{type(model).__name__} has no attention projections named {', '.join(PROJECTIONS)}")
    return found
