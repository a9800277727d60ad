"""The memory tool beside the SDK's own over the file system, and in the SDK's tool runner."""

from __future__ import annotations

import asyncio
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.lib.tools import ToolError
from anthropic.tools.memory import BetaLocalFilesystemMemoryTool

from ctxmem import ContextManager
from ctxmem.agents.anthropic import CtxMemAsyncMemoryTool, CtxMemMemoryTool
from tests.service.upstream import Received, Reply, Upstream, whole
from tests.service.wires import TEXT, said

NAMES = ["a.txt", "b", "B", ".hidden", "d", "d2", "ü 🕐.md"]
TEXTS = ["", "\n", "one\ntwo\nthree\n", "one\r\ntwo", "one one", "ä" * 700, "x\n" * 40, "two\n\n\nfour"]


def path(dice: random.Random) -> str:
    """A path of one to three parts, now and then written with slashes too many."""
    parts = [dice.choice(NAMES) for _ in range(dice.choice([0, 1, 1, 1, 2, 2, 3]))]
    return "/".join(["/memories", *parts]) + ("/" if dice.random() < 0.05 else "")


def command(dice: random.Random) -> dict[str, Any]:
    """Any command of the tool."""
    kind = dice.choices(["view", "create", "str_replace", "insert", "delete", "rename"], [5, 6, 4, 4, 1, 2])[0]
    asked: dict[str, Any] = {"command": kind, "path": path(dice)}
    if kind == "view" and dice.random() < 0.5:
        asked["view_range"] = [dice.randrange(-1, 8), dice.choice([-1, 0, 2, 5, 99])]
    if kind == "create":
        asked["file_text"] = dice.choice(TEXTS)
    if kind == "str_replace":
        asked |= {"old_str": dice.choice(["one", "two", "x", "", "\n", "none"]), "new_str": dice.choice(TEXTS)}
    if kind == "insert":
        asked |= {"insert_line": dice.randrange(-1, 6), "insert_text": dice.choice(TEXTS)}
    if kind == "rename":
        asked = {"command": kind, "old_path": asked["path"], "new_path": path(dice)}
    return asked


def outcome(tool: Any, asked: dict[str, Any]) -> str:
    """What the tool says. Sizes of folders are the file system's own; errors that the SDK did not foresee are alike."""
    try:
        answer = tool.call(asked)
    except ToolError as error:
        return f"error: {error}"
    except OSError:
        return "error"
    if answer.startswith("Here're"):
        answer = re.sub(r"(?m)^\S+\t(.*/)$", r"\1", re.sub(r"\n\S+\t", "\n", answer, count=1))
    return answer


def _leaves_folders_behind(root: Path, asked: dict[str, Any]) -> bool:
    """Whether the SDK's tool would make the folders of the destination, then fail."""
    old = root / asked["old_path"][len("/memories/") :]
    return not old.exists() or (asked["new_path"] + "/").startswith(asked["old_path"].rstrip("/") + "/")


def files(root: Path) -> dict[str, bytes]:
    return {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()}


class TestDifferential:
    def test_it_says_what_the_file_system_tool_says(self, tmp_path: Path, manager: ContextManager) -> None:
        """Four thousand random commands: the same words, and in the end the same files."""
        dice = random.Random(11)
        theirs = BetaLocalFilesystemMemoryTool(str(tmp_path))
        ours = CtxMemMemoryTool(manager=manager, user="alice")
        root = tmp_path / "memories"
        for step in range(4000):
            asked = command(dice)
            if asked["command"] == "rename" and _leaves_folders_behind(root, asked):
                continue
            if asked["command"] == "view" and (root / asked["path"][len("/memories/") :].rstrip("/")).is_dir():
                asked["path"] = asked["path"].rstrip("/")
            expected, found = outcome(theirs, asked), outcome(ours, asked)
            assert found == expected or (expected == "error" and found.startswith("error: ")), (step, asked)
            if step % 400 == 399:
                assert outcome(theirs, {"command": "view", "path": "/memories"}) == outcome(
                    ours, {"command": "view", "path": "/memories"}
                )
        stored = manager.engine.store.folders.folder("default", "memory-tool/alice").items
        kept = {key: value for key, value in stored.items() if not key.endswith("/")}
        assert kept == files(root)
        assert len(kept) > 3


