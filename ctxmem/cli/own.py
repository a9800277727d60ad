"""A service of the command's own, for as long as it is needed: started, waited for, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ctxmem.cli import output
from ctxmem.cli.backend import find_service
from ctxmem.cli.options import Options
from ctxmem.cli.remote import RemoteService
from ctxmem.errors import Unavailable

STOP_PATIENCE = 30.0
"""Seconds that it gets to stop."""


@contextmanager
def running_service(options: Options, data_dir: Path) -> Iterator[RemoteService]:
    """The service that already runs, or one started on `data_dir` and a free port until the block ends.

    Raises:
        Unavailable: it does not start; it has said why on standard error.
    """
    found = find_service(options)
    if found is not None:
        yield found
        return
    command = [sys.executable, "-m", "service", "--json", "--port", "0", "--log-level", "warning"]
    command += ["--stop-with", str(os.getpid()), "--data-dir", str(data_dir)]
    usual = signal.signal(signal.SIGTERM, _leave)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0)
    try:
        yield _announced(process)
    finally:
        _stop(process)
        signal.signal(signal.SIGTERM, usual)


def _announced(process: subprocess.Popen[bytes]) -> RemoteService:
    """The service, once it says where it is.

    Raises:
        Unavailable: it ended before.
    """
    with output.working() as progress:
        progress.add_task("starting a service")
        line = process.stdout.readline() if process.stdout is not None else b""
    if not line:
        raise Unavailable(f"the service does not start (exit code {process.wait(STOP_PATIENCE)})")
    address = json.loads(line)
    return RemoteService(address["base_url"], address["key"])


def _leave(number: int, frame: FrameType | None) -> None:
    """End by SIGTERM as by Ctrl-C: what was started is stopped."""
    raise SystemExit(128 + number)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
