"""`ctxmem demo`: a long conversation in a small window, through the official `openai` client.

Every turn sends the whole history, as any stateless client does; what ctxmem makes of it stands in the table. At the
end every receipt is checked against what was said, and something that was left out is brought back byte for byte.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import track

from ctxmem import demo as conversation
from ctxmem.cli import output
from ctxmem.cli.backend import find_service
from ctxmem.cli.options import Json, Options, current
from ctxmem.cli.own import running_service
from ctxmem.cli.remote import RemoteService, segment
from ctxmem.errors import ConfigError
from ctxmem.ids import new_id

if TYPE_CHECKING:
    from openai import OpenAI

MAX_TOKENS = 24
"""Most tokens of an answer: the contexts are the show, not the prose of a small model."""

TEMPERATURE = 0.7
"""A small model repeats itself without it; the seed of every turn is its number, so two runs agree."""

COLUMNS = {"turn": 4, "in": 6, "sent": 6, "stable": 6, "action": 7, "answer": 44, "receipt": 35}
"""Columns of the table and their widths, in characters."""
NUMBERS = 4
"""How many of them are numbers."""


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command("demo")(demo)


@dataclass(frozen=True, slots=True)
class Row:
    """What one turn showed.

    Attributes:
        turn: its number, from 1.
        tokens_in: tokens of the whole history, as the client sent it.
        tokens_sent: tokens that went to the model.
        stable_prefix: leading tokens of those that equal the last request's.
        action: what ctxmem did: pass, arrival, epoch or bypass.
        answer: the model's answer.
        request_id: the receipt's id.
        receipt: address of the receipt.
    """

    turn: int
    tokens_in: int
    tokens_sent: int
    stable_prefix: int
    action: str
    answer: str
    request_id: str
    receipt: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A client that holds the whole history, and the service it talks to.

    Attributes:
        client: the official client.
        service: the service, for receipts.
        model: the model asked.
        budget: prompt tokens allowed.
        session: id of the session.
        history: every message said, in order.
    """

    client: OpenAI
    service: RemoteService
    model: str
    budget: int
    session: str = field(default_factory=lambda: new_id("s"))
    history: list[dict[str, str]] = field(default_factory=lambda: [{"role": "system", "content": conversation.SYSTEM}])

    def say(self, turn: conversation.Turn) -> Row:
        """One turn: send the history, keep the answer, read the receipt."""
        self.history.append({"role": "user", "content": turn.text})
        answered = self.client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=self.history,  # type: ignore[arg-type]  # plain dicts are what its own examples send
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
            seed=turn.number,
            extra_headers={"x-ctxmem-session": self.session, "x-ctxmem-budget": str(self.budget)},
        )
        text = answered.parse().choices[0].message.content or ""
        self.history.append({"role": "assistant", "content": text})
        request_id = answered.headers["x-ctxmem-request-id"]
        before, _, after = answered.headers["x-ctxmem-tokens"].partition(";")
        receipt = self.receipt(request_id)
        return Row(
            turn=turn.number,
            tokens_in=int(before),
            tokens_sent=int(after),
            stable_prefix=receipt["stable_prefix_tokens"],
            action=receipt["action"],
            answer=" ".join(text.split()),
            request_id=request_id,
            receipt=f"{self.service.base_url}/requests/{request_id}",
        )

    def receipt(self, request_id: str) -> dict[str, Any]:
        """The account of a request."""
        receipt: dict[str, Any] = self.service.call("GET", f"requests/{segment(request_id)}")
        return receipt


def demo(
    *,
    turns: Annotated[int, typer.Option(min=1, help="How many of the conversation's turns.")] = 72,
    budget: Annotated[int, typer.Option(min=64, help="Prompt tokens allowed.")] = 1024,
    model: Annotated[str, typer.Option(help="Model to ask.")] = "smollm2-135m-instruct",
    json_: Json = False,
) -> None:
    """Replay a bundled long conversation in a small window and show every turn.

    Uses the running service, or one of its own in a folder that goes afterwards.
    """
    said = conversation.turns()[:turns]
    with _service(current()) as service:
        replay = Replay(_client(service), service, model, budget)
        rows = list(_played(replay, said, as_json=json_))
        summary = summarise(replay, rows)
    if json_:
        output.print_json({"turns": [asdict(row) for row in rows], "summary": summary})
    else:
        _show_summary(summary)


