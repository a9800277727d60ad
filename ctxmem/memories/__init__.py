"""Long-term memories: what is worth knowing in later conversations, word for word, with where it was said and when.

Writing asks no model unless told to. Every memory names the span of the log that it stands on; nothing is overwritten:
what no longer holds is superseded and can still be asked for as of its time. Data's way: messages → statements
(`statements`, or a model under `extraction`) → a decision for each (`writing`) → one batch in SQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctxmem.errors import Conflict, InvalidInput, NotFound
from ctxmem.memories import exchange
from ctxmem.memories.asked import Found, Hit, Outcome, Terms, Wanted, scope
from ctxmem.memories.calls import Told, asked_digest, heard, replayed, result_of
from ctxmem.memories.forgetting import Forgotten, Selection
from ctxmem.memories.likeness import Embedded, Likeness
from ctxmem.memories.profile import Profile, profile
from ctxmem.memories.sameness import digest
from ctxmem.memories.search import reranked, search
from ctxmem.memories.shelf import Shelves, every
from ctxmem.memories.topics import topic
from ctxmem.memories.writes import Call, Writes
from ctxmem.memory import Memory, MemoryBatch, MemoryChange, Scope
from ctxmem.ports import Complete, MemoryStore, Reranker, reranker_of
from ctxmem.types import Message

__all__ = [
    "Embedded", "Forgotten", "Found", "Hit", "Likeness", "Log", "Memories", "Models", "Outcome", "Profile", "Scope",
    "Selection", "Terms", "Told", "Wanted",
]  # fmt: skip

Log = Callable[[Sequence[Message], Scope], Sequence[tuple[str, str] | None]]
"""Logs messages where they are not logged yet; gives each one's event and session, None for what ctxmem put in."""

_MOST_ROWS = 10_000
_MOST_TEXT = exchange.LONGEST


@dataclass(frozen=True, slots=True)
class Models:
    """What memories may be read with; all of it may be missing.

    Attributes:
        likeness: compares meanings; without it search goes by words.
        reranker: reads query and candidate together.
        complete: extracts memories when a caller asks for that.
    """

    likeness: Likeness | None = None
    reranker: Reranker | None = None
    complete: Complete | None = None


