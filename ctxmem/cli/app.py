"""The `ctxmem` application: its global options, its commands, and how errors end it.

Exit codes: 0 done; 1 failed; 2 wrong usage, input or settings; 3 no such id; 4 the budget is too small;
5 the service, a model or the database is out of reach; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ctxmem.cli import context, demo, documents, history, mcp, operate, talk, train
from ctxmem.cli.options import Options, choose, current
from ctxmem.errors import (
    BudgetError,
    ConfigError,
    CtxmemError,
    InvalidInput,
    ModelError,
    NotFound,
    StoreError,
    Unavailable,
)

_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (ConfigError, 2),
    (InvalidInput, 2),
    (ModuleNotFoundError, 2),
    (NotFound, 3),
    (BudgetError, 4),
    (StoreError, 5),
    (ModelError, 5),
    (Unavailable, 5),
)


class Commands(TyperGroup):
    """The group of commands: an error that was foreseen becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command.

        Raises:
            typer.Exit: with the error's exit code.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # typer ends quietly when nobody reads on
            raise
        except (CtxmemError, OSError, ModuleNotFoundError) as error:
            if current().debug:
                raise
            sys.stderr.write(f"ctxmem: {_line(error)}\n")
            raise typer.Exit(exit_code(error)) from error


def exit_code(error: Exception) -> int:
    """The code that the command ends with."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def _line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f'this command needs {error.name}: pip install "ctxmem[all]"'
    return str(error)


app = typer.Typer(
    name="ctxmem",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A context manager between applications and LLMs: small, true and explained context under an exact budget.",
)


@app.callback()
def _options(
    *,
    base_url: Annotated[
        str | None, typer.Option(envvar="CTXMEM_BASE_URL", help="A running service, such as http://127.0.0.1:8787/v1.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="CTXMEM_API_KEY", help="Its key; by default the one in the data folder.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="CTXMEM_DATA_DIR", help="Folder of the database and the local key; ~/.local/share/ctxmem by default."
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option(envvar="CTXMEM_DATABASE_URL", help="SQLAlchemy URL; a SQLite file in the data folder.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if database is not None:
        os.putenv("CTXMEM_DATABASE_URL", database)  # for the service that a command may start
    choose(Options(base_url, api_key, data_dir, database, debug))


for module in (operate, talk, context, documents, history, mcp, demo, train):
    module.register(app)
