"""Tables of documents, after the fields of `ctxmem.document`; the tenant stands first in every key."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, LargeBinary, Table, Text

from ctxmem.stores.schema import metadata

shelves = Table(
    "shelves",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("fingerprint", Text, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("text", "kind", "title", "sha256", "user_id", "session_id")),
    Column("metadata", JSON, nullable=False),
    Column("at", Float(53), nullable=False),
    Index(None, "tenant", "user_id"),
    Index(None, "tenant", "session_id"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("document_id", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ("seq", "start", "end")),
    *(Column(name, Text, nullable=False) for name in ("text", "lead", "fingerprint")),
    Column("vector", LargeBinary, nullable=True),
    Index(None, "tenant", "namespace", "document_id"),
    Index(None, "tenant", "namespace", "fingerprint"),
)
"""A chunk without a vector has an empty fingerprint."""
