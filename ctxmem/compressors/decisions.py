"""Freeze-once: how a text was compressed is decided one time, and replayed byte for byte from then on.

A decision is kept under a hash of the text and of all that it depends on, in the tenant's part of the shared cache: so
every process and every restart gives the same bytes, no model is asked again, and nothing is counted. The text itself
is not kept: a decision is offsets into it, and the marks between.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from ctxmem.compressors.outcome import Compressed, Cut
from ctxmem.compressors.remembered import Flights
from ctxmem.ports import Cache

_TTL_SECONDS = 7 * 24 * 3600.0
_VERSION = "5"
"""Goes up when the same text and knobs lead to other bytes."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What was decided for texts of a tenant.

    Attributes:
        cache: where decisions are kept.
        tenant: whose texts these are; tenants never share decisions.
        flights: texts that are being decided right now.
    """

    cache: Cache
    tenant: str
    flights: Flights = field(default_factory=Flights)

    def replayed(self, text: str, knobs: str, decide: Callable[[], Compressed]) -> Compressed:
        """What was decided before, marked as `cached`, else what `decide` decides now; threads share one.

        Args:
            text: the source.
            knobs: all else that the decision depends on.
            decide: makes it; what it raises is raised and nothing is kept.
        """
        key = f"cut{_VERSION}:{sha256(f'{len(knobs)}:{knobs}{text}'.encode('utf-8', 'surrogatepass')).hexdigest()}"
        known = self.cache.get(self.tenant, key)
        if known is not None:
            return _unpacked(known, text)
        flight = f"{self.tenant}:{key}"
        mine, others = self.flights.board([flight])
        if flight in others and (decided := others[flight].result()) is not None:
            return _unpacked(decided, text)
        try:
            made = decide()
            packed = _packed(made)
            if packed is not None:
                self.cache.put(self.tenant, key, packed, ttl=_TTL_SECONDS)
            if flight in mine:
                mine[flight].set_result(packed)
        finally:
            self.flights.land(mine)
        return made


def _packed(made: Compressed) -> bytes | None:
    """The decision without a word of the text: where its slices stand, and the whitespace and marks between them."""
    output, source = made.text or "", made.source
    pieces: list[tuple[str, int, int]] = []
    at = 0
    for start, end in made.kept(len(source)) if made.dropped else ((0, len(source)),):
        slice_ = source[start:end].strip()
        found = output.find(slice_, at)
        if found < 0:
            return None
        first = source.index(slice_, start)
        pieces.append((output[at:found], first, first + len(slice_)))
        at = found + len(slice_)
    cuts = [(cut.start, cut.end, cut.why) for cut in made.dropped]
    row = [made.tokens_before, made.tokens_after, cuts, made.reason, made.scored_by, pieces, output[at:]]
    return zlib.compress(json.dumps(row).encode(), 1)


def _unpacked(packed: bytes, source: str) -> Compressed:
    before, after, cuts, reason, scored_by, pieces, last = json.loads(zlib.decompress(packed))
    text = "".join(f"{between}{source[start:end]}" for between, start, end in pieces) + last
    dropped = tuple(Cut(*cut) for cut in cuts)
    return Compressed(before, after, dropped, reason, text=text, scored_by=scored_by, cached=True, source=source)
