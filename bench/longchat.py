"""A real 300-turn conversation through the real service under a 2,048-token budget, every promise checked on the way.

    python -m bench.longchat                          # the embedded model answers; about as long as it generates
    python -m bench.longchat --scripted --turns 300   # a scripted upstream answers: ctxmem's own cost only

Each turn is the next line of a LoCoMo chat; the client resends all history, as stateless clients do. For every request
the receipt is read and the request replayed: its tokens must fit the budget and equal what the model's own tokenizer
and chat template make of the replayed messages, and each event must stand in the receipt exactly once. At the end every
event that was ever left out or shortened is restored and compared byte for byte. Any breach ends the run with status 1.
The log (`--folder`) lets a broken run go on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import track

from bench import harness, traces
from bench.client import Client, spliced
from bench.servers import scripted_upstream
from bench.stack import Stack, stack
from bench.upstream import MODEL
from ctxmem import chat, models

LOCAL_MODEL = "smollm2-135m-instruct"
SESSION = "longchat"
WINDOW = 20
"""Turns over which the cost at a mark is the median."""
MARKS = (50, 150, 300)


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        turns: how many.
        budget: prompt tokens per request.
        max_tokens: of each answer.
        model: target model, whose tokenizer counts.
        local: the model worker's model; empty for none.
    """

    turns: int
    budget: int
    max_tokens: int
    model: str
    local: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One line of the log.

    Attributes:
        number: from 1.
        said: JSON of the user's message.
        answer: JSON of the assistant's message.
        request_id: its receipt's.
        tokens: of the request as sent.
        before: of the whole history.
        action: what the manager did.
        wall_s: seconds the client waited.
        cpu_s: CPU seconds of all of the service's processes.
        edited: events not sent as they came, by event id the item id.
        breaches: promises broken.
    """

    number: int
    said: str
    answer: str
    request_id: str
    tokens: int
    before: int
    action: str
    wall_s: float
    cpu_s: float
    edited: Mapping[str, str]
    breaches: Sequence[str] = ()


@dataclass(slots=True)
class Conversation:
    """The client's side: what was said so far, and the checks.

    Attributes:
        service: the running service.
        options: of the run.
        count: tokens of messages as the model's own tokenizer and template count them; None to skip that check.
        messages: the JSON of every message so far.
    """

    service: Stack
    options: Options
    count: Callable[[list[dict[str, Any]]], int] | None
    messages: list[bytes] = field(default_factory=list)

    @property
    def client(self) -> Client:
        """Of the service."""
        return Client(self.service.root, self.service.headers, timeout_s=120.0)

    def turn(self, number: int, line: str) -> Turn:
        """Say the line, get the answer, check the receipt."""
        said = chat.dump({"role": "user", "content": line})
        wire = {"model": self.options.model, "max_tokens": self.options.max_tokens, "temperature": 0}
        headers = {"x-ctxmem-session": SESSION, "x-ctxmem-budget": str(self.options.budget)}
        cpu, start = harness.cpu_seconds(self.service.server.pid), time.perf_counter()
        got = self.client.post("/v1/chat/completions", spliced(wire, [*self.messages, said]), headers)
        wall, spent = time.perf_counter() - start, harness.cpu_seconds(self.service.server.pid) - cpu
        message = got.json()["choices"][0]["message"]
        answer = chat.dump({"role": "assistant", "content": message.get("content") or ""})
        self.messages.append(said)
        request_id = got.headers["x-ctxmem-request-id"]
        receipt = self.client.get(f"/v1/requests/{request_id}").json()
        breaches = self._breaches(request_id, receipt)
        edited = {item["event_id"]: item["item_id"] for item in receipt["items"] if item["decision"] != "kept"}
        before = int(got.headers["x-ctxmem-tokens"].split(";")[0])
        self.messages.append(answer)
        return Turn(
            number,
            said.decode(),
            answer.decode(),
            request_id,
            receipt["budget"]["tokens"],
            before,
            got.headers["x-ctxmem-action"],
            wall,
            spent,
            edited,
            breaches,
        )

    def _breaches(self, request_id: str, receipt: Mapping[str, Any]) -> list[str]:
        tokens, items = receipt["budget"]["tokens"], [item["event_id"] for item in receipt["items"]]
        replay = self.client.post(f"/v1/requests/{request_id}/replay", {}).json()
        own = self.count(replay["messages"]) if self.count else tokens
        checks = {
            f"{tokens} tokens, over the budget of {self.options.budget}": tokens <= self.options.budget,
            "the receipt says its count is not exact": receipt["exact"] or self.count is None,
            f"counted {tokens} tokens, the tokenizer says {own}": own == tokens,
            f"{len(items)} items for {len(self.messages)} events": len(items) == len(self.messages),
            "an event stands in the receipt twice": len(set(items)) == len(items),
            "the replay differs from what was sent": replay["identical"],
        }
        return [what for what, kept in checks.items() if not kept]

    def unrestored(self, turns: Sequence[Turn]) -> list[str]:
        """Events left out or shortened in some request that do not come back byte for byte."""
        edited: dict[str, str] = {}
        for turn in turns:
            edited |= turn.edited
        listed = self._events()
        if [event["message"] for event in listed] != [json.loads(raw) for raw in self.messages]:
            return ["the session's events are not the conversation"]
        place = {event["id"]: number for number, event in enumerate(listed)}
        return [
            f"{item} came back otherwise"
            for event, item in track(edited.items(), "restoring", transient=True)
            if self.client.get(f"/v1/items/{item}/restore").body != b'{"message":' + self.messages[place[event]] + b"}"
        ]

    def _events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while page := self.client.get(f"/v1/sessions/{SESSION}/events?after_seq={len(found) - 1}&limit=500").json()[
            "events"
        ]:
            found += page
        return found


def own_count(model: str) -> Callable[[list[dict[str, Any]]], int]:
    """Counts a rendered request by transformers' own `apply_chat_template`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.home(model))

    def count(messages: list[dict[str, Any]]) -> int:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return len(tokenizer.encode(text, add_special_tokens=False))

    return count


