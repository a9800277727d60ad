"""Tables are at the revision the code needs, or brought there, all or nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from ctxmem.errors import StoreError
from ctxmem.stores import migrate, schema
from ctxmem.stores.engine import open_engine
from ctxmem.stores.sql import SqlStore
from tests.shape.imports import ROOT

MIGRATIONS = ROOT / "ctxmem" / "stores" / "migrations"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """An empty file."""
    opened = open_engine(f"sqlite:///{path}")
    yield opened
    opened.dispose()


def test_the_revisions_make_the_tables_of_the_schema(engine: Engine) -> None:
    """Alembic finds nothing to add."""
    migrate.upgrade(engine)
    with engine.connect() as connection:
        drift = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), schema.metadata)
    assert drift == []


def test_the_revisions_make_the_options_of_the_schema(engine: Engine, tmp_path: Path) -> None:
    """What Alembic does not compare: the two ways of making the tables give the same SQL."""
    migrate.upgrade(engine)
    direct = open_engine(f"sqlite:///{tmp_path}/direct.db")
    schema.metadata.create_all(direct)
    assert _definitions(engine) == _definitions(direct)
    direct.dispose()


def test_head_is_the_newest_revision() -> None:
    """The constant that saves the import of Alembic is true."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_the_tenant_comes_first_in_every_key_and_index() -> None:
    """In every table."""
    for table in schema.metadata.sorted_tables:
        assert next(iter(table.primary_key)).name == "tenant"
        for index in [*table.indexes, *table.constraints]:
            assert next(iter(index.columns)).name == "tenant", f"{table.name}: {index.name}"


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    """What is at head stays."""
    migrate.upgrade(engine)
    before = _definitions(engine)
    migrate.upgrade(engine)
    assert _definitions(engine) == before


def test_those_who_upgrade_at_once_wait_for_each_other(path: Path) -> None:
    """Every one of them finds the tables."""
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: SqlStore(f"sqlite:///{path}"), range(4)))
    assert {store.health()["migrations"] for store in stores} == {"head"}
    for store in stores:
        store.close()


def test_an_upgrade_that_is_cut_off_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start does it whole."""

    def cut(connection: object, found: object) -> None:
        run(connection, found)
        raise KeyboardInterrupt

    run = migrate._run
    monkeypatch.setattr(migrate, "_run", cut)
    with pytest.raises(KeyboardInterrupt):
        migrate.upgrade(engine)
    monkeypatch.undo()
    engine.dispose()
    assert _definitions(engine) == {}
    migrate.upgrade(engine)
    assert "events" in _definitions(engine)


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    """With a message that says so."""
    SqlStore(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as direct:
        direct.execute("UPDATE alembic_version SET version_num = 'from the future'")
    direct.close()
    with pytest.raises(StoreError, match="from the future"):
        SqlStore(f"sqlite:///{path}")


def test_alembic_is_imported_for_work_only(path: Path) -> None:
    """A start at head does without it."""
    SqlStore(f"sqlite:///{path}").close()
    script = (
        "import sys\nfrom ctxmem.stores.sql import SqlStore\n"
        "store = SqlStore(sys.argv[1]); store.sessions('t'); store.close()\nprint('alembic' in sys.modules)"
    )
    argv = [sys.executable, "-c", script, f"sqlite:///{path}"]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


def test_health_tells_a_database_without_tables(path: Path) -> None:
    """When nobody was to make them."""
    store = SqlStore(f"sqlite:///{path}", create=False)
    assert store.health() == {"write": "no tables", "migrations": "none", "dialect": "sqlite"}
    store.close()


def _definitions(engine: Engine) -> dict[str, str]:
    """The SQL of everything in the file, by name, its white space evened out."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
    with engine.connect() as connection:
        return {name: " ".join(sql.split()) for name, sql in connection.exec_driver_sql(query)}
