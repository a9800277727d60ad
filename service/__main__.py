"""`python -m service`: start the whole service and print how to use it.

Options stand above the environment (`CTXMEM_PORT=8788`) and the settings file. Exit codes: 0 after SIGTERM or Ctrl-C
and a clean drain, 1 when the service cannot start (port or data folder in use), 2 for wrong settings or options.
"""

from __future__ import annotations

import argparse
import json
import sys

from ctxmem.errors import ConfigError, CtxmemError
from service import settings, supervisor


def main(arguments: list[str] | None = None) -> int:
    """Read the options, run the supervisor, say in one line what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Start the ctxmem service.")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on; 0 for a free one")
    parser.add_argument("--data-dir", help="folder of the database, the local key and the sockets")
    parser.add_argument("--cache-dir", help="folder of converted models")
    parser.add_argument("--model", help="local model: packaged name, hub id or path; empty for none")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument("--show-settings", action="store_true", help="print the settings as JSON and end")
    parser.add_argument("--json", action="store_true", help="print address and key as one line of JSON")
    parser.add_argument("--stop-with", type=int, metavar="PID", help="drain when this parent process is gone")
    options = vars(parser.parse_args(arguments))
    show, as_json, parent = (options.pop(name) for name in ("show_settings", "json", "stop_with"))
    try:
        loaded = settings.load({name: value for name, value in options.items() if value is not None})
    except ConfigError as error:
        return _refuse(error, 2)
    if show:
        sys.stdout.write(json.dumps(loaded.shown(), indent=2) + "\n")
        return 0
    try:
        return supervisor.main(loaded, as_json=as_json, parent=parent)
    except (CtxmemError, OSError) as error:
        return _refuse(error, 1)


def _refuse(error: Exception, code: int) -> int:
    sys.stderr.write(f"ctxmem: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
