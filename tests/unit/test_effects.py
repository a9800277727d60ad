"""What drives a loop: whatever a model or a tool does, the loop gets an answer, and the process can end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ctxmem import effects
from ctxmem.effects import Act, Answer, Ask, Failed, Steps, adrive, drive
from tests.shape.imports import ROOT


class Model:
    """Gives some pieces, whatever they are."""

    def __init__(self, pieces: Any) -> None:
        self.pieces = pieces

    def complete(self, messages: Any, *, max_tokens: int) -> Any:
        return self.pieces


def once(effect: Ask | Act) -> Steps[Answer]:
    """A loop of one effect."""
    return (yield effect)


def endless() -> Iterator[str]:
    while True:
        yield ""


@pytest.mark.parametrize("pieces", [None, 7, [None], [b"bytes"], ["a", 7], {"a": 1}.items()])
def test_what_is_no_text_is_a_failure(pieces: Any) -> None:
    """Sync and async alike."""
    assert isinstance(drive(once(Ask(())), Model(pieces), timeout_s=5), Failed)
    assert isinstance(asyncio.run(adrive(once(Ask(())), Model(pieces), timeout_s=5)), Failed)


def test_empty_pieces_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of nothing would keep its thread busy for ever."""
    monkeypatch.setattr(effects, "MOST_CHARACTERS", 1000)
    assert drive(once(Ask(())), Model(endless()), timeout_s=30) == ""


def test_tools_run_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that holds a connection can be called again, in the caller's context."""

    def loop() -> Steps[list[Answer]]:
        return [(yield Act("where")), (yield Act("where"))]

    here = drive(loop(), Model([]), {"where": lambda: str(threading.get_ident())}, timeout_s=30)
    assert here[0] == here[1] != str(threading.get_ident())


def test_after_one_that_hangs_the_next_is_asked_elsewhere() -> None:
    """The deadline counts for each."""
    released = threading.Event()

    def loop() -> Steps[list[Answer]]:
        return [(yield Act("hang")), (yield Act("say"))]

    tools = {"hang": lambda: released.wait(30), "say": lambda: "here"}
    began = time.monotonic()
    assert drive(loop(), Model([]), tools, timeout_s=0.2) == [Failed("timeout"), "here"]
    assert time.monotonic() - began < 10
    released.set()


@pytest.mark.parametrize(
    "run", ["drive(once(), Hangs(), timeout_s=0.1)", "asyncio.run(adrive(once(), Hangs(), timeout_s=0.1))"]
)
def test_a_call_that_hangs_does_not_keep_the_process(run: str) -> None:
    """It ends when its work is done, not when the model answers."""
    script = (
        "import asyncio, time\nfrom ctxmem.effects import Ask, adrive, drive\n"
        "def once():\n    return (yield Ask(()))\n"
        "class Hangs:\n    def complete(self, messages, *, max_tokens):\n        time.sleep(60)\n"
        f"print({run}.reason)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=40, check=True
    )
    assert done.stdout.strip() == "timeout"
