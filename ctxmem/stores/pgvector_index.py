"""An index in PostgreSQL with the pgvector extension, for those whose vectors outgrow one machine.

    index = PgVectorIndex("postgresql://…", Shelfmark("tenant", "handbook", embedder.name), embedder.dimensions)

It implements `ctxmem.ports.Index` and may be lost at any time; the truth is with the documents. Any number of processes
may share it, and see each other's writes at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, ColumnElement, Index, MetaData, Table, Text, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from ctxmem.errors import ConfigError, InvalidInput, StoreError
from ctxmem.ports import Match
from ctxmem.ports.index import checked, paired, wanted
from ctxmem.stores.engine import open_engine
from ctxmem.stores.faults import mapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AT_ONCE = 1000  # rows in one statement


@dataclass(frozen=True, slots=True)
class Shelfmark:
    """Which vectors of a table are an index's.

    Attributes:
        tenant: whose.
        namespace: the collection.
        fingerprint: the embedder that made them.
    """

    tenant: str
    namespace: str
    fingerprint: str


class PgVectorIndex:
    """Vectors in a table, one table for each dimension. Safe for threads.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
    """

    def __init__(self, url: str, mark: Shelfmark, dimensions: int, *, approximate: bool = False) -> None:
        """Open the index; its table is made when it is not there.

        Args:
            url: `postgresql://…`.
            mark: which vectors are meant.
            dimensions: length of a vector.
            approximate: make an HNSW graph over the table, and search in that: faster for millions, no longer exact.

        Raises:
            ConfigError: the database has no pgvector, or is none of PostgreSQL's.
            StoreError: the database is out of reach.
            InvalidInput: a vector without dimensions.
        """
        if dimensions < 1:
            raise InvalidInput(f"a vector has one dimension at least, not {dimensions}", param="dimensions")
        self.fingerprint, self.dimensions, self._mark = mark.fingerprint, dimensions, mark
        self._engine = open_engine(url)
        if self._engine.dialect.name != "postgresql":
            raise ConfigError("pgvector is an extension of PostgreSQL")
        self._table = _table(dimensions)
        try:
            self._make(approximate=approximate)
        except StoreError as error:
            self._engine.dispose()
            if "vector" in str(error):
                raise ConfigError(f"the database has no pgvector: {error}") from error
            raise

    def __len__(self) -> int:
        with mapped(), self._engine.connect() as connection:
            return int(
                connection.execute(select(func.count()).select_from(self._table).where(*self._mine)).scalar_one()
            )

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
            StoreError: the database is out of reach. Nothing is changed.
        """
        rows = paired(ids, vectors, self.dimensions)
        named = {"tenant": self._mark.tenant, "namespace": self._mark.namespace, "fingerprint": self.fingerprint}
        values = [{**named, "id": id, "embedding": row} for id, row in zip(ids, rows, strict=True)]
        with mapped(), self._engine.begin() as connection:
            for start in range(0, len(values), _AT_ONCE):
                put = insert(self._table).values(values[start : start + _AT_ONCE])
                key = self._table.primary_key
                connection.execute(put.on_conflict_do_update(key, set_={"embedding": put.excluded.embedding}))

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        with mapped(), self._engine.begin() as connection:
            gone = delete(self._table).where(*self._mine, self._table.c.id.in_(list(ids)))
            return connection.execute(gone).rowcount if ids else 0

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
            StoreError: the database is out of reach.
        """
        k = wanted(k)
        rows, table = checked(vectors, self.dimensions), self._table
        allowed = [] if among is None else [table.c.id.in_(list(among))]
        with mapped(), self._engine.connect() as connection:
            found = []
            for row in rows:
                distance = table.c.embedding.max_inner_product(row)
                asked = (
                    select(table.c.id, distance).where(*self._mine, *allowed).order_by(distance, table.c.id).limit(k)
                )
                found.append([Match(id, -float(far)) for id, far in connection.execute(asked)])
            return found

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), dimensions) vectors; zeros for ids that are not there."""
        import numpy as np

        table, found = self._table, np.zeros((len(ids), self.dimensions), dtype=np.float32)
        with mapped(), self._engine.connect() as connection:
            asked = select(table.c.id, table.c.embedding).where(*self._mine, table.c.id.in_(list(ids)))
            held = {row.id: row.embedding for row in connection.execute(asked)}
        for at, id in enumerate(ids):
            if id in held:
                found[at] = held[id]
        return found

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def _make(self, *, approximate: bool) -> None:
        """The extension, the table and its graph, where they are not there; one process at a time."""
        with mapped(), self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ctxmem index_vectors'))"))
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            self._table.create(connection, checkfirst=True)
            if approximate:
                _graph(self._table).create(connection, checkfirst=True)

    @property
    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        table, mark = self._table, self._mark
        return (
            table.c.tenant == mark.tenant,
            table.c.namespace == mark.namespace,
            table.c.fingerprint == mark.fingerprint,
        )


def _table(dimensions: int) -> Table:
    return Table(
        f"index_vectors_{dimensions}",
        MetaData(),
        Column("tenant", Text, primary_key=True),
        Column("namespace", Text, primary_key=True),
        Column("fingerprint", Text, primary_key=True),
        Column("id", Text(collation="C"), primary_key=True),
        Column("embedding", VECTOR(dimensions), nullable=False),
    )


def _graph(table: Table) -> Index:
    return Index(
        f"{table.name}_graph",
        table.c.embedding,
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "vector_ip_ops"},
    )
