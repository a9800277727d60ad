"""Compression that can be undone: the original is durable before its mark is sent, and a tool brings it back.

A mark such as `[143 tokens left out, ctx:0f3a...]` names the original by the first digits of its SHA-256. The model
asks for it with the tool `ctx_restore`; `answer` answers from the store, within the tenant. What was brought back is
never compressed again: the policies leave exchanges of this tool alone (`ctxmem.compressors.eligible`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.compressors.budgets import Spend, Tokens
from ctxmem.compressors.clip import clipped
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.content import kind
from ctxmem.compressors.outcome import Compressed
from ctxmem.compressors.structured import is_json, parses
from ctxmem.errors import InvalidInput, NotFound
from ctxmem.ids import HANDLE_DIGITS, item_of_artifact

if TYPE_CHECKING:
    from ctxmem.manager import ContextManager

TOOL = "ctx_restore"

RESTORE_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": (
            "Bring back the original of a text that was shortened. Pass the handle that stands in its mark, such as "
            "ctx:0123456789abcdef0123. Use it when the words that were left out matter."
        ),
        "parameters": {
            "type": "object",
            "properties": {"handle": {"type": "string", "description": "ctx: and the digits after it"}},
            "required": ["handle"],
            "additionalProperties": False,
        },
    },
}
"""The tool's definition in OpenAI's shape. It never changes, so a tools array with it stays the same all session."""

LEAST = 64
"""Tokens of the smallest text that `within` gives."""

_SMALLEST_JSON = '{"":0}'
_BROKEN = "Do not call this tool with it again; go on without the original."


@dataclass(frozen=True, slots=True)
class Reversible:
    """Compresses texts, keeps their originals, and gives them back.

    Attributes:
        keep: stores content durably before it returns; gives its SHA-256 in hex.
        find: the original behind an item id, as chat's JSON; raises `NotFound`.
    """

    keep: Callable[[bytes], str]
    find: Callable[[str], bytes]

    @classmethod
    def of(cls, manager: ContextManager, *, session_id: str = "") -> Reversible:
        """Over a manager's store, in its tenant; originals are erased with the session, if one is named.

        A session that is not there makes keeping fail with `NotFound`.
        """
        keep = partial(manager.engine.store.put_artifact, manager.tenant, session_id=session_id)
        return cls(keep, manager.original)

    def __call__(self, compressor: Compressor, text: str, budget: int | Spend, *, query: str = "") -> Compressed:
        """Shorten a text and mark what is missing; mark and text together keep the budget.

        A text that is not shortened carries no mark, and its original is not stored.

        Raises:
            InvalidInput: not a text, or a budget out of range.
            StoreError: the original could not be kept; nothing was sent then.
        """
        if not isinstance(text, str):
            raise InvalidInput(f"a text is wanted, got {type(text).__name__}", param="text")
        spend = Tokens(budget) if isinstance(budget, int) else budget
        before = compressor.counter.texts([text])[0]
        allowed = spend.allow(before, kind(text))
        original = chat.dump({"role": "user", "content": text})
        smallest = _SMALLEST_JSON if is_json(text) else ""
        digest, structured = sha256(original).hexdigest(), bool(smallest)
        room = allowed - compressor.counter.texts([_marked(smallest, before, digest, structured=structured)])[0]
        if room < 1:
            return Compressed(before, before, reason="budget_too_small", text=text, source=text)
        done = compressor(text, Tokens(room), query=query) if before > allowed else compressor(text, spend)
        if done.reason or not done.dropped:
            return done
        marked = _marked(done.text or "", before - done.tokens_after, digest, structured=structured)
        after = compressor.counter.texts([marked])[0]
        if after >= before or after > allowed:
            return Compressed(before, before, reason="no_saving", text=text, source=text)
        self.keep(original)
        return replace(done, text=marked, tokens_after=after)

    def within(self, compressor: Compressor, text: str, tokens: int, *, query: str = "") -> str:
        """A text of at most so many tokens in every case: what may not be compressed, such as code, loses its middle.

        Raises:
            InvalidInput: fewer than 64 tokens.
            StoreError: the original could not be kept; nothing was sent then.
        """
        if tokens < LEAST:
            raise InvalidInput(f"a marked text needs at least {LEAST} tokens, got {tokens}", param="tokens")
        count = compressor.counter
        before = count.texts([text])[0]
        if before <= tokens:
            return text
        done = self(compressor, text, tokens, query=query)
        if done.text is not None and done.tokens_after <= tokens:
            return done.text
        original = chat.dump({"role": "user", "content": text})
        digest = sha256(original).hexdigest()
        room = tokens - count.texts([_marked("", before, digest, structured=False)])[0]
        for _ in range(3):  # joined, head and mark may be a few tokens longer than alone
            head = clipped(text, room, count)
            structured = is_json(text) and parses(head)
            marked = _marked(head, before - count.texts([head])[0], digest, structured=structured)
            over = count.texts([marked])[0] - tokens
            if over <= 0:
                break
            room -= over
        self.keep(original)
        return marked

    def answer(self, arguments: str | Mapping[str, Any]) -> str:
        """What the tool says: the original, word for word, or why there is none. Never raises for what a model wrote.

        Args:
            arguments: the call's arguments, decoded or as JSON.
        """
        handle = _handle(arguments)
        if handle is None:
            return f'error: give {{"handle": "ctx:..."}} with the digits of a mark. {_BROKEN}'
        try:
            return _text(self.find(item_of_artifact(handle)))
        except NotFound:
            return f"error: nothing is kept under ctx:{handle}. {_BROKEN}"


def _marked(text: str, missing: int, digest: str, *, structured: bool) -> str:
    """The text with its mark on a line of its own; in JSON, which stays JSON, as the last element or member."""
    mark = f"[{missing} tokens left out, ctx:{digest[:HANDLE_DIGITS]}]"
    if not structured:
        return f"{text}\n{mark}"
    body = text.rstrip()
    name = '"left_out": ' if body[-1] == "}" else ""
    return f'{body[:-1].rstrip()}, {name}"{mark}"{body[-1]}'


def _handle(arguments: str | Mapping[str, Any]) -> str | None:
    """The digits that a call names, or None."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    named = arguments.get("handle") if isinstance(arguments, Mapping) else None
    digits = named.strip().strip("[]").removeprefix("ctx:") if isinstance(named, str) else ""
    good = len(digits) in (HANDLE_DIGITS, 64) and set(digits) <= set("0123456789abcdef")
    return digits if good else None


def _text(original: bytes) -> str:
    content = chat.decode(original).get("content")
    return content if isinstance(content, str) else original.decode()
