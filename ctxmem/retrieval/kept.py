"""Where searches found what they found, kept for whoever asks the same before anything is written.

An entry's name follows from all that decides about a result: the namespace's version, which every write moves, what is
in it, the models, and the query. So a write leaves older entries unread, to end with their time. An entry holds ids and
scores, no text: words are read from SQL, and what was deleted or erased is not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from ctxmem.ports import Cache, Match
from ctxmem.retrieval.query import Query

KEPT_FOR = 3600.0
"""Seconds that places are kept."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a search found something, and how that is known.

    Attributes:
        matches: chunks, best first.
        exact: as `Results`.
        coverage: as `Results`.
        degraded: as `Results`.
        counts: numbers of the search by name, for its stats.
    """

    matches: list[Match]
    exact: bool = True
    coverage: float = 1.0
    degraded: tuple[str, ...] = ()
    counts: dict[str, float] = field(default_factory=dict)


class KeptPlaces:
    """Places of searches that nothing was missing in. Safe for threads.

    Args:
        cache: where; None keeps nothing.
    """

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache

    def of(self, tenant: str, name: Callable[[], str], search: Callable[[], Places]) -> Places:
        """The places under a name, found by a search where they are not known.

        Args:
            tenant: whose.
            name: gives the search's name; not asked without a cache.
            search: does it.
        """
        if self._cache is None:
            return search()
        key = name()
        known = _read(self._cache.get(tenant, key))
        if known is not None:
            return known
        found = search()
        if not found.degraded:
            self._cache.put(tenant, key, _written(found), ttl=KEPT_FOR)
        return found


def name(query: Query, *marks: str) -> str:
    """The name of a search: of its query and of all else that decides what it finds."""
    wanted = query.filter
    ids = None if wanted.document_ids is None else sorted(map(repr, set(wanted.document_ids)))
    chosen = [wanted.user_id, wanted.session_id, ids, dict(wanted.metadata), wanted.since, wanted.until]
    asked = [query.text, query.namespace, query.k, query.mode, query.rerank, query.mmr, query.also, query.vector]
    said = json.dumps([marks, asked, chosen], sort_keys=True, default=repr)
    return f"found:{sha256(said.encode()).hexdigest()}"


def _written(found: Places) -> bytes:
    pairs = [[match.id, float(match.score)] for match in found.matches]
    return json.dumps([pairs, found.exact, found.counts["chunks"]]).encode()


def _read(kept: bytes | None) -> Places | None:
    """What `_written` wrote; None for anything else."""
    if not kept:
        return None
    try:
        pairs, exact, chunks = json.loads(kept)
        matches = [Match(str(id), float(score)) for id, score in pairs]
        return Places(matches, exact=bool(exact), counts={"chunks": float(chunks), "cached": 1.0})
    except (ValueError, TypeError):
        return None
