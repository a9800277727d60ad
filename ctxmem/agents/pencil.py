"""The PENCIL agent: subtasks in subtasks, each of which leaves its answer in the context and nothing else.

Yang et al. 2025 (arXiv 2503.14337) at the level of messages: the model calls `begin_subtask`, works, calls
`return_answer`, and what lay between leaves the prompt. Nothing is lost: `recall` brings it back.
The prompt before a subtask keeps its bytes, so a provider's prompt cache finds it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from ctxmem.agents.actions import ANSWER, Action, answers, read
from ctxmem.agents.loop import NO_ACTION, Account, Stop, act, conversation, system, told
from ctxmem.agents.subtasks import Folded, Limits, Subtasks
from ctxmem.compressors.mem1.prompts import clipped, fenced, mark
from ctxmem.compressors.pencil.frames import Visibility
from ctxmem.compressors.pencil.tools import BEGIN, RECALL, RETURN
from ctxmem.compressors.pencil.transcript import Entry, Source, Transcript
from ctxmem.effects import Answer, Failed, Steps, adrive, drive
from ctxmem.errors import InvalidInput
from ctxmem.ports import Counter
from ctxmem.types import Message

_LEAVE = 0.7


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        answers: the final answers, one per objective when the model gave as many; empty without any.
        stop: why it ended.
        folds: the subtasks that returned, in order.
        transcript: everything that was said.
        account: calls, tokens, prompts.
    """

    answers: tuple[str, ...]
    stop: Stop
    folds: tuple[Folded, ...]
    transcript: Transcript
    account: Account


@dataclass(frozen=True, slots=True)
class PencilAgent:
    """Runs tasks with a model and tools.

    Attributes:
        llm: the model; for `run` a `Complete`, for `arun` one or its async form.
        tools: by name, what may be called; `begin_subtask`, `return_answer` and `recall` are always there.
        count: counts in the model's tokens.
        limits: what bounds a run.
        visibility: whether a subtask sees what came before it (`inherit`), or its task and what it asked for alone.
        verify: refuse an answer once when something in it stands in no result of the subtask.
        max_turns: calls of the model for one task, retries not counted.
        timeout_s: seconds a call may take.
    """

    llm: Any
    tools: Mapping[str, Callable[..., Any]]
    count: Counter
    limits: Limits = field(default_factory=Limits)
    visibility: Visibility = "inherit"
    verify: bool = False
    max_turns: int = 40
    timeout_s: float = 120.0

    def run(self, goal: str, *, objectives: Sequence[str] = (), pins: Sequence[str] = ()) -> Result:
        """Work on a task to its end.

        Args:
            goal: what to do; kept word for word.
            objectives: its parts, each to be answered.
            pins: what must always hold; in sight of every subtask.

        Raises:
            InvalidInput: goal, objectives and pins take more than half of `max_live`.
        """
        return drive(self.steps(goal, objectives=objectives, pins=pins), self.llm, self.tools, timeout_s=self.timeout_s)

    async def arun(self, goal: str, *, objectives: Sequence[str] = (), pins: Sequence[str] = ()) -> Result:
        """The same, without blocking the event loop; `llm` and tools may be async."""
        steps = self.steps(goal, objectives=objectives, pins=pins)
        return await adrive(steps, self.llm, self.tools, timeout_s=self.timeout_s)

    def steps(self, goal: str, *, objectives: Sequence[str] = (), pins: Sequence[str] = ()) -> Steps[Result]:
        """The loop itself: yields calls of the model and of tools, is sent what came back."""
        asked = "\n".join([goal, *(f"({n}) {one}" for n, one in enumerate(objectives, 1))])
        head = "\n".join(["Goal: " + asked, *(f"Always: {pin}" for pin in pins)])
        if self.count.texts([head])[0] > self.limits.max_live // 2:
            raise InvalidInput("goal, objectives and pins take more than half of max_live", param="goal")
        pinned = "\n".join(f"Always: {pin}" for pin in pins)
        return _Run(self, head, pinned).steps()

    @property
    def rules(self) -> Message:
        """The system message; the same for every task."""
        text = (files("ctxmem.agents") / "pencil.txt").read_text("utf-8").strip()
        return system(text, told(self.tools))


