"""The tools by which a model opens scopes, ends them and looks back, in OpenAI's shape. They never change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEGIN, RETURN, RECALL = "begin_subtask", "return_answer", "recall"


def _tool(name: str, about: str, needed: Mapping[str, str], free: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    properties = {argument: {"type": "string", "description": text} for argument, text in needed.items()}
    parameters = {
        "type": "object",
        "properties": {**properties, **free},
        "required": list(needed),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


_REFS: Mapping[str, Any] = {"type": "array", "items": {"type": "string"}}

TOOLS: tuple[Mapping[str, Any], ...] = (
    _tool(
        BEGIN,
        "Begin a subtask. Everything until return_answer is its scratch work and leaves the context then; only the "
        "answer stays. Use it for work with long results of which little is needed later. Call it alone.",
        {"task": "what to find out or do, in one sentence"},
        {"need": {**_REFS, "description": "handles of earlier results that it needs"}},
    ),
    _tool(
        RETURN,
        "End the innermost subtask. The answer is all that will be left of it: give exact names, numbers, ids and "
        "paths. Call it alone, when all tool calls are answered.",
        {"answer": "what was found or done, complete in itself"},
        {"refs": {**_REFS, "description": "handles of results that the answer stands on"}},
    ),
    _tool(
        RECALL,
        "Look at what has left the context: everything said so far is kept word for word.",
        {"input": "a handle such as e12 or f3, or words to search for"},
        {},
    ),
)
"""Definitions of `begin_subtask`, `return_answer` and `recall`."""
