"""New SQLite databases for tests that are about something else than how one is made."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from ctxmem.stores.sql import SqlStore


def database(path: Path) -> str:
    """URL of a database at a path; a new one is a copy of one that this process has migrated, which takes a while."""
    if not path.exists():
        shutil.copyfile(_migrated(), path)
    return f"sqlite:///{path}"


@cache
def _migrated() -> Path:
    path = Path(tempfile.mkdtemp(prefix="ctxmem-")) / "empty.db"
    SqlStore(f"sqlite:///{path}").close()
    return path
