"""Opening a manager the way LangGraph's own classes open a database: by a connection string, for a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ctxmem.manager import ContextManager


@contextmanager
def opened(conn_string: str) -> Iterator[ContextManager]:
    """A manager that is closed at the end.

    Args:
        conn_string: a file, a database URL, or `:memory:` for what nobody needs later.
    """
    url = conn_string if "://" in conn_string else f"sqlite:///{conn_string}"
    manager = ContextManager("sqlite://" if conn_string == ":memory:" else url)
    try:
        yield manager
    finally:
        manager.close()