class Memories:
    """The long-term memories of one tenant. Safe for threads; several processes may share the database."""

    def __init__(
        self,
        store: MemoryStore,
        tenant: str = "default",
        *,
        log: Log | None = None,
        models: Models | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Bind to a store.

        Args:
            store: the truth.
            tenant: whose memories.
            log: logs what memories are made of; without it they name no sources.
            models: what to search and extract with.
            clock: seconds since 1970.
        """
        self._store = store
        self._tenant = tenant
        self._log = log
        self._models = models or Models()
        self._clock = clock
        self._shelves = Shelves(store, tenant)
        self._writes = Writes(store, tenant, self._shelves, clock)

    def add(
        self,
        told: str | Sequence[Mapping[str, Any] | Message],
        who: Scope | str,
        *,
        terms: Terms | None = None,
        infer: bool = False,
        key: str | None = None,
    ) -> Told:
        """Keep what was told; durable on return.

        Args:
            told: a text, or messages; those of users and assistants are read.
            who: whose memory it becomes; a text names a user.
            terms: what the new memories carry.
            infer: let a model find the statements; those that do not quote their source are refused.
            key: idempotency key; the same call again gives the first answer.

        Raises:
            InvalidInput: nothing was told, by nobody, or a model is asked for and none is set. Nothing was changed.
            Conflict: the key was used for something else, or other writers kept coming first.
        """
        named, terms = scope(who), terms or Terms()
        messages = heard(told)
        if infer and self._models.complete is None:
            raise InvalidInput("no model is set that could extract memories", param="infer")
        asked = asked_digest(messages, named, terms, infer=infer)
        if key is not None and (first := self._store.replayed(self._tenant, key, asked)) is not None:
            return replayed(first, self._store, self._tenant)
        seats = self._log(messages, named) if self._log is not None else None
        candidates, inferred, refused = result_of(messages, seats, self._models.complete if infer else None)
        done = Told((), inferred, refused)
        return self._writes.add(named, terms, candidates, done, Call(key, asked))

    def search(self, query: str, who: Scope | str, wanted: Wanted | None = None) -> Found:
        """The memories that answer a query, best first, read from the truth.

        Raises:
            InvalidInput: an empty query, nobody named, a filter nobody knows, or reranking without a reranker.
        """
        named, wanted = scope(who), wanted or Wanted()
        if not isinstance(query, str) or not query.strip() or len(query) > _MOST_TEXT:
            raise InvalidInput(f"a query is a text of 1 to {_MOST_TEXT} characters", param="query")
        now = self._clock()
        found = search(self._shelves.of(named), query, named, wanted, now=now, likeness=self._models.likeness)
        if wanted.rerank:
            found = reranked(found, query, wanted.top_k, reranker_of(self._models.reranker, self._tenant))
        read = dict.fromkeys(one.id for hit in found.hits for one in (hit.memory, *hit.beside))
        true = {one.id: one for one in self._store.kept(self._tenant, list(read))}
        if len(true) < len(read):
            self._shelves.forget(named.user_id)
        return replace(found, hits=tuple(_true(hit, true) for hit in found.hits if hit.memory.id in true))

    def get(self, memory_id: str) -> Memory:
        """One memory, superseded and expired ones included.

        Raises:
            NotFound: this tenant has no such memory.
        """
        found = self._store.kept(self._tenant, [memory_id])
        if not found:
            raise NotFound(f"no memory {memory_id!r}")
        return found[0]

    def list(self, who: Scope | str, *, after: str = "", limit: int = 100) -> Sequence[Memory]:
        """Memories of a scope by id after `after`, superseded and expired ones included."""
        return self._store.scoped(self._tenant, scope(who), after=after, limit=limit)

    def update(
        self, memory_id: str, text: str | None = None, *, terms: Terms | None = None, expected: int | None = None
    ) -> Memory:
        """Put a memory right; its history keeps what it said before.

        Args:
            memory_id: the memory.
            text: its new words; None keeps them.
            terms: what it carries from now on; None keeps that.
            expected: refuse when it is at another revision.

        Raises:
            NotFound: there is no such memory.
            Conflict: it is at another revision, or somebody else changed it meanwhile.
        """
        old = self._at(memory_id, expected)
        new = replace(old, revision=old.revision + 1)
        if terms is not None:
            since = old.valid_from if terms.valid_from is None else float(terms.valid_from)
            new = replace(new, metadata=dict(terms.metadata), valid_from=since, expires_at=terms.expires_at)
        if text is not None:
            if not isinstance(text, str) or not text.strip() or len(text) > _MOST_TEXT:
                raise InvalidInput(f"a memory has a text of 1 to {_MOST_TEXT} characters", param="text")
            settled = topic(text, old.speaker)
            new = replace(
                new,
                text=" ".join(text.split()),
                digest=digest(text, old.speaker),
                topic=settled.key if settled is not None else "",
            )
        change = MemoryChange(old.id, "UPDATE", old.text, new.text, "updated by the caller", self._clock())
        self._store.apply(self._tenant, MemoryBatch(old.user_id, put=(new,), changes=(change,))).result()
        return new

    def delete(self, memory_id: str, *, expected: int | None = None) -> None:
        """Delete a memory, its sources, and its words in its history.

        Raises:
            NotFound: there is no such memory.
            Conflict: it is at another revision.
        """
        old = self._at(memory_id, expected)
        change = MemoryChange(old.id, "DELETE", reason="deleted by the caller", at=self._clock())
        batch = MemoryBatch(old.user_id, delete={old.id: expected}, changes=(change,))
        self._store.apply(self._tenant, batch).result()

    def history(self, memory_id: str) -> Sequence[MemoryChange]:
        """What was done to a memory, oldest first; a deleted one keeps the dates, not the words.

        Raises:
            NotFound: there never was such a memory.
        """
        changes = self._store.changes(self._tenant, memory_id)
        if not changes:
            raise NotFound(f"no memory {memory_id!r}")
        return changes

    def forget(self, who: Scope | str, what: Selection, *, dry_run: bool = True) -> Forgotten:
        """Delete memories by what they are; unless told otherwise only say which they would be.

        Raises:
            InvalidInput: nobody is named, or nothing selected.
            Conflict: somebody else changed one of them meanwhile; those before it are gone.
        """
        named, now = scope(who), self._clock()
        chosen = what.of(every(self._store, self._tenant, named), now)
        if not dry_run:
            for user_id in dict.fromkeys(one.user_id for one in chosen):
                theirs = {one.id: one.revision for one in chosen if one.user_id == user_id}
                gone = tuple(MemoryChange(memory_id, "DELETE", reason=what.reason, at=now) for memory_id in theirs)
                self._store.apply(self._tenant, MemoryBatch(user_id, delete=theirs, changes=gone)).result()
        return Forgotten(tuple(one.id for one in chosen), dry_run)

    def profile(self, user_id: str) -> Profile:
        """What is known about a user, in one small picture."""
        shelf = self._shelves.of(scope(user_id))
        with shelf.lock:
            return profile(user_id, shelf.version, shelf.memories.values(), self._clock())

    def export(self, who: Scope | str, *, shape: str = "ctxmem") -> Iterator[dict[str, Any]]:
        """All memories of a scope as JSON objects, in `ctxmem`'s shape or in `mem0`'s."""
        if shape not in ("ctxmem", "mem0"):
            raise InvalidInput("a shape is ctxmem or mem0", param="format")
        write = exchange.as_mem0 if shape == "mem0" else exchange.written
        return map(write, every(self._store, self._tenant, scope(who)))

    def load(self, rows: Iterable[Mapping[str, Any]], who: Scope | str = "") -> Sequence[Outcome]:
        """Bring memories in, as `export` gives them or as mem0 does; all or nothing for each user.

        Args:
            rows: the memories; one that is known already is left out.
            who: whose they become; where it is empty the rows say it.

        Raises:
            InvalidInput: a row is wrong; nothing of any user was written.
        """
        named = Scope(who) if isinstance(who, str) else who
        now = self._clock()
        made = [exchange.read(row, named, now) for row in rows]
        if len(made) > _MOST_ROWS:
            raise InvalidInput(f"at most {_MOST_ROWS} memories at once")
        for one in made:
            scope(one.scope)
        users = dict.fromkeys(one.user_id for one in made)
        return [outcome for user_id in users for outcome in self._writes.load(user_id, made)]

    def drop(self, user_id: str) -> None:
        """Let go of what is held of a user in this process; called when the user is erased."""
        self._shelves.forget(user_id)

    def _at(self, memory_id: str, expected: int | None) -> Memory:
        """The memory, at the revision that the caller saw."""
        found = self.get(memory_id)
        if expected is not None and found.revision != expected:
            raise Conflict(f"memory {memory_id} is at revision {found.revision}, not {expected}")
        return found


def _true(hit: Hit, kept: Mapping[str, Memory]) -> Hit:
    """A hit as the truth has it."""
    beside = tuple(kept[one.id] for one in hit.beside if one.id in kept)
    return replace(hit, memory=kept[hit.memory.id], beside=beside)
