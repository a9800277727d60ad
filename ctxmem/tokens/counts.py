"""Counts that are remembered, so that a long prompt is not encoded again on every turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from threading import Lock

Measure = Callable[[list[str]], list[int]]
"""Tokens of each text, computed."""

_KEPT_WHOLE = 64  # characters up to which a text is its own key


class Remembered:
    """A measure in front of a bounded memory of the texts counted last.

    Only digests of longer texts are kept, so the memory does not grow with the size of the texts.
    """

    def __init__(self, measure: Measure, *, capacity: int = 65_536) -> None:
        """Remember the counts of `capacity` texts, the ones not asked for the longest going first."""
        self._measure = measure
        self._capacity = capacity
        self._counts: OrderedDict[str | bytes, int] = OrderedDict()
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text. Safe to call from many threads."""
        keys = [_key(text) for text in texts]
        with self._lock:
            known = {key: self._counts[key] for key in keys if key in self._counts}
            for key in known:
                self._counts.move_to_end(key)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            known.update(zip(new, self._measure(list(new.values())), strict=True))
            self._keep({key: known[key] for key in new})
        return [known[key] for key in keys]

    def _keep(self, counts: dict[str | bytes, int]) -> None:
        with self._lock:
            self._counts.update(counts)
            while len(self._counts) > self._capacity:
                self._counts.popitem(last=False)


def well_formed(text: str) -> str:
    """The text with lone surrogates, which JSON can carry and no tokenizer takes, read as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _key(text: str) -> str | bytes:
    return text if len(text) <= _KEPT_WHOLE else blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
