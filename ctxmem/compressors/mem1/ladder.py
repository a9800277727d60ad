"""The ladder: from whatever an updater answers, or does not, to changes of the state. It always gets to the end.

Rungs 1 to 5 read the answer (`ctxmem.compressors.mem1.ops`); 6 asks once more and shows what was wrong; 7 extracts from
the turns without a model; 8 keeps the state as it was and says so. What MEM1's published code does instead: no tag it
knows ends the episode, and an error's text is taken for the model's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctxmem.compressors.mem1 import ops, prompts
from ctxmem.compressors.mem1.apply import Turn, patch, rewrite
from ctxmem.compressors.mem1.extract import extract
from ctxmem.compressors.mem1.log import Change, StateEvent
from ctxmem.compressors.mem1.prompts import Mode
from ctxmem.compressors.mem1.state import State
from ctxmem.compressors.units import sentences
from ctxmem.effects import Answer, Ask, Failed, Steps
from ctxmem.ports import Counter
from ctxmem.types import Message

BREAKER = 3
"""Updates in a row that a model failed, after which it is not asked any more."""

PATIENCE = 8
"""Updates without the model after which it is asked once again."""


@dataclass(frozen=True, slots=True)
class Updater:
    """How a state is brought up to date.

    Attributes:
        mode: `patch` for operations; `rewrite` for the paper's whole new state.
        ask: whether there is a model to ask; without one every update is extractive.
        max_tokens: tokens of one answer.
        turn_tokens: tokens of a turn that are shown to the model; the middle of longer ones is cut.
        fence: the session's mark around data.
    """

    mode: Mode = "patch"
    ask: bool = False
    max_tokens: int = 512
    turn_tokens: int = 900
    fence: str = "data"

    def update(self, state: State, turns: Sequence[Turn], count: Counter) -> Steps[tuple[Change, ...]]:
        """Ask for an update and read it, down to the last rung.

        Args:
            state: what is known.
            turns: what was said since; the changes cover the session up to and with the last of them.
            count: the target model's counter.
        """
        if not turns:
            return ()
        if not self.ask:
            return self.extracted(state, turns, count)
        prompt = self.prompt(state, turns, count)
        return (yield from self.read((yield Ask(prompt, self.max_tokens)), state, turns, count, prompt=prompt))

    def read(
        self, answer: Answer, state: State, turns: Sequence[Turn], count: Counter, *, prompt: tuple[Message, ...]
    ) -> Steps[tuple[Change, ...]]:
        """Read an answer that was already given; the rungs below it when it cannot be read."""
        found, wrong = self._changes(answer, state, turns, count)
        if found:
            return found
        second = yield Ask(prompts.again(prompt, wrong), self.max_tokens)
        found, _ = self._changes(second, state, turns, count, retry="6.")
        return found or self.extracted(state, turns, count, failed=wrong or "unreadable")

    def prompt(self, state: State, turns: Sequence[Turn], count: Counter) -> tuple[Message, ...]:
        """What the model is asked."""
        clipped = [Turn(t.id, t.role, prompts.clipped(t.text, self.turn_tokens, count, t.id), t.at) for t in turns]
        return prompts.update(state, clipped, self.mode, self.fence)

    def extracted(self, state: State, turns: Sequence[Turn], count: Counter, *, failed: str = "") -> tuple[Change, ...]:
        """Rungs 7 and 8: an update without a model; when there is nothing to take, the state stays as it is.

        Args:
            state: what is known.
            turns: what was said since.
            count: the target model's counter.
            failed: why the model's answer did not count; empty when none was asked.
        """
        note = [Change("degraded", {"rung": "7", "why": failed[:300]})] if failed else []
        found = extract(state, turns, count)
        if not found and failed:
            return (Change("degraded", {"rung": "8", "why": failed[:300]}),)
        return (*note, *patch(state, found, turns, count, by="7", covers=turns[-1].at + 1))

    def _changes(
        self, answer: Answer, state: State, turns: Sequence[Turn], count: Counter, retry: str = ""
    ) -> tuple[tuple[Change, ...], str]:
        """The changes an answer makes, or none and what is wrong with it."""
        covers = turns[-1].at + 1 if turns else state.covers
        if isinstance(answer, Failed):
            return (), answer.reason
        if self.mode == "rewrite" and (said := ops.prose(answer)):
            texts = [said[unit.body : unit.end] for unit in sentences(said)]
            texts = [text for text in texts if text.strip() and not ops.looks_like_error(text)]
            if texts:
                return rewrite(state, texts, turns, count, by=f"{retry}rewrite", covers=covers), ""
        parsed = ops.parse(answer)
        if not parsed.rung:
            return (), parsed.error or "nothing to read in it"
        return patch(state, parsed.ops, turns, count, by=f"{retry}{parsed.rung}", covers=covers), ""


def broken(log: Iterable[StateEvent]) -> bool:
    """Whether the model failed so often that it is left alone for a while: the circuit breaker.

    Args:
        log: the newest events; some dozens are enough.
    """
    failures = quiet = 0
    for event in log:
        if event.kind == "degraded":
            failures, quiet = failures + 1, 0
        elif event.kind in ("patch", "rewrite"):
            asked = event.payload.get("by") != "7"
            failures = 0 if asked else failures
            quiet += not asked
    return failures >= BREAKER and quiet <= PATIENCE
