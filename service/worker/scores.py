"""Scores of texts that were scored before."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256


class ScoreCache:
    """Packed scores of texts, the ones used last, bounded by bytes.

    Scores are a pure function of the text and come back only to who sends that text, so tenants may share them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, text: str) -> bytes | None:
        """The scores of a text, None when they are not kept."""
        key = _digest(text)
        packed = self._kept.get(key)
        if packed is not None:
            self._kept.move_to_end(key)
        return packed

    def put(self, text: str, packed: bytes) -> None:
        """Keep a text's scores, forgetting the ones not used for longest."""
        key = _digest(text)
        self._bytes += len(packed) - len(self._kept.pop(key, b""))
        self._kept[key] = packed
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
