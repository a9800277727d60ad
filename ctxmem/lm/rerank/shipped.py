"""The shipped reranker as a file: int8 weights of what training changed, on top of the packaged MiniLM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertModel

from ctxmem import models
from ctxmem.errors import ModelError
from ctxmem.lm.loading import WEIGHTS, loading_alone
from ctxmem.lm.rerank.interaction import Interaction, Pairs
from ctxmem.lm.rerank.layered import Encoded
from ctxmem.lm.rerank.weights import Resident, RowCache, Streamed, TensorFile
from ctxmem.lm.text import Tokenizer

SHIPPED = Path(__file__).parent / "minilm-interaction.safetensors"
_SCALE = ".scale"
_MIDDLE, _SPREAD = 14.1, 2.0
"""Platt's scaling (1999) of the shipped weights' scores, fitted to 99 dev queries of NQ, SQuAD and SciFact, right
documents against the eight most misleading ones at even odds."""


def write(weights: Mapping[str, Tensor], path: Path, *, card: Mapping[str, str]) -> None:
    """Write trained weights: matrices of layers as int8 with one scale a row, the rest in fp16.

    Args:
        weights: by name, as `Training` leaves them.
        path: the file.
        card: what is written into the file's metadata: recipe, data, figures.
    """
    made: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith("layers.") and value.dim() == 2:
            scale = value.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
            made[name] = (value / scale).round().to(torch.int8)
            made[name + _SCALE] = scale.float()
        else:
            made[name] = value.half().contiguous()
    save_file(made, path, metadata=dict(card))


def relevance(score: float) -> float:
    """A score of the shipped weights on a scale from 0 to 1, in the same order; an empty text's is 0."""
    if score == -math.inf:
        return 0.0
    return 1 / (1 + math.exp((_MIDDLE - score) / _SPREAD))


class InteractionModel:
    """The shipped reranker behind the engine's port.

    Args:
        path: weights written by `write`; the shipped ones by default.
        stream: hold two layers and the embedding rows in use instead of the whole model.
        longest: tokens of a document that are read.

    Raises:
        ModelError: the weights or the packaged MiniLM are missing or broken.
    """

    def __init__(self, path: Path = SHIPPED, *, stream: bool = False, longest: int = 254) -> None:
        folder = models.locate("minilm")
        self.tokenizer = Tokenizer.load(folder)
        self._base, self._own = TensorFile(folder / WEIGHTS), TensorFile(path)
        try:
            with loading_alone():
                body = self._skeleton(folder) if stream else AutoModel.from_pretrained(folder, local_files_only=True)
            with safe_open(path, "pt") as file:
                frequency = file.get_tensor("frequency").float()
                self.card: dict[str, str] = file.metadata() or {}
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"cannot load the reranker in {path}: {error}") from error
        self.model = Interaction(body, frequency).eval()
        self.layers: int = body.config.num_hidden_layers
        self.exits = frozenset(range(self.layers + 1))  # at 0 by the words' own vectors
        self._longest = min(longest, body.config.max_position_embeddings - 2)
        self.name = f"minilm-interaction-{blake2b(path.read_bytes(), digest_size=8).hexdigest()}-{self._longest}"
        self._take_heads()
        self.weights: Resident | Streamed = self._streamed() if stream else self._resident()

    def encode(self, query: str, texts: Sequence[str]) -> Encoded:
        read = [text[: 16 * self._longest] for text in texts]
        asked, *rows = (one.ids for one in self.tokenizer.encode([query, *read]))
        return Encoded(asked[: self._longest // 2], tuple(row[: self._longest] for row in rows))

    def begin(self, encoded: Encoded, places: Sequence[int]) -> Pairs:
        return self.model.begin(encoded.query, [encoded.rows[place] for place in places])

    def advance(self, at: int, state: Pairs) -> Pairs:
        return self.model.advance(at, state, layer=self.weights.layer(at))

    def scores(self, done: int, state: Pairs) -> Tensor:
        return state.expected

    def close(self) -> None:
        self.weights.close()
        self._base.close()
        self._own.close()

    def _skeleton(self, folder: Path) -> BertModel:
        """The body with one layer and without its words' vectors, which are read when they are needed."""
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        depth, config.num_hidden_layers, config.vocab_size = config.num_hidden_layers, 1, 1
        body = BertModel(config)
        config.num_hidden_layers = depth
        for part, weights in body.embeddings.named_parameters():
            if not part.startswith("word_"):
                self._base.read(f"embeddings.{part}", weights.data)
        return body

    def _take_heads(self) -> None:
        for name, weights in self.model.named_parameters():
            foreseen = name.startswith("foresights.") and name in self._own  # files of before have none
            if foreseen or name.startswith(("heads.", "gates", "segment")):
                weights.data.copy_(self._own.read(name))

    def _resident(self) -> Resident:
        for at, layer in enumerate(self.model.layers):
            self._fill(at, layer)
        return Resident(list(self.model.layers))

    def _streamed(self) -> Streamed:
        template = self.model.layers[0]
        self.model.layers = nn.ModuleList()
        rows: Any = RowCache(self._base, "embeddings.word_embeddings.weight")
        self.model.embeddings.word_embeddings = rows
        return Streamed(template, self._fill, self.layers)

    def _fill(self, at: int, layer: nn.Module) -> None:
        for part, weights in layer.named_parameters():
            own, base = f"layers.{at}.{part}", f"encoder.layer.{at}.{part}"
            if own + _SCALE in self._own:
                torch.mul(self._own.read(own), self._own.read(own + _SCALE), out=weights.data)
            elif own in self._own:
                weights.data.copy_(self._own.read(own))
            else:
                self._base.read(base, weights.data)
