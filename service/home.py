"""The data folder of one service: private, and locked by one supervisor at a time.

Files: `lock` (held while a supervisor lives) and `service.json` (where the running service listens, for the command
line), beside the database, the local key and the sockets that others keep there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctxmem.errors import ConfigError

LOCK_FILE = "lock"
ADDRESS_FILE = "service.json"


def open_folder(path: Path) -> Path:
    """Make the folder, readable by its owner only.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"the folder {path} cannot be written to")
    return path


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the folder; the lock goes with the process, however it ends.

    Raises:
        ConfigError: another service holds it; says which process.
    """
    with (data_dir / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ConfigError(
                f"a service (process {holder}) already runs on {data_dir}; stop it or choose another data_dir"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def announce(data_dir: Path, base_url: str) -> None:
    """Leave word for the command line where the service listens."""
    _write_private(data_dir / ADDRESS_FILE, json.dumps({"base_url": base_url, "pid": os.getpid()}))


def withdraw(data_dir: Path) -> None:
    """Take that word back."""
    (data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    """Write the file whole or not at all, mode 0600."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
