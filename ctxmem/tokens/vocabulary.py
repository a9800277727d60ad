"""Encoding of rendered chats with a Hugging Face tokenizer, in pieces where its shape allows.

Control tokens are hard borders for most tokenizers: the text on one side never changes the ids on the other. Then a
rendered chat can be cut at them and each piece counted once, however often it is sent. Knows nothing of messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ctxmem.tokens.control import END, START, ControlTokens, any_of
from ctxmem.tokens.counts import Remembered, well_formed

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat as text.

    Attributes:
        text: what the template wrote.
        marked: whether look-alikes of control tokens in it are marked.
    """

    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of a rendered chat: text, text after a cut that only marks made, a token, or a token's look-alike."""

    text: str
    kind: Literal["text", "later text", "token", "look-alike"]


class Vocabulary:
    """A tokenizer that tells control tokens from their look-alikes and remembers what it counted.

    Attributes:
        control: its control tokens: the special ones, and added ones that the chat template writes.
        separable: whether text can be cut at added tokens without changing any id.
    """

    def __init__(self, tokenizer: Tokenizer, written: str = "") -> None:
        """Take over a tokenizer.

        Args:
            tokenizer: must not be changed from outside any more.
            written: all text that the chat template itself writes.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        control = [t.content for t in added.values() if t.special or (t.content in written and t.content.strip())]
        self.control = ControlTokens(control)
        self.separable = _separable(tokenizer, added.values())
        cuts = any_of([token.content for token in added.values() if not token.normalized] if self.separable else [])
        self._tokenizer = tokenizer
        self._ids = {token.content: id for id, token in added.items()}
        self._cut = re.compile(f"({cuts})")
        self._cut_marked = re.compile(f"{START}({any_of(control)}){END}|[{START}{END}]|({cuts})")
        self._look_alikes: dict[str, list[int]] = {}
        self._counts = Remembered(lambda texts: [len(ids) for ids in self._encode(texts)])

    def guard(self, text: str) -> Rendered:
        """A text in which nothing is a control token."""
        marked = self.control.within(text)
        return Rendered(self.control.mark(text) if marked else text, marked)

    def ids(self, rendered: Rendered) -> list[int]:
        """Token ids of a rendered chat."""
        pieces = list(self._pieces(rendered))
        encoded = iter(self._encode([piece.text for piece in pieces if piece.kind == "text"]))
        return [id for piece in pieces for id in (next(encoded) if piece.kind == "text" else self._short(piece))]

    def count(self, rendered: Rendered) -> int:
        """How many ids a rendered chat has."""
        pieces = list(self._pieces(rendered))
        short = sum(1 if p.kind == "token" else len(self._short(p)) for p in pieces if p.kind != "text")
        return short + sum(self._counts([piece.text for piece in pieces if piece.kind == "text"]))

    def _pieces(self, rendered: Rendered) -> Iterator[_Piece]:
        text = well_formed(rendered.text)
        if not rendered.marked:
            for i, piece in enumerate(self._cut.split(text)):
                if piece:
                    yield _Piece(piece, "token" if i % 2 else "text")
            return
        later: Literal["text", "later text"] = "text"
        for i, piece in enumerate(self._cut_marked.split(text)):
            if piece:
                yield _Piece(piece, (later, "look-alike", "token")[i % 3])
            later = "text" if self.separable else "later text"

    def _short(self, piece: _Piece) -> list[int]:
        """Ids of a piece that is not plain text on its own."""
        if piece.kind == "token":
            return [self._ids[piece.text]]
        if piece.kind == "later text":
            return self._after_newline(piece.text)
        if piece.text not in self._look_alikes:
            ids = self._without_added(piece.text)
            whole = self._ids[piece.text] in ids  # then its letters are read apart
            self._look_alikes[piece.text] = [i for c in piece.text for i in self._without_added(c)] if whole else ids
        return self._look_alikes[piece.text]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def _after_newline(self, text: str) -> list[int]:
        """Ids of text that does not open the chat, free of the blank some tokenizers put before a text's start."""
        newline, both = self._encode(["\n", f"\n{text}"])
        return both[len(newline) :] if both[: len(newline)] == newline else self._encode([text])[0]

    def _without_added(self, text: str) -> list[int]:
        """Ids of text in which no added token is seen."""
        tokenizer = self._tokenizer
        text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text) if tokenizer.pre_tokenizer else [(text, (0, len(text)))]
        return [token.id for word, _ in words for token in tokenizer.model.tokenize(word)]


def _separable(tokenizer: Tokenizer, added: Iterable[AddedToken]) -> bool:
    """Whether added tokens are hard borders.

    They are not when one takes in blanks beside it or asks for a word's border, or when a text's start is read
    differently from its later parts (SentencePiece's `prepend_scheme: first`).
    """
    added = list(added)
    reaches_out = any(t.single_word or ((t.lstrip or t.rstrip) and not t.normalized) for t in added)
    state = tokenizer.pre_tokenizer.__getstate__() if tokenizer.pre_tokenizer else b""
    return not reaches_out and b'"prepend_scheme":"first"' not in state
