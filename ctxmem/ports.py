"""Ports: what the core needs from the outside. Adapters implement them; `service.wiring` or the user joins the two."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ctxmem.memory import Memory, MemoryBatch, MemoryChange, Scope
from ctxmem.records import Batch, Branch, Erasure, Event, LedgerEntry, RequestRecord, Session
from ctxmem.types import Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Counter(Protocol):
    """Counts prompt tokens of one target model, its chat template and tools included.

    Attributes:
        name: fingerprint of tokenizer and template; equal names count alike.
        exact: whether counts are the model's own; else they are a stated upper estimate.
        window: the model's context window in tokens; None when unknown.
    """

    @property
    def name(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def window(self) -> int | None: ...

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone, special-token look-alikes read as plain text."""
        ...

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Tokens each message adds to a rendered request, its share of the template included."""
        ...

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """Tokens of the whole rendered request, generation prompt and tools (JSON array) included."""
        ...


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Self-information of one text, token by token.

    Attributes:
        starts: character offset of each token in the text.
        ends: character offset after each token; neighbours may share a character.
        nats: -ln p(token | everything before it), same length.
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    nats: tuple[float, ...]


class Scorer(Protocol):
    """Gives the self-information of texts under a language model, or a model-free stand-in for it.

    Attributes:
        name: fingerprint; equal names give equal scores.
    """

    @property
    def name(self) -> str: ...

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds that scoring the texts takes."""
        ...

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Score each text on its own, every token in the context of all before it.

        Args:
            texts: what to score.
            deadline: seconds from now; past it the scorer gives up.

        Raises:
            Unavailable: the deadline passed or the model is out of reach.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors whose inner product says how alike they are.

    Attributes:
        name: fingerprint; equal names give equal vectors, others must never be mixed in one index.
        dimensions: length of a vector.
    """

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """(len(texts), dimensions) vectors, L2-normalised.

        Args:
            texts: what to embed.
            query: whether they are questions; some models read those in another way.

        Raises:
            ModelError: the model is broken.
            Unavailable: it is out of reach.
        """
        ...


@dataclass(frozen=True, slots=True)
class Match:
    """One find of an index.

    Attributes:
        id: what was added under it.
        score: how alike; higher is better, and comparable within one search only.
    """

    id: str
    score: float


class Index(Protocol):
    """Nearest vectors by inner product, over ids. May be lost at any time: the truth it is built from is elsewhere.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
    """

    @property
    def fingerprint(self) -> str: ...
    @property
    def dimensions(self) -> int: ...

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
        """
        ...

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        ...

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        Args:
            vectors: what to look for.
            k: most matches per query; more than there are gives all.
            among: ids that may be found; None for all, ids that are not there do not matter.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
        """
        ...


class Reranker(Protocol):
    """Says how well each text answers a query, reading both together.

    Attributes:
        name: fingerprint; equal names give equal scores.
    """

    @property
    def name(self) -> str: ...

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        """One score per text, higher is better; comparable within one call only. An empty text gets -inf.

        Args:
            query: what is asked.
            texts: the candidates.
            deadline: seconds from now; past it the reranker gives up.

        Raises:
            ModelError: the model is broken.
            Unavailable: the deadline passed or the model is out of reach.
        """
        ...


class Complete(Protocol):
    """Completes a chat: the port behind everything that asks a language model."""

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Yield the answer's text in pieces."""
        ...


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


