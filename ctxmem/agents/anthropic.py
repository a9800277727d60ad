"""Anthropic's memory tool over our database: what the model writes down is durable, per user, and erased with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
    from anthropic.types import beta
except ImportError as error:
    raise ImportError('ctxmem.agents.anthropic needs anthropic: pip install "ctxmem[anthropic]"') from error

from ctxmem.agents import shared
from ctxmem.agents.memory_files import Done, Files
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from ctxmem.ports import Change

if TYPE_CHECKING:
    from anthropic.types.beta import (
        BetaMemoryTool20250818CreateCommand,
        BetaMemoryTool20250818DeleteCommand,
        BetaMemoryTool20250818InsertCommand,
        BetaMemoryTool20250818RenameCommand,
        BetaMemoryTool20250818StrReplaceCommand,
        BetaMemoryTool20250818ViewCommand,
    )


class MemoryFolder:
    """The files of one user in a manager's database. Two writers never undo each other's work."""

    def __init__(self, db_path: str | Path, manager: ContextManager | None, user: str) -> None:
        self._folder = shared.KeptFolder(f"memory-tool/{user}", db_path, manager, user)

    def run(self, command: Callable[[Files], Done]) -> str:
        """Do a command on the files as they are now; again when somebody else wrote first.

        Raises:
            ToolError: the command cannot be done; the message is for the model.
        """
        while True:
            folder = self._folder.read()
            try:
                done = command(Files(folder.items))
            except InvalidInput as error:
                raise ToolError(str(error)) from error
            if done.change is None or self._folder.changed(replace(done.change, expected=folder.revision)):
                return done.said

    def clear(self) -> str:
        """Delete every file."""
        self._folder.change(Change(clear=True))
        return "All memory cleared"

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._folder.close()


class CtxMemMemoryTool(BetaAbstractMemoryTool):
    """The tool for `anthropic.Anthropic`: `client.beta.messages.tool_runner(..., tools=[CtxMemMemoryTool("c.db")])`."""

    def __init__(
        self,
        db_path: str | Path = shared.IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        user: str = "",
        cache_control: beta.BetaCacheControlEphemeralParam | None = None,
    ) -> None:
        """Open the files.

        Args:
            db_path: the database file; `:memory:` keeps nothing.
            manager: keep them in this manager's database and tenant instead.
            user: whose files; erasing the user erases them.
            cache_control: as the SDK's.
        """
        super().__init__(cache_control=cache_control)
        self._files = MemoryFolder(db_path, manager, user)

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        return self._files.run(lambda files: files.view(command.path, command.view_range))

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        return self._files.run(lambda files: files.create(command.path, command.file_text))

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        return self._files.run(lambda files: files.str_replace(command.path, command.old_str, command.new_str))

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        return self._files.run(lambda files: files.insert(command.path, command.insert_line, command.insert_text))

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        return self._files.run(lambda files: files.delete(command.path))

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        return self._files.run(lambda files: files.rename(command.old_path, command.new_path))

    def clear_all_memory(self) -> str:
        """Delete every file."""
        return self._files.clear()

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._files.close()


class CtxMemAsyncMemoryTool(BetaAsyncAbstractMemoryTool):
    """The tool for `anthropic.AsyncAnthropic`: the same files, each command in a thread."""

    def __init__(
        self,
        db_path: str | Path = shared.IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        user: str = "",
        cache_control: beta.BetaCacheControlEphemeralParam | None = None,
    ) -> None:
        """Open the files; see `CtxMemMemoryTool`."""
        super().__init__(cache_control=cache_control)
        self._tool = CtxMemMemoryTool(db_path, manager=manager, user=user)

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        return await asyncio.to_thread(self._tool.view, command)

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        return await asyncio.to_thread(self._tool.create, command)

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        return await asyncio.to_thread(self._tool.str_replace, command)

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        return await asyncio.to_thread(self._tool.insert, command)

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        return await asyncio.to_thread(self._tool.delete, command)

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        return await asyncio.to_thread(self._tool.rename, command)

    async def clear_all_memory(self) -> str:
        """Delete every file."""
        return await asyncio.to_thread(self._tool.clear_all_memory)

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._tool.close()
