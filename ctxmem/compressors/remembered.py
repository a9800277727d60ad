"""A scorer that remembers: self-information of a text never changes, so it is worked out once and ahead of time.

At an epoch a deadline leaves no time for a language model; scores that were worked out while the session was idle cost
nothing then. Knows nothing of what the scores are used for.
"""

from __future__ import annotations

import struct
import threading
import zlib
from array import array
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256

from ctxmem.errors import CtxmemError, Unavailable
from ctxmem.ports import Cache, Scorer, TokenScores

_TTL_SECONDS = 7 * 24 * 3600.0
_LONGEST = 20_000
"""Characters of the longest text that is scored ahead of time."""

_MOST_NATS = 65_504.0
"""Largest half-precision number."""
_TOKEN_BYTES = 10
"""Bytes of a token before deflation: gap, length, nats."""

Flight = Future[bytes | None]
"""A scoring under way."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A scorer behind a shared cache.

    Attributes:
        scorer: does the work.
        cache: keeps scores by the hash of their text.
        tenant: whose texts these are; tenants never share scores.
        background: where `ahead` works.
        flights: texts that are being scored right now.
    """

    scorer: Scorer
    cache: Cache
    tenant: str
    background: ThreadPoolExecutor
    flights: Flights = field(default_factory=lambda: Flights())

    @property
    def name(self) -> str:
        return self.scorer.name

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds for the texts whose scores are not at hand."""
        missing = [text for text in texts if self.cache.get(self.tenant, self._key(text)) is None]
        return self.scorer.seconds(missing) if missing else 0.0

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Scores of each text, the known ones from the cache; what another thread is working out is waited for.

        Fresh scores are given as the cache will give them, so that both lead to the same bytes.

        Raises:
            Unavailable: some were missing and the scorer is out of reach or too slow.
        """
        found = {text: self.cache.get(self.tenant, self._key(text)) for text in texts}
        missing = [text for text, packed in found.items() if packed is None]
        mine, others = self.flights.board(missing)
        try:
            for text, scores in zip(mine, self._fresh(mine, deadline), strict=True):
                found[text] = pack(scores)
                self.cache.put(self.tenant, self._key(text), found[text] or b"", ttl=_TTL_SECONDS)
                mine[text].set_result(found[text])
        finally:
            self.flights.land(mine)
        waited = {text: _outcome(flight, deadline) for text, flight in others.items()}
        failed = [text for text, packed in waited.items() if packed is None]
        waited |= {text: pack(scores) for text, scores in zip(failed, self._fresh(failed, deadline), strict=True)}
        return [unpack(packed) for packed in (found[text] or waited[text] for text in texts) if packed is not None]

    def _fresh(self, texts: Collection[str], deadline: float | None) -> list[TokenScores]:
        return self.scorer.score(list(texts), deadline=deadline) if texts else []

    def ahead(self, texts: Sequence[str]) -> None:
        """Score the texts in the background, for the epoch to come. Failures only cost speed."""
        wanted = [text for text in texts if 0 < len(text) <= _LONGEST]
        if wanted:
            self.background.submit(self._quietly, wanted)

    def _quietly(self, texts: list[str]) -> None:
        for text in texts:
            try:
                self.score([text])
            except CtxmemError:
                return

    def _key(self, text: str) -> str:
        return f"nats2:{self.scorer.name}:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


@dataclass(slots=True)
class Flights:
    """Who is scoring what, so that no text is scored twice at the same time.

    Attributes:
        going: by text, what its scoring will give, packed; None when it failed.
        lock: over `going`.
    """

    going: dict[str, Flight] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def board(self, texts: Sequence[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """Texts for the caller to score, and those that somebody else is scoring."""
        with self.lock:
            others = {text: self.going[text] for text in texts if text in self.going}
            mine: dict[str, Flight] = {text: Future() for text in texts if text not in others}
            self.going |= mine
        return mine, others

    def land(self, mine: dict[str, Flight]) -> None:
        """The caller is done; who waits for a text that was not scored scores it himself."""
        with self.lock:
            for text in mine:
                del self.going[text]
        for flight in mine.values():
            if not flight.done():
                flight.set_result(None)


def _outcome(flight: Flight, deadline: float | None) -> bytes | None:
    """What another thread's scoring gave; None when it failed.

    Raises:
        Unavailable: it takes longer than the deadline allows.
    """
    try:
        return flight.result(timeout=deadline)
    except TimeoutError as error:
        raise Unavailable("the text is being scored, which takes longer than there is time") from error


def pack(scores: TokenScores) -> bytes:
    """Scores as about three bytes a token: gaps, lengths and half-precision nats, deflated.

    >>> unpack(pack(TokenScores((0, 3), (3, 5), (1.5, 0.25))))
    TokenScores(starts=(0, 3), ends=(3, 5), nats=(1.5, 0.25))
    """
    ends = (0, *scores.ends)
    gaps = array("i", [start - end for start, end in zip(scores.starts, ends, strict=False)])
    lengths = array("I", [end - start for start, end in zip(scores.starts, scores.ends, strict=True)])
    nats = struct.pack(f"<{len(gaps)}e", *(min(one, _MOST_NATS) for one in scores.nats))
    return zlib.compress(gaps.tobytes() + lengths.tobytes() + nats[::2] + nats[1::2], 1)


def unpack(packed: bytes) -> TokenScores:
    """What `pack` packed."""
    raw = zlib.decompress(packed)
    number = len(raw) // _TOKEN_BYTES
    gaps, lengths = array("i", raw[: 4 * number]), array("I", raw[4 * number : 8 * number])
    low, high = raw[8 * number : 9 * number], raw[9 * number :]
    nats = struct.unpack(f"<{number}e", bytes(byte for pair in zip(low, high, strict=True) for byte in pair))
    starts, ends, at = [], [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        starts.append(at + gap)
        at += gap + length
        ends.append(at)
    return TokenScores(tuple(starts), tuple(ends), nats)
