"""`python -m service.worker --socket PATH --model smollm2 --cache-dir DIR`: the model worker process."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from ctxmem.manager.engine import cache_at
from ctxmem.retrieval.disk import OnDisk
from ctxmem.retrieval.tiered import HOT_BYTES, KEPT
from service import settings
from service.worker.documents import Documents
from service.worker.server import create_app

NICENESS = 10
"""Requests come before the model: the worker yields the processor to the gateway."""

GRACE = 8
"""Seconds that replies under way get after SIGTERM."""

IDLE = 120
"""Seconds that an idle connection is kept."""


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal comes."""
    asked = _parser().parse_args(argv)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    listening = _tcp(asked.port) if asked.socket is None else _unix(asked.socket)
    config = uvicorn.Config(
        create_app(asked.model, adapter=asked.adapter, cache_dir=asked.cache_dir, documents=_documents(asked)),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
    )
    signal.signal(signal.SIGTERM, _leave)  # uvicorn drains first, then raises the signal again for who was there before
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        if asked.socket is not None:
            asked.socket.unlink(missing_ok=True)


def _leave(number: int, frame: FrameType | None) -> None:
    """End after a drain, in good order."""
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.worker", description="The model worker of ctxmem.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="Unix socket to listen on")
    where.add_argument("--port", type=int, help="loopback port to listen on instead")
    parser.add_argument("--model", default="smollm2", help="packaged name, folder or hub id")
    parser.add_argument("--cache-dir", type=Path, default=None, help="folder of converted models")
    parser.add_argument("--adapter", default="", help="folder or hub id; empty for the one that ships")
    parser.add_argument("--embedder", default="minilm", help="packaged name, folder or hub id")
    parser.add_argument("--vectors", type=Path, default=None, help="folder of vectors; without one all are in memory")
    parser.add_argument("--vectors-in-memory", type=int, default=KEPT, help="of a namespace, before most go there")
    parser.add_argument("--vectors-device", default="", help="torch device that holds some of them; empty for none")
    parser.add_argument("--vectors-device-bytes", type=int, default=HOT_BYTES, help="of vectors on it, at most")
    return parser


def _documents(asked: argparse.Namespace) -> Documents:
    """The library on the database that the environment names: a URL may have a password, which arguments would show."""
    options = {"embedder": asked.embedder, "cache_dir": asked.cache_dir}
    cache = partial(cache_at, settings.told("redis_url"))
    return Documents(settings.told("database_url"), **options, disk=_disk(asked), cache=cache)


def _disk(asked: argparse.Namespace) -> OnDisk | None:
    """Indexes on disk.

    Raises:
        ConfigError: there is no such device.
    """
    if asked.vectors is None:
        return None
    hot = None
    if asked.vectors_device:
        from ctxmem.lm.tier import TorchTier

        hot = TorchTier(asked.vectors_device, room=asked.vectors_device_bytes)
    return OnDisk(asked.vectors, kept=asked.vectors_in_memory, hot=hot)


def _unix(path: Path) -> socket.socket:
    """Listen on a Unix socket that only this user may open. One that a dead worker left is taken over."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if path.is_socket() and probe.connect_ex(str(path)) == 0:
            sys.exit(f"another model worker listens on {path}")
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    return listening


def _tcp(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    return listening


if __name__ == "__main__":
    main()
