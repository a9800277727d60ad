"""What reading gives: a text and its blocks."""

from __future__ import annotations

from dataclasses import dataclass

from ctxmem.errors import InvalidInput

LARGEST = 64 * 2**20
"""Bytes or characters of one document, at most."""


@dataclass(frozen=True, slots=True)
class Block:
    """A span of the text that belongs together: a paragraph, a function, a table, a turn of a chat.

    Attributes:
        start: its first character.
        end: the character after its last.
        lead: what it stands under or follows: headings, class, page, or who spoke when after what.
        alone: whether it is never joined with its neighbours.
    """

    start: int
    end: int
    lead: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as read.

    Attributes:
        kind: how it was read.
        text: what offsets count in.
        blocks: in order; they do not overlap.
        title: its title; empty when it has none.
    """

    kind: str
    text: str
    blocks: tuple[Block, ...]
    title: str = ""


def decoded(data: str | bytes, name: str = "") -> str:
    """The content as text; a byte order mark is left out, a lone surrogate becomes U+FFFD, lines end in a line feed.

    Raises:
        InvalidInput: it is not UTF-8 or UTF-16 text, whatever its name says.
    """
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\x00", "\ufffd")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name or 'the document'} is not text: {error}", param="text") from error
    if "\x00" in text:
        raise InvalidInput(f"{name or 'the document'} is not text: it has NUL characters", param="text")
    return text.replace("\r\n", "\n")


class Built:
    """A text put together from pieces, and where they ended up."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.blocks: list[Block] = []

    def add(self, piece: str, lead: str = "", *, alone: bool = False, gap: str = "\n\n") -> None:
        """Append a block, with a gap to the one before; blank ones are left out."""
        if not piece.strip():
            return
        if self._parts:
            self._parts.append(gap)
            self._length += len(gap)
        self.blocks.append(Block(self._length, self._length + len(piece), lead, alone))
        self._parts.append(piece)
        self._length += len(piece)

    def parsed(self, kind: str, title: str = "") -> Parsed:
        """All of it."""
        return Parsed(kind, "".join(self._parts), tuple(self.blocks), title)


def trimmed(text: str, start: int, end: int, lead: str = "", *, alone: bool = False) -> list[Block]:
    """The span without white space at its ends, as a block; none when nothing is left."""
    piece = text[start:end]
    body = piece.strip()
    if not body:
        return []
    first = start + len(piece) - len(piece.lstrip())
    return [Block(first, first + len(body), lead, alone)]
