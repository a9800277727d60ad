"""Which memories are to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ctxmem.errors import InvalidInput
from ctxmem.memories.filters import compiled
from ctxmem.memories.lexicon import stems
from ctxmem.memory import Memory


@dataclass(frozen=True, slots=True)
class Selection:
    """What to forget; a memory must meet all that is given, and something must be.

    Attributes:
        about: words that it must hold, all of them.
        filters: conditions on fields and metadata.
        before: it was recorded before, seconds since 1970.
        expired: it has expired.
        everything: no condition at all.
        reason: why, for the history.
    """

    about: str = ""
    filters: Mapping[str, Any] | None = None
    before: float | None = None
    expired: bool = False
    everything: bool = False
    reason: str = "forgotten"

    def of(self, memories: Iterable[Memory], now: float) -> list[Memory]:
        """Those of the memories that are meant.

        Raises:
            InvalidInput: nothing says which.
        """
        words = set(stems(self.about))
        if self.about and not words:
            raise InvalidInput("about holds no word to go by", param="about")
        narrowed = words or self.filters or self.before is not None or self.expired
        if bool(narrowed) == self.everything:
            raise InvalidInput("say which: about, filters, before or expired; or everything, alone", param="about")
        passes = compiled(self.filters)
        return [
            one
            for one in memories
            if words <= set(stems(one.text))
            and passes(one)
            and (self.before is None or one.recorded_at < self.before)
            and (not self.expired or (one.expires_at is not None and one.expires_at <= now))
        ]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was forgotten, or would be.

    Attributes:
        ids: the memories.
        dry_run: whether nothing was done.
    """

    ids: tuple[str, ...]
    dry_run: bool
