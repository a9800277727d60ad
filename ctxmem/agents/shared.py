"""What frameworks keep in a database: one manager for each file in a process, as long as somebody uses it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from ctxmem.errors import Conflict
from ctxmem.manager import ContextManager
from ctxmem.ports import Change, Folder

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


class KeptFolder:
    """One folder of a framework: in a manager's database, or in a file that is opened for it."""

    def __init__(self, name: str, db_path: str | Path, manager: ContextManager | None, user: str) -> None:
        """Open the database.

        Args:
            name: the folder's.
            db_path: the database file; `:memory:` keeps nothing.
            manager: use this manager's database and tenant instead.
            user: whose the folder is; erasing the user erases it.
        """
        held = manager if manager is not None else acquire(db_path)
        self._owned = held if manager is None else None
        self._folders, self._tenant = held.engine.store.folders, held.tenant
        self._name, self._user = name, user

    def read(self, *, last: int | None = None, key: str | None = None, prefix: str = "") -> Folder:
        """See `Folders.folder`."""
        return self._folders.folder(self._tenant, self._name, last=last, key=key, prefix=prefix)

    def change(self, change: Change) -> None:
        """Write; durable when this returns.

        Raises:
            Conflict: the folder is at another revision than expected.
        """
        self._folders.change(self._tenant, self._name, replace(change, user_id=self._user)).result()

    def changed(self, change: Change) -> bool:
        """The same; False when somebody else wrote first."""
        try:
            self.change(change)
        except Conflict:
            return False
        return True

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        if self._owned is not None:
            release(self._owned)
            self._owned = None
