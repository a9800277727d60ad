"""How much the sentences of a text have to do with a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Embeds(Protocol):
    """Turns texts into vectors of which the inner product says how alike they are."""

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:
        """(texts, dimensions) float32, each row of length 1."""
        ...
