"""What earlier runs worked out, in one SQLite file: scores of texts, and what a peer made of a text.

Only for quality, where a figure is a pure function of its inputs. Nothing that is timed goes through here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from ctxmem.ports import Cache


class KeptResults(Cache):
    """A cache in a file that forgets nothing."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it if need be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = sqlite3.connect(path, check_same_thread=False, timeout=60)
        self._rows.execute("CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value BLOB)")

    def get(self, tenant: str, key: str) -> bytes | None:
        found = self._rows.execute("SELECT value FROM kept WHERE name = ?", (f"{tenant}:{key}",)).fetchone()
        return found[0] if found else None

    def put(self, tenant: str, key: str, value: bytes, *, ttl: float) -> None:
        with self._rows:
            self._rows.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (f"{tenant}:{key}", value))

    def drop(self, tenant: str, keys: Sequence[str]) -> int:
        with self._rows:
            return sum(
                self._rows.execute("DELETE FROM kept WHERE name = ?", (f"{tenant}:{key}",)).rowcount for key in keys
            )

    def text(self, name: str, asked: Sequence[object], make: Callable[[], str]) -> str:
        """What `make` gave for this before, else what it gives now."""
        key = f"{name}:{sha256(json.dumps(list(asked)).encode()).hexdigest()}"
        found = self.get("bench", key)
        if found is not None:
            return found.decode()
        made = make()
        self.put("bench", key, made.encode(), ttl=0)
        return made
