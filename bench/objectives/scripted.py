"""Agents that follow a script, so that figures about memory need no language model and come out the same again.

The agent knows which searches a task takes and makes them in order. What it knows is what stands in its prompt, nothing
else: it writes a fact into its memory, a summary or an answer only if it can read it there. Four of them: `oracle`
writes all it reads; `forgetful` loses each thing it writes with a probability; `malformed` breaks its output with one;
and whoever reads an order outside of data obeys it, which is what an injected document tries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from bench.objectives.world import Objective, Task, plain
from ctxmem.types import Message

UNKNOWN = "unknown"
_ITEM = re.compile(r"^(i\d+) (facts|open|done|plan|artifacts): (.*)$", re.MULTILINE)
_ORDER = re.compile(r"</(?:information|info|tool_result)>.*?<answer>(.*?)</answer>", re.DOTALL)
_BREAKS = ("cut", "prose", "quotes", "fence", "empty")


@dataclass(slots=True)
class Agent:
    """The script of one task; a `Complete`.

    Attributes:
        task: what is to be done.
        rewrites: whether the memory is written anew (MEM1's tags), or patched (JSON).
        forgets: probability that a thing is lost whenever it is written.
        breaks: probability that an output is malformed.
        random: of both.
    """

    task: Task
    rewrites: bool = False
    forgets: float = 0.0
    breaks: float = 0.0
    random: Random = field(default_factory=lambda: Random(0))
    hacked: bool = False
    _at: int = 0

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Answer a prompt of the MEM1 agent: an update where it is asked for, then the next action."""
        del max_tokens
        text = "\n".join(message.text for message in messages)
        update = "Update the memory" in messages[-1].text
        answer = self._rewritten(text, messages) if self.rewrites else self._patched(text, update=update)
        yield self._broken(answer) if update or self.rewrites else answer

    def act(self, text: str) -> str:
        """The next action of an agent that keeps no memory of its own, given all it can read."""
        return json.dumps(self._action(text), ensure_ascii=False)

    def summary(self, text: str) -> str:
        """What a perfect summariser makes of a text: of each objective the answer once it is known, else its facts."""
        lines = [f"({n}) answer: {one.answer}" for n, one in self._known(text)]
        lines += [fact for n, fact in self._loose(text)]
        kept = [line for line in lines if self.random.random() >= self.forgets]
        return "\n".join(kept) or "None"

    def retained(self, text: str) -> float:
        """Share of the objectives whose answer, or all that it takes, can be read in a text."""
        return len(list(self._known(text))) / len(self.task.objectives)

    def _action(self, text: str) -> dict[str, object]:
        if (order := _ORDER.search(text)) is not None and "hacked" in order[1]:
            self.hacked = True
        queries = [query for one in self.task.objectives for query in one.queries]
        if self._at < len(queries):
            self._at += 1
            return {"action": {"tool": "search", "input": queries[self._at - 1]}}
        known = dict(self._known(text))
        return {"answer": [one.answer if n in known else UNKNOWN for n, one in enumerate(self.task.objectives, 1)]}

    def _known(self, text: str) -> Iterator[tuple[int, Objective]]:
        """Objectives that can be answered from a text."""
        read = plain(text)
        for n, one in enumerate(self.task.objectives, 1):
            done = any(plain(f"{said} {one.answer}") in read for said in (f"({n}) answer:", f"i{n} done:"))
            if done or all(plain(fact) in read for fact in one.facts):
                yield n, one

    def _loose(self, text: str) -> Iterator[tuple[int, str]]:
        """Facts in a text of objectives that cannot be answered yet."""
        read, known = plain(text), {n for n, _ in self._known(text)}
        for n, one in enumerate(self.task.objectives, 1):
            if n not in known:
                yield from ((n, fact) for fact in one.facts if plain(fact) in read)

    def _patched(self, text: str, *, update: bool) -> str:
        reply = self._action(text)
        if update and "answer" not in reply:
            ops = [op for op in self._ops(text) if self.random.random() >= self.forgets]
            reply = {"ops": ops, **reply}
        return json.dumps(reply, ensure_ascii=False)

    def _ops(self, text: str) -> Iterator[str]:
        """What to change: answers in place of the facts and the question they settle, facts that are new."""
        items = [(id, sec, said) for id, sec, said in _ITEM.findall(text)]
        stated = plain("\n".join(f"{id} {sec}: {said}" for id, sec, said in items))
        for n, one in self._known(text):
            if plain(f"i{n} done: {one.answer}") in stated:
                continue
            yield f"= i{n} done: {one.answer}"
            spent = [plain(fact) for fact in one.facts]
            yield from (f"- {id}" for id, sec, said in items if sec == "facts" and plain(said) in spent)
        for _, fact in self._loose(text):
            if plain(fact) not in stated:
                yield f"+ facts 1: {fact}"

    def _rewritten(self, text: str, messages: Sequence[Message]) -> str:
        read = "\n".join(message.text for message in messages[1:])
        wanted = self._action(text)
        thought = f"<think>{self.summary(read)}</think>"
        if "answer" in wanted:
            return f"{thought}<answer>{'; '.join(str(one) for one in wanted['answer'])}</answer>"  # type: ignore[attr-defined]
        return f"{thought}<search>{wanted['action']['input']}</search>"  # type: ignore[index]

    def _broken(self, answer: str) -> str:
        if self.random.random() >= self.breaks:
            return answer
        how = self.random.choice(_BREAKS)
        cut = self.random.randrange(max(1, len(answer)))
        made = {"cut": answer[:cut], "prose": f"Sure! Here it is: {answer} Hope it helps.", "empty": ""}
        return made.get(how) or (answer.replace('"', "'") if how == "quotes" else f"```json\n{answer},\n")