@contextmanager
def _service(options: Options) -> Iterator[RemoteService]:
    """The running service, or one in a folder of its own that goes afterwards."""
    if find_service(options) is not None:
        with running_service(options, options.data_dir) as service:
            yield service
        return
    with (
        tempfile.TemporaryDirectory(prefix="ctxmem-demo-") as folder,
        running_service(options, Path(folder)) as service,
    ):
        yield service


def _client(service: RemoteService) -> OpenAI:
    """The official client.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from openai import OpenAI
    except ModuleNotFoundError as error:
        raise ConfigError("the demo speaks through the official client: pip install openai") from error
    return OpenAI(base_url=service.base_url, api_key=service.key or "none", max_retries=0)


def _played(replay: Replay, said: Sequence[conversation.Turn], *, as_json: bool) -> Iterator[Row]:
    """Say every turn; each row is shown as soon as it is there."""
    shown = None if as_json else output.RunningTable(COLUMNS, numbers=NUMBERS, flexible="answer")
    for turn in track(said, "replaying", console=output.messages(), transient=True, disable=not as_json):
        row = replay.say(turn)
        if shown is not None:
            shown.add(
                (row.turn, row.tokens_in, row.tokens_sent, row.stable_prefix, row.action, row.answer, row.request_id),
                link=row.receipt,
            )
        yield row


def summarise(replay: Replay, rows: Sequence[Row]) -> dict[str, Any]:
    """The replay in figures, every receipt checked against what was said.

    Args:
        replay: the client after its last turn.
        rows: its turns.
    """
    total_in, total_sent = sum(row.tokens_in for row in rows), sum(row.tokens_sent for row in rows)
    receipts = [replay.receipt(row.request_id) for row in rows]
    return {
        "session_id": replay.session,
        "turns": len(rows),
        "budget": replay.budget,
        "largest_sent": max(row.tokens_sent for row in rows),
        "tokens_in": total_in,
        "tokens_sent": total_sent,
        "saved_percent": round(100 * (1 - total_sent / total_in), 1),
        "epochs": sum(row.action == "epoch" for row in rows),
        "receipts_complete": sum(_complete(receipt, 2 * row.turn) for receipt, row in zip(receipts, rows, strict=True)),
        "restored": _restored(replay, receipts[-1]),
    }


def _complete(receipt: dict[str, Any], said: int) -> bool:
    """Whether a receipt lists each of the `said` messages exactly once."""
    events = [item["event_id"] for item in receipt["items"]]
    return len(events) == len(set(events)) == said


def _restored(replay: Replay, receipt: dict[str, Any]) -> dict[str, Any] | None:
    """Bring back the first message that the last request was sent without, or with less of; None if there is none."""
    for item, message in zip(receipt["items"], replay.history, strict=False):
        if item["decision"] in ("kept", "retrieved"):
            continue
        with replay.service.open("GET", f"items/{segment(item['item_id'])}/restore") as answer:
            body = answer.read()
        original = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        return {
            "item_id": item["item_id"],
            "decision": item["decision"],
            "reason": item["reason"],
            "message": json.loads(body)["message"],
            "byte_equal": original in body,
        }
    return None


def _show_summary(summary: dict[str, Any]) -> None:
    console = output.screen()
    console.print(
        f"\n{summary['turns']} turns: {summary['tokens_in']:,} tokens in, {summary['tokens_sent']:,} sent, "
        f"[bold]{summary['saved_percent']} % saved[/bold]; no request over {summary['largest_sent']:,} of "
        f"{summary['budget']:,} tokens; {summary['epochs']} epochs"
    )
    console.print(
        f"receipts that list every message exactly once: {summary['receipts_complete']} of {summary['turns']}"
    )
    restored = summary["restored"]
    if restored is None:
        console.print("nothing was left out, so there is nothing to restore: try more --turns or a smaller --budget")
        return
    equal = "byte for byte what was said" if restored["byte_equal"] else "NOT what was said"
    console.print(f"{restored['item_id']} was {restored['decision']} ({restored['reason']}); restored, {equal}:")
    console.print(json.dumps(restored["message"], ensure_ascii=False), markup=False)
