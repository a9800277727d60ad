"""From the name in a setting to a folder that transformers can load.

A packaged model comes as GGUF; it is converted once into bf16 safetensors in the cache folder. The tokenizer's files
stand in the same folder and are written by `ctxmem.tokens`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers.utils import logging

from ctxmem import models
from ctxmem.errors import ModelError

WEIGHTS = "model.safetensors"
"""The file whose presence says that a conversion is complete."""

Progress = Callable[[str, float], None]
"""Told what is being done and the share of it that is done, from 0 to 1."""

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_SCRATCH = ".converting-"
_ALONE = threading.RLock()


def model_folder(name: str, *, cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder with a model's `config.json` and safetensors weights, made or fetched when it is not there.

    Args:
        name: a packaged model, a folder, or a hub id, which may stand after `hf:`.
        cache_dir: where converted models are kept; `ctxmem.models.CACHE_DIR` by default.
        progress: told about a conversion.

    Raises:
        ModelError: there is no such model, or no room to convert it.
    """
    if models.is_packaged(name):
        return _packaged_folder(name, cache_dir, progress or _silent)
    name = name.removeprefix("hf:")
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if name and folder.is_dir():
        raise ModelError(f"{folder} holds no config.json, so it is no model folder")
    if not is_hub_id(name):
        known = ", ".join(model.name for model in models.PACKAGED)
        raise ModelError(f"no model {name!r}: give a packaged name ({known}), a model folder or a hub id")
    return from_hub(name)


def convert_once(gguf: Path, folder: Path, progress: Progress | None = None) -> None:
    """Write a GGUF model as bf16 safetensors into `folder`, unless that was done before.

    Safe under many processes: one converts, the others wait for it. Interrupted at any point, the next call starts
    over. Takes about 15 seconds and 1.2 GB of memory for 135M parameters.

    Raises:
        ModelError: the file cannot be read or the folder not written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_process(folder / ".lock"):
            if not (folder / WEIGHTS).exists():
                _convert(gguf, folder, progress or _silent)
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise ModelError(f"cannot convert {gguf.name} into {folder}: {error}") from error


def _packaged_folder(name: str, cache_dir: Path | None, progress: Progress) -> Path:
    folder = models.home(name, cache_dir)
    if (folder / WEIGHTS).exists():
        return folder
    source = models.locate(name)
    if source.is_dir():
        return source
    convert_once(source, folder, progress)
    return folder


def _convert(gguf: Path, folder: Path, progress: Progress) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    for leftover in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leftover)
    progress("reading the packaged weights", 0.0)
    with TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch, loading_alone():
        # Packed weights, the default of transformers, can be neither cast nor saved.
        dense = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, quantization_config=dense)
        progress("writing them as safetensors", 0.8)
        model.bfloat16().save_pretrained(scratch)
        names = sorted((path.name for path in Path(scratch).iterdir()), key=lambda name: name == WEIGHTS)
        for name in names:
            _publish(Path(scratch) / name, folder / name)
    progress("converted", 1.0)


def _publish(source: Path, target: Path) -> None:
    """Move a finished file to its place so that it is there whole or not at all, also after a power cut."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)


@contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Hold a lock that the system drops when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def loading_alone() -> Iterator[None]:
    """Load a model with transformers: one at a time, and quietly, since progress is told by `Progress`.

    While transformers loads it sets torch's default number format for the whole process, so of two models that are
    loaded at once each may get layers of the other's format.
    """
    with _ALONE:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository on the hub, as `owner/name`."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~"))


def from_hub(name: str) -> Path:
    """The folder of a repository in the hub client's own cache, downloaded when it is not there.

    Raises:
        ModelError: it is neither there nor on the hub, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        known = ", ".join(model.name for model in models.PACKAGED)
        raise ModelError(f"cannot fetch {name!r} from the hub: {error}; packaged models: {known}") from error


def _silent(stage: str, share: float) -> None:
    """Report nothing."""
