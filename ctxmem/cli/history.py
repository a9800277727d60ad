"""Commands over what was kept: receipts, sessions, originals, exports, erasure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from ctxmem.cli import output
from ctxmem.cli.backend import connect
from ctxmem.cli.options import Json, current
from ctxmem.errors import InvalidInput

Id = Annotated[str, typer.Argument(metavar="ID")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("inspect")(inspect)
    app.command("restore")(restore)
    app.command("sessions")(sessions)
    app.command("export")(export)
    app.command("erase")(erase)


def inspect(id: Id, *, json_: Json = False) -> None:
    """Show a request's receipt (rq_...): what became of every event and why; or a session's events."""
    with connect(current()) as backend:
        if id.startswith("rq_"):
            result: Any = backend.receipt(id)
            show: Callable[[Any], None] = partial(output.show_receipt, output.screen())
        else:
            result = {"session_id": id, "events": list(backend.events(id))}
            show = _show_session
    if json_:
        output.print_json(result)
    else:
        show(result)


def restore(item_id: Annotated[str, typer.Argument(metavar="ITEM")], *, json_: Json = False) -> None:
    """Print the original message behind a receipt's item (it_...), as it came."""
    with connect(current()) as backend:
        original = backend.restore(item_id)
    if json_:
        output.print_json({"message": json.loads(original)})
        return
    sys.stdout.buffer.write(original + b"\n")


def sessions(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    json_: Json = False,
) -> None:
    """List the sessions."""
    with connect(current()) as backend:
        found = backend.sessions(limit=limit)
    if json_:
        output.print_json({"sessions": found})
        return
    rows = [(s["id"], s["user_id"], s["events"], s["turns"], s["branches"], _when(s["updated_at"])) for s in found]
    output.screen().print(output.table(("session", "user", "events", "requests", "branches", "last used"), rows))


def export(session_id: Annotated[str, typer.Argument(metavar="SESSION")], *, json_: Json = False) -> None:
    """Print everything kept of a session, one event a line as JSON; a list of them with --json."""
    with connect(current()) as backend:
        events = backend.events(session_id)
        if json_:
            output.print_json(list(events))
            return
        for event in events:
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")


def erase(
    *,
    user: Annotated[str | None, typer.Option(help="Erase every session of this user.")] = None,
    session: Annotated[str | None, typer.Option(help="Erase this session.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Erase a session or all of a user, for good, and print the deletion's receipt."""
    if (user is None) == (session is None):
        raise InvalidInput("give either --user or --session")
    target = f"user {user}" if session is None else f"session {session}"
    if not yes:
        typer.confirm(f"Erase {target} for good?", abort=True, err=True)
    with connect(current()) as backend:
        receipt = backend.erase_session(session) if session is not None else backend.erase_user(user or "")
    if json_:
        output.print_json(receipt)
        return
    rows = [(table, count) for table, count in receipt["counts"].items()]
    output.screen().print(output.table(("table", "rows"), rows, title=f"{receipt['id']}  erased {target}"))


def _show_session(session: dict[str, Any]) -> None:
    rows = [(e["seq"], e["event_id"], e["role"], e["origin"], _short(e["message"])) for e in session["events"]]
    output.screen().print(output.table(("seq", "event", "role", "origin", "text"), rows))


def _short(message: dict[str, Any]) -> str:
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content or message.get("tool_calls"), ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
