"""HTML, read by Beautiful Soup: the text that a reader sees, in blocks led by the headings they stand under."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement, PreformattedString

from ctxmem.retrieval.parse.block import Built, Parsed

_HIDDEN = {"script", "style", "noscript", "template", "head", "nav", "svg", "iframe", "object"}
_HEADINGS = {f"h{level}" for level in range(1, 7)}
_BLOCKS = _HEADINGS | {
    *("p", "div", "section", "article", "main", "aside", "header", "footer", "body", "html", "blockquote", "figure"),
    *("ul", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "pre", "form", "fieldset", "hr", "br"),
}
_DEEPEST = 200
_SPACE = re.compile(r"\s+")


class _Reader:
    """Walks the tree and collects the text of each block."""

    def __init__(self) -> None:
        self.built = Built()
        self._said: list[str] = []
        self._path: dict[int, str] = {}

    def walk(self, element: PageElement, depth: int = 0) -> None:
        """Read one element and what is in it."""
        if isinstance(element, PreformattedString):  # comments, declarations
            return
        if isinstance(element, NavigableString):
            self._said.append(str(element))
        elif isinstance(element, Tag) and element.name not in _HIDDEN:
            self._enter(element, depth)

    def flush(self) -> str:
        """Close the block under way; returns its text."""
        text = _SPACE.sub(" ", "".join(self._said)).strip()
        self._said.clear()
        if text:
            self.built.add(text, " > ".join(self._path[level] for level in sorted(self._path)))
        return text

    def _enter(self, tag: Tag, depth: int) -> None:
        if depth > _DEEPEST:
            self._said.append(tag.get_text(" "))
            return
        splits = tag.name in _BLOCKS
        if splits:
            self.flush()
        if tag.name in ("td", "th"):
            self._said.append(" ")
        if tag.name in _HEADINGS:
            self._head(int(tag.name[1]), _SPACE.sub(" ", tag.get_text(" ")).strip())
            return
        for child in tag.children:
            self.walk(child, depth + 1)
        if splits:
            self.flush()

    def _head(self, level: int, heading: str) -> None:
        self._path = {depth: text for depth, text in self._path.items() if depth < level} | {level: heading}


def read(data: str, name: str) -> Parsed:
    """Read HTML; the title is that of its head, else its first heading."""
    del name
    soup = BeautifulSoup(data, "html.parser")
    reader = _Reader()
    reader.walk(soup)
    reader.flush()
    found = soup.title or soup.find(list(_HEADINGS))
    title = _SPACE.sub(" ", found.get_text(" ")).strip() if isinstance(found, Tag) else ""
    return reader.built.parsed("html", title)
