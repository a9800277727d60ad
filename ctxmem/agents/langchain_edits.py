"""What plugs into LangChain's own context middleware: summaries without a model, and old tool results made short.

Unlike `CtxMemMiddleware` these keep no log and need no database; the same input gives the same output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

try:
    from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
    from langchain_core.runnables import Runnable, RunnableConfig
except ImportError as error:
    raise ImportError('ctxmem.agents.langchain_edits needs langchain-core: pip install "ctxmem[langgraph]"') from error

from ctxmem.compressors.budgets import Ratio, Tokens
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.tokens.resolve import counter_for

_STRATEGY = "ctxmem_shorten"
_NAME = 4  # tokens of who said it
_MOST = 4096  # short texts remembered


def _compressor() -> Compressor:
    return Compressor(counter_for(""), Lexical())


class CtxMemSummarizer(Runnable[list[AnyMessage], str]):
    """Summarises in the conversation's own words: `SummarizationMiddleware(model, summarizer=CtxMemSummarizer(), ...)`.

    Give the middleware `trim_tokens_to_summarize=None` too, else it hands over the newest 4,000 tokens alone.
    """

    def __init__(self, *, tokens: int = 1000, compressor: Compressor | None = None) -> None:
        """Make the summarizer.

        Args:
            tokens: of a summary, at most.
            compressor: how texts are shortened and counted; by default by words alone, counted with an estimate.

        Raises:
            InvalidInput: no room for a summary.
        """
        self._room = Tokens(tokens).number
        self._compressor = compressor or _compressor()

    def invoke(self, input: list[AnyMessage], config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """The summary: a line for each message, long ones shortened with a view to the newest question.

        Where that is not enough, the oldest lines leave, and those of people after all others.
        """
        del kwargs
        return self._call_with_config(self._summary, input, config, run_type="chain")

    def _summary(self, messages: list[AnyMessage]) -> str:
        said = [(message, line) for message in messages if (line := _line(message))]
        query = _asked(messages)
        whole = self._sizes([line for _, line in said])
        fair = _fair(whole, self._room)
        lines = [
            line if size <= fair else self._short(line, max(1.0, fair - _NAME) / size, query)
            for (_, line), size in zip(said, whole, strict=True)
        ]
        sizes = self._sizes(lines)
        order = sorted(range(len(said)), key=lambda at: (isinstance(said[at][0], HumanMessage), at), reverse=True)
        left, kept = self._room, set()
        for at in order:
            if sizes[at] <= left:
                kept.add(at)
                left -= sizes[at]
        return "\n".join(line for at, line in enumerate(lines) if at in kept)

    def _short(self, line: str, share: float, query: str) -> str:
        """The line with less of what was said; who said it stays."""
        who, _, said = line.partition(": ")
        return f"{who}: {self._compressor(said, Ratio(share), query=query).text or ''}"

    def _sizes(self, lines: Sequence[str]) -> list[int]:
        return self._compressor.counter.texts([f"{line}\n" for line in lines])


@dataclass(slots=True)
class CtxMemContextEdit:
    """Shortens old tool results where `ClearToolUsesEdit` clears them: `ContextEditingMiddleware(edits=[...])`.

    Shaped as `ClearToolUsesEdit`. A call keeps its result, the graph's state keeps the original, and what was
    shortened says so in `response_metadata["context_editing"]`.

    Attributes:
        trigger: tokens of the messages above which old results are shortened.
        keep: newest tool results that stay whole.
        ratio: share of each old result's tokens that stays, in (0, 1].
        exclude_tools: tools whose results stay whole.
        compressor: how texts are shortened and counted; by default by words alone, counted with an estimate.

    Raises:
        InvalidInput: the ratio is out of range.
    """

    trigger: int = 100_000
    keep: int = 3
    ratio: float = 0.25
    exclude_tools: Sequence[str] = ()
    compressor: Compressor = field(default_factory=_compressor)
    _known: dict[bytes, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        Ratio(self.ratio)

    def apply(self, messages: list[AnyMessage], *, count_tokens: Callable[[Sequence[BaseMessage]], int]) -> None:
        """Put short ones in the place of old tool results, in this list."""
        if count_tokens(messages) <= self.trigger:
            return
        query = _asked(messages)
        names = {call["id"]: call["name"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
        results = [(at, message) for at, message in enumerate(messages) if isinstance(message, ToolMessage)]
        for at, message in results[: max(0, len(results) - self.keep)]:
            name = message.name or names.get(message.tool_call_id)
            if name not in self.exclude_tools and not message.response_metadata.get("context_editing"):
                messages[at] = self._short(message, query)

    def _short(self, message: ToolMessage, query: str) -> ToolMessage:
        """The message with its texts shortened; blocks that are not text stay."""
        if isinstance(message.content, str):
            content: Any = self._text(message.content, query)
        else:
            content = [self._block(block, query) for block in message.content]
        if content == message.content:
            return message
        told = {**message.response_metadata, "context_editing": {"strategy": _STRATEGY}}
        return message.model_copy(update={"content": content, "artifact": None, "response_metadata": told})

    def _block(self, block: Any, query: str) -> Any:
        if isinstance(block, str):
            return self._text(block, query)
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
            return {**block, "text": self._text(block["text"], query)}
        return block

    def _text(self, text: str, query: str) -> str:
        """The short text; what was sent for a text once is sent again, whatever is asked later."""
        name = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        short = self._known.get(name)
        if short is None:
            short = self.compressor(text, Ratio(self.ratio), query=query).text or text
            self._known[name] = short
            while len(self._known) > _MOST:
                self._known.pop(next(iter(self._known)), None)
        return short


def _fair(sizes: Sequence[int], room: int) -> float:
    """The largest size that all may have so that together they fit."""
    left = float(room)
    for place, size in enumerate(sorted(sizes)):
        share = left / (len(sizes) - place)
        if size > share:
            return max(share, 1.0)
        left -= size
    return float(room)


def _asked(messages: Sequence[BaseMessage]) -> str:
    """The newest question."""
    return next((message.text for message in reversed(messages) if isinstance(message, HumanMessage)), "")


def _line(message: BaseMessage) -> str:
    """Who said what, calls of tools included."""
    parts = [message.text.strip(), *_calls(message)]
    said = " ".join(part for part in parts if part)
    who = message.name or {"human": "user", "ai": "assistant"}.get(message.type, message.type)
    return f"{who}: {said}" if said else ""


def _calls(message: BaseMessage) -> Iterator[str]:
    for call in message.tool_calls if isinstance(message, AIMessage) else ():
        yield f"{call['name']}({', '.join(f'{name}={value!r}' for name, value in call['args'].items())})"
