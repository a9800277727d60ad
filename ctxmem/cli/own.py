"""A service of the command's own, for as long as it is needed: started, waited for, stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    process = subprocess.Popen([*command, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, process_group=0)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Unavailable(f"the service does not start (exit code {process.wait(STOP_PATIENCE)})")
        address = json.loads(line)
        yield RemoteService(address["base_url"], address["key"])
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
