"""LangGraph's long-term store in ctxmem's database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        IndexConfig,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
        get_text_at_path,
        tokenize_path,
        validate_op_namespace,
    )
except ImportError as error:
    raise ImportError('ctxmem.agents.langgraph_store needs langgraph: pip install "ctxmem[langgraph]"') from error

from ctxmem.agents.langgraph_items import Kept, likeness, named, under, unpacked, wanted
from ctxmem.agents.opening import opened
from ctxmem.agents.shared import KeptFolder
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from ctxmem.ports import Change


@dataclass(frozen=True, slots=True)
class _Vectors:
    """By text, what the embedder made of a batch's documents and queries."""

    documents: Mapping[str, Sequence[float]] = field(default_factory=dict)
    queries: Mapping[str, Sequence[float]] = field(default_factory=dict)


class CtxMemStore(BaseStore):
    """Keeps items by namespace and key: `builder.compile(store=CtxMemStore(manager))`. Safe for threads and processes.

    A batch is one moment: its reads see what was there before it, its puts are all there or none. A search reads every
    item under its prefix; without a query, what was put last comes first.
    """

    supports_ttl = True

    def __init__(
        self,
        manager: ContextManager,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        name: str = "langgraph",
        user: str = "",
    ) -> None:
        """Open the store.

        Args:
            manager: whose database and tenant.
            index: `embed` and `fields`, as LangGraph's own stores take them; None for no search by meaning.
            ttl: how long items live, in minutes, when a put does not say it.
            name: stores of one name are one store.
            user: whose it is; erasing the user erases all of it.
        """
        self.index_config = index
        self.embeddings = ensure_embeddings(index["embed"]) if index else None
        self.ttl_config = ttl
        self._fields = list((index or {}).get("fields") or ["$"])
        self._folder = KeptFolder(f"store:{name}", "", manager, user)
        self._writing = threading.Lock()

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Iterator[CtxMemStore]:
        """A store on a file, a database URL or `:memory:`, closed at the end of the block."""
        with opened(conn_string) as manager:
            yield cls(manager, index=index, ttl=ttl)

    def setup(self) -> None:
        """Nothing is left to do: the tables are there. LangGraph's own stores need this call."""

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do all of it at one moment.

        Raises:
            InvalidNamespaceError: a label is empty, has a dot or is no string.
            InvalidInput: a value that is not JSON, a key that is not text, an unknown operator.
        """
        asked = _checked(ops)
        documents, queries = self._texts(asked)
        if self.embeddings is None or not (documents or queries):
            return self._done(asked, _Vectors())
        made = self.embeddings.embed_documents(documents) if documents else []
        found = {query: self.embeddings.embed_query(query) for query in queries}
        return self._done(asked, _Vectors(dict(zip(documents, made, strict=True)), found))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """The same, in a thread; a batch whose caller is cancelled while it is written is written whole."""
        asked = _checked(ops)
        documents, queries = self._texts(asked)
        if self.embeddings is None or not (documents or queries):
            return await asyncio.to_thread(self._done, asked, _Vectors())
        made = await self.embeddings.aembed_documents(documents) if documents else []
        found = dict(zip(queries, await asyncio.gather(*map(self.embeddings.aembed_query, queries)), strict=True))
        vectors = _Vectors(dict(zip(documents, made, strict=True)), found)
        return await asyncio.to_thread(self._done, asked, vectors)

    def sweep_ttl(self) -> int:
        """Delete what has come to its end, which nobody can read any more; returns how many items."""
        while True:
            view = _View(self._folder)
            view.read(prefix="")
            if view.settle():
                return len(view.ended)

    def _done(self, ops: Sequence[Op], vectors: _Vectors) -> list[Result]:
        writes = any(isinstance(op, PutOp) for op in ops)
        with self._writing if writes else nullcontext():
            while True:
                view = _View(self._folder)
                results = [self._result(op, view, vectors) for op in ops]
                for op in _puts(ops):
                    view.put(op, self._vectors(op, vectors))
                if view.settle():
                    return results

    def _result(self, op: Op, view: _View, vectors: _Vectors) -> Result:
        if isinstance(op, GetOp):
            kept = view.get(op.namespace, op.key)
            return None if kept is None else Item(**view.shown(kept, refresh=op.refresh_ttl))
        if isinstance(op, SearchOp):
            found = _found(op, view, vectors.queries.get(op.query or ""))
            return [SearchItem(**view.shown(kept, refresh=op.refresh_ttl), score=score) for score, kept in found]
        if isinstance(op, ListNamespacesOp):
            return _namespaces(op, view)
        return None

    def _texts(self, ops: Sequence[Op]) -> tuple[list[str], list[str]]:
        """What has to be embedded: of documents, and of queries."""
        if self.embeddings is None:
            return [], []
        documents = [text for op in _puts(ops) for text in self._of(op)]
        queries = [op.query for op in ops if isinstance(op, SearchOp) and op.query]
        return list(dict.fromkeys(documents)), list(dict.fromkeys(queries))

    def _of(self, op: PutOp) -> list[str]:
        """The texts that an item is to be found by."""
        if self.embeddings is None or op.value is None or op.index is False:
            return []
        paths = self._fields if op.index is None else op.index
        parts = [path if path == "$" else tokenize_path(path) for path in paths]
        return [text for part in parts for text in get_text_at_path(op.value, part)]

    def _vectors(self, op: PutOp, vectors: _Vectors) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(vectors.documents[text]) for text in self._of(op))


class _View:
    """What a batch reads, as of one revision, and what it will write."""

    def __init__(self, folder: KeptFolder) -> None:
        self._folder = folder
        self._now = time.time()
        self._revisions: list[int] = []
        self._put: dict[str, bytes] = {}
        self._delete: set[str] = set()
        self.ended: set[str] = set()

    def read(self, *, key: str | None = None, prefix: str = "") -> list[Kept]:
        """The items that have not come to their end."""
        found = self._folder.read(key=key, prefix=prefix)
        self._revisions.append(found.revision)
        items = {name: unpacked(name, body) for name, body in found.items.items()}
        self.ended |= {name for name, kept in items.items() if kept.until is not None and kept.until <= self._now}
        return [kept for name, kept in items.items() if name not in self.ended]

    def get(self, namespace: tuple[str, ...], key: str) -> Kept | None:
        """One item."""
        return next(iter(self.read(key=named(namespace, key))), None)

    def shown(self, kept: Kept, *, refresh: bool) -> dict[str, Any]:
        """An item's fields for the caller, whose interest may give it its whole life again."""
        if refresh and kept.minutes is not None:
            self._put[named(kept.namespace, kept.key)] = kept.used(self._now).packed()
        created, updated = (datetime.fromtimestamp(at, UTC) for at in (kept.created, kept.updated))
        fields = {"value": kept.value, "key": kept.key, "namespace": kept.namespace}
        return {**fields, "created_at": created, "updated_at": updated}

    def put(self, op: PutOp, vectors: tuple[tuple[float, ...], ...]) -> None:
        """Write an item, or delete it."""
        name = named(op.namespace, op.key)
        if op.value is None:
            self._put.pop(name, None)
            self._delete.add(name)
            return
        before = self.get(op.namespace, op.key)
        created = before.created if before is not None else self._now
        kept = Kept(tuple(op.namespace), op.key, dict(op.value), created, self._now, op.ttl, None, vectors)
        self._put[name] = kept.used(self._now).packed()

    def settle(self) -> bool:
        """Write; False when what was read was not all of one moment, and nothing is written."""
        gone = (self._delete | self.ended) - set(self._put)
        if not self._revisions:
            self._revisions.append(self._folder.read(last=0).revision)
        first = self._revisions[0]
        if self._put or gone:
            same = set(self._revisions) == {first}
            return same and self._folder.changed(Change(put=self._put, delete=sorted(gone), expected=first))
        return len(self._revisions) == 1 or {*self._revisions, self._folder.read(last=0).revision} == {first}


