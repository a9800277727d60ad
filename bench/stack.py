"""The real service for benches and fault tests: `python -m service` in a folder of its own, its parts known by pid."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bench.harness import tree
from bench.servers import Server, free_port
from bench.upstream import MODEL

Part = Literal["gateway", "worker", "valkey"]
_MARKS: Mapping[Part, str] = {"gateway": "service.gateway", "worker": "service.worker", "valkey": "valkey-server"}


@dataclass(frozen=True, slots=True)
class Stack:
    """The running service.

    Attributes:
        server: its supervisor process.
        folder: its data.
    """

    server: Server
    folder: Path

    @property
    def url(self) -> str:
        """Base URL up to and with `/v1`."""
        return self.server.url

    @property
    def root(self) -> str:
        """Base URL without `/v1`, for `/readyz` and its like."""
        return self.server.url.removesuffix("/v1")

    @property
    def headers(self) -> dict[str, str]:
        """What a client authenticates with."""
        return {"authorization": f"Bearer {(self.folder / 'key').read_text().strip()}"}

    def pid(self, part: Part) -> int | None:
        """Of one part; None while it is down."""
        found = (process for process in tree(self.server.pid)[1:] if _MARKS[part] in _command(process))
        return next((process.pid for process in found), None)


def stack(
    folder: Path, upstreams: Sequence[Server] = (), *, model: str = "", settings: Mapping[str, object] | None = None
) -> Stack:
    """The service over scripted upstreams, not yet started.

    Args:
        folder: for its data and its log.
        upstreams: servers it may send to; each serves the scripted model.
        model: the local model; empty for no model worker.
        settings: more of `service.settings.Settings`, by name.
    """
    data = folder / "data"
    port = free_port()
    rows = [{"name": server.name, "base_url": server.url, "models": [MODEL]} for server in upstreams]
    told = {"port": port, "data_dir": data, "model": model, "log_level": "warning", **(settings or {})}
    named = {f"CTXMEM_{name.upper()}": str(value) for name, value in told.items()}
    environment = {**named, "CTXMEM_UPSTREAMS": json.dumps(rows), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    base = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "service"]
    return Stack(Server("ctxmem", argv, f"{base}/v1", f"{base}/readyz", folder / "ctxmem.log", environment), data)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
