"""PydanticAI's conversation store in our database: a record and its new entries are written together or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

try:
    from pydantic import TypeAdapter
    from pydantic_ai.conversation_store import (
        ConversationConflict,
        ConversationEntry,
        ConversationRecord,
        ConversationStore,
    )
    from pydantic_ai.messages import ModelMessagesTypeAdapter
except ImportError as error:
    raise ImportError(
        'ctxmem.agents.pydantic_ai_store needs pydantic-ai-slim: pip install "ctxmem[pydantic-ai]"'
    ) from error

from ctxmem.agents import shared
from ctxmem.manager import ContextManager
from ctxmem.ports import Change, Folder

_RECORD, _ENTRY = "r/", "e/"
_records: TypeAdapter[ConversationRecord] = TypeAdapter(ConversationRecord)


class CtxMemConversationStore(ConversationStore):
    """Conversations of one user. Deleting one deletes the entries that no other conversation's history reaches."""

    def __init__(
        self, db_path: str | Path = shared.IN_MEMORY, *, manager: ContextManager | None = None, user: str = ""
    ) -> None:
        """Open the store.

        Args:
            db_path: the database file; `:memory:` keeps nothing.
            manager: keep the conversations in this manager's database and tenant instead.
            user: whose they are; erasing the user erases them.
        """
        self._folder = shared.KeptFolder(f"pydantic-ai/{user}", db_path, manager, user)

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        return await asyncio.to_thread(lambda: self._record(conversation_id)[0])

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        folder = await asyncio.to_thread(self._folder.read, prefix=_RECORD)
        records = [_records.validate_json(value) for value in folder.items.values()]
        found = [record for record in records if scope is None or record.scope == scope]
        return sorted(found, key=lambda record: record.updated_at, reverse=True)[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        await asyncio.to_thread(self._write, record, new_entries, expected_revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        await asyncio.to_thread(self._delete, conversation_id, expected_revision)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        folder = await asyncio.to_thread(self._item, _ENTRY + entry_id)
        return _entry(entry_id, folder.items[_ENTRY + entry_id])

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._folder.close()

    def _item(self, key: str) -> Folder:
        return self._folder.read(key=key)

    def _record(self, conversation_id: str) -> tuple[ConversationRecord | None, int]:
        """The record, and the folder's revision when it was read."""
        folder = self._item(_RECORD + conversation_id)
        value = folder.items.get(_RECORD + conversation_id)
        return (_records.validate_json(value) if value is not None else None), folder.revision

    def _write(self, record: ConversationRecord, entries: Sequence[ConversationEntry], expected: str | None) -> None:
        put = {_ENTRY + entry.id: _packed(entry) for entry in entries}
        put[_RECORD + record.conversation_id] = _records.dump_json(record)
        head = _ENTRY + record.head_id if record.head_id is not None else None
        while True:
            stored, revision = self._record(record.conversation_id)
            is_known = head is None or head in put or head in self._item(head).items
            if (stored.revision if stored is not None else None) != expected or not is_known:
                raise ConversationConflict(record.conversation_id)
            if self._folder.changed(Change(put=put, expected=revision)):
                return

    def _delete(self, conversation_id: str, expected: str) -> None:
        key = _RECORD + conversation_id
        while True:
            folder = self._folder.read()
            value = folder.items.get(key)
            if value is None or _records.validate_json(value).revision != expected:
                raise ConversationConflict(conversation_id)
            kept = [_records.validate_json(v) for k, v in folder.items.items() if k.startswith(_RECORD) and k != key]
            reached = _reached((tip for record in kept for tip in [record.head_id, *record.branches]), folder.items)
            gone = [k for k in folder.items if k.startswith(_ENTRY) and k[len(_ENTRY) :] not in reached]
            if self._folder.changed(Change(delete=[key, *gone], expected=folder.revision)):
                return


def _reached(tips: Iterable[str | None], items: Mapping[str, bytes]) -> set[str]:
    """The entries on the way from any tip to its beginning."""
    reached: set[str] = set()
    for tip in tips:
        while tip is not None and tip not in reached:
            reached.add(tip)
            tip = json.loads(items[_ENTRY + tip])["parent_id"]
    return reached


def _packed(entry: ConversationEntry) -> bytes:
    (message,) = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")
    return json.dumps({"parent_id": entry.parent_id, "kind": entry.kind, "message": message}).encode()


def _entry(entry_id: str, packed: bytes) -> ConversationEntry:
    fields = json.loads(packed)
    (message,) = ModelMessagesTypeAdapter.validate_python([fields["message"]])
    return ConversationEntry(id=entry_id, parent_id=fields["parent_id"], message=message, kind=fields["kind"])
