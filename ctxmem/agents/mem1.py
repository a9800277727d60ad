"""The MEM1 agent: a task of any length in a context of constant size.

Zhou et al. 2025 (arXiv 2506.15841), section 3: each turn the model sees its state, its last action and the result, and
writes the next state and action. Here the state is patched or written anew as `Knobs.mode` says, at the cadence that is
cheapest, under a bound that holds whatever the model writes; what it loses can be recalled from the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from ctxmem.agents.actions import ANSWER, Action, answers, read
from ctxmem.agents.loop import NO_ACTION, Account, Stop, act, as_json, conversation, system, told
from ctxmem.compressors.mem1.apply import Turn
from ctxmem.compressors.mem1.engine import Mem1
from ctxmem.compressors.mem1.knobs import Knobs
from ctxmem.compressors.mem1.ops import Op, parse
from ctxmem.compressors.mem1.prompts import clipped, fenced
from ctxmem.compressors.mem1.repeats import Repeats
from ctxmem.compressors.mem1.state import State
from ctxmem.effects import Answer, Failed, Steps, adrive, drive
from ctxmem.errors import BudgetError
from ctxmem.ports import Counter
from ctxmem.types import Message

_UPDATE = "Update the memory and choose the next action."
_CHOOSE = "Choose the next action."


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        answers: the final answers, one per objective when the model gave as many; empty without any.
        stop: why it ended.
        state: the last state.
        memory: the whole memory, its log included.
        account: calls, tokens, prompts.
    """

    answers: tuple[str, ...]
    stop: Stop
    state: State
    memory: Mem1
    account: Account


@dataclass(frozen=True, slots=True)
class Mem1Agent:
    """Runs tasks with a model and tools.

    Attributes:
        llm: the model; for `run` a `Complete`, for `arun` one or its async form.
        tools: by name, what may be called; `recall` is always there.
        count: counts in the model's tokens.
        knobs: mode, budgets and cadence of the memory.
        max_turns: calls of the model for one task, retries not counted.
        strict: raise `BudgetError` when a prompt is larger than `bound` says, instead of leaving turns out.
        timeout_s: seconds a call may take.
    """

    llm: Any
    tools: Mapping[str, Callable[..., Any]]
    count: Counter
    knobs: Knobs = field(default_factory=Knobs)
    max_turns: int = 20
    strict: bool = False
    timeout_s: float = 120.0

    def run(self, goal: str, *, objectives: Sequence[str] = (), pins: Sequence[str] = ()) -> Result:
        """Work on a task to its end.

        Args:
            goal: what to do; kept word for word.
            objectives: its parts, each to be answered.
            pins: what must always hold.

        Raises:
            InvalidInput: the goal is larger than half of the state's bound.
        """
        steps = self.steps(goal, objectives=objectives, pins=pins)
        return drive(steps, self.llm, self.tools, timeout_s=self.timeout_s)

    async def arun(self, goal: str, *, objectives: Sequence[str] = (), pins: Sequence[str] = ()) -> Result:
        """The same, without blocking the event loop; `llm` and tools may be async."""
        steps = self.steps(goal, objectives=objectives, pins=pins)
        return await adrive(steps, self.llm, self.tools, timeout_s=self.timeout_s)

    def steps(self, goal: str, *, objectives: Sequence[str] = (), pins: Sequence[str] = ()) -> Steps[Result]:
        """The loop itself: yields calls of the model and of tools, is sent what came back."""
        return _Run(self, self._memory(goal, objectives, pins), Account(self.count)).steps()

    @property
    def rules(self) -> Message:
        """The system message; the same for every task."""
        text = (files("ctxmem.agents") / f"mem1_{self.knobs.mode}.txt").read_text("utf-8").strip()
        return system(text, told(self.tools))

    def _memory(self, goal: str, objectives: Sequence[str], pins: Sequence[str]) -> Mem1:
        """The memory at the start: open objectives are items, unless the model will write all items anew."""
        if self.knobs.mode == "rewrite":
            goal = " ".join([goal, *(f"({n}) {one}" for n, one in enumerate(objectives, 1))]).strip()
            return Mem1(goal, self.count, knobs=self.knobs, pins=pins)
        memory = Mem1(goal, self.count, knobs=self.knobs, pins=pins)
        memory.note([Op("add", "open", text=one, prio=3) for one in objectives])
        return memory


