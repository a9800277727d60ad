"""OpenAI's Agents SDK: a session that keeps every item, and an input filter that gives each model call what fits.

The session is the SDK's to read, pop and clear. What a model call is made of is logged by the filter, which never
changes the session.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

try:
    from agents import FunctionTool, SessionSettings
    from agents.items import TResponseInputItem
    from agents.memory.session_settings import coerce_session_settings, resolve_session_limit
    from agents.run import CallModelData, ModelInputData
except ImportError as error:
    raise ImportError('ctxmem.agents.openai_agents needs openai-agents: pip install "ctxmem[openai-agents]"') from error

from ctxmem import chat
from ctxmem.agents import shared
from ctxmem.agents.fitting import Fitting
from ctxmem.manager import ContextManager
from ctxmem.ports import Change
from ctxmem.types import Budget, Message

T = TypeVar("T")


class CtxMemSession:
    """A `Session` in ctxmem's database; use it where `SQLiteSession` was used.

    Writes are atomic: a batch is there as a whole or not at all, and batches of concurrent writers never mix.
    """

    session_id: str
    session_settings: SessionSettings | None = None

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = shared.IN_MEMORY,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        manager: ContextManager | None = None,
        user: str = "",
    ) -> None:
        """Open a session.

        Args:
            session_id: names it.
            db_path: the database file; `:memory:` keeps nothing. Sessions of one process share the file's connections.
            session_settings: as the SDK's; `limit` caps what is read.
            manager: keep the session in this manager's database and tenant instead.
            user: whose session it is; erasing the user erases it.
        """
        self.session_id = session_id
        self.session_settings = coerce_session_settings(session_settings or SessionSettings())
        self._folder = shared.KeptFolder(f"agents/{session_id}", db_path, manager, user)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The latest items in the order they were added; all of them without a limit, here or in the settings."""
        most = resolve_session_limit(limit, self.session_settings)
        last = most if most is not None and most >= 0 else None
        folder = await asyncio.to_thread(self._folder.read, last=last)
        return [json.loads(value) for value in folder.items.values()]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items after all others, together."""
        if items:
            values = [json.dumps(item).encode() for item in items]
            await _finished(lambda: self._folder.change(Change(append=values)))

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item out; None when there is none. Of two who pop at once each gets another one."""
        return await _finished(self._pop)

    async def clear_session(self) -> None:
        """Take every item out."""
        await _finished(lambda: self._folder.change(Change(clear=True)))

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._folder.close()

    def _pop(self) -> TResponseInputItem | None:
        while True:
            folder = self._folder.read(last=1)
            if not folder.items:
                return None
            ((key, value),) = folder.items.items()
            if self._folder.changed(Change(delete=[key], expected=folder.revision)):
                popped: TResponseInputItem = json.loads(value)
                return popped


class CtxMemInputFilter:
    """Fits each model call into its budget: `RunConfig(call_model_input_filter=CtxMemInputFilter(manager))`.

    What does not fit is left out of this call only; a tool call and its output leave together or stay together. Items
    that need no edit reach the model as the very objects that came.
    """

    def __init__(
        self,
        manager: ContextManager,
        *,
        budget: int | Budget | None = None,
        policy: str | None = None,
        session: str | None = None,
        user: str = "",
    ) -> None:
        """Make the filter.

        Args:
            manager: builds the contexts and keeps the log.
            budget: prompt tokens allowed, instructions and function tools included; None for the model's window.
            policy: name of the policy.
            session: the session in the log; None lets the history find it.
            user: whose session it is.
        """
        self._fitting = Fitting(manager, Budget.of(budget), policy, session, user)

    async def __call__(self, data: CallModelData[Any]) -> ModelInputData:
        """What the model gets instead.

        Raises:
            InvalidInput: an item has no JSON form.
            BudgetError: what must stay does not fit.
        """
        return await asyncio.to_thread(self._shaped, data)

    def _shaped(self, data: CallModelData[Any]) -> ModelInputData:
        told, given = data.model_data.instructions, data.model_data.input
        head = [chat.parse({"role": "system", "content": told})] if told else []
        said = chat.parse_all([_plain(item) for item in given])
        tools = [_tool(tool) for tool in data.agent.tools if isinstance(tool, FunctionTool)]
        sent = self._fitting.build((*head, *said), model=_model(data.agent.model), tools=tools).messages
        kept = sent[1:] if head else sent
        system = chat.decode(sent[0].raw or b"{}").get("content") if head else told
        return ModelInputData(input=_items(kept, given, said), instructions=system)


def _items(sent: tuple[Message, ...], given: list[TResponseInputItem], said: tuple[Message, ...]) -> list[Any]:
    """What is sent as items: the objects given where nothing was edited."""
    untouched: dict[bytes, list[TResponseInputItem]] = {}
    for item, message in zip(given, said, strict=True):
        untouched.setdefault(message.raw or b"", []).append(item)
    found: list[Any] = []
    for message in sent:
        same = untouched.get(message.raw or b"")
        found.append(same.pop(0) if same else chat.decode(message.raw or b"{}"))
    return found


def _plain(item: Any) -> Any:
    """An item as JSON; the SDK also takes its own models."""
    return item.model_dump(exclude_unset=True, mode="json") if hasattr(item, "model_dump") else item


def _tool(tool: FunctionTool) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.params_json_schema}
    return {"type": "function", "function": described}


def _model(model: Any) -> str:
    return model if isinstance(model, str) else str(getattr(model, "model", None) or "")


async def _finished(work: Callable[[], T]) -> T:
    """Work in a thread that is seen to its end: a caller who is cancelled knows that the write is over."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
