"""The tool `recall` in a session: what has left the context is found again, in the log and by no model.

A search reads the newest branch and ranks it by BM25; it takes what the log is long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.compressors.mem1.recall import Hit, Index
from ctxmem.errors import NotFound
from ctxmem.ids import item_of_event
from ctxmem.types import Message

if TYPE_CHECKING:
    from ctxmem.manager.scopes import Scopes

MOST_TOLD = 20_000
"""Characters of one answer of the tool."""


def recalled(scopes: Scopes, asked: str, k: int) -> tuple[Hit, ...]:
    """See `Scopes.recall`."""
    handle = asked.strip().strip("[]")
    if handle.startswith("it_"):
        return _item(scopes, handle)
    try:
        return tuple(Hit(item_of_event(event.id), _words(event.raw), 1.0) for event in scopes.expand(handle))
    except NotFound:
        index = Index()
        for event in scopes.said():
            if event.kind is None:
                index.add(item_of_event(event.id), _words(event.raw))
        return tuple(index(asked, k))


def told(scopes: Scopes, arguments: str | Mapping[str, Any]) -> str:
    """See `Scopes.answer`."""
    asked = _asked(arguments)
    if not asked:
        return 'error: give {"input": "..."}: a handle such as f3, or words to search for'
    try:
        hits = recalled(scopes, asked, 5)
    except NotFound as error:
        return f"error: {error}"
    text = "\n".join(f"[{hit.id}] {hit.text}" for hit in hits) or "nothing found"
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}\n[cut: {len(text)} characters]"


def _item(scopes: Scopes, item: str) -> tuple[Hit, ...]:
    """An item of this session, or content that is kept under its hash."""
    event = scopes.manager.engine.store.event(scopes.manager.tenant, f"ev_{item[3:]}")
    if event is not None and event.session_id != scopes.session_id:
        raise NotFound(f"session {scopes.session_id!r} has no item {item!r}")
    return (Hit(item, _words(scopes.manager.original(item)), 1.0),)


def _asked(arguments: str | Mapping[str, Any]) -> str:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return ""
    given = arguments.get("input") if isinstance(arguments, Mapping) else None
    return given.strip() if isinstance(given, str) else ""


def _words(raw: bytes) -> str:
    message: Message = chat.parse(raw)
    return "\n".join(part.text for part in message.parts)
