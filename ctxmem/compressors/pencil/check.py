"""A cheap check of an answer: what is hard to make up by chance must stand in what the scope saw."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HARD = re.compile(
    r"https?://[^\s\"'<>)\]]+"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.]+"
    r"|\"[^\"\n]{2,120}\"|`[^`\n]{2,120}`"
    r"|(?:~|\.{0,2})?(?:/[\w.@+-]+){2,}|(?<![\w-])[\w-]+(?:/[\w.@+-]+)+\.\w+"
    r"|(?<![\w.])[#$€£]?\d[\d.,:%-]*\w*"
)
MOST_LOOSE = 20


def loose(answer: str, seen: Sequence[str]) -> tuple[str, ...]:
    """Numbers, addresses, paths and quotations of an answer that stand in none of the texts.

    >>> loose("test_x fails in /src/parse.py at line 42", ["def test_x(): /src/parse.py"])
    ('42',)
    """
    found = dict.fromkeys(piece.strip("\"'`.,:;") for piece in _HARD.findall(answer))
    return tuple(piece for piece in found if piece and not any(piece in text for text in seen))[:MOST_LOOSE]
