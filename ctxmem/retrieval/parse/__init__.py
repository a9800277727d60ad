"""Reading documents: bytes to a text, and the blocks it is made of.

Each format has its module and its library; what they give is one shape. Offsets count characters of `Parsed.text`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath

from ctxmem.errors import ConfigError, InvalidInput
from ctxmem.retrieval.parse.block import LARGEST, Block, Parsed, decoded

__all__ = ["KINDS", "LARGEST", "Block", "Parsed", "kind_of", "parse"]

KINDS = ("text", "markdown", "html", "pdf", "json", "code", "chat")

_BY_SUFFIX = {
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".py", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".go", ".rs", ".java", ".c", ".h"), "code"),
    ".pdf": "pdf",
}
_PDF = b"%PDF-"


def kind_of(name: str, data: bytes = b"") -> str:
    """How a file of this name, with this content, is read; plain text when nothing says otherwise."""
    if data.startswith(_PDF):
        return "pdf"
    return _BY_SUFFIX.get(PurePath(name).suffix.lower(), "text")


def parse(data: str | bytes, *, kind: str = "", name: str = "") -> Parsed:
    """Read a document.

    Args:
        data: its content.
        kind: one of `KINDS`; found by name and content when empty.
        name: the file's name; its suffix says which language code is in.

    Raises:
        InvalidInput: the kind is unknown, the content is too large, is not text, or is not what the kind says.
        ConfigError: the format's library is not installed.
    """
    chosen = kind or kind_of(name, data if isinstance(data, bytes) else b"")
    if chosen not in KINDS:
        raise InvalidInput(f"unknown kind {chosen!r}; known: {', '.join(KINDS)}", param="kind")
    if len(data) > LARGEST:
        raise InvalidInput(f"{name or 'the document'} has {len(data)} bytes, more than {LARGEST}", param="text")
    try:
        module = import_module(f"ctxmem.retrieval.parse.{chosen}_format")
    except ModuleNotFoundError as error:
        raise ConfigError(f'reading {chosen} needs {error.name}: pip install "ctxmem[retrieval]"') from error
    read: Callable[[str | bytes, str], Parsed] = module.read
    return read(data if chosen == "pdf" else decoded(data, name), name)