class _Run:
    """One task on its way."""

    def __init__(self, agent: Mem1Agent, memory: Mem1, account: Account) -> None:
        self.agent = agent
        self.memory = memory
        self.account = account
        self._rules = agent.rules
        self._hints: dict[str, str] = {}
        self._recalled = ""

    def steps(self) -> Steps[Result]:
        for turn in range(self.agent.max_turns):
            left = self.agent.max_turns - turn
            due = any(said.role == "obs" for said in self.memory.tail) and self._due(left)
            actions = yield from self._chosen(due)
            if isinstance(actions, str):
                return self._result((), "failed" if actions else "no_action")
            final = next((action for action in actions if action.tool == ANSWER), None)
            others = [action for action in actions if action.tool != ANSWER]
            if final is not None and not (others and self.memory.state.section("open") and left > 1):
                return self._result(answers(final), "answered")
            for action in others:
                yield from self._done(action, left - 1)
        return self._result((), "max_turns")

    def _due(self, left: int) -> bool:
        count, state = self.agent.count, self.memory.state.tokens
        prompt = count.request(self._laid(self.memory.tail, "")) - count.request([self._rules])
        return self.memory.due(remaining=left, shown=max(0, prompt - state))

    def _chosen(self, due: bool) -> Steps[tuple[Action, ...] | str]:  # noqa: FBT001 - what the prompt asks for
        """What to do next; a text when there is nothing: why the model failed, or empty when it chose nothing."""
        prompt = self._prompt(_UPDATE if due else "" if self.memory.tail else _CHOOSE)
        answer = yield from self._ask(prompt)
        if due and not _only_ends(answer):
            yield from self._updated(answer, prompt)
        for note in (NO_ACTION, ""):
            actions = read(answer) if isinstance(answer, str) else ()
            if actions or not note:
                break
            answer = yield from self._ask(self._prompt(note))
        if not actions:
            return answer.reason if isinstance(answer, Failed) else ""
        self.memory.add("assistant", self._said(answer, actions, due=due))
        return actions

    def _ask(self, prompt: tuple[Message, ...]) -> Steps[Answer]:
        return (yield from self.account.ask(prompt, self.agent.knobs.max_out, state=self.memory.state.tokens))

    def _updated(self, answer: Answer, prompt: tuple[Message, ...]) -> Steps[None]:
        before = len(self.memory.log)
        yield from self._counted(self.memory.take(answer, prompt))
        new = self.memory.log[before:]
        self.account.degraded += any(event.kind == "degraded" for event in new)
        whole = not self.memory.state.evicted and all(event.payload.get("by", "1") == "1" for event in new)
        self._recalled = "" if whole else self._looked_up()

    def _counted(self, steps: Steps[None]) -> Steps[None]:
        """The memory's own questions, on this run's account."""
        try:
            effect = next(steps)
            while True:
                asked = effect
                answer: Answer = ""
                if not hasattr(asked, "tool"):
                    answer = yield from self._ask(asked.messages)
                effect = steps.send(answer)
        except StopIteration:
            return

    def _done(self, action: Action, left: int) -> Steps[None]:
        """Carry out one action and log what came of it."""
        if action.tool == "recall":
            hits = self.memory.recall(action.text)
            text = "\n".join(f"[{hit.id}] {hit.text}" for hit in hits) or "nothing found"
        else:
            text = yield from act(action, self.agent.tools, self.account)
        handle = self.memory.add("obs", text)
        self._hints[handle] = f"{handle}, {left} turns left"

    def _said(self, answer: Answer, actions: tuple[Action, ...], *, due: bool) -> str:
        """What stays of an answer: its actions alone once its operations are in the state."""
        if due or not isinstance(answer, str):
            return "\n".join(map(as_json, actions))
        return clipped(answer.strip(), self.agent.knobs.max_out, self.agent.count, "log")

    def _prompt(self, ask: str) -> tuple[Message, ...]:
        """Rules; goal and state; the raw turns since; what is asked for. Roles alternate; the user's ends it."""
        tail = list(self.memory.tail)
        while True:
            messages = self._laid(tail, ask)
            over = self.agent.count.request(messages) - self.bound
            if over <= 0 or len(tail) < 2:
                break
            if self.agent.strict:
                raise BudgetError(
                    f"a prompt is {over} tokens over its bound", needed=self.bound + over, limit=self.bound
                )
            tail = tail[1:]
        return messages

    @property
    def bound(self) -> int:
        """Tokens that no prompt of this run is larger than: rules, state, what was recalled, the largest tail."""
        knobs = self.agent.knobs
        turn = 2 * (knobs.b_obs + knobs.max_out) + 200
        rules = self.agent.count.request([self._rules])
        return rules + knobs.b_state + knobs.b_recall + knobs.when().largest(turn) + turn

    def _laid(self, tail: Sequence[Turn], ask: str) -> tuple[Message, ...]:
        first = [self.memory.state.text() or "(nothing is known yet)", self._recalled]
        blocks = [("user", part) for part in first if part]
        shown = Repeats()
        blocks += [("assistant" if said.role == "assistant" else "user", self._shown(said, shown)) for said in tail]
        if ask or blocks[-1][0] != "user":
            blocks.append(("user", ask or _CHOOSE))
        return (self._rules, *conversation(blocks))

    def _shown(self, said: Turn, before: Repeats) -> str:
        text = clipped(said.text, self.agent.knobs.b_obs, self.agent.count, said.id)
        if said.role == "assistant":
            return text
        return fenced(before.pointed(text, said.id), self.memory.fence, self._hints.get(said.id, said.id))

    def _looked_up(self) -> str:
        """What the log says on open objectives and is in neither state nor tail: the sentences that fit.

        Only where the state may have lost something: it was evicted from, or its update was no valid answer. What is
        recalled is read again at every turn, and what the model has just seen it could note.
        """
        return self.memory.recollect(
            [item.text for item in self.memory.state.section("open")] or [self.memory.state.goal]
        )

    def _result(self, found: tuple[str, ...], stop: Stop) -> Result:
        return Result(found, stop, self.memory.state, self.memory, self.account)


def _only_ends(answer: Answer) -> bool:
    """Whether it gives the final answer and no operations: a memory that nobody will read is not asked for again."""
    return isinstance(answer, str) and any(a.tool == ANSWER for a in read(answer)) and not parse(answer).rung
