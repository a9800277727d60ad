"""What may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Cache(Protocol):
    """A shared cache that may forget at any time and never raises for being away."""

    def get(self, tenant: str, key: str) -> bytes | None:
        """The value, or None when unknown, expired or out of reach."""
        ...

    def put(self, tenant: str, key: str, value: bytes, *, ttl: float) -> None:
        """Keep the value for about `ttl` seconds."""
        ...

    def drop(self, tenant: str, keys: Sequence[str]) -> int:
        """Forget the keys; returns how many were there."""
        ...

    def clear(self, tenant: str) -> int:
        """Forget all keys of the tenant; returns how many there were."""
        ...
