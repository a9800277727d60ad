"""The command line `ctxmem`: a thin face over a running service or, without one, over the library itself."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script; exits with the codes of `ctxmem.cli.app`."""
    try:
        from ctxmem.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.stderr.write(f'ctxmem: the command line needs {error.name}: pip install "ctxmem[cli]"\n')
        sys.exit(2)
    app()
