"""Markdown, read by markdown-it-py: blocks are its top-level elements, led by the headings they stand under."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from ctxmem.retrieval.parse.block import Block, Parsed, trimmed

_LINE = re.compile(r"\r\n|\r|\n")
_HEADING = "heading_open"


def read(data: str, name: str) -> Parsed:
    """Read Markdown; the title is its first heading."""
    del name
    starts = [0, *(end.end() for end in _LINE.finditer(data)), len(data)]
    tokens = MarkdownIt("commonmark").enable("table").parse(data)
    path: dict[int, str] = {}
    blocks: list[Block] = []
    title = ""
    for place, token in enumerate(tokens):
        if token.level or token.map is None or token.nesting < 0:
            continue
        start, end = (starts[min(line, len(starts) - 1)] for line in token.map)
        if token.type == _HEADING:
            depth, heading = int(token.tag[1:]), tokens[place + 1].content.strip()
            title = title or heading
            path = {level: text for level, text in path.items() if level < depth} | {depth: heading}
        else:
            blocks += trimmed(data, start, end, " > ".join(path[level] for level in sorted(path)))
    return Parsed("markdown", data, tuple(blocks), title)
