"""Content blocks of messages: which of their texts may be edited, and which must go as they came.

Knows the blocks of OpenAI chat, OpenAI Responses and Anthropic Messages. Signed, encrypted and server-side blocks are
sealed: they and every text beside them in the same message are never edited, only kept or left out whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxmem.types import Part

_TEXTS = frozenset({"text", "input_text", "output_text"})
_SEALED = frozenset({"thinking", "redacted_thinking", "reasoning", "compaction", "encrypted_content"})
_HELD = frozenset({"compaction", "item_reference"})

Block = Mapping[str, Any]
"""A content block as decoded JSON."""


def parts(content: Sequence[Block]) -> list[Part]:
    """The blocks as parts, in order; a tool result gives one part for each block in it."""
    found = [part for block in content for part in _parts(block)]
    if any(_sealed(block) for block in content):
        return [Part("sealed", part.text) if part.kind in ("text", "tool_result") else part for part in found]
    return found


def edited(content: Sequence[Block], texts: Sequence[str | None]) -> list[Any]:
    """The blocks with other texts, everything else as it was.

    Args:
        content: what came.
        texts: one per part: the new text, or None to leave the block out.
    """
    left = iter(texts)
    blocks = [_edited(block, [next(left) for _ in _parts(block)]) for block in content]
    return [block for block in blocks if block is not None]


def calls(content: Any) -> tuple[str, ...]:
    """Ids of the tool calls that blocks make; of a server's own tools too, whose results must stay beside them."""
    return tuple(str(block.get("id", "")) for block in _blocks(content) if _is_call(block))


def answers(content: Any) -> tuple[str, ...]:
    """Ids of the tool calls that blocks answer."""
    return tuple(str(block["tool_use_id"]) for block in _blocks(content) if "tool_use_id" in block)


def holds_history(blocks: Any) -> bool:
    """Whether a block stands for history that only the provider has."""
    return any(block.get("type") in _HELD for block in _blocks(blocks))


def _parts(block: Block) -> list[Part]:
    kind, text = block.get("type"), block.get("text")
    if kind in _TEXTS and isinstance(text, str):
        return [Part("text", text)]
    if kind == "tool_use":
        return [Part("tool_call", called(block.get("id"), block.get("name"), block.get("input")))]
    if kind == "tool_result":
        return _results(block.get("content"))
    return [Part("sealed" if _sealed(block) else "opaque", _json(block))]


def _results(content: Any) -> list[Part]:
    if not isinstance(content, list):
        return [Part("tool_result", content if isinstance(content, str) else "")]
    found = [part for block in _blocks(content) for part in _parts(block)]
    return [Part("tool_result", part.text) if part.kind == "text" else part for part in found]


def called(id: Any, name: Any, arguments: Any) -> str:
    """A tool call as chat writes it, for reading: a JSON list of one call."""
    written = arguments if isinstance(arguments, str) else _json(arguments or {})
    return _json([{"id": id, "type": "function", "function": {"name": name, "arguments": written}}])


def _edited(block: Block, texts: Sequence[str | None]) -> Block | None:
    if texts and all(text is None for text in texts):
        return None
    if block.get("type") != "tool_result":
        return _with_text(block, "text", texts[0]) if block.get("type") in _TEXTS else block
    content = block.get("content")
    if isinstance(content, list):
        return {**block, "content": edited(content, texts)}
    return _with_text(block, "content", texts[0])


def _with_text(block: Block, key: str, text: str | None) -> Block:
    return {**block, key: text} if isinstance(block.get(key), str) else block


def _sealed(block: Block) -> bool:
    """Whether a block is signed, encrypted, cited from a source, or comes from the provider's own tools."""
    kind = str(block.get("type"))
    theirs = kind.endswith(("_tool_use", "_tool_result")) or kind in _SEALED
    return theirs or bool(block.get("citations") and kind == "text") or "encrypted_content" in block


def _is_call(block: Block) -> bool:
    return str(block.get("type")).endswith("tool_use") and "id" in block


def _blocks(content: Any) -> Iterator[Block]:
    return (block for block in content if isinstance(block, dict)) if isinstance(content, list) else iter(())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
