"""Folders: the head with its revision and owner, and the items."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from ctxmem.stores.schema import metadata

folders = Table(
    "folders",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index(None, "tenant", "user_id"),
)

folder_items = Table(
    "folder_items",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
