"""The counter for a model's name: the one place where names are told apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock

from ctxmem import models
from ctxmem.errors import ModelError
from ctxmem.ports import Counter
from ctxmem.tokens.estimate import Estimate

_HF = "hf:"
_counters: dict[Hashable, Counter] = {}
_lock = Lock()


def counter_for(model: str, *, cache_dir: Path | None = None) -> Counter:
    """The counter for a model.

    Names are tried in this order: a packaged model (`smollm2`), `hf:` with a hub id or path, a folder that holds a
    `tokenizer.json`, one of OpenAI's models, and, for any other name, an `Estimate`. A counter is made once and shared;
    making one may take seconds when a packaged model was not used before.

    Args:
        model: the name.
        cache_dir: folder that holds everything ctxmem caches.

    Raises:
        ModelError: a packaged or `hf:` tokenizer was asked for and is missing.
    """
    if models.is_packaged(model):
        name = models.packaged(model).name
        return _once((name, models.home(name, cache_dir)), lambda: _packaged(name, cache_dir))
    if model.startswith(_HF):
        return _once(model, lambda: _reference(model.removeprefix(_HF)))
    if _is_folder(model):
        return _once(f"{_HF}{model}", lambda: _reference(model))
    return _hosted(model)


def _once(key: Hashable, make: Callable[[], Counter]) -> Counter:
    """The counter under the key, made by the first who asks."""
    with _lock:
        if key not in _counters:
            _counters[key] = make()
        return _counters[key]


def _is_folder(model: str) -> bool:
    """Whether the name is the path of a folder with a tokenizer; any text may come in as a name."""
    try:
        return bool(model) and (Path(model).expanduser() / "tokenizer.json").is_file()
    except (OSError, RuntimeError, ValueError):  # too long for a path, or the home of nobody
        return False


def _packaged(name: str, cache_dir: Path | None) -> Counter:
    from ctxmem.tokens import gguf

    return _folder(gguf.ensure(name, cache_dir=cache_dir))


def _reference(reference: str) -> Counter:
    from ctxmem.tokens.folder import find

    return _folder(find(reference))


def _folder(folder: Path) -> Counter:
    try:
        from ctxmem.tokens.hf import HFCounter
    except ModuleNotFoundError as error:
        raise ModelError(f"exact counts need {error.name}: pip install 'ctxmem[tokens]'") from error
    return HFCounter(folder)


def _hosted(model: str) -> Counter:
    """A counter for a model whose name alone is known. Many names share one, so names made up cost no memory."""
    from ctxmem.tokens.openai import OpenAICounter, family

    found = family(model)
    if found is None:
        return _once(None, Estimate)
    try:
        return _once(found, lambda: OpenAICounter(found))
    except ModelError:
        return _once((found, "estimate"), lambda: Estimate(window=found.window))
