"""A scorer that remembers: self-information of a text never changes, so it is worked out once and ahead of time.

At an epoch a deadline leaves no time for a language model; scores that were worked out while the session was idle cost
nothing then. Knows nothing of what the scores are used for.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from ctxmem.errors import CtxmemError
from ctxmem.ports import Cache, Scorer, TokenScores

_TTL_SECONDS = 7 * 24 * 3600.0
_LONGEST = 20_000
"""Characters of the longest text that is scored ahead of time."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A scorer behind a shared cache.

    Attributes:
        scorer: does the work.
        cache: keeps scores by the hash of their text.
        tenant: whose texts these are; tenants never share scores.
        background: where `ahead` works.
    """

    scorer: Scorer
    cache: Cache
    tenant: str
    background: ThreadPoolExecutor

    @property
    def name(self) -> str:
        return self.scorer.name

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds for the texts whose scores are not at hand."""
        missing = [text for text in texts if self.cache.get(self.tenant, self._key(text)) is None]
        return self.scorer.seconds(missing) if missing else 0.0

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Scores of each text, the known ones from the cache.

        Raises:
            Unavailable: some were missing and the scorer is out of reach or too slow.
        """
        found = {text: self.cache.get(self.tenant, self._key(text)) for text in texts}
        missing = [text for text, packed in found.items() if packed is None]
        fresh = dict(zip(missing, self.scorer.score(missing, deadline=deadline), strict=True)) if missing else {}
        for text, scores in fresh.items():
            self.cache.put(self.tenant, self._key(text), pack(scores), ttl=_TTL_SECONDS)
        return [fresh[text] if packed is None else unpack(packed) for text, packed in ((t, found[t]) for t in texts)]

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
        return f"nats:{self.scorer.name}:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def pack(scores: TokenScores) -> bytes:
    """Scores as compact bytes; the nats keep single precision.

    >>> unpack(pack(TokenScores((0, 3), (3, 5), (1.5, 0.25))))
    TokenScores(starts=(0, 3), ends=(3, 5), nats=(1.5, 0.25))
    """
    columns = (array("I", scores.starts), array("I", scores.ends), array("f", scores.nats))
    return zlib.compress(b"".join(column.tobytes() for column in columns), 1)


def unpack(packed: bytes) -> TokenScores:
    """What `pack` packed."""
    raw = zlib.decompress(packed)
    size = len(raw) // 3
    starts, ends, nats = array("I"), array("I"), array("f")
    for column, at in ((starts, 0), (ends, size), (nats, 2 * size)):
        column.frombytes(raw[at : at + size])
    return TokenScores(tuple(starts), tuple(ends), tuple(nats))
