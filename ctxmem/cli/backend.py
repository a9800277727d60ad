"""Where commands find their data: the running service when there is one, else the database itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ctxmem.cli.options import Options
from ctxmem.cli.remote import RemoteService, Wire

ADDRESS_FILE = "service.json"
"""Where a running service says how to reach it."""
KEY_FILE = "key"
"""Where it keeps the local key."""


class Backend(Protocol):
    """What commands need. Results are JSON objects in the shapes of the REST interface."""

    @property
    def where(self) -> str:
        """What it is, for messages."""
        ...

    def compress(self, request: Wire) -> Wire: ...
    def context(self, request: Wire) -> Wire: ...
    def ingest(self, request: Wire) -> Wire: ...
    def search(self, request: Wire) -> Wire: ...
    def receipt(self, request_id: str) -> Wire: ...
    def restore(self, item_id: str) -> bytes:
        """The original message's JSON, byte for byte as it came."""
        ...

    def sessions(self, *, limit: int) -> list[Wire]: ...
    def events(self, session_id: str) -> Iterator[Wire]:
        """Everything logged in a session, in order."""
        ...

    def erase_session(self, session_id: str) -> Wire: ...
    def erase_user(self, user_id: str) -> Wire: ...
    def close(self) -> None: ...


@contextmanager
def connect(options: Options) -> Iterator[Backend]:
    """The running service if one is named or found in the data folder, else the library on its database."""
    backend = _backend(options)
    try:
        yield backend
    finally:
        backend.close()


def _backend(options: Options) -> Backend:
    service = find_service(options)
    if service is not None:
        from ctxmem.cli.service import ServiceBackend

        return ServiceBackend(service)
    from ctxmem.cli.library import LibraryBackend

    return LibraryBackend(options)


def find_service(options: Options) -> RemoteService | None:
    """The service that was named, or one that runs on the data folder; None when there is none."""
    if options.base_url is not None:
        return RemoteService(options.base_url, options.api_key or local_key(options.data_dir))
    address = _read_json(options.data_dir / ADDRESS_FILE).get("base_url")
    if not isinstance(address, str):
        return None
    service = RemoteService(address, options.api_key or local_key(options.data_dir))
    return service if service.alive() else None


def local_key(data_dir: Path) -> str | None:
    """The key in the data folder, if there is one."""
    try:
        return (data_dir / KEY_FILE).read_text().strip() or None
    except OSError:
        return None


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
