"""Commands that make text or a conversation smaller: `compress`, `diff` and `context`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ctxmem.cli import output
from ctxmem.cli.backend import connect
from ctxmem.cli.options import Json, current
from ctxmem.compressors import shown
from ctxmem.compressors.outcome import Compressed, Cut
from ctxmem.compressors.units import UnitName
from ctxmem.errors import InvalidInput

MODEL = "smollm2"
"""Model whose tokens are counted when none is named."""

Source = Annotated[str, typer.Argument(metavar="FILE", help="A file, or - for standard input.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("compress")(compress)
    app.command("diff")(diff)
    app.command("context")(context)


def compress(
    file: Source,
    *,
    budget: Annotated[int | None, typer.Option(min=1, help="Tokens to fit into.")] = None,
    ratio: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of the tokens to keep.")] = None,
    unit: Annotated[UnitName, typer.Option(help="What is kept or dropped as one.")] = "phrase",
    show: Annotated[bool, typer.Option("--show", help="Show what was dropped, struck out.")] = False,
    json_: Json = False,
) -> None:
    """Compress a text to a token budget, keeping what says most, and print it."""
    if (budget is None) == (ratio is None):
        raise InvalidInput("give either --budget or --ratio")
    text = _read(file)
    request = {"text": text, "budget": budget, "ratio": ratio, "unit": unit, "model": MODEL}
    with connect(current()) as backend, output.working() as progress:
        progress.add_task(f"compressing with the {backend.where}")
        result = backend.compress({name: value for name, value in request.items() if value is not None})
    if json_:
        output.print_json(result)
        return
    if show:
        output.screen().print(output.marked(text, result["dropped"]))
    else:
        sys.stdout.write(result["text"])
    reason = f" ({result['reason']})" if result.get("reason") else ""
    output.messages().print(f"{result['tokens_before']:,} to {result['tokens_after']:,} tokens{reason}")


def diff(
    file: Source,
    *,
    budget: Annotated[int | None, typer.Option(min=1, help="Tokens to fit into.")] = None,
    ratio: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of the tokens to keep.")] = None,
    query: Annotated[str, typer.Option(help="What will be asked; what has to do with it stays.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page there instead of the terminal.")] = None,
    json_: Json = False,
) -> None:
    """Compress a text for a query and show what was left out, and why."""
    if (budget is None) == (ratio is None):
        raise InvalidInput("give either --budget or --ratio")
    text = _read(file)
    request = {"text": text, "budget": budget, "ratio": ratio, "query": query or None, "unit": "phrase", "model": MODEL}
    with connect(current()) as backend:
        result = backend.compress({name: value for name, value in request.items() if value is not None})
    done = Compressed(
        result["tokens_before"],
        result["tokens_after"],
        tuple(Cut(cut["start"], cut["end"], cut["reason"]) for cut in result["dropped"]),
        result["reason"],
        source=text,
    )
    if html is not None:
        html.write_text(done.diff_html(), encoding="utf-8")
    if json_:
        output.print_json(result)
    elif html is None:
        output.screen().print(output.marked(text, result["dropped"]))
    output.messages().print(shown.headline(done))


def context(
    file: Source,
    *,
    budget: Annotated[int | None, typer.Option(min=1, help="Prompt tokens allowed.")] = None,
    session: Annotated[str | None, typer.Option(help="Session that the messages belong to.")] = None,
    model: Annotated[str, typer.Option(help="Target model; decides how tokens are counted.")] = MODEL,
    json_: Json = False,
) -> None:
    """Build the context for messages (a JSON list, or an object with `messages`), print it and its receipt."""
    request = {"model": model, "messages": _messages(_read(file)), "budget": budget, "session_id": session}
    with connect(current()) as backend:
        result = backend.context({name: value for name, value in request.items() if value is not None})
    if json_:
        output.print_json(result)
        return
    for message in result["messages"]:
        sys.stdout.write(json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()
    output.show_receipt(output.messages(), result["receipt"])


def _read(file: str) -> str:
    """The text of a file or of standard input.

    Raises:
        InvalidInput: it cannot be read or is not UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", param="file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text: {error}", param="file") from error


def _messages(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the messages are not valid JSON: {error}", param="messages") from error
    found = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(found, list):
        raise InvalidInput("give a JSON list of messages, or an object with `messages`", param="messages")
    return found