class TestPaths:
    @pytest.mark.parametrize(
        "bad",
        [
            "/etc/passwd", "memories/a", "", "/memoriesx", "/memories/../a", "/memories/a/../../b", "/memories/a/..",
            "/memories/%2e%2e/a", "/memories/%2E%2e%2fa", "/memories/..%5ca", "/memories/..\\a", "/memories/a\x00b",
        ],
    )  # fmt: skip
    def test_a_path_that_could_lead_out_is_refused(self, manager: ContextManager, bad: str) -> None:
        """By every command, and nothing is written."""
        tool = CtxMemMemoryTool(manager=manager)
        tool.call({"command": "create", "path": "/memories/a", "file_text": "x"})
        for asked in (
            {"command": "view", "path": bad},
            {"command": "create", "path": bad, "file_text": "x"},
            {"command": "str_replace", "path": bad, "old_str": "x", "new_str": "y"},
            {"command": "insert", "path": bad, "insert_line": 0, "insert_text": "y"},
            {"command": "delete", "path": bad},
            {"command": "rename", "old_path": "/memories/a", "new_path": bad},
            {"command": "rename", "old_path": bad, "new_path": "/memories/c"},
        ):
            with pytest.raises(ToolError):
                tool.call(asked)
        assert manager.engine.store.folders.folder("default", "memory-tool/").items == {"a": b"x"}


class TestWriters:
    def test_no_edit_is_lost(self, tmp_path: Path) -> None:
        """Eight threads over two tools on one file: every line is there."""
        both = [CtxMemMemoryTool(tmp_path / "log.db", user="u") for _ in range(2)]
        both[0].call({"command": "create", "path": "/memories/a", "file_text": ""})

        def add(n: int) -> None:
            both[n % 2].call({"command": "insert", "path": "/memories/a", "insert_line": 0, "insert_text": f"line {n}"})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(60)))
        shown = both[1].call({"command": "view", "path": "/memories/a"})
        assert sorted(re.findall(r"line (\d+)$", str(shown), re.MULTILINE), key=int) == [str(n) for n in range(60)]
        for tool in both:
            tool.close()

    async def test_sync_and_async_share_the_files_and_users_do_not(self, manager: ContextManager) -> None:
        """What one wrote the other reads; an erased user's files are gone, another's stay."""
        sync = CtxMemMemoryTool(manager=manager, user="alice")
        later = CtxMemAsyncMemoryTool(manager=manager, user="alice")
        other = CtxMemAsyncMemoryTool(manager=manager, user="bob")
        for tool in (later, other):
            await tool.call({"command": "create", "path": "/memories/a", "file_text": "likes tea"})
        await asyncio.gather(*(
            later.call({"command": "insert", "path": "/memories/a", "insert_line": 0, "insert_text": str(n)})
            for n in range(5)
        ))  # fmt: skip
        assert "likes tea" in str(sync.call({"command": "view", "path": "/memories/a"}))
        manager.erase_user("alice")
        with pytest.raises(ToolError):
            sync.call({"command": "view", "path": "/memories/a"})
        assert "likes tea" in str(await other.call({"command": "view", "path": "/memories/a"}))
        assert await other.clear_all_memory() == "All memory cleared"


class TestRunner:
    def test_the_sdks_runner_drives_it(self, upstream: Upstream, manager: ContextManager) -> None:
        """Two commands at once, their results sent back, errors as errors; the tool's definition is the SDK's."""
        commands = [
            {"command": "create", "path": "/memories/likes.md", "file_text": "tea"},
            {"command": "view", "path": "/memories/none"},
        ]

        def answer(request: Received) -> Reply:
            if isinstance(request.json["messages"][-1]["content"], list):
                return whole(said(TEXT))
            calls = [{"type": "tool_use", "id": f"t{i}", "name": "memory", "input": c} for i, c in enumerate(commands)]
            return whole(said(*calls, stop="tool_use"))

        upstream.answer = answer
        tool = CtxMemMemoryTool(manager=manager)
        with anthropic.Anthropic(base_url=upstream.url.removesuffix("/v1"), api_key="k", max_retries=0) as client:
            asked: Any = [{"role": "user", "content": "Remember that I like tea."}]
            runner = client.beta.messages.tool_runner(model="m", max_tokens=64, messages=asked, tools=[tool])
            assert runner.until_done().content[0].text == TEXT["text"]
        assert upstream.received[0].json["tools"] == [{"type": "memory_20250818", "name": "memory"}]
        results = upstream.last.json["messages"][-1]["content"]
        assert [one.get("is_error", False) for one in results] == [False, True]
        assert "File created successfully at: /memories/likes.md" in str(results[0]["content"])
