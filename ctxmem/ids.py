"""Names of rows: a prefix and 32 hex digits that sort by time (RFC 9562, version 7)."""

from __future__ import annotations

import os
import threading
import time

from ctxmem.errors import NotFound

HANDLE_DIGITS = 20
"""Hex digits of a content's hash that stand in a mark: enough within one tenant, and few tokens."""

_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A fresh id such as `ev_0190…`; ids made later in one process sort later."""
    global _last
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1_000_000 << 12)
        stamp = _last
    high = (stamp >> 12) << 16 | 0x7000 | stamp & 0xFFF
    low = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1 | 1 << 63
    return f"{prefix}_{high << 64 | low:032x}"


def item_of_event(event_id: str) -> str:
    """The handle that restores an event."""
    return "it_" + event_id.removeprefix("ev_")


def item_of_artifact(sha256: str) -> str:
    """The handle that restores kept content, by its hash or the first `HANDLE_DIGITS` of it."""
    return "it_" + sha256


def parse_item(item_id: str) -> tuple[str, str]:
    """What an item id names: `("event", event id)` or `("artifact", sha256, or the first digits of it)`.

    Raises:
        NotFound: it is not an item id.
    """
    kind, _, name = item_id.partition("_")
    if kind == "it" and set(name) <= set("0123456789abcdef"):
        if len(name) == 32:
            return "event", f"ev_{name}"
        if len(name) in (HANDLE_DIGITS, 64):
            return "artifact", name
    raise NotFound(f"no item {item_id!r}")
