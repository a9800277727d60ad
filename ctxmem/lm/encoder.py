"""Sentence encoders: texts to vectors of length one. Each implements `ctxmem.ports.Embedder`.

Source: Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), section 3: token vectors of a transformer, pooled by their
mean or the first token's. The folder layout (`modules.json`, `1_Pooling`, `sentence_bert_config.json`) is that of the
sentence-transformers package; it is read here with transformers alone. Static embedders (Model2Vec) take the mean of
one vector per token, and no transformer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from ctxmem.errors import ModelError
from ctxmem.lm.causal import fingerprint
from ctxmem.lm.loading import loading_alone, model_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ctxmem.ports import Embedder

POSITIONS = 8192
"""Tokens, padding included, in one forward pass."""
LONGEST = 512
"""Tokens read of a text when its model does not say."""

_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}
_SURROGATE = re.compile("[\ud800-\udfff]")


class SentenceEncoder:
    """A transformer and its pooling.

    Attributes:
        name: fingerprint of weights, pooling and length; equal names give equal vectors.
        dimensions: length of a vector.
        longest: tokens read of a text; what stands behind them does not count.
    """

    def __init__(self, model: PreTrainedModel, fast: PreTrainedTokenizerFast, *, pooling: str, longest: int) -> None:
        self._model = model.train(mode=False)
        self._fast = fast
        self._pooling = pooling
        self.longest = longest
        self.dimensions: int = model.config.hidden_size
        self.name = f"{pooling}-{longest}-{fingerprint(model)}"

    @classmethod
    def load(cls, folder: Path) -> SentenceEncoder:
        """Read a sentence-transformers folder in fp32; a plain transformer gets mean pooling.

        Raises:
            ModelError: a file is missing or broken, or the model has a part that is not known here.
        """
        _refuse_unknown(folder)
        fast = _tokenizer(folder)
        try:
            with loading_alone():
                model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"cannot load the encoder in {folder}: {error}") from error
        stated = _json(folder / "sentence_bert_config.json").get("max_seq_length") or LONGEST
        most = getattr(model.config, "max_position_embeddings", None) or stated
        return cls(model, fast, pooling=_pooling(folder), longest=min(int(stated), int(most)))

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """(len(texts), dimensions) vectors of length one; queries are read like any text.

        Raises:
            ModelError: a vector is not finite, so the weights are broken.
        """
        del query
        found = torch.zeros(len(texts), self.dimensions)
        if not texts:
            return found.numpy()
        ids = self._fast([_whole(text) for text in texts], truncation=True, max_length=self.longest)["input_ids"]
        for places in _batches([len(line) for line in ids]):
            found[places] = self._pooled([ids[place] for place in places])
        return _unit(found)

    def _pooled(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """(batch, dimensions) pooled vectors."""
        pad, longest = self._fast.pad_token_id or 0, max(map(len, ids))
        rows = torch.tensor([[*line, *[pad] * (longest - len(line))] for line in ids])
        mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in ids])
        with torch.inference_mode():
            states: Tensor = self._model(input_ids=rows, attention_mask=mask).last_hidden_state  # (B, T, width)
        if self._pooling == "cls":
            return states[:, 0]
        summed: Tensor = (states * mask[..., None]).sum(1)
        return summed / mask.sum(1, keepdim=True).clamp(min=1)


class StaticEncoder:
    """One vector per token, and their mean: for installs where a transformer is too much.

    Attributes:
        name: fingerprint of the table.
        dimensions: length of a vector.
    """

    def __init__(self, table: Tensor, fast: PreTrainedTokenizerFast) -> None:
        self._table = table
        self._fast = fast
        self.dimensions = int(table.shape[1])
        self.name = f"static-{fingerprint(torch.nn.ParameterList([table.float()]))}"

    @classmethod
    def load(cls, folder: Path) -> StaticEncoder:
        """Read a Model2Vec folder: `tokenizer.json`, and `embeddings` (vocabulary, width) in `model.safetensors`.

        Raises:
            ModelError: a file is missing or broken.
        """
        try:
            return cls(load_file(folder / "model.safetensors")["embeddings"], _tokenizer(folder))
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(f"cannot load the static embedder in {folder}: {error!r}") from error

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """(len(texts), dimensions) vectors of length one; zero for a text without a known token."""
        del query
        found = torch.zeros(len(texts), self.dimensions)
        if texts:
            ids = self._fast([_whole(text) for text in texts], add_special_tokens=False)["input_ids"]
            unknown = self._fast.unk_token_id
            for place, line in enumerate(ids):
                known = [id for id in line if id != unknown]
                if known:
                    found[place] = self._table[known].float().mean(0)
        return _unit(found)


@lru_cache(maxsize=4)
def embedder_named(name: str = "minilm", *, cache_dir: Path | None = None) -> Embedder:
    """The embedder behind a setting: a packaged name, a folder or a hub id of either kind.

    Raises:
        ModelError: it is not there, or not an encoder; says what to install.
    """
    folder = model_folder(name, cache_dir=cache_dir)
    if _json(folder / "config.json").get("model_type") == "model2vec":
        return StaticEncoder.load(folder)
    return SentenceEncoder.load(folder)


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json")
    told = _json(folder / "tokenizer_config.json")
    names = {key: told[key] for key in ("pad_token", "unk_token") if isinstance(told.get(key), str)}
    try:
        fast = PreTrainedTokenizerFast(tokenizer_file=str(path), **names)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ModelError(f"{path} is not a tokenizer: {error}") from error
    fast.backend_tokenizer.no_padding()
    fast.backend_tokenizer.no_truncation()
    return fast


def _refuse_unknown(folder: Path) -> None:
    modules = _json(folder / "modules.json", empty=[])
    kinds = {str(module.get("type", "")).rpartition(".")[2] for module in modules}
    if kinds - _KNOWN_MODULES:
        raise ModelError(f"the encoder in {folder} has parts that are not known: {', '.join(kinds - _KNOWN_MODULES)}")


def _pooling(folder: Path) -> str:
    """`mean` or `cls`.

    Raises:
        ModelError: the model pools otherwise.
    """
    told = _json(folder / "1_Pooling" / "config.json", empty={"pooling_mode_mean_tokens": True})
    if told.get("pooling_mode_cls_token") or told.get("pooling_mode") == "cls":
        return "cls"
    if told.get("pooling_mode_mean_tokens") or told.get("pooling_mode") == "mean":
        return "mean"
    raise ModelError(f"the encoder in {folder} pools in a way that is not known: {told}")


def _json(path: Path, *, empty: Any = None) -> Any:
    """The file's JSON; `empty`, by default an empty object, when there is no file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {} if empty is None else empty
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts of like length, so that a padded batch has at most `POSITIONS` positions."""
    grouped: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if grouped and (len(grouped[-1]) + 1) * lengths[grouped[-1][0]] <= POSITIONS:
            grouped[-1].append(place)
        else:
            grouped.append([place])
    return grouped


def _whole(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _unit(vectors: Tensor) -> NDArray[np.float32]:
    if not bool(torch.isfinite(vectors).all()):
        raise ModelError("the encoder's vectors are not finite: its weights are broken")
    unit: NDArray[np.float32] = functional.normalize(vectors, dim=1).numpy()
    return unit