class Store(Protocol):
    """The truth: sessions, events, ledger, requests, artifacts. Every method is scoped to one tenant.

    Reads return values; writes are durable when their future resolves. All raise `StoreError` when the database is
    out of reach and `StoreFull` when it has no room.
    """

    def write(self, tenant: str, batch: Batch) -> Future[Batch]:
        """Append a batch, all or nothing. The future resolves once it survives `kill -9`.

        The future gives the batch as stored: the first one when its idempotency key was used before with the same
        events. It raises `Conflict` when the session's revision is not `batch.expected`, or the key was used for
        something else.
        """
        ...

    def session(self, tenant: str, session_id: str) -> Session | None: ...

    def sessions(self, tenant: str, *, user_id: str | None = None, limit: int = 100, after: str = "") -> list[Session]:
        """Sessions by id after `after`."""
        ...

    def branch(self, tenant: str, session_id: str, number: int) -> Branch | None: ...

    def known(self, tenant: str, chains: Sequence[bytes], session_id: str | None = None) -> Event | None:
        """The event whose chain hash stands last in `chains`, in one session or any; newest wins."""
        ...

    def event(self, tenant: str, event_id: str) -> Event | None: ...

    def events(self, tenant: str, session_id: str, *, after_seq: int = -1, limit: int = 1000) -> list[Event]:
        """Events of all branches in seq order."""
        ...

    def history(
        self, tenant: str, session_id: str, branch: int, *, start: int = 0, stop: int | None = None
    ) -> list[Event]:
        """Events on a branch's path with `start <= depth < stop`, those shared with its parents included."""
        ...

    def events_by_id(self, tenant: str, event_ids: Sequence[str]) -> list[Event]:
        """The events that exist, in no promised order."""
        ...

    def ledger(self, tenant: str, session_id: str, branch: int, *, turn: int | None = None) -> dict[str, LedgerEntry]:
        """By event id, the entry that holds for `branch` at `turn` (the newest when None)."""
        ...

    def request(self, tenant: str, request_id: str) -> RequestRecord | None: ...

    def requests(
        self, tenant: str, *, session_id: str | None = None, limit: int = 100, after: str = ""
    ) -> list[RequestRecord]:
        """Requests by id after `after`."""
        ...

    def put_artifact(self, tenant: str, content: bytes) -> str:
        """Keep content durably under its SHA-256 (hex), which is returned."""
        ...

    def artifact(self, tenant: str, sha256: str) -> bytes | None: ...

    def erase_session(self, tenant: str, session_id: str) -> Erasure: ...

    def erase_user(self, tenant: str, user_id: str) -> Erasure: ...

    def health(self) -> Mapping[str, str]:
        """State by part: `write`, `migrations`, `dialect`; raises `StoreError` when it cannot even be asked."""
        ...

    def close(self) -> None:
        """Flush what is queued and let go of the database."""
        ...


class MemoryStore(Protocol):
    """The truth about long-term memories. Every method is scoped to one tenant; errors are those of `Store`."""

    def apply(self, tenant: str, batch: MemoryBatch) -> Future[MemoryBatch]:
        """Write a batch, all or nothing; the future gives it as stored, or the first one of its idempotency key.

        The future raises `Conflict` when a memory is at another revision, the user's memories have changed since
        `batch.expected`, or the key was used for something else.
        """
        ...

    def version(self, tenant: str, user_id: str) -> int:
        """Version of the newest change to a user's memories; 0 when there was none."""
        ...

    def kept(self, tenant: str, memory_ids: Sequence[str]) -> list[Memory]:
        """The memories that exist, in no promised order."""
        ...

    def scoped(self, tenant: str, scope: Scope, *, after: str = "", limit: int = 100) -> list[Memory]:
        """Memories of a scope by id after `after`, superseded and expired ones included."""
        ...

    def alike(self, tenant: str, user_id: str, digests: Sequence[bytes], topics: Sequence[str]) -> list[Memory]:
        """A user's active memories that have one of the digests or one of the topics."""
        ...

    def changes(self, tenant: str, memory_id: str) -> list[MemoryChange]:
        """What was done to a memory, oldest first."""
        ...

    def changed(self, tenant: str, user_id: str, after: int) -> list[str]:
        """Ids of the user's memories that have changed after a version, deleted ones included.

        Erasure leaves nothing behind, so it is not listed: what `kept` does not give back does not exist.
        """
        ...

    def replayed(self, tenant: str, key: str, digest: bytes) -> bytes | None:
        """The answer kept under an idempotency key; None when the key is free.

        Raises:
            Conflict: it was used for something else.
        """
        ...
