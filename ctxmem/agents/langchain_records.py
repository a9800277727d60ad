"""LangChain's account of what was indexed and when, for `langchain_core.indexing.index`, in ctxmem's database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    from langchain_core.indexing import RecordManager
except ImportError as error:
    raise ImportError(
        'ctxmem.agents.langchain_records needs langchain-core: pip install "ctxmem[langchain]"'
    ) from error

from ctxmem.agents.shared import IN_MEMORY, KeptFolder
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from ctxmem.ports import Change


@dataclass(frozen=True, slots=True)
class _Record:
    """When a key was indexed last.

    Attributes:
        key: the document's.
        group: the source that it came from.
        updated: seconds since 1970.
    """

    key: str
    group: str | None
    updated: float

    def within(self, before: float | None, after: float | None, groups: Sequence[str] | None) -> bool:
        """True when it was indexed in the time between, both excluded, and belongs to one of the groups."""
        in_time = (not before or self.updated < before) and (not after or self.updated > after)
        return in_time and (not groups or self.group in groups)


class CtxMemRecordManager(RecordManager):
    """Lets `index()` write what is new and delete what is gone: `index(documents, CtxMemRecordManager("kb"), store)`.

    Give it the manager of the vector store, and both are one file. A write is durable when it returns, and one moment.
    """

    def __init__(
        self,
        namespace: str,
        db_path: str | Path = IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        user: str = "",
    ) -> None:
        """Open the account.

        Args:
            namespace: tells several accounts of one database apart.
            db_path: the database file; `:memory:` keeps nothing.
            manager: use this manager's database and tenant instead.
            user: whose it is; erasing the user erases it.
        """
        super().__init__(namespace)
        self._kept = KeptFolder(f"langchain/records/{namespace}", db_path, manager, user)

    def create_schema(self) -> None:
        """Nothing to do: the database has its tables."""

    async def acreate_schema(self) -> None:
        """Nothing to do: the database has its tables."""

    def get_time(self) -> float:
        """This machine's clock, in seconds since 1970."""
        return time.time()

    def update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """Note that documents were indexed now.

        Args:
            keys: the documents'.
            group_ids: the source of each.
            time_at_least: a time that must be over, else the clock went back.

        Raises:
            InvalidInput: there are more or fewer groups than keys, or `time_at_least` is to come; nothing is written.
        """
        if group_ids and len(group_ids) != len(keys):
            raise InvalidInput(f"{len(group_ids)} groups for {len(keys)} keys", param="group_ids")
        now = self.get_time()
        if time_at_least and time_at_least > now:
            raise InvalidInput(f"the clock is {time_at_least - now:.3f} s behind an earlier one", param="time_at_least")
        groups = group_ids or [None] * len(keys)
        rows = {key: json.dumps([group, now]).encode() for key, group in zip(keys, groups, strict=True)}
        if rows:
            self._kept.change(Change(put=rows))

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """Whether each document was indexed."""
        return [key in self._kept.read(key=key).items for key in keys]

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Documents by when they were indexed, the oldest first.

        Args:
            before: only those indexed before this time.
            after: only those indexed after it.
            group_ids: only those of these sources.
            limit: most keys wanted.
        """
        found = [record for record in self._records() if record.within(before, after, group_ids)]
        found.sort(key=lambda record: (record.updated, record.key))
        return [record.key for record in found][: limit or None]

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Forget documents; those that are not there do not matter."""
        if keys:
            self._kept.change(Change(delete=list(keys)))

    async def aget_time(self) -> float:
        """See `get_time`."""
        return self.get_time()

    async def aupdate(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """See `update`."""
        await asyncio.to_thread(self.update, keys, group_ids=group_ids, time_at_least=time_at_least)

    async def aexists(self, keys: Sequence[str]) -> list[bool]:
        """See `exists`."""
        return await asyncio.to_thread(self.exists, keys)

    async def alist_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """See `list_keys`."""
        return await asyncio.to_thread(self.list_keys, before=before, after=after, group_ids=group_ids, limit=limit)

    async def adelete_keys(self, keys: Sequence[str]) -> None:
        """See `delete_keys`."""
        await asyncio.to_thread(self.delete_keys, keys)

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._kept.close()

    def _records(self) -> Iterator[_Record]:
        for key, packed in self._kept.read().items.items():
            group, updated = json.loads(packed)
            yield _Record(key, group, updated)
