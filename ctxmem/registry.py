"""Transforms by name. Third parties join through the entry-point group `ctxmem.transforms`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ctxmem.errors import ConfigError

TRANSFORMS = {
    "fit": "ctxmem.compressors.fit:Fit",
    "fold": "ctxmem.compressors.pencil.fold:Fold",
    "consolidate": "ctxmem.compressors.mem1.consolidate:Consolidate",
    "selective": "ctxmem.compressors.selective:SelectiveContext",
}
"""Name to `module:object`; the object is called with its knobs and gives a transform."""


def resolve(name: str) -> Callable[..., Any]:
    """The transform class behind a name.

    Raises:
        ConfigError: nobody registered the name.
    """
    path = TRANSFORMS.get(name) or _third_party().get(name)
    if path is None:
        raise ConfigError(f"unknown transform {name!r}; known: {', '.join(sorted({*TRANSFORMS, *_third_party()}))}")
    module, _, attribute = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def _third_party() -> dict[str, str]:
    from importlib.metadata import entry_points  # it loads fifty modules that most users never need

    return {point.name: point.value for point in entry_points(group="ctxmem.transforms")}
