"""`python -m service.gateway`: the gateway process. Settings come from the environment and the TOML file."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys

import uvicorn

from ctxmem.errors import CtxmemError
from service import settings as settings_module
from service import wiring
from service.app import create_app
from service.settings import Settings
from service.upstream.client import Cut

GRACE_S = 120
"""Seconds that open streams get to finish after SIGTERM."""
_M_ARENA_MAX = -8  # glibc, malloc.h


def main() -> int:
    """Serve until SIGTERM; returns the exit code, 2 for wrong settings and 1 for a service that cannot start."""
    _one_heap()
    try:
        settings = settings_module.load()
    except CtxmemError as error:
        return _refuse(error, 2)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # its INFO is about itself
    logging.getLogger("uvicorn.error").addFilter(_worth_saying)
    try:
        _migrate(settings)
        server = uvicorn.Server(config(settings))
    except (CtxmemError, OSError) as error:
        return _refuse(error, 1)
    gc.collect()
    gc.freeze()  # what is loaded now stays: the collector need not look at it again
    return _serve(server)


def config(settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the app.

    Raises:
        ConfigError, StoreError: as `create_app`.
    """
    return uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def _serve(server: uvicorn.Server) -> int:
    """Run until a signal; uvicorn raises it again after the drain, where it has done its work."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None if server.started else sys.exit(0))
    try:
        server.run()
    except SystemExit as stop:
        return 1 if stop.code else 0
    return 0


def _migrate(settings: Settings) -> None:
    """Bring the database up to date in a process of its own: the tools for it would stay in memory for good.

    What goes wrong there is not looked at: it goes wrong here too, when the database is opened.
    """
    child = os.fork()  # before any thread is started
    if child:
        os.waitpid(child, 0)
        return
    try:
        wiring.store(settings).close()
    finally:
        os._exit(0)


def _worth_saying(record: logging.LogRecord) -> bool:
    """An upstream that cut its answer off is counted already; it breaks the client's stream by an exception."""
    return not (record.exc_info and isinstance(record.exc_info[1], Cut))


def _one_heap() -> None:
    """Have all threads share one glibc heap: a heap for each of them keeps tens of MB that nobody uses."""
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _refuse(error: Exception, code: int) -> int:
    sys.stderr.write(f"ctxmem gateway: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
