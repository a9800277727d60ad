"""What the agents share: tools, the account of a run, and how observations come back.

An agent is a sans-I/O generator (`steps`) over `ctxmem.effects`; `run` drives it with a synchronous model, `arun` with
an asynchronous one. Nothing here knows a provider: a model is anything with `complete`, a tool any callable.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from ctxmem import chat
from ctxmem.agents.actions import Action
from ctxmem.effects import Act, Answer, Ask, Failed, Steps, Tools
from ctxmem.ports import Counter
from ctxmem.types import Message

Stop = Literal["answered", "no_action", "max_turns", "failed"]
"""How a run ended: with an answer; the model chose nothing, twice; out of turns; the model was out of reach."""

NO_ACTION = "There was no action in your last answer. Choose one action, in exactly the form asked for."
"""What a model is told that chose nothing."""


@dataclass(frozen=True, slots=True)
class Turned:
    """One call of the model in a run.

    Attributes:
        prompt: what was sent.
        prompt_tokens: its tokens, template included.
        output_tokens: tokens of the answer.
        state_tokens: tokens of the state that stood in it; 0 where there is none.
    """

    prompt: tuple[Message, ...]
    prompt_tokens: int
    output_tokens: int
    state_tokens: int = 0


@dataclass(slots=True)
class Account:
    """What a run has used so far; one per run.

    Attributes:
        count: the target model's counter.
        turns: the model's calls, in order.
        degraded: updates that the model failed.
        tool_calls: tools called.
    """

    count: Counter
    turns: list[Turned] = field(default_factory=list)
    degraded: int = 0
    tool_calls: int = 0

    def ask(self, prompt: tuple[Message, ...], max_tokens: int, *, state: int = 0) -> Steps[Answer]:
        """Ask, and note what it took."""
        answer = yield Ask(prompt, max_tokens)
        written = self.count.texts([answer])[0] if isinstance(answer, str) else 0
        self.turns.append(Turned(prompt, self.count.request(prompt), written, state))
        return answer

    @property
    def peak(self) -> int:
        """Tokens of the largest prompt."""
        return max((turn.prompt_tokens for turn in self.turns), default=0)

    @property
    def input_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(turn.prompt_tokens for turn in self.turns)

    @property
    def output_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(turn.output_tokens for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Told:
    """A tool as the model is told of it.

    Attributes:
        name: what the model calls it.
        about: what it does, in a line.
        arguments: names of its arguments.
    """

    name: str
    about: str
    arguments: tuple[str, ...] = ("input",)

    def __str__(self) -> str:
        """The line in the prompt."""
        return f"- {self.name}({', '.join(self.arguments)}): {self.about}"


def told(tools: Mapping[str, Callable[..., Any]]) -> tuple[Told, ...]:
    """What a model is told of tools: their names, arguments and the first line of their documentation."""
    return tuple(Told(name, _about(tool), _parameters(tool)) for name, tool in tools.items())


def act(action: Action, tools: Tools, account: Account) -> Steps[str]:
    """Call a tool; what it gives, or why it gave nothing, as the text of an observation."""
    account.tool_calls += 1
    result = yield Act(action.tool, _fitting(action, tools.get(action.tool)))
    return f"error: {result.reason}" if isinstance(result, Failed) else result


def system(text: str, tools: Sequence[Told]) -> Message:
    """The rules, and the tools at the place marked {tools}."""
    return chat.build("system", text.replace("{tools}", "\n".join(map(str, tools))))


def conversation(said: Iterable[tuple[str, str]]) -> Iterator[Message]:
    """Messages whose roles alternate, of roles and texts: neighbours of one role become one message."""
    for role, texts in groupby(said, key=itemgetter(0)):
        yield chat.build(role, "\n\n".join(text for _, text in texts))


def as_json(action: Action) -> str:
    """An action as the model is shown it: one line of JSON, in the short form where a text is all it takes."""
    plain = action.arguments.keys() == {"input"}
    given = {"input": action.arguments["input"]} if plain else {"arguments": dict(action.arguments)}
    return json.dumps({"action": {"tool": action.tool, **given}}, ensure_ascii=False)


def _fitting(action: Action, tool: Callable[..., Any] | None) -> Mapping[str, Any]:
    """The arguments under the names the tool knows: a single text goes to its first parameter."""
    names = _parameters(tool) if tool is not None else ()
    if len(action.arguments) == 1 and names and not set(action.arguments) <= set(names):
        return {names[0]: next(iter(action.arguments.values()))}
    return action.arguments


def _parameters(tool: Callable[..., Any]) -> tuple[str, ...]:
    try:
        found = inspect.signature(tool).parameters.values()
    except (TypeError, ValueError):
        return ("input",)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(parameter.name for parameter in found if parameter.kind in kinds)


def _about(tool: Callable[..., Any]) -> str:
    lines = (inspect.getdoc(tool) or "").splitlines()
    return lines[0] if lines else "a tool"
