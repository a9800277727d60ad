"""Plain text: blocks are paragraphs."""

from __future__ import annotations

import re

from ctxmem.retrieval.parse.block import Block, Parsed, trimmed

_BLANK = re.compile(r"\n[ \t]*\n\s*")


def read(data: str, name: str) -> Parsed:
    """Read plain text; it has no title."""
    del name
    blocks: list[Block] = []
    start = 0
    for gap in _BLANK.finditer(data):
        blocks += trimmed(data, start, gap.start())
        start = gap.end()
    return Parsed("text", data, (*blocks, *trimmed(data, start, len(data))))
