"""What is brought to a library: a document before it is read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from ctxmem.document import Chunk, Document
from ctxmem.errors import InvalidInput
from ctxmem.retrieval.chunk import chunked
from ctxmem.retrieval.parse import parse

_LONGEST_ID = 512
_READER = "2"
"""Changes when the same content would be cut in another way."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document to ingest.

    Attributes:
        data: its content.
        id: names it; by default its name, else a hash of its content. One that is known is replaced.
        kind: how to read it; found by name and content when empty.
        name: its file name or address.
        title: overrides the title that is read from it.
        user_id: whose it is; empty for one that all users share.
        session_id: the session it is erased with; empty for none.
        metadata: the caller's own, JSON values.
        at: its time, seconds since 1970; now by default.
    """

    data: str | bytes
    id: str = ""
    kind: str = ""
    name: str = ""
    title: str = ""
    user_id: str = ""
    session_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: float | None = None

    @property
    def key(self) -> str:
        """The id of the document it becomes."""
        return self.id or self.name or f"doc_{hashlib.sha256(self._raw).hexdigest()[:32]}"

    @property
    def sha256(self) -> str:
        """Hash of all that decides about the document and its chunks."""
        said = [_READER, self.kind, self.name, self.title, self.user_id, self.session_id, self.at]
        try:
            told = json.dumps([*said, dict(self.metadata)], sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"metadata has no JSON form: {error}", param="metadata") from error
        return hashlib.sha256(told.encode() + b"\0" + self._raw).hexdigest()

    @property
    def _raw(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data.encode("utf-8", "surrogatepass")

    def read(self, namespace: str) -> tuple[Document, list[Chunk]]:
        """The document and its chunks; no chunks when it says nothing.

        Raises:
            InvalidInput: it cannot be read.
            ConfigError: the library for its format is not installed.
        """
        parsed = parse(self.data, kind=self.kind, name=self.name)
        document = Document(
            namespace,
            self.key,
            parsed.text,
            kind=parsed.kind,
            title=self.title or parsed.title,
            sha256=self.sha256,
            user_id=self.user_id,
            session_id=self.session_id,
            metadata=dict(self.metadata),
            at=time.time() if self.at is None else self.at,
        )
        return document, chunked(document.id, replace(parsed, title=document.title))


def checked(sources: Sequence[Source]) -> None:
    """See that the sources are what they are said to be, and have ids of their own.

    Raises:
        InvalidInput: they are not; the message names the one at fault. An id is empty, too long or there twice.
    """
    if isinstance(sources, Source):
        raise InvalidInput("documents are a list of them, not one", param="documents")
    seen: set[str] = set()
    for place, source in enumerate(sources):
        _typed(source, f"documents[{place}]")
        if len(source.key) > _LONGEST_ID or "\0" in source.key:
            raise InvalidInput(f"an id has at most {_LONGEST_ID} characters and no NUL", param=f"documents[{place}].id")
        if source.key in seen:
            raise InvalidInput(f"the id {source.key!r} is there twice", param=f"documents[{place}].id")
        seen.add(source.key)


def _typed(source: Source, where: str) -> None:
    if not isinstance(source.data, str | bytes):
        raise InvalidInput(f"{where} is text or bytes, not {type(source.data).__name__}", param=f"{where}.text")
    if not all(isinstance(said, str) for said in (source.id, source.kind, source.name, source.title)):
        raise InvalidInput(f"id, kind, name and title of {where} are texts", param=f"{where}.id")
    at = source.at
    if at is not None and not (isinstance(at, int | float) and isfinite(at)):
        raise InvalidInput(f"at of {where} is seconds since 1970, got {at!r}", param=f"{where}.at")
