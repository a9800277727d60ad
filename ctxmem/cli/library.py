"""Commands' needs met in this process, on the database itself: what happens when no service runs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING

import ctxmem
from ctxmem import chat
from ctxmem.cli.options import Options
from ctxmem.cli.remote import Wire
from ctxmem.manager import Call, ContextManager
from ctxmem.manager.session import exported
from ctxmem.records import Erasure
from ctxmem.types import Budget

if TYPE_CHECKING:
    from ctxmem.retrieval.library import Library
    from ctxmem.stores.sql import SqlStore

TENANT = "default"
"""Whose documents commands see: the library's, as its manager's."""


class LibraryBackend:
    """The library as the commands' backend. The database is opened when first needed."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @property
    def where(self) -> str:
        return f"library on {self._options.data_dir}"

    @cached_property
    def _manager(self) -> ContextManager:
        self._options.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ContextManager(self._options.database)

    def close(self) -> None:
        if "_manager" in self.__dict__:
            self._manager.close()
        if "_store" in self.__dict__:
            self._store.close()

    def compress(self, request: Wire) -> Wire:
        done = ctxmem.compress(
            request["text"],
            budget=request.get("budget"),
            ratio=request.get("ratio"),
            query=request.get("query", ""),
            unit=request["unit"],
            model=request["model"],
        )
        return {
            "text": done.text,
            "tokens_before": done.tokens_before,
            "tokens_after": done.tokens_after,
            "dropped": [{"start": cut.start, "end": cut.end, "reason": cut.why} for cut in done.dropped],
            "reason": done.reason,
        }

    def context(self, request: Wire) -> Wire:
        messages = tuple(
            chat.parse(message, param=f"messages[{position}]") for position, message in enumerate(request["messages"])
        )
        call = Call(
            messages=messages,
            model=request.get("model", ""),
            session_id=request.get("session_id"),
            budget=Budget(request["budget"]) if "budget" in request else None,
        )
        prepared = self._manager.build(call)
        receipt = self._manager.receipt(prepared.request_id)
        return {"messages": [chat.decode(m.raw or b"{}") for m in prepared.messages], "receipt": receipt.wire()}

    @cached_property
    def _documents(self) -> Library:
        from ctxmem.lm.encoder import embedder_named
        from ctxmem.lm.rerank.late import shipped
        from ctxmem.retrieval.library import Library

        return Library(self._store.documents, embedder_named(), shipped())

    @cached_property
    def _store(self) -> SqlStore:
        from ctxmem.stores.sql import SqlStore

        self._options.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return SqlStore(self._options.database)

    def ingest(self, request: Wire) -> Wire:
        from ctxmem.retrieval.source import Source

        sources = [Source(base64.b64decode(row.pop("data")), **row) for row in request["documents"]]
        return asdict(self._documents.ingest(TENANT, request["namespace"], sources))

    def search(self, request: Wire) -> Wire:
        from ctxmem.retrieval.library import Filter, Query

        query = Query(
            request["query"],
            request["namespace"],
            k=request["top_k"],
            rerank=request["rerank"],
            filter=Filter(**request["filters"]),
        )
        found = asdict(self._documents.search(TENANT, query))
        return {**found, "results": found.pop("found")}

    def receipt(self, request_id: str) -> Wire:
        return self._manager.receipt(request_id).wire()

    def restore(self, item_id: str) -> bytes:
        return self._manager.original(item_id)

    def sessions(self, *, limit: int) -> list[Wire]:
        store, tenant = self._manager.engine.store, self._manager.tenant
        return [{**asdict(session), "turns": session.turn} for session in store.sessions(tenant, limit=limit)]

    def events(self, session_id: str) -> Iterator[Wire]:
        session, after = self._manager.session(session_id), -1
        while page := session.events(after_seq=after):
            yield from map(exported, page)
            after = page[-1].seq

    def erase_session(self, session_id: str) -> Wire:
        return _erasure_wire(self._manager.session(session_id).erase())

    def erase_user(self, user_id: str) -> Wire:
        return _erasure_wire(self._manager.erase_user(user_id))


def _erasure_wire(erasure: Erasure) -> Wire:
    return asdict(erasure)
