"""PDF, read by pypdf: blocks are the paragraphs of each page, led by the page's number."""

from __future__ import annotations

import io
import logging

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from ctxmem.errors import InvalidInput
from ctxmem.retrieval.parse.block import Built, Parsed
from ctxmem.retrieval.parse.text_format import read as paragraphs

MOST_PAGES = 5000


def read(data: str | bytes, name: str) -> Parsed:
    """Read a PDF; the title is that of its information.

    Raises:
        InvalidInput: it is damaged, locked by a password, has too many pages, or no text (scans have none).
    """
    what = name or "the document"
    raw = data.encode("latin-1", "replace") if isinstance(data, str) else data
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it can read it reads; its warnings help nobody here
    built = Built()
    try:
        reader = PdfReader(io.BytesIO(raw))
        if len(reader.pages) > MOST_PAGES:
            raise InvalidInput(f"{what} has more than {MOST_PAGES} pages", param="text")
        title = str((reader.metadata.title if reader.metadata else None) or "")
        for number, page in enumerate(reader.pages, 1):
            text = page.extract_text().replace("\x00", "").encode("utf-8", "replace").decode()
            for block in paragraphs(text, name).blocks:
                built.add(text[block.start : block.end], f"page {number}")
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError, OSError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{what} is not a PDF that can be read: {error}", param="text") from error
    if not built.blocks:
        raise InvalidInput(f"{what} has no text: its pages may be pictures", param="text")
    return built.parsed("pdf", title)
