"""A plugin without its framework says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLUGINS = {
    "openai_agents": ("agents", "openai-agents"),
    "anthropic": ("anthropic", "anthropic"),
    "mcp": ("mcp", "mcp"),
    "llama_index": ("llama_index.core", "llama-index"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "pydantic_ai_store": ("pydantic_ai", "pydantic-ai"),
    "langgraph": ("langchain", "langgraph"),
    "langchain_compressor": ("langchain_core", "langchain"),
    "langchain_context": ("langchain_core", "langchain"),
    "langchain_documents": ("langchain_core", "langchain"),
    "langchain_index": ("langchain_core", "langchain"),
    "langchain_models": ("langchain_core", "langchain"),
    "langchain_records": ("langchain_core", "langchain"),
    "langchain_results": ("langchain", "langgraph"),
    "langchain_values": ("langchain_core", "langchain"),
    "langchain_vectors": ("langchain_core", "langchain"),
    "langchain_edits": ("langchain_core", "langgraph"),
    "langgraph_saver": ("langgraph", "langgraph"),
    "langgraph_store": ("langgraph", "langgraph"),
}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_error_names_the_extra(plugin: str) -> None:
    """In a process where the framework cannot be imported."""
    package, extra = PLUGINS[plugin]
    code = f"import sys; sys.modules[{package!r}] = None; import ctxmem.agents.{plugin}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f'pip install "ctxmem[{extra}]"' in done.stderr.splitlines()[-1]
