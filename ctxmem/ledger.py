"""The append-only rendering ledger: what was once sent stays as it was sent.

Providers price a cached prefix at a tenth, so a manager that rewrites history makes its users pay more while it cuts
tokens. The ledger names every message by a hash chain, replays what was sent for it byte for byte, and opens history to
edits only at an epoch whose gain is positive. Pure: no clock, no database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from ctxmem.records import Branch, Session
from ctxmem.types import Message


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """How an upstream prices its prompt cache, relative to an uncached input token.

    Attributes:
        kind: `none` when it has no prefix cache, `implicit` when it finds prefixes itself, `breakpoints` when marked.
        read: price of a cached token.
        write: price of a token written to the cache.
        ttl: seconds a prefix lives after its last use.
    """

    kind: Literal["none", "implicit", "breakpoints"] = "implicit"
    read: float = 0.1
    write: float = 1.0
    ttl: float = 300.0


@dataclass(frozen=True, slots=True)
class LiveItem:
    """One message that the next request of a branch would send again.

    Attributes:
        message: the message as rendered; its id is the event's.
        chain: chain hash of its event.
        depth: position on the branch.
        before: tokens of the original message; 0 until counted.
        pruned: whether `message` is a shortened form of the event.
        header: whether it is one of the leading system messages.
        booked: whether the ledger has an entry for it.
        rewritten: whether `message` has other bytes than the event, pruned or as the client sends it now.
        seat: where it stands among the depths, for what ctxmem put in; None where it was said.
    """

    message: Message
    chain: bytes
    depth: int
    before: int = 0
    pruned: bool = False
    header: bool = False
    booked: bool = False
    rewritten: bool = False
    seat: float | None = None

    @property
    def place(self) -> tuple[bool, float]:
        """Sorts the items of a branch into the order in which they are sent: the header, then by depth or seat."""
        return not self.header, self.depth if self.seat is None else self.seat


@dataclass(frozen=True, slots=True)
class Live:
    """Hot state of a branch: bounded by the budget, not by the session's length.

    Attributes:
        session: the session's head.
        branch: the branch's tip.
        items: what would be sent again, header first.
        sent: hash and tokens of each message of the branch's last request.
        surroundings: hash of the last request's model and tools; empty before the first.
        at: when the last request was built, seconds since 1970.
        gone: tokens, unedited, of the branch's events that are no longer sent.
    """

    session: Session
    branch: Branch
    items: tuple[LiveItem, ...] = ()
    sent: tuple[tuple[bytes, int], ...] = ()
    surroundings: bytes = b""
    at: float = 0.0
    gone: int = 0


def seed(*names: str) -> bytes:
    """The root of a chain: what tells one conversation from another before its first message."""
    return blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=16, person=b"ctxmem-seed").digest()


def link(parent: bytes, identity: bytes) -> bytes:
    """The chain hash of a message after its parent: `blake2b(parent || identity)`, 16 bytes."""
    return blake2b(parent + identity, digest_size=16, person=b"ctxmem-chain").digest()


def chain(root: bytes, identities: Iterable[bytes]) -> list[bytes]:
    """The chain hash of each message of a history."""
    hashes = []
    for identity in identities:
        root = link(root, identity)
        hashes.append(root)
    return hashes


def gain(saved: int, suffix: int, *, turns: int, idle: float, terms: CacheTerms) -> float:
    """What an epoch is worth, in uncached input tokens.

    `dT (w + r (R - 1)) - P (w - r) (S + dT)`: every further turn saves the dropped tokens, and a cache that is still
    alive must be written anew from the first change on.

    Args:
        saved: tokens the epoch takes out, dT.
        suffix: tokens after the first change that stay, S.
        turns: turns still expected, R.
        idle: seconds since the prefix was last used; P falls from 1 once it passes the cache's lifetime.
        terms: the upstream's prices w and r.
    """
    write, read = (1.0, 1.0) if terms.kind == "none" else (terms.write, terms.read)
    alive = 1.0 if idle <= terms.ttl else math.exp(-(idle - terms.ttl) / max(terms.ttl, 1.0) * 4)
    return saved * (write + read * max(turns - 1, 0)) - alive * (write - read) * (suffix + saved)


def surroundings(model: str, tools_sha: str) -> bytes:
    """Hash of what a provider's cache depends on beside the messages."""
    return seed("surroundings", model, tools_sha)


def fingerprint(messages: Sequence[Message], tokens: Sequence[int]) -> tuple[tuple[bytes, int], ...]:
    """Hash and tokens of each message as rendered."""
    hashes = (blake2b(m.raw or b"", digest_size=8).digest() for m in messages)
    return tuple(zip(hashes, tokens, strict=True))
