"""What an agent without a memory of its own is shown of its history: all, its end, or what a summariser made of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.peers import peers_folder

HERE = Path(__file__).parent
PEER = "mem0"
"""The environment that holds langchain and langmem."""

Said = dict[str, str]
"""A message: role and content."""

Summarise = Callable[[str], str]
"""The language model of a summariser."""


class Manager(Protocol):
    """Decides what is shown."""

    def show(self, history: Sequence[Said], new: Sequence[Said], ask: Summarise) -> list[Said]:
        """The prompt, given all that was said and what of it is new since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Full:
    """All of it."""

    def show(self, history: Sequence[Said], new: Sequence[Said], ask: Summarise) -> list[Said]:
        del new, ask
        return list(history)


@dataclass(frozen=True, slots=True)
class Window:
    """Rules, task, and the newest turns.

    Attributes:
        turns: how many; a turn is an action and its result.
    """

    turns: int = 8

    def show(self, history: Sequence[Said], new: Sequence[Said], ask: Summarise) -> list[Said]:
        del new, ask
        return [*history[:2], *history[2:][-2 * self.turns :]]


@dataclass(slots=True)
class Peer:
    """A published summariser, run by its own code in its own environment (`bench/peers.sh`).

    Attributes:
        name: `langchain` or `langmem`.
        tokens: when it summarises.
        process: once started.
    """

    name: str
    tokens: int
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def show(self, history: Sequence[Said], new: Sequence[Said], ask: Summarise) -> list[Said]:
        begins = len(new) == len(history)
        self._send(do="begin" if begins else "add", name=self.name, tokens=self.tokens, messages=list(new))
        while "ask" in (told := self._read()):
            self._send(text=ask(told["ask"]))
        shown: list[Said] = told["messages"]
        return shown

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()

    def _send(self, **asked: object) -> None:
        if self.process is None:
            argv = [str(peers_folder() / PEER / "bin" / "python"), str(HERE / "peer_summaries.py")]
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died")
        told: dict[str, Any] = json.loads(line)
        return told


def peers_installed() -> bool:
    """Whether `bench/peers.sh` has made their environment."""
    return (peers_folder() / PEER / "bin" / "python").exists()
