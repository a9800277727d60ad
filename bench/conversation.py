"""One long conversation with the service, and the promises checked on every turn of it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from rich.progress import track

from bench import harness
from bench.client import Client, spliced
from bench.stack import Stack
from ctxmem import chat, models

SESSION = "longchat"
CAP = 36
"""Slots that a session's compressed memory may have: nine groups of four."""

PATIENCE_S = 120.0
INSERTED = "SELECT count(*) FROM events WHERE origin LIKE 'ctxmem:%'"
MADE = "SELECT (SELECT max(id) FROM events WHERE origin = 'ctxmem:state') IN (SELECT event_id FROM slots)"


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        turns: how many.
        budget: prompt tokens per request.
        max_tokens: of each answer.
        model: target model, whose tokenizer counts.
        local: the model worker's model; empty for none.
        delta: whether the client sends only what is new instead of all history.
        policy: of each request; the service's own when empty.
    """

    turns: int
    budget: int
    max_tokens: int
    model: str
    local: str
    delta: bool = False
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One line of the log.

    Attributes:
        number: from 1.
        said: JSON of the user's message.
        answer: JSON of the assistant's message, as the model gave it.
        request_id: its receipt's.
        tokens: of the request as sent.
        before: of the whole history.
        action: what the manager did.
        wall_s: seconds the client waited.
        cpu_s: CPU seconds of all of the service's processes.
        edited: events not sent as they came, by event id the item id.
        slots: positions of compressed memory that the answer was written behind.
        probabilities: SHA-256 of the answer's log-probabilities, where the model gives them.
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
    slots: int = 0
    probabilities: str = ""
    breaches: Sequence[str] = ()


@dataclass(slots=True)
class Conversation:
    """The client's side: what was said so far, and the checks.

    Attributes:
        service: the running service.
        options: of the run.
        count: tokens of messages as the model's own tokenizer and template count them; None to skip that check.
        messages: the JSON of every message so far, as it first came.
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
        body, headers = self._request(said)
        cpu, start = harness.cpu_seconds(self.service.server.pid), time.perf_counter()
        got = self.client.post("/v1/chat/completions", body, headers)
        wall, spent = time.perf_counter() - start, harness.cpu_seconds(self.service.server.pid) - cpu
        told = got.json()
        slots = told["usage"].get("prompt_tokens_details", {}).get("memory_slots", 0)
        answer = _answer(got.body)
        self.messages.append(said)
        request_id = got.headers["x-ctxmem-request-id"]
        receipt = self.client.get(f"/v1/requests/{request_id}").json()
        breaches = self._breaches(request_id, receipt)
        if slots > CAP:
            breaches.append(f"{slots} slots of memory, more than {CAP}")
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
            slots,
            sha256(json.dumps(told["choices"][0].get("logprobs")).encode()).hexdigest(),
            breaches,
        )

    def _request(self, said: bytes) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the next turn."""
        wire = {"model": self.options.model, "max_tokens": self.options.max_tokens, "temperature": 0}
        wire |= {"logprobs": True} if self.options.local else {}
        headers = {"x-ctxmem-session": SESSION, "x-ctxmem-budget": str(self.options.budget)}
        headers |= {"x-ctxmem-policy": self.options.policy} if self.options.policy else {}
        history = [] if self.options.delta else map(_as_resent, self.messages)
        return spliced(wire, [*history, said]), headers

    def _breaches(self, request_id: str, receipt: Mapping[str, Any]) -> list[str]:
        tokens, items = receipt["budget"]["tokens"], [item["event_id"] for item in receipt["items"]]
        replay = self.client.post(f"/v1/requests/{request_id}/replay", {}).json()
        own = self.count(replay["messages"]) if self.count else tokens
        events = len(self.messages) + self._asked(INSERTED)
        checks = {
            f"{tokens} tokens, over the budget of {self.options.budget}": tokens <= self.options.budget,
            "the receipt says its count is not exact": receipt["exact"] or self.count is None,
            f"counted {tokens} tokens, the tokenizer says {own}": own == tokens,
            f"{len(items)} items for {events} events": len(items) == events,
            "an event stands in the receipt twice": len(set(items)) == len(items),
            "the replay differs from what was sent": replay["identical"],
        }
        return [what for what, kept in checks.items() if not kept]

    def remembered(self) -> bool:
        """Wait until the memory of the newest state is in the database; False when that takes too long."""
        end = time.monotonic() + PATIENCE_S
        while not (made := self._asked(MADE)) and time.monotonic() < end:
            time.sleep(0.05)
        return bool(made)

    def awake(self) -> bool:
        """Wait until the model answers again, in another session; False when that takes too long."""
        asked = {"model": self.options.model, "max_tokens": 1, "messages": [{"role": "user", "content": "Awake?"}]}
        end = time.monotonic() + PATIENCE_S
        while (status := self.client.post("/v1/chat/completions", asked).status) != 200 and time.monotonic() < end:
            time.sleep(0.2)
        return status == 200

    def unrestored(self, turns: Sequence[Turn]) -> list[str]:
        """Events left out or shortened in some request that do not come back byte for byte."""
        edited: dict[str, str] = {}
        for turn in turns:
            edited |= turn.edited
        listed = self._events()
        if [event["message"] for event in listed] != [json.loads(raw) for raw in self.messages]:
            return ["the session's events are not the conversation"]
        place = {event["event_id"]: number for number, event in enumerate(listed)}
        return [
            f"{item} came back otherwise"
            for event, item in track(edited.items(), "restoring", transient=True)
            if event in place
            and self.client.get(f"/v1/items/{item}/restore").body != b'{"message":' + self.messages[place[event]] + b"}"
        ]

    def _events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while page := self.client.get(f"/v1/sessions/{SESSION}/events?after_seq={len(found) - 1}&limit=500").json()[
            "events"
        ]:
            found += page
        return [event for event in found if not event["origin"].startswith("ctxmem:")]

    def _asked(self, question: str) -> int:
        """One number from the service's database."""
        with closing(sqlite3.connect(f"file:{self.service.folder / 'ctxmem.db'}?mode=ro", uri=True)) as database:
            number: int = database.execute(question).fetchone()[0]
            return number


def _answer(body: bytes) -> bytes:
    """The message's bytes in a completion."""
    import msgspec

    choice = msgspec.json.decode(body, type=dict[str, msgspec.Raw])["choices"]
    return bytes(msgspec.json.decode(choice, type=list[dict[str, msgspec.Raw]])[0]["message"])


def _as_resent(message: bytes) -> bytes:
    """What an SDK makes of a message it sends back: the same members, other bytes."""
    return chat.dump(json.loads(message))


def own_count(model: str) -> Callable[[list[dict[str, Any]]], int]:
    """Counts a rendered request by transformers' own `apply_chat_template`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.home(model))

    def count(messages: list[dict[str, Any]]) -> int:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return len(tokenizer.encode(text, add_special_tokens=False))

    return count
