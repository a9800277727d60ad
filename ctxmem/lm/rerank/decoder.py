"""The pieces of a decoder: all in memory, or read from its safetensors while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ctxmem.errors import ModelError
from ctxmem.lm.loading import WEIGHTS, loading_alone
from ctxmem.lm.products import product, widen
from ctxmem.lm.rerank.weights import Resident, RowCache, Streamed, TensorFile

_SLAB = 4096
_EMBEDDINGS = "model.embed_tokens.weight"
_OUTPUT = "lm_head.weight"


class ResidentDecoder:
    """A loaded transformers model taken apart."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self.count: int = model.config.num_hidden_layers
        self.weights: Resident | Streamed = Resident(body.layers)
        self.norm: nn.Module = body.norm
        self.rotary: nn.Module = body.rotary_emb
        self._embeddings = body.embed_tokens
        self._output: Tensor = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]

    def embed(self, ids: Tensor) -> Tensor:
        made: Tensor = self._embeddings(ids)
        return made

    def rows(self, tokens: Sequence[int]) -> Tensor:
        return self._output[list(tokens)]

    def log_probability(self, states: Tensor, tokens: Tensor) -> Tensor:
        logits = product(states, self._output).float()
        return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


class StreamedDecoder:
    """A decoder of which two layers, the norm and the embedding rows in use are in memory.

    Args:
        folder: with `config.json` and one `model.safetensors`.

    Raises:
        ModelError: the weights are missing, in several files, or not of a Llama or Qwen shape.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / WEIGHTS
        if not path.is_file():
            raise ModelError(f"{folder} holds no {WEIGHTS}; a model in several files cannot be streamed")
        self._file = TensorFile(path)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"), loading_alone():
            shell: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
        body = shell.base_model
        if _EMBEDDINGS not in self._file or not hasattr(body, "layers"):
            raise ModelError(f"{path} is not of a Llama or Qwen shape")
        self.count: int = config.num_hidden_layers
        self.norm: nn.Module = body.norm.to_empty(device="cpu")
        self._load("model.norm", self.norm)
        self.rotary: nn.Module = type(body.rotary_emb)(config=config)
        self._rows = RowCache(self._file, _EMBEDDINGS)
        self._output = _OUTPUT if _OUTPUT in self._file else _EMBEDDINGS
        self._vocabulary: int = config.vocab_size
        template = body.layers[0].to_empty(device="cpu").eval()
        widen(template)
        self.weights: Resident | Streamed = Streamed(template, self._fill, self.count)

    def embed(self, ids: Tensor) -> Tensor:
        self._file.check()
        made: Tensor = self._rows(ids)
        return made

    def rows(self, tokens: Sequence[int]) -> Tensor:
        return self._file.rows(self._output, list(tokens))

    def log_probability(self, states: Tensor, tokens: Tensor) -> Tensor:
        """By slabs of the vocabulary, so that the output matrix is never held whole."""
        total = torch.full((len(states),), -torch.inf)
        for start in range(0, self._vocabulary, _SLAB):
            slab = self._file.span(self._output, start, min(start + _SLAB, self._vocabulary))
            total = torch.logaddexp(total, product(states, slab).float().logsumexp(-1))
        own = (states * self._file.rows(self._output, tokens.tolist())).float().sum(-1)
        return own - total

    def _fill(self, at: int, layer: nn.Module) -> None:
        self._load(f"model.layers.{at}", layer)

    def _load(self, prefix: str, module: nn.Module) -> None:
        for name, weights in module.named_parameters():
            read = self._file.read(f"{prefix}.{name}", weights.data)
            if read is not weights.data:
                weights.data.copy_(read)
