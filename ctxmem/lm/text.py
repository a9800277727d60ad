"""Text to token ids and back, for a model that is already loaded.

Knows nothing of chat templates: `ctxmem.tokens` renders and counts requests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ctxmem.errors import ModelError

_LONE_SURROGATE = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text as tokens.

    Attributes:
        ids: token ids.
        spans: character offsets (start, end) of each token; neighbours may share a character.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class Tokenizer:
    """A `tokenizer.json`, read so that nothing in a text is ever taken for a control token."""

    def __init__(self, fast: PreTrainedTokenizerFast) -> None:
        self._fast = fast

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` of a model folder.

        Raises:
            ModelError: it is missing or broken.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{folder} has no tokenizer.json; ctxmem.tokens.resolve.counter_for writes a packaged one")
        try:
            return cls(PreTrainedTokenizerFast(tokenizer_file=str(path)))  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ModelError(f"{path} is not a tokenizer: {error}") from error

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokens of each text alone; special-token look-alikes are plain text and nothing is added.

        A lone surrogate, which JSON can carry and no tokenizer takes, is read as U+FFFD; offsets stay true.
        """
        if not texts:
            return []
        batch = self._fast(
            [_LONE_SURROGATE.sub("\ufffd", text) for text in texts],
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        pairs = zip(batch["input_ids"], batch["offset_mapping"], strict=True)
        return [Encoding(tuple(ids), tuple(spans)) for ids, spans in pairs]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens left out; an incomplete character becomes U+FFFD."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None when there is none of that name."""
        found = self._fast.get_vocab().get(token)
        return None if found is None else int(found)

    def token(self, id: int) -> str:
        """The text of one token, control tokens by their name."""
        return str(self._fast.decode([id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
