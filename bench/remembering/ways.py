"""Ways to bring back what a question needs of a long chat: each gives lines, best first, to be filled into a budget."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bench.objectives.managers import PEER
from bench.peers import peers_folder
from bench.remembering.sets import Chat, Turn
from ctxmem.compressors.mem1.recall import Index
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import open_engine
from ctxmem.memories import Embedded, Models, Wanted
from ctxmem.ports import Embedder

HERE = Path(__file__).parent
MOST = 120
"""Finds that fill a budget at most."""


class Way(Protocol):
    """Keeps a chat, then answers questions about it with lines, best first."""

    def keep(self, chat: Chat) -> None: ...

    def lines(self, question: str) -> Iterator[str]: ...


def line(turn: Turn) -> str:
    """A turn as every way shows it."""
    return f"{turn.speaker}: {' '.join(turn.text.split())}"


@dataclass(slots=True)
class Newest:
    """The end of the chat: all that fits, or the last turns of it.

    Attributes:
        turns: how many at most; None for as many as fit.
    """

    turns: int | None = None
    _kept: Sequence[Turn] = ()

    def keep(self, chat: Chat) -> None:
        self._kept = chat.turns if self.turns is None else chat.turns[-self.turns :]

    def lines(self, question: str) -> Iterator[str]:
        del question
        yield from map(line, reversed(self._kept))


@dataclass(slots=True)
class Words:
    """Turns by BM25."""

    _index: Index = field(default_factory=Index)

    def keep(self, chat: Chat) -> None:
        self._index = Index()
        for turn in chat.turns:
            self._index.add(turn.id, line(turn))

    def lines(self, question: str) -> Iterator[str]:
        yield from (hit.text for hit in self._index(question, MOST))


@dataclass(slots=True)
class Mem0:
    """mem0 with `infer=False`, run by its own code.

    Attributes:
        embedder: makes its vectors.
    """

    embedder: Embedder
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    _turns: dict[str, Turn] = field(default_factory=dict)

    def keep(self, chat: Chat) -> None:
        self.embedder.embed([line(turn) for turn in chat.turns])  # all at once, which is quicker than one by one
        self._turns = {turn.id: turn for turn in chat.turns}
        self._ask(do="begin", turns=[{"id": turn.id, "text": line(turn)} for turn in chat.turns])

    def lines(self, question: str) -> Iterator[str]:
        yield from (line(self._turns[id]) for id in self._ask(do="search", query=question, k=MOST)["ids"])

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()

    def _ask(self, **asked: object) -> dict[str, Any]:
        if self.process is None:
            argv = [str(peers_folder() / PEER / "bin" / "python"), str(HERE / "peer_mem0.py")]
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        told = self._exchange(asked)
        while "embed" in told:
            told = self._exchange({"vectors": self.embedder.embed(told["embed"]).tolist()})
        return told

    def _exchange(self, asked: object) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("mem0 died")
        told: dict[str, Any] = json.loads(answer)
        return told


@dataclass(slots=True)
class Ours:
    """ctxmem's memories, by words alone or with meaning too.

    Attributes:
        embedder: compares meanings; None goes by words.
        whole: whether messages are found, or statements.
    """

    embedder: Embedder | None = None
    whole: bool = False
    _manager: ContextManager | None = None

    def keep(self, chat: Chat) -> None:
        self.close()
        models = Models(Embedded(self.embedder)) if self.embedder is not None else Models()
        self._manager = ContextManager(replace(open_engine("sqlite://"), memory_models=models))
        session = [{"role": _role(turn), "name": turn.speaker, "content": turn.text} for turn in chat.turns]
        for start in range(0, len(session), 50):
            self._manager.memories.add(session[start : start + 50], "u")

    def lines(self, question: str) -> Iterator[str]:
        assert self._manager is not None
        for hit in self._manager.memories.search(question, "u", Wanted(top_k=MOST, whole=self.whole)).hits:
            yield f"{hit.memory.speaker}: {hit.text}"

    def close(self) -> None:
        """Drop the database."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None


def _role(turn: Turn) -> str:
    """A person's words are a user's."""
    return "assistant" if turn.speaker == "assistant" else "user"
