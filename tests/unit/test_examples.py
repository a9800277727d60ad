"""The examples that need no service run as they stand; the others run in `tests/service/test_cli.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def told(name: str, folder: Path) -> str:
    """What an example prints when it runs to its end in a folder."""
    run = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_example_brings_back_what_it_left_out(tmp_path: Path) -> None:
    """Twenty days in a small window: never over it, and the first day is still there."""
    said = told("library.py", tmp_path)
    days = [line.split() for line in said.splitlines() if line.startswith("day ")]
    assert len(days) == 20
    assert all(int(words[2]) <= int(words[4]) for words in days)
    assert said.endswith("Day 1: today I walked 1 km along the coast and saw 2 ships.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_wrapped_client_is_used_as_before(tmp_path: Path) -> None:
    """Fifteen days in a small window, through the official client: never over it, and the first day is still there."""
    said = told("wrapped_client.py", tmp_path)
    days = [line.split() for line in said.splitlines() if line.startswith("day ")]
    assert len(days) == 15
    assert all(int(words[2]) <= int(words[4]) for words in days)
    assert said.endswith("Day 1: today I walked 1 km along the coast and saw 2 ships.\n")


def test_a_langchain_agent_keeps_its_state_and_its_budget(tmp_path: Path) -> None:
    """Fifteen days in a small window: the model sees some of it, the graph keeps all."""
    said = told("langchain_agent.py", tmp_path)
    *calls, last = said.splitlines()
    assert len(calls) == 3
    assert all(int(words[0]) <= int(words[2]) for words in map(str.split, calls))
    assert last.startswith("the graph keeps 30 messages; the first: Day 1:")


def test_a_chain_finds_fits_and_remembers(tmp_path: Path) -> None:
    """By meaning, by words, within its budget, and for later conversations."""
    like, found, sent, answer, remembered = told("langchain_chain.py", tmp_path).splitlines()
    assert like.endswith("tram")
    assert found == "found in handbook.md -> Lost keys are reset at the desk."
    assert sent.startswith("62 messages, ")
    assert int(sent.split()[-2]) <= 300
    assert answer == "answer: At the desk."
    assert remembered.endswith("red ribbon.")


def test_a_graph_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """After its database was closed, until its user is erased."""
    said = told("langgraph_checkpoints.py", tmp_path)
    assert said.splitlines() == ["asked: Send 3 crates to Porto?", "sent: 3 crates to Porto", "left of alice: None"]


def test_langchains_own_middleware_works_without_a_model(tmp_path: Path) -> None:
    """The summary keeps the name; the old tool result is short, the newest is whole."""
    said = told("langchain_edits.py", tmp_path)
    summary, old, new = said.splitlines()
    assert "Zebedee Smith" in summary
    assert int(old.split()[2]) < int(new.split()[2])


def test_what_one_thread_put_in_the_store_another_finds(tmp_path: Path) -> None:
    """By its fields, and only under its own namespace."""
    said = told("langgraph_store.py", tmp_path)
    assert said.splitlines() == ["alice likes: tea", "bob likes: nothing known"]


def test_an_agent_of_openais_sdk_keeps_its_session_and_its_budget(tmp_path: Path) -> None:
    """Fifteen days in a small window: the model sees some of it, the session keeps all."""
    said = told("openai_agents.py", tmp_path)
    *calls, answer, last = said.splitlines()
    assert all(int(words[0]) <= int(words[2]) for words in map(str.split, calls))
    assert answer.startswith("I was sent ")
    assert last.startswith("the session keeps 30 items; the first: Day 1:")


def test_anthropics_memory_tool_keeps_files_until_they_are_erased(tmp_path: Path) -> None:
    """Written by the SDK's runner, read back with line numbers, gone with their user."""
    said = told("anthropic_memory.py", tmp_path)
    first, _, line, *_, listed = said.splitlines()
    assert first == "I will remember that."
    assert line.split("\t") == ["     1", "likes tea"]
    assert listed == "0B\t/memories"


def test_a_pydantic_ai_agent_keeps_its_conversation_and_its_budget(tmp_path: Path) -> None:
    """Fifteen days in a small window: the model sees some of it, the store keeps all."""
    said = told("pydantic_ai_agent.py", tmp_path)
    *calls, answer, last = said.splitlines()
    assert all(int(words[0]) <= int(words[2]) for words in map(str.split, calls))
    assert answer.startswith("I was sent ")
    assert last.startswith("the conversation keeps 30 messages; the first: Day 1:")


def test_llama_indexs_memory_is_told_what_left_its_window(tmp_path: Path) -> None:
    """Seventeen messages, some given, and the first one as a memory."""
    said = told("llama_index_memory.py", tmp_path)
    given, memory = said.splitlines()
    assert int(given.split()[0]) < 17
    assert memory == "I live in Lisbon."


def test_memories_are_served_over_mcp(tmp_path: Path) -> None:
    """Added by one client, found by another; no tool can name a user."""
    said = told("mcp_memories.py", tmp_path)
    tools, found, nothing = said.splitlines()
    assert "search_memory(query, top_k)" in tools
    assert "user" not in tools
    assert found == "alice finds: I live in Lisbon."
    assert nothing == "bob finds nothing"


def test_every_example_is_tested() -> None:
    """A new one has to be added to a test."""
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == [
        "anthropic_memory.py",
        "langchain_agent.py",
        "langchain_chain.py",
        "langchain_edits.py",
        "langgraph_checkpoints.py",
        "langgraph_store.py",
        "library.py",
        "llama_index_memory.py",
        "mcp_memories.py",
        "openai_agents.py",
        "openai_client.py",
        "pencil_agent.py",
        "pydantic_ai_agent.py",
        "streaming.py",
        "wrapped_client.py",
    ]


def test_a_pencil_agents_subtasks_leave_their_answers(tmp_path: Path) -> None:
    """Each prompt with a page in it is larger than the last one, which has three answers; a page is recalled."""
    *folds, sizes, recalled = told("pencil_agent.py", tmp_path).splitlines()
    assert [fold.split()[-1] for fold in folds] == ["1147", "1123", "1070"]
    prompts = [int(word.strip("[],")) for word in sizes.split() if word.strip("[],").isdigit()]
    assert min(prompts[2::3]) > prompts[-1]
    assert sizes.endswith("the answer: Braga")
    assert recalled == "recalled: Porto had its charter in 1123. It rain"
