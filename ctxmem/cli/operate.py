"""Commands that run and examine an installation: `serve`, `config`, `doctor`, `version`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Annotated

import typer

import ctxmem
from ctxmem.cli import doctor as examination
from ctxmem.cli import output
from ctxmem.cli.options import Json, current
from ctxmem.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("serve")(serve)
    app.command("config")(config)
    app.command("doctor")(doctor)
    app.command("version")(version)


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Local model; empty for none.")] = None,
    json_: Json = False,
) -> None:
    """Start the service and print how to use it; Ctrl-C ends it."""
    given = {"--host": host, "--port": port, "--model": model}
    arguments = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    command = service_command(*arguments, *(["--json"] if json_ else []))
    os.execv(command[0], command)


def config(*, json_: Json = False) -> None:
    """Show the settings in effect, passwords left out."""
    settings = effective_settings()
    if json_:
        output.print_json(settings)
        return
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in settings.items()]
    output.screen().print(output.table(("setting", "value"), rows))


def doctor(*, json_: Json = False) -> None:
    """Examine the installation: packages, models, tokenizers, database, service, disk."""
    with output.working() as progress:
        progress.add_task("examining")
        findings = examination.examine(current(), effective_settings())
    well = all(finding.state != "bad" for finding in findings)
    if json_:
        output.print_json({"well": well, "findings": [finding.wire() for finding in findings]})
    else:
        output.screen().print(output.table(("", "what", "finding"), [finding.row() for finding in findings]))
    if not well:
        raise typer.Exit(1)


def version(*, json_: Json = False) -> None:
    """Print the version."""
    if json_:
        output.print_json({"ctxmem": ctxmem.__version__, "python": platform.python_version()})
        return
    sys.stdout.write(f"ctxmem {ctxmem.__version__}\n")


def service_command(*arguments: str) -> list[str]:
    """The command line of the service; the data folder goes along when it was given."""
    folder = current().chosen_data_dir
    return [sys.executable, "-m", "service", *arguments, *(["--data-dir", str(folder)] if folder else [])]


def effective_settings() -> dict[str, object]:
    """The service's settings as it would load them now.

    Raises:
        ConfigError: it refuses them; says why.
    """
    command = service_command("--show-settings")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(done.stderr.strip().removeprefix("ctxmem: ") or "the service does not start here")
    settings: dict[str, object] = json.loads(done.stdout)
    return settings
