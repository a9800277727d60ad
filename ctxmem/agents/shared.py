"""One manager for each database file in a process, as long as somebody uses it."""

from __future__ import annotations

import threading
from pathlib import Path

from ctxmem.manager import ContextManager

IN_MEMORY = ":memory:"

_lock = threading.Lock()
_open: dict[str, tuple[ContextManager, int]] = {}


def acquire(db_path: str | Path) -> ContextManager:
    """The manager over a file, opened when nobody has it; `:memory:` is everybody's own. Pair with `release`."""
    if str(db_path) == IN_MEMORY:
        return ContextManager("sqlite://")
    url = f"sqlite:///{Path(db_path).expanduser().resolve()}"
    with _lock:
        manager, users = _open.get(url) or (ContextManager(url), 0)
        _open[url] = (manager, users + 1)
        return manager


def release(manager: ContextManager) -> None:
    """Give a manager back; the last one to do so closes it."""
    with _lock:
        url = next((url for url, (held, _) in _open.items() if held is manager), None)
        users = _open[url][1] - 1 if url is not None else 0
        if url is not None and users:
            _open[url] = (manager, users)
            return
        if url is not None:
            del _open[url]
    manager.close()