def _checked(ops: Iterable[Op]) -> list[Op]:
    asked = list(ops)
    for op in asked:
        if not isinstance(op, GetOp | SearchOp | PutOp | ListNamespacesOp):
            raise InvalidInput(f"not an operation of a store: {op!r}", param="ops")
        validate_op_namespace(op)
    return asked


def _puts(ops: Sequence[Op]) -> list[PutOp]:
    """The last put of each item."""
    return list({(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}.values())


def _found(op: SearchOp, view: _View, query: Sequence[float] | None) -> list[tuple[float | None, Kept]]:
    """Score and item; those without a vector come last."""
    items = sorted(view.read(prefix=under(op.namespace_prefix)), key=lambda kept: -kept.updated)
    scored = [(likeness(query, kept) if query is not None else None, kept) for kept in items if _takes(op, kept)]
    scored.sort(key=lambda pair: (pair[0] is None, -(pair[0] or 0.0)))
    return scored[op.offset : op.offset + op.limit]


def _takes(op: SearchOp, kept: Kept) -> bool:
    return all(wanted(kept.value.get(name), condition) for name, condition in (op.filter or {}).items())


def _namespaces(op: ListNamespacesOp, view: _View) -> list[tuple[str, ...]]:
    found = {kept.namespace for kept in view.read(prefix="")}
    named = {one[: op.max_depth] for one in found if all(_matches(c, one) for c in op.match_conditions or ())}
    return sorted(named)[op.offset : op.offset + op.limit]


def _matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    """Whether a namespace begins or ends so; `*` stands for any label.

    Raises:
        InvalidInput: another kind of match.
    """
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidInput(f"unsupported match type {condition.match_type!r}", param="match_conditions")
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(label in ("*", own) for label, own in zip(path, part, strict=True))
