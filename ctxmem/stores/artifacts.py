"""Content kept under its SHA-256, each tenant's apart, and who brought it.

A session's artifacts go with it unless another session, or a `put_artifact` without one, brought the same content.
"""

from __future__ import annotations

import hashlib
import zlib

from sqlalchemy import Connection, Dialect, bindparam, select

from ctxmem.errors import InvalidInput, NotFound, StoreError
from ctxmem.stores import schema, statements

_LEAST = 512
"""Bytes from which content is compressed."""

_table = schema.artifacts
_find = (
    select(_table.c.codec, _table.c.content, _table.c.sha256)
    .where(
        _table.c.tenant == bindparam("tenant"),
        _table.c.sha256 >= bindparam("sha256"),
        _table.c.sha256 <= bindparam("last"),
    )
    .limit(2)
)
_WHOLE = 64
"""Hex digits of a SHA-256."""


class ArtifactWriter:
    """Keeps content in one dialect of SQL."""

    def __init__(self, dialect: Dialect) -> None:
        self._use = statements.insert_new(dialect, schema.artifact_uses)
        self._keep = statements.insert_new(dialect, _table)
        self._has_row_locks = dialect.name == "postgresql"

    def hold(self, connection: Connection, tenant: str) -> None:
        """Keep erasures away until the transaction ends; comes before every other lock, as it does in an erasure."""
        if self._has_row_locks:
            hold_tenant(connection, tenant, shared=True)

    def keep(self, connection: Connection, tenant: str, sha256: str, content: bytes, *, session_id: str = "") -> None:
        """Keep the content for a session; known content is left alone. Call `hold` first.

        Raises:
            InvalidInput: the hash is not the content's.
        """
        use = {"tenant": tenant, "sha256": sha256, "session_id": session_id}
        if connection.exec_driver_sql(self._use, use).rowcount == 0:
            return
        if digest(content) != sha256:
            raise InvalidInput(f"artifact {sha256!r} is not the SHA-256 of its content")
        codec, packed = pack(content)
        row = {"tenant": tenant, "sha256": sha256, "codec": codec, "content": packed}
        connection.exec_driver_sql(self._keep, row)

    def put(self, connection: Connection, tenant: str, content: bytes, *, session_id: str = "") -> str:
        """Keep the content for a session, or for its own sake; returns its hash.

        Raises:
            NotFound: there is no such session.
        """
        self.hold(connection, tenant)
        sessions = schema.sessions
        if session_id:
            known = select(sessions.c.id).where(sessions.c.tenant == tenant, sessions.c.id == session_id)
            if connection.scalar(known) is None:
                raise NotFound(f"no session {session_id!r}")
        sha256 = digest(content)
        self.keep(connection, tenant, sha256, content, session_id=session_id)
        return sha256


def read(connection: Connection, tenant: str, sha256: str) -> bytes | None:
    """The content, or None when it is not kept.

    Args:
        connection: to the database.
        tenant: whose content.
        sha256: its hash in hex, or the first digits of it; digits that several share name none.

    Raises:
        StoreError: it has changed on the disk.
    """
    last = sha256.ljust(_WHOLE, "f")
    found = connection.execute(_find, {"tenant": tenant, "sha256": sha256, "last": last}).all()
    if len(found) != 1:
        return None
    row = found[0]
    content = unpack(row.codec, row.content)
    if digest(content) != row.sha256:
        raise StoreError(f"artifact {sha256} is damaged: its content does not match its hash")
    return content


def digest(content: bytes) -> str:
    """The name of content: its SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def hold_tenant(connection: Connection, tenant: str, *, shared: bool) -> None:
    """PostgreSQL: keep erasure of the tenant's content and new uses of it apart until the transaction ends."""
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    connection.exec_driver_sql(f"SELECT {function}(hashtext(%(tenant)s))", {"tenant": tenant})


def pack(content: bytes) -> tuple[str, bytes]:
    """Codec and bytes at rest."""
    packed = zlib.compress(content) if len(content) >= _LEAST else content
    return ("zlib", packed) if len(packed) < len(content) else ("raw", content)


def unpack(codec: str, body: bytes) -> bytes:
    """The content of bytes at rest.

    Raises:
        StoreError: they have changed on the disk.
    """
    try:
        return zlib.decompress(body) if codec == "zlib" else bytes(body)
    except zlib.error as error:
        raise StoreError(f"content in the database is damaged: {error}") from error
