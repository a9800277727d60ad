"""Brings a database's tables to the revision this code needs. Alembic is imported only when there is work for it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect

from ctxmem.errors import StoreError
from ctxmem.stores.engine import begin_immediate
from ctxmem.stores.schema import HEAD

_POSTGRES_LOCK = 0x6374786D656D  # "ctxmem" in ASCII: the name of the advisory lock


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None when it has no tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return found


def upgrade(engine: Engine) -> None:
    """Bring the tables to `HEAD`, all or nothing; others that try at the same time wait.

    Raises:
        StoreError: the tables belong to a newer ctxmem.
    """
    with engine.connect() as connection:
        if revision(connection) == HEAD:
            return
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            begin_immediate(connection)
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
        found = revision(connection)
        if found != HEAD:
            _run(connection, found)
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("COMMIT")
        connection.commit()


def _run(connection: Connection, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"the database is at revision {found!r}, unknown to this ctxmem: {error}") from error