def resumed(log: Path) -> list[Turn]:
    """The turns of an earlier run; a half-written last line does not count."""
    if not log.exists():
        return []
    lines = log.read_text().split("\n")[:-1]
    return [Turn(**json.loads(line)) for line in lines]


def report(turns: Sequence[Turn], breaches: Sequence[str], out: Path | None) -> None:
    """Print the cost at the marks, what was saved, and every breach."""
    marks = [mark for mark in MARKS if mark <= len(turns)]
    rows = [_cost(turns, mark) for mark in marks]
    first = rows[0] if rows else None
    for name, key, scale in (("CPU per turn, ms", "cpu_s", 1000), ("wall per turn, ms", "wall_s", 1000)):
        cells = [[str(r["mark"]), f"{scale * r[key]:.0f}", f"{r[key] / first[key]:.2f}"] for r in rows if first]
        harness.show(f"{name}, median of {WINDOW} turns", ("turn", name, f"ratio to turn {MARKS[0]}"), cells)
    sent, whole = sum(turn.tokens for turn in turns), sum(turn.before for turn in turns)
    epochs = sum(turn.action.startswith("epoch") for turn in turns)
    most = max((turn.tokens for turn in turns), default=0)
    print(f"{len(turns)} turns, {epochs} epochs, largest request {most} tokens")
    print(f"{sent} prompt tokens sent of {whole} ({sent / max(whole, 1):.0%})")
    for breach in breaches:
        print(f"BREACH: {breach}", file=sys.stderr)
    print("every promise held" if not breaches else f"{len(breaches)} breaches")
    harness.save(out, marks=rows, epochs=epochs, largest=most, sent=sent, whole=whole, breaches=list(breaches))


def _cost(turns: Sequence[Turn], mark: int) -> dict[str, float]:
    span = turns[max(0, mark - WINDOW) : mark]
    return {"mark": mark, "cpu_s": median(t.cpu_s for t in span), "wall_s": median(t.wall_s for t in span)}


def main() -> None:
    options, scripted, folder, out = _arguments()
    with ExitStack() as running:
        home = Path(folder or running.enter_context(TemporaryDirectory(prefix="ctxmem-longchat-")))
        home.mkdir(parents=True, exist_ok=True)
        upstreams = [running.enter_context(scripted_upstream(home))] if scripted else []
        service = stack(home, upstreams, model=options.local)
        running.enter_context(service.server)
        turns = resumed(home / "turns.jsonl")
        talk = Conversation(service, options, None if scripted else own_count(options.local))
        talk.messages = [text.encode() for turn in turns for text in (turn.said, turn.answer)]
        lines = traces.utterances()[len(turns) : options.turns]
        with (home / "turns.jsonl").open("a") as log:
            for number, line in track(list(enumerate(lines, len(turns) + 1)), "turns"):
                turns.append(talk.turn(number, line))
                log.write(json.dumps(asdict(turns[-1])) + "\n")
                log.flush()
        breaches = [f"turn {t.number}: {what}" for t in turns for what in t.breaches] + talk.unrestored(turns)
    report(turns, breaches, out)
    sys.exit(bool(breaches))


def _arguments() -> tuple[Options, bool, Path | None, Path | None]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--scripted", action="store_true", help="a scripted upstream answers, no model is loaded")
    parser.add_argument("--folder", type=Path, help="keep data and log here, and go on from them")
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    model, local = (MODEL, "") if given.scripted else (LOCAL_MODEL, "smollm2")
    options = Options(given.turns, given.budget, given.max_tokens, model, local)
    return options, given.scripted, given.folder, given.json


if __name__ == "__main__":
    main()
