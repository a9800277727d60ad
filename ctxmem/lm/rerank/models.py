"""From a reranker's name to the layered model that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.lm.causal import fingerprint
from ctxmem.lm.loading import loading_alone, model_folder
from ctxmem.lm.products import widen
from ctxmem.lm.rerank.decoder import ResidentDecoder, StreamedDecoder
from ctxmem.lm.rerank.layered import CrossEncoder, Decoder, LayeredModel
from ctxmem.lm.rerank.shipped import SHIPPED, InteractionModel
from ctxmem.lm.text import Tokenizer


def load_model(name: str, *, scorer: str = "auto", stream: bool = False, cache_dir: Path | None = None) -> LayeredModel:
    """The layered model of a name; see `Reranker.load`.

    Raises:
        ModelError: it is missing or broken.
        InvalidInput: the scorer does not fit the model.
    """
    weights = Path(name).expanduser()
    if name == SHIPPED.stem:
        return InteractionModel(stream=stream)
    if weights.suffix == ".safetensors" and weights.is_file():
        return InteractionModel(weights, stream=stream)
    folder = model_folder(name, cache_dir=cache_dir)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = _kind(config, scorer)
        if kind == "cross_encoder":
            return _cross_encoder(folder, stream=stream)
        return _decoder(folder, yes_no=kind == "yes_no", stream=stream)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise ModelError(f"cannot load the reranker in {folder}: {error}") from error


def _kind(config: Any, scorer: str) -> str:
    """How a model scores, by its architecture unless the caller says."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    encoder = architecture.endswith("ForSequenceClassification")
    if scorer == "auto":
        return "cross_encoder" if encoder else "query_likelihood"
    if scorer not in ("cross_encoder", "query_likelihood", "yes_no"):
        raise InvalidInput(f"no scorer {scorer!r}: cross_encoder, query_likelihood or yes_no", param="scorer")
    if encoder != (scorer == "cross_encoder"):
        raise InvalidInput(f"a {architecture or 'model'} cannot score by {scorer}", param="scorer")
    return scorer


def _cross_encoder(folder: Path, *, stream: bool) -> CrossEncoder:
    if stream:
        raise InvalidInput("a cross-encoder is kept resident; the shipped reranker and decoders stream", param="memory")
    with loading_alone():
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    if not hasattr(model.base_model, "encoder") or not hasattr(model.base_model, "pooler"):
        raise ModelError(f"{folder} is not of a BERT shape")
    return CrossEncoder(model, Tokenizer.load(folder), name=f"{folder.name}-{fingerprint(model)}")


def _decoder(folder: Path, *, yes_no: bool, stream: bool) -> Decoder:
    tokenizer = Tokenizer.load(folder)
    if stream:
        size = (folder / "model.safetensors").stat()
        name = f"{folder.name}-{size.st_size}-{size.st_mtime_ns}"
        return Decoder(StreamedDecoder(folder), tokenizer, name=name, yes_no=yes_no)
    with loading_alone():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    widen(model)
    model.requires_grad_(requires_grad=False)
    return Decoder(ResidentDecoder(model), tokenizer, name=f"{folder.name}-{fingerprint(model)}", yes_no=yes_no)
