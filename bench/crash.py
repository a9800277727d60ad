"""`kill -9` under load, again and again: is every acknowledged event still there, once?

    python -m bench.crash --rounds 50                  # gateway and Valkey in turn
    python -m bench.crash --rounds 50 --parts worker   # loads the model; the model worker is killed

Clients append events and hold chats while one part of the service is killed at a random moment. What was answered with
2xx is acknowledged. When the service is back, every acknowledged message must be in its session's log exactly once, and
the log's numbers must have no hole. Requests that failed are sent again, with the same idempotency key.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, get_args

from bench import harness
from bench.client import Answer, Client, spliced
from bench.servers import answers, scripted_upstream
from bench.stack import Part, Stack, stack
from bench.upstream import MODEL
from ctxmem import chat

TURNS = 8
"""Turns after which a client starts a new session."""
PAUSE_S = 0.05
"""Seconds a client waits before it sends again what failed."""
TAKEN = 8
"""Messages acknowledged, at least, for each kill."""
PATIENCE_S = 60.0
"""Seconds the service may take to come back."""


@dataclass(slots=True)
class Writer:
    """One client that appends and chats until it is told to stop.

    Attributes:
        name: prefix of its sessions.
        client: of the service.
        stop: set when it should end.
        acknowledged: by session, the messages the service has said it took.
        refused: answers that were neither 2xx nor 503.
        bypassed: chats answered without being logged, which the response said.
    """

    name: str
    client: Client
    stop: threading.Event
    acknowledged: dict[str, list[bytes]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    bypassed: int = 0

    def run(self) -> None:
        """Hold one session after another."""
        number = 0
        while not self.stop.is_set():
            session, number = f"{self.name}-{number}", number + 1
            self.acknowledged[session] = []
            history: list[bytes] = []
            for turn in range(TURNS):
                if self.stop.is_set():
                    return
                history = self._append(session, turn) if turn < TURNS // 2 else self._chat(session, turn, history)

    def _append(self, session: str, turn: int) -> list[bytes]:
        """Two events, by the sessions API."""
        said = [_message("user", f"{session} note {turn}"), _message("assistant", f"{session} noted {turn}")]
        got = self._until_taken(
            f"/v1/sessions/{session}/events", spliced({}, said), {"idempotency-key": f"{session}-{turn}"}
        )
        if got is not None:
            self.acknowledged[session] += said
        return list(self.acknowledged[session])

    def _chat(self, session: str, turn: int, history: list[bytes]) -> list[bytes]:
        """One turn of a stateless client."""
        asked = [*history, _message("user", f"{session} question {turn}")]
        got = self._until_taken("/v1/chat/completions", spliced({"model": MODEL}, asked), {"x-ctxmem-session": session})
        if got is None:
            return history
        answer = _message("assistant", got.json()["choices"][0]["message"]["content"])
        if got.headers["x-ctxmem-action"].startswith("bypass"):
            self.bypassed += 1
        else:
            self.acknowledged[session] += [asked[-1], answer]
        return [*asked, answer]

    def _until_taken(self, path: str, body: bytes, headers: dict[str, str]) -> Answer | None:
        """Send until a 2xx comes; None when told to stop before."""
        while not self.stop.is_set():
            try:
                answer = self.client.post(path, body, headers)
            except OSError:
                answer = None
            if answer is not None and answer.status < 300:
                return answer
            if answer is not None and answer.status != 503:
                self.refused.append(f"{path}: {answer.status} {answer.body[:200]!r}")
            self.stop.wait(PAUSE_S)
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the log found.

    Attributes:
        acknowledged: messages that must be there.
        lost: those that are not.
        doubled: user messages that are there more than once; a retried question may have two answers.
        holes: sessions whose event numbers are not 0, 1, 2, ...
    """

    acknowledged: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    holes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.holes)


def check(client: Client, writers: Sequence[Writer]) -> Verdict:
    """Read every session's log and compare it with what was acknowledged."""
    lost, doubled, holes, total = [], [], [], 0
    for writer in writers:
        for session, messages in writer.acknowledged.items():
            listed = events(client, session) if messages else []
            there = Counter((event["message"]["role"], event["message"]["content"]) for event in listed)
            wanted = [(message.role, message.text) for message in map(chat.parse, messages)]
            total += len(messages)
            lost += [f"{session}: {said}" for said in wanted if not there[said]]
            doubled += [f"{session}: {said}" for said in wanted if there[said] > 1 and said[0] == "user"]
            holes += [session] if [event["seq"] for event in listed] != list(range(len(listed))) else []
    return Verdict(total, tuple(lost), tuple(doubled), tuple(holes))


def events(client: Client, session: str) -> list[dict[str, Any]]:
    """All events of a session."""
    found: list[dict[str, Any]] = []
    while page := client.get(f"/v1/sessions/{session}/events?after_seq={len(found) - 1}&limit=500").json()["events"]:
        found += page
    return found


def kill(service: Stack, part: Part) -> bool:
    """`kill -9` one part; False when it was down already."""
    pid = service.pid(part)
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def back(service: Stack, part: Part) -> bool:
    """Wait until the part runs again and the service is ready."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if service.pid(part) is not None and answers(f"{service.root}/readyz"):
            return True
        time.sleep(0.05)
    return False


def under_load(writers: Sequence[Writer], least: int) -> None:
    """Wait until so many messages are acknowledged: the death of a service that takes nothing shows nothing."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if sum(len(told) for writer in writers for told in list(writer.acknowledged.values())) >= least:
            return
        time.sleep(0.01)


def ordeal(
    service: Stack, parts: Sequence[Part], *, rounds: int, clients: int = 3, seed: int = 0
) -> tuple[Verdict, list[str]]:
    """Load the service, kill its parts in turn, wait for it to come back, and check.

    Returns:
        The verdict, and answers that should not have been given (neither 2xx nor 503).

    Raises:
        RuntimeError: the service did not come back.
    """
    random, stop = Random(seed), threading.Event()
    client = Client(service.root, service.headers, timeout_s=30.0)
    writers = [Writer(f"crash{seed}-{n}", client, stop) for n in range(clients)]
    threads = [threading.Thread(target=writer.run, name=writer.name) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        for number in range(rounds):
            part = parts[number % len(parts)]
            under_load(writers, TAKEN * (number + 1))
            time.sleep(random.uniform(0.05, 0.6))
            kill(service, part)
            if not back(service, part):
                raise RuntimeError(f"{part} did not come back; the log ends:\n{service.server.tail()}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return check(client, writers), [line for writer in writers for line in writer.refused]


def _message(role: str, text: str) -> bytes:
    return chat.dump({"role": role, "content": text})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--parts", nargs="+", choices=get_args(Part), default=["gateway", "valkey"])
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="ctxmem-crash-") as name, ExitStack() as running:
        upstream = running.enter_context(scripted_upstream(Path(name)))
        service = stack(Path(name), [upstream], model="smollm2" if "worker" in given.parts else "")
        running.enter_context(service.server)
        verdict, refused = ordeal(service, given.parts, rounds=given.rounds, clients=given.clients, seed=given.seed)
    print(f"{given.rounds} kills of {', '.join(given.parts)}: {verdict.acknowledged} acknowledged events")
    print(f"lost {len(verdict.lost)}, doubled {len(verdict.doubled)}, sessions with holes {len(verdict.holes)}")
    print(f"answers that should not be: {len(refused)} {refused[:3]}")
    harness.save(given.json, verdict=verdict, refused=refused)
    sys.exit(not verdict.clean or bool(refused))


if __name__ == "__main__":
    main()
