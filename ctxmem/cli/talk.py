"""`ctxmem chat`: talk with a model through ctxmem, one line about the context a turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from ctxmem.cli import output
from ctxmem.cli.options import Json, current
from ctxmem.cli.own import running_service
from ctxmem.cli.remote import RemoteService, segment
from ctxmem.errors import Unavailable
from ctxmem.ids import new_id


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command("chat")(chat)


@dataclass(slots=True)
class Conversation:
    """A session with a model, through a service.

    Attributes:
        service: the service.
        session: the session's id.
        model: the model to ask.
        budget: prompt tokens allowed; None for the model's window.
        max_tokens: most tokens of an answer.
        request_id: the newest request's id, once its answer has begun.
    """

    service: RemoteService
    session: str
    model: str
    budget: int | None
    max_tokens: int
    request_id: str = ""

    def ask(self, text: str) -> Iterator[str]:
        """Say something; yields the answer's text as it comes.

        Raises:
            CtxmemError: the service refused, or the answer broke off.
        """
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": self.max_tokens}
        headers = {"x-ctxmem-session": self.session}
        if self.budget is not None:
            headers["x-ctxmem-budget"] = str(self.budget)
        with self.service.open("POST", "chat/completions", {**body, "stream": True}, headers=headers) as answer:
            self.request_id = answer.headers.get("x-ctxmem-request-id", "")
            for line in answer:
                yield from _piece(line)


def chat(
    *,
    once: Annotated[str | None, typer.Option(metavar="TEXT", help="Ask this, print the answer and end.")] = None,
    session: Annotated[str | None, typer.Option(help="Session to go on with; a new one by default.")] = None,
    model: Annotated[str, typer.Option(help="Model to ask.")] = "smollm2-135m-instruct",
    budget: Annotated[int | None, typer.Option(min=1, help="Prompt tokens allowed.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    json_: Json = False,
) -> None:
    """Talk with a model; answers stream, and each turn ends with a line about its context.

    Uses the running service, or starts one on the data folder for the length of the talk.
    """
    with running_service(current(), current().data_dir) as service:
        conversation = Conversation(service, session or new_id("s"), model, budget, max_tokens)
        output.messages().print(f"session {conversation.session}", style="dim")
        for text in _typed() if once is None else [once]:
            if json_:
                _turn_json(conversation, text)
            else:
                _turn(conversation, text)


def _typed() -> Iterator[str]:
    """Lines from standard input until its end; a prompt when someone types them."""
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _turn(conversation: Conversation, text: str) -> None:
    for piece in conversation.ask(text):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    receipt = conversation.service.call("GET", f"requests/{segment(conversation.request_id)}")
    output.messages().print(output.headline(receipt), style="dim", soft_wrap=True)


def _turn_json(conversation: Conversation, text: str) -> None:
    """One JSON object a turn."""
    answer = "".join(conversation.ask(text))
    receipt = conversation.service.call("GET", f"requests/{segment(conversation.request_id)}")
    output.print_json({"session_id": conversation.session, "answer": answer, "receipt": receipt})


def _piece(line: bytes) -> Iterator[str]:
    """The text in one line of an event stream.

    Raises:
        Unavailable: the line says that the answer broke off.
    """
    data = line.removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return
    event = json.loads(data)
    if "error" in event:
        raise Unavailable(f"the answer broke off: {event['error'].get('message', 'no reason given')}")
    for choice in event.get("choices", ()):
        text = choice.get("delta", {}).get("content")
        if text:
            yield text
