"""An adapter on disk, in the layout of PEFT and harmless to it.

A folder holds `adapter_config.json` and `adapter_model.safetensors` as PEFT writes them, the embeddings of the
compression tokens, and `ccm_config.json`. A plain PEFT load would change every token by a LoRA meant for a few; so the
configuration asks for activation after a sequence of tokens that no text has, and PEFT leaves the model as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from ctxmem.errors import ModelError
from ctxmem.lm.causal import fingerprint
from ctxmem.lm.ccm.adapter import PROJECTIONS, Adapter, LowRank
from ctxmem.lm.loading import from_hub, is_hub_id

CONFIG = "ccm_config.json"
TOKENS = "ccm_tokens.safetensors"
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
FORMAT = 1

_PREFIX = "base_model.model."


def save_adapter(adapter: Adapter, model: PreTrainedModel, folder: Path, *, sink: int, note: Mapping[str, Any]) -> None:
    """Write an adapter; weights are kept in bf16.

    Args:
        adapter: of the model.
        model: its base; its fingerprint is written, not its weights.
        folder: made when it is not there.
        sink: the token at position 0 that it was trained with.
        note: JSON values to keep with it: recipe, data, figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: weights.detach().bfloat16().contiguous() for name, weights in _named(adapter).items()}
    save_file(kept, folder / PEFT_WEIGHTS, metadata={"format": "pt"})
    save_file({"tokens": adapter.tokens.detach().bfloat16().contiguous()}, folder / TOKENS)
    peft = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.config._name_or_path.rpartition("/")[2],
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(PROJECTIONS),
        "alora_invocation_tokens": [sink] * 8,
    }
    own = {
        "format": FORMAT,
        "base": fingerprint(model, number_format=False),
        "sink": sink,
        "most": adapter.most,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "note": dict(note),
    }
    for name, content in ((PEFT_CONFIG, peft), (CONFIG, own)):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(name: str | Path, model: PreTrainedModel) -> tuple[Adapter, int]:
    """Hook a stored adapter into its base; returns it and the sink token.

    Args:
        name: a folder, or the hub id of a repository with the same files, which may stand after `hf:`.
        model: the base.

    Raises:
        ModelError: it is missing, damaged, of a later format, or made for another base.
    """
    folder = _folder(name)
    config = _config(folder)
    if config["base"] != fingerprint(model, number_format=False):
        raise ModelError(f"the adapter in {folder} was trained for another base model")
    try:
        weights = load_file(folder / PEFT_WEIGHTS)
        tokens = load_file(folder / TOKENS)["tokens"]
        adapter = Adapter(model, most=config["most"], rank=config["rank"], alpha=config["alpha"])
        with torch.no_grad():
            adapter.tokens.copy_(tokens.float())
            for name, own in _named(adapter).items():
                own.copy_(weights[name].float())
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(f"the adapter in {folder} cannot be read: {error}") from error
    return adapter.requires_grad_(requires_grad=False), config["sink"]


def _folder(name: str | Path) -> Path:
    told = str(name).removeprefix("hf:")
    folder = Path(told).expanduser()
    return from_hub(told) if isinstance(name, str) and is_hub_id(told) and not folder.is_dir() else folder


def _named(adapter: Adapter) -> dict[str, Tensor]:
    """The weights of the changes under the names that PEFT gives them."""
    named: dict[str, Tensor] = {}
    for change in adapter.changes:
        assert isinstance(change, LowRank)
        named[f"{_PREFIX}{change.path}.lora_A.weight"] = change.down
        named[f"{_PREFIX}{change.path}.lora_B.weight"] = change.up
    return named


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise ModelError(f"the adapter in {folder} has format {config['format']}; this version reads {FORMAT}")
        return {name: kind(config[name]) for name, kind in _FIELDS.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no adapter of compressed memory: {error!r}") from error


_FIELDS = {"base": str, "sink": int, "most": int, "rank": int, "alpha": float}
