"""Documents and their chunks, as values. The store keeps them; `ctxmem.retrieval` makes them; nobody changes one.

A chunk is a span of its document's text. Its id follows from its document and what it says, so that a document that is
ingested again keeps the ids, and the vectors, of every chunk that did not change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

FORGET = "forget"
"""Kind of the job that takes erased vectors off the disk; its payload names the namespace."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text that can be searched.

    Attributes:
        namespace: the collection it is in.
        id: the caller's, unique in its namespace.
        text: what offsets count in; of a file that is no plain text, what was read from it.
        kind: how it was read: text, markdown, html, pdf, json, code or chat.
        title: its title; empty when it has none.
        sha256: hash of all that decides about its chunks, hex; equal ones need not be ingested again.
        user_id: whose it is; empty for one that all users of the tenant share.
        session_id: the session it belongs to, with which it is erased; empty for none.
        metadata: the caller's own, JSON values.
        at: its time, seconds since 1970.
    """

    namespace: str
    id: str
    text: str
    kind: str = "text"
    title: str = ""
    sha256: str = ""
    user_id: str = ""
    session_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document that is found as one.

    Attributes:
        id: `ck_` and 32 hex digits.
        document_id: its document.
        seq: its place among the document's chunks, from 0.
        start: its first character in the document's text.
        end: the character after its last.
        text: the characters between.
        lead: what is searched in front of it: title and headings, or who spoke when and what was said before.
    """

    id: str
    document_id: str
    seq: int
    start: int
    end: int
    text: str
    lead: str = ""

    @property
    def searched(self) -> str:
        """What embedder and word index read."""
        return f"{self.lead}\n{self.text}" if self.lead else self.text


@dataclass(frozen=True, slots=True)
class Shelf:
    """The head of a namespace.

    Attributes:
        namespace: its name.
        version: changes with every write.
        fingerprint: the embedder whose vectors it holds; empty before the first.
    """

    namespace: str
    version: int = 0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents may be found; what is empty does not restrict.

    Attributes:
        user_id: only documents of this user and shared ones.
        session_id: only documents of this session.
        document_ids: only these; None for all.
        metadata: a value per key that the document's metadata must have, or one of several when a list is given.
        since: not before, seconds since 1970.
        until: before, seconds since 1970.
    """

    user_id: str = ""
    session_id: str = ""
    document_ids: Collection[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    since: float | None = None
    until: float | None = None

    @property
    def empty(self) -> bool:
        """Whether everything passes."""
        return self == Filter()

    def passes(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata has what is wanted."""
        return all(
            metadata.get(key) in wanted if isinstance(wanted, list | tuple) else metadata.get(key) == wanted
            for key, wanted in self.metadata.items()
        )