class _Run:
    """One task on its way."""

    def __init__(self, agent: PencilAgent, head: str, pinned: str) -> None:
        self.agent = agent
        self.said = Transcript(depth=agent.limits.max_depth)
        self.account = Account(agent.count)
        isolated = agent.visibility == "isolated"
        self.subtasks = Subtasks(self.said, agent.count, agent.limits, agent.verify, isolated, head)
        self._rules, self._head, self._pinned = agent.rules, head, pinned
        self._fence = mark()
        self._hints: dict[str, str] = {}
        self._spilled: set[str] = set()
        self._insisted = ""

    def steps(self) -> Steps[Result]:
        for left in reversed(range(self.agent.max_turns)):
            answer = yield from self._chosen()
            actions = read(answer) if isinstance(answer, str) else ()
            if isinstance(answer, Failed) or not actions:
                return self._result((), "failed" if isinstance(answer, Failed) else "no_action")
            own = all(action.tool in (BEGIN, RETURN, RECALL) for action in actions)
            self.said.say("assistant", answer, source="told" if own else "said")
            found = yield from self._carried_out(actions, left)
            if found is not None:
                return self._result(answers(found), "answered")
        return self._result((), "max_turns")

    def _chosen(self) -> Steps[Answer]:
        """The model's answer; asked once more when it wants nothing done."""
        answer: Answer = ""
        for note in ("", NO_ACTION):
            answer = yield from self.account.ask(self._prompt(note), self.agent.limits.max_out)
            if isinstance(answer, str) and read(answer):
                break
        return answer

    def _carried_out(self, actions: Sequence[Action], left: int) -> Steps[Action | None]:
        """Calls first, then what ends or begins a subtask; the final answer when it counts."""
        waiting: list[str] = []
        for action in sorted(actions, key=_place):
            if action.tool == ANSWER:
                wrong = self._early(waiting) if left else ""
                if not wrong:
                    return action
                self._observe(wrong, left)
            elif action.tool in (BEGIN, RETURN):
                begun = action.tool == BEGIN
                wrong = self.subtasks.begin(action.arguments) if begun else self.subtasks.end(action.arguments, waiting)
                if wrong:
                    self._observe(wrong, left)
            else:
                waiting.append(action.tool)
                yield from self._called(action, left)
        return None

    def _early(self, waiting: Sequence[str]) -> str:
        """Why a final answer does not count yet. One given again while subtasks are open does: the model means it."""
        if waiting:
            return f"error: the answer came before the results of {', '.join(waiting)}; answer alone"
        open_ones = ", ".join(frame.scope for frame in self.said.view.frames)
        if not open_ones or self._insisted == open_ones:
            return ""
        self._insisted = open_ones
        return f"error: subtasks are open: {open_ones}. Call return_answer; or answer again to end the whole task"

    def _called(self, action: Action, left: int) -> Steps[None]:
        if action.tool == RECALL:
            self._observe(self.subtasks.recall(action.text), left, "recalled")
        else:
            self._observe((yield from act(action, self.agent.tools, self.account)), left, "said")

    def _observe(self, text: str, left: int, source: Source = "told") -> None:
        """Log a result; near the end of the turns it is told how many subtasks must still return."""
        handle = self.said.say("user", text, source=source)
        depth = len(self.said.view.frames)
        more = f", {depth} subtasks are open: return their answers" if depth and left <= depth + 2 else ""
        self._hints[handle] = f"[HINT]You have {left} turns left{more}.[/HINT]"

    def _prompt(self, note: str) -> tuple[Message, ...]:
        """Rules, goal, what is shown of the log; the oldest of it leaves when it would be over `max_live`."""
        most = self.agent.limits.max_live
        messages = self._laid(note)
        tokens = self.agent.count.request(messages)
        for entry in self._can_leave() if tokens > most else []:
            if tokens <= most * _LEAVE:
                break
            before = self._text(entry)
            self._spilled.add(entry.id)
            tokens -= max(0, sum(self.agent.count.texts([before])) - sum(self.agent.count.texts([self._text(entry)])))
        return self._laid(note)

    def _can_leave(self) -> list[Entry]:
        """What may leave the prompt, oldest first: not what opened a subtask, nor the newest exchange."""
        entries = self.said.view.entries[:-2]
        return [one for one in entries if one.id not in self._spilled and (one.mark is None or one.mark.act != "open")]

    def _laid(self, note: str) -> tuple[Message, ...]:
        view = self.said.view
        alone = self.agent.visibility == "isolated" and view.frames
        head, first = (self._pinned, view.frames[-1].at) if alone else (self._head, 0)
        said = [("user", head)] if head else []
        said += [(entry.role, self._text(entry)) for entry in view.entries[first:]]
        if note:
            said.append(("user", note))
        return (self._rules, *conversation(said))

    def _text(self, entry: Entry) -> str:
        """An entry as it is shown; results are fenced, marks are ours."""
        limits, count = self.agent.limits, self.agent.count
        if entry.id in self._spilled:
            return f"[{entry.id} has left your context: recall {entry.id}]"
        if entry.mark is not None:
            return entry.text
        if entry.role == "assistant":
            return clipped(entry.text.strip(), limits.max_out, count, entry.id)
        text = fenced(clipped(entry.text, limits.b_obs, count, entry.id), self._fence)
        return "\n".join(filter(None, (f"[{entry.id}]", text, self._hints.get(entry.id))))

    def _result(self, found: tuple[str, ...], stop: Stop) -> Result:
        self.subtasks.abort(f"the task ended ({stop})")
        return Result(found, stop, tuple(self.subtasks.folds), self.said, self.account)


def _place(action: Action) -> int:
    return {RETURN: 1, BEGIN: 2, ANSWER: 3}.get(action.tool, 0)
