"""Chunks: neighbouring blocks under one heading are joined up to a size, longer ones are cut at sentences.

A chunk's id follows from its document, its text and lead, and how often the document says the same before it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

from ctxmem.document import Chunk
from ctxmem.retrieval.parse import Block, Parsed

SIZE = 900
"""Characters of a chunk with its lead: about the 256 tokens that MiniLM reads."""
_LONGEST_LEAD = SIZE // 2
_ENDS = (re.compile(r"(?<=[.!?。！？])[\"')\]]*\s+|\n+"), re.compile(r"\s+"))
"""Where a block that is too long is cut: after a sentence or line, else between words, else anywhere."""


def chunked(document_id: str, parsed: Parsed, *, size: int = SIZE) -> list[Chunk]:
    """The chunks of a document, in order; none of a document without words.

    Args:
        document_id: its id.
        parsed: the document as read.
        size: most characters of a chunk, its lead included; a chat's turns stay whole.
    """
    made: list[Chunk] = []
    seen: Counter[str] = Counter()
    for start, end, lead in _spans(parsed, size):
        text = parsed.text[start:end]
        full = f"{parsed.title}\n{lead}" if parsed.title and parsed.title not in lead else lead
        full = full.strip()[-_LONGEST_LEAD:] if parsed.kind != "chat" else full
        said = f"{document_id}\0{full}\0{text}"
        seen[said] += 1
        name = hashlib.sha256(f"{said}\0{seen[said]}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        made.append(Chunk(f"ck_{name}", document_id, len(made), start, end, text, full))
    return made


def _spans(parsed: Parsed, size: int) -> Iterator[tuple[int, int, str]]:
    """Spans of chunks with their leads."""
    pending: Block | None = None
    for block in parsed.blocks:
        if pending is not None and _joins(pending, block, size):
            pending = Block(pending.start, block.end, pending.lead)
            continue
        if pending is not None:
            yield from _cut(parsed, pending, size)
        pending = block
    if pending is not None:
        yield from _cut(parsed, pending, size)


def _joins(before: Block, block: Block, size: int) -> bool:
    if before.alone or block.alone or before.lead != block.lead:
        return False
    return block.end - before.start + min(len(block.lead), _LONGEST_LEAD) <= size


def _cut(parsed: Parsed, block: Block, size: int) -> Iterator[tuple[int, int, str]]:
    """A block in pieces of at most `size`, its lead's share taken off."""
    room = max(size - min(len(block.lead) + len(parsed.title), _LONGEST_LEAD), size // 2)
    start = block.start
    while block.end - start > room:
        stop = _end(parsed.text, start, start + room)
        yield start, start + len(parsed.text[start:stop].rstrip()), block.lead
        start = stop
        while start < block.end and parsed.text[start].isspace():
            start += 1
    if start < block.end:
        yield start, block.end, block.lead


def _end(text: str, start: int, limit: int) -> int:
    """Where to cut between `start` and `limit`: the last good place, not before the middle."""
    for pattern in _ENDS:
        ends = [found.end() for found in pattern.finditer(text, (start + limit) // 2, limit)]
        if ends:
            return ends[-1]
    return limit
