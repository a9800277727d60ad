"""Source code, read by tree-sitter: blocks are definitions, led by the class or module they stand in."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import PurePath

from tree_sitter import Language, Node, Parser

from ctxmem.retrieval.parse.block import Parsed, trimmed

_LANGUAGES = {
    ".py": ("tree_sitter_python", "language"),
    **dict.fromkeys((".js", ".mjs", ".jsx"), ("tree_sitter_javascript", "language")),
    ".ts": ("tree_sitter_typescript", "language_typescript"),
    ".tsx": ("tree_sitter_typescript", "language_tsx"),
    ".go": ("tree_sitter_go", "language"),
    ".rs": ("tree_sitter_rust", "language"),
    ".java": ("tree_sitter_java", "language"),
    **dict.fromkeys((".c", ".h"), ("tree_sitter_c", "language")),
}
_HOLDERS = ("class_", "impl_item", "trait_item", "interface_", "mod_item", "enum_declaration", "decorated_definition")
"""Beginnings of the types of nodes whose body is read piece by piece."""
_SMALL = 1200
"""Bytes up to which a definition stays whole."""


def read(data: str, name: str) -> Parsed:
    """Read source code; a language that is not known is read in one block, which is split where it is too long."""
    known = _LANGUAGES.get(PurePath(name).suffix.lower())
    if known is None:
        return Parsed("code", data, tuple(trimmed(data, 0, len(data))), name)
    module, function = known
    raw = data.encode()
    tree = Parser(Language(getattr(import_module(module), function)())).parse(raw)
    place = _Places(raw)
    blocks = [
        block
        for start, end, lead in _pieces(tree.root_node, name)
        for block in trimmed(data, place.of(start), place.of(end), lead)
    ]
    return Parsed("code", data, tuple(blocks), name)


def _pieces(node: Node, lead: str) -> Iterator[tuple[int, int, str]]:
    """Spans, in bytes, of what stands in a node: a comment goes with what follows it."""
    start: int | None = None
    for child in node.named_children:
        first = child.start_byte if start is None else start
        if child.type.endswith("comment"):
            start = first
            continue
        start = None
        body = _body(child) if child.end_byte - first > _SMALL else None
        if body is None:
            yield first, child.end_byte, lead
        else:
            yield first, body.start_byte, lead
            yield from _pieces(body, f"{lead} > {_named(child)}".removeprefix(" > "))
    if start is not None:
        yield start, node.end_byte, lead


def _body(node: Node) -> Node | None:
    """Where the members of a class or the like stand."""
    if not node.type.startswith(_HOLDERS):
        return None
    inner = node.child_by_field_name("definition")
    return _body(inner) if inner is not None else node.child_by_field_name("body")


def _named(node: Node) -> str:
    inner = node.child_by_field_name("definition") or node
    name = inner.child_by_field_name("name") or inner.child_by_field_name("type")
    return name.text.decode("utf-8", "replace") if name is not None and name.text else node.type


class _Places:
    """Characters from bytes, asked for in rising order."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._byte = self._character = 0

    def of(self, byte: int) -> int:
        """The character that starts at this byte."""
        if byte < self._byte:
            self._byte = self._character = 0
        self._character += len(self._raw[self._byte : byte].decode("utf-8", "ignore"))
        self._byte = byte
        return self._character
