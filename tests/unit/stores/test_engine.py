"""What a database URL opens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctxmem.errors import ConfigError, StoreError
from ctxmem.stores.engine import open_engine
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log
from tests.shape.imports import ROOT


@pytest.mark.parametrize("url", ["", "log.db", "mysql://host/db", "sqlite://", "sqlite:///:memory:", "redis://host"])
def test_a_url_that_names_no_log_is_refused(url: str) -> None:
    """At the start, with what to write instead."""
    with pytest.raises(ConfigError):
        open_engine(url)


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """Write-ahead log, flushed at every commit; what is deleted is overwritten."""
    engine = open_engine(f"sqlite:///{tmp_path}/log.db")
    with engine.connect() as connection:
        names = ("journal_mode", "synchronous", "secure_delete")
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert found == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}
    engine.dispose()


def test_a_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    SqlStore("sqlite:///~/log.db").close()
    assert (tmp_path / "log.db").is_file()


def test_what_is_erased_is_gone_from_the_files(tmp_path: Path) -> None:
    """Not only from the tables: neither the database nor its log holds the words."""
    store = SqlStore(f"sqlite:///{tmp_path}/log.db")
    log = Log(store, "t")
    log.say("s", "a secret that must go " * 500)
    log.say("other", "a word that may stay")
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a secret" in held
    store.erase_session("t", "s")
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a secret" not in held
    assert b"a word that may stay" in held
    store.close()


def test_a_server_that_is_not_there_is_a_store_error() -> None:
    """Not an exception of the driver."""
    with pytest.raises(StoreError):
        SqlStore("postgresql://ctxmem@127.0.0.1:1/ctxmem")


def test_postgres_without_its_driver_says_what_to_install() -> None:
    """As every optional part does."""
    script = (
        "import sys\nsys.modules['psycopg'] = None\nfrom ctxmem.errors import ConfigError\n"
        "from ctxmem.stores.engine import open_engine\n"
        "try:\n    open_engine('postgresql://host/db')\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ctxmem[postgres]" in done.stdout
