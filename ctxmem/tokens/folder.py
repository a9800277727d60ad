"""A model's folder: which files hold its tokenizer, chat templates, special tokens and window, and where it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxmem.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_UNBOUNDED = 10**12  # transformers writes larger windows for "no limit"
_NEEDED = "tokenizer.json tokenizer_config.json chat_template.jinja config.json"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a folder says about reading and writing chats.

    Attributes:
        tokenizer: not shared with anyone yet.
        templates: chat templates by name, the usual one as `default`; empty for a model that does not chat.
        special: `bos_token` and the like.
        window: context window in tokens, the smallest that a file names; None when none does.
        digest: hex fingerprint of tokenizer and templates.
    """

    tokenizer: Tokenizer
    templates: Mapping[str, str]
    special: Mapping[str, str]
    window: int | None
    digest: str


def load(folder: Path) -> ModelFiles:
    """Read a folder.

    Raises:
        ModelError: the tokenizers package or `tokenizer.json` is missing, or a file cannot be read.
    """
    config = _json(folder / "tokenizer_config.json")
    templates = _templates(folder, config)
    content = _bytes(folder / "tokenizer.json")
    if content is None:
        raise ModelError(f"there is no tokenizer.json in {folder}; ctxmem reads no other kind of tokenizer")
    digest = blake2b(content, digest_size=8)
    digest.update(json.dumps(templates, sort_keys=True).encode())
    return ModelFiles(
        tokenizer=_tokenizer(content, folder),
        templates=templates,
        special=_special({**_json(folder / "special_tokens_map.json"), **config}),
        window=_window(config, _json(folder / "config.json")),
        digest=digest.hexdigest(),
    )


def find(reference: str) -> Path:
    """The folder a path or hub id stands for. The hub itself is never asked: only what is in its cache here is found.

    Raises:
        ModelError: there is no such folder, and no such model in the hub's cache.
    """
    try:
        path = Path(reference).expanduser()
        if path.is_dir():
            return path
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{reference[:100]!r} is no path: {error}") from error
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise ModelError(f"{reference!r} is no folder; for hub ids: pip install huggingface_hub") from error
    try:
        cached = try_to_load_from_cache(reference, "tokenizer.json")
    except HFValidationError as error:
        raise ModelError(f"{reference!r} is neither a folder nor a hub id: {error}") from error
    if not isinstance(cached, str):
        raise ModelError(f"{reference!r} is neither a folder nor in the hub's cache: hf download {reference} {_NEEDED}")
    return Path(cached).parent


def _tokenizer(content: bytes, folder: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ModelError("exact counts take the tokenizers package: pip install 'ctxmem[tokens]'") from error
    try:
        return Tokenizer.from_buffer(content)
    except ValueError as error:
        raise ModelError(f"tokenizer.json in {folder} is not a tokenizer: {error}") from error


def _bytes(path: Path) -> bytes | None:
    """The content of a file; None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is no such file."""
    try:
        found = json.loads(_bytes(path) or b"{}")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} must hold an object, got {type(found).__name__}")
    return found


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; one in a file of its own goes before those in the config."""
    alone = _bytes(folder / "chat_template.jinja")
    if alone is not None:
        return {"default": alone.decode(errors="replace")} if alone.strip() else {}
    found = config.get("chat_template") or []
    return {"default": found} if isinstance(found, str) else {entry["name"]: entry["template"] for entry in found}


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    found = {name: config.get(name) for name in _SPECIAL}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _window(tokenizer: Mapping[str, Any], model: Mapping[str, Any]) -> int | None:
    text = model.get("text_config")
    sizes = (
        tokenizer.get("model_max_length"),
        model.get("max_position_embeddings"),
        text.get("max_position_embeddings") if isinstance(text, dict) else None,
    )
    return min((int(size) for size in sizes if isinstance(size, int | float) and 0 < size < _UNBOUNDED), default=None)
