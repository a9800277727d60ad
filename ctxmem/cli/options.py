"""What every command is told: where the service or its data are."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, messages on standard error.")]

DATA_DIR = Path("~/.local/share/ctxmem")
"""Where a service keeps its data unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """Global options.

    Attributes:
        base_url: address of a running service up to and with `/v1`; None to look in the data folder.
        api_key: its key; None to read the data folder's.
        chosen_data_dir: folder of the database and the local key; None when nobody chose one.
        chosen_database: SQLAlchemy URL for work without a service; None for the SQLite file in the data folder.
        debug: show tracebacks.
    """

    base_url: str | None = None
    api_key: str | None = None
    chosen_data_dir: Path | None = None
    chosen_database: str | None = None
    debug: bool = False

    @property
    def data_dir(self) -> Path:
        """The folder in use."""
        return (self.chosen_data_dir or DATA_DIR).expanduser()

    @property
    def database(self) -> str:
        """The database in use."""
        return self.chosen_database or f"sqlite:///{self.data_dir / 'ctxmem.db'}"


_current: ContextVar[Options | None] = ContextVar("ctxmem_options", default=None)


def current() -> Options:
    """The options of the command that runs."""
    return _current.get() or Options()


def choose(options: Options) -> None:
    """Set the options of the command that runs."""
    _current.set(options)
