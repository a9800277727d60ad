"""A prompt of instruction, passages and question, compressed as a whole.

Source of the call and its result: LLMLingua, `llmlingua/prompt_compressor.py`, `compress_prompt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctxmem.compressors.budgets import Ratio, Tokens
from ctxmem.compressors.compress import Compressor
from ctxmem.errors import InvalidInput

_BREAK = "\n\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to a model: its parts with an empty line between them.

    Attributes:
        context: the passages.
        instruction: what stands before them.
        question: what stands after them.

    Raises:
        InvalidInput: something is no text.
    """

    context: str | Sequence[str]
    instruction: str = ""
    question: str = ""

    def __post_init__(self) -> None:
        passages = [self.context] if isinstance(self.context, str) else self.context
        for name, texts in (("context", passages), ("instruction", [self.instruction]), ("question", [self.question])):
            if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
                raise InvalidInput(f"{name} must be text", param=name)

    @property
    def passages(self) -> str:
        """The context as one text."""
        return self.context if isinstance(self.context, str) else _BREAK.join(self.context)

    def around(self, context: str) -> str:
        """The whole prompt with this for its context."""
        return _BREAK.join(part for part in (self.instruction, context, self.question) if part)

    def compressed(self, compressor: Compressor, *, rate: float, target_token: float) -> dict[str, Any]:
        """The result under LLMLingua's keys; see `ctxmem.compress_prompt`."""
        count = compressor.counter.texts
        context, whole = self.passages, self.around(self.passages)
        origin, fixed = count([whole, self.around("")])
        allowed = int(target_token if target_token >= 0 else Ratio(rate).allow(origin, "prose") - fixed)
        text, reason = context, "budget_too_small"
        if allowed >= 1:
            done = compressor(context, Tokens(allowed), query=self.question)
            text, reason = done.text or "", done.reason
        prompt = self.around(text)
        after = count([prompt])[0]
        return {
            "compressed_prompt": prompt,
            "origin_tokens": origin,
            "compressed_tokens": after,
            "ratio": f"{origin / after if after else 1:.1f}x",
            "rate": f"{100 * after / origin if origin else 100:.1f}%",
            "saving": f"{origin - after} tokens",
            "reason": reason,
        }
