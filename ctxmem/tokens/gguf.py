"""The tokenizer, chat template and window in a GGUF, written as the files that Hugging Face libraries read.

A GGUF keeps them as metadata; reading that takes the `gguf` package and no torch. The folder gets `tokenizer.json`,
`chat_template.jinja` and `tokenizer_config.json` (special tokens, and the window as `model_max_length`), from which
`ctxmem.tokens.hf` and transformers' `AutoTokenizer` build the same tokenizer.

Sources: `tokenizer.ggml.*` in the GGUF specification; the pre-tokenizer of `smollm` in llama.cpp's `llama-vocab.cpp`,
which cuts at every digit before GPT-2's pattern. transformers 5.23 has no such entry and leaves the digits out when it
converts the same file: two line ends or blanks before a number are two tokens there, and one here, as in training.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxmem import models
from ctxmem.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

Progress = Callable[[str], None]
"""Told the name of each step of a conversion as it starts."""

_CONTROL = 3  # token type of the GGUF specification
_FORMAT = 1  # of the written files; a folder with another one is written again


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a GGUF says about its tokenizer.

    Attributes:
        tokens: the vocabulary by id, in the byte-level alphabet.
        merges: pairs of the byte-pair encoding, best first.
        control: ids of the control tokens.
        pre: name of the pre-tokenizer.
        special: `bos_token` and the like, by their names in `tokenizer_config.json`.
        template: the chat template in Jinja; empty without one.
        window: context window in tokens; None when the file does not say.
    """

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    control: tuple[int, ...]
    pre: str
    special: Mapping[str, str]
    template: str
    window: int | None


def ensure(name: str, *, cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder of a packaged model with its tokenizer files in it; they are written when missing or outdated.

    Args:
        name: name or alias of a packaged model; one packaged as a folder is used where it lies.
        cache_dir: folder that holds everything ctxmem caches.
        progress: told each step; not called when there is nothing to do.

    Raises:
        ModelError: the model is unknown or not installed, the GGUF cannot be read, or the folder cannot be written.
    """
    source = models.locate(name)
    if source.is_dir():
        return source
    folder = models.home(name, cache_dir)
    if _stamp(folder) != _origin(source):
        write(source, folder, progress=progress)
    return folder


def write(source: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Write the tokenizer files of a GGUF into a folder; its other files stay as they are.

    Each file appears whole or not at all, the one that marks the folder as complete last. Two processes may do this at
    once: both write the same bytes.

    Raises:
        ModelError: the GGUF cannot be read, its tokenizer is of an unknown kind, or the folder cannot be written.
    """
    tell = progress or (lambda step: None)
    tell("reading the GGUF's metadata")
    found = read(source)
    tell("building the tokenizer")
    tokenizer = build(found)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **found.special,
        **({"model_max_length": found.window} if found.window else {}),
        "clean_up_tokenization_spaces": False,
        "ctxmem": _origin(source),
    }
    tell("writing the tokenizer files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "tokenizer.json", tokenizer.to_str())
        _replace(folder / "chat_template.jinja", found.template)
        _replace(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2))
    except OSError as error:
        raise ModelError(f"cannot write the tokenizer of {source.name} to {folder}: {error}") from error


def read(source: Path) -> Metadata:
    """What the GGUF says about its tokenizer.

    Raises:
        ModelError: the `gguf` package is not installed, or the file is no GGUF with a byte-pair tokenizer.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise ModelError("reading a packaged model takes the gguf package: pip install gguf") from error
    try:
        fields = GGUFReader(str(source)).fields
        return _metadata({key: field.contents() for key, field in fields.items() if _wanted(key)})
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{source} is not a GGUF with a byte-pair tokenizer: {error!r}") from error


def build(found: Metadata) -> Tokenizer:
    """The tokenizer that the metadata describes.

    Raises:
        ModelError: its pre-tokenizer is not known.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, processors
    from tokenizers import models as kinds

    vocabulary = {token: i for i, token in enumerate(found.tokens)}
    tokenizer = Tokenizer(kinds.BPE(vocabulary, list(found.merges)))
    tokenizer.pre_tokenizer = _pre_tokenizer(found.pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(found.tokens[i], normalized=False, special=True) for i in found.control])
    return tokenizer


def _pre_tokenizer(name: str) -> PreTokenizer:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if name != "smollm":
        raise ModelError(f"the GGUF's pre-tokenizer {name!r} is not known; known: smollm")
    return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])


def _wanted(key: str) -> bool:
    return key.startswith("tokenizer.") or key.endswith(".context_length")


def _metadata(values: Mapping[str, Any]) -> Metadata:
    tokens = tuple(values["tokenizer.ggml.tokens"])
    if values["tokenizer.ggml.model"] != "gpt2":
        raise ValueError(f"its tokenizer is of kind {values['tokenizer.ggml.model']!r}")
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: values.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
    kinds = values["tokenizer.ggml.token_type"]
    return Metadata(
        tokens=tokens,
        merges=tuple((left, right) for left, right in (merge.split(" ") for merge in values["tokenizer.ggml.merges"])),
        control=tuple(i for i, kind in enumerate(kinds) if kind == _CONTROL),
        pre=values.get("tokenizer.ggml.pre", ""),
        special={name: tokens[i] for name, i in ids.items() if i is not None},
        template=values.get("tokenizer.chat_template", ""),
        window=next((value for key, value in values.items() if key.endswith(".context_length")), None),
    )


def _origin(source: Path) -> dict[str, object]:
    """What the written files depend on."""
    return {"format": _FORMAT, "source": source.name, "bytes": source.stat().st_size}


def _stamp(folder: Path) -> object:
    """The origin noted in a folder; None when its tokenizer is missing or incomplete."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return None
    complete = isinstance(config, dict) and (folder / "tokenizer.json").is_file()
    return config.get("ctxmem") if complete else None


def _replace(path: Path, text: str) -> None:
    """Put a file in place in one step, durably."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
