"""What an adapter is trained on: conversations as token ids, cut into steps of many sizes.

A file has one JSON object per line, of one of these shapes; other fields are ignored.

* `{"messages": [{"role": "user", "content": "..."}, ...]}`
* `{"turns": ["...", "...", ...]}`, alternating between user and assistant
* `{"examples": [{"input": "...", "target": "..."}, ...]}`, an in-context task: each example is a step
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.lm.text import Tokenizer

ROLES = ("user", "assistant")
MARKS = ("<|im_start|>", "<|im_end|>")


class ChatML:
    """Messages between the marks of ChatML, as token ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look the marks up.

        Raises:
            ModelError: the tokenizer lacks one.
        """
        self._tokenizer = tokenizer
        start, end = tokenizer.id(MARKS[0]), tokenizer.id(MARKS[1])
        if start is None or end is None:
            raise ModelError(f"training needs a model of the ChatML family: its tokenizer lacks {' or '.join(MARKS)}")
        self.start, self.end = start, end

    def message(self, role: str, content: str) -> list[int]:
        """One message, content without the space around it."""
        head, body, tail = self._tokenizer.encode([f"{role}\n", content.strip(), "\n"])
        return [self.start, *head.ids, *body.ids, self.end, *tail.ids]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row, as token ids by message.

    Attributes:
        messages: token ids of each message, its chat marks included.
        whole: cut between messages only, since each of them is an example.
    """

    messages: tuple[tuple[int, ...], ...]
    whole: bool = False


def read_rows(path: Path, tokenizer: Tokenizer) -> list[Conversation]:
    """Read a training file.

    Raises:
        InvalidInput: a line is no JSON or of none of the shapes, or the file has no usable row.
        ModelError: the model does not know the marks of ChatML.
    """
    chat = ChatML(tokenizer)
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_row(line, f"{path}:{number}", chat))
    if not rows:
        raise InvalidInput(f"{path} has no rows")
    return rows


def _row(line: str, where: str, chat: ChatML) -> Conversation:
    try:
        said = _said(json.loads(line))
        messages = [[token for part in step for token in chat.message(*part)] for step in said]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{where}: not a conversation: {error!r}") from error
    return Conversation(tuple(map(tuple, messages)), whole=any(len(step) > 1 for step in said))


def _said(row: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
    """Role and content of what is said, in groups that are not cut apart."""
    if "messages" in row:
        return [[(message["role"], message["content"])] for message in row["messages"]]
    if "turns" in row:
        return [[(ROLES[at % 2], turn)] for at, turn in enumerate(row["turns"])]
    return [[("user", example["input"]), ("assistant", example["target"])] for example in row["examples"]]


def cut(row: Conversation, *, step: int, most: int, rng: random.Random) -> list[list[int]]:
    """A stretch of the conversation as steps.

    Args:
        row: the conversation.
        step: tokens that a step has at least; a message of more than twice as many is cut.
        most: tokens of the stretch, at most.
        rng: chooses where it starts.
    """
    if row.whole:
        examples = list(row.messages)
        rng.shuffle(examples)
        return _within([list(ids) for ids in examples], most)
    start = rng.randrange(max(1, len(row.messages) - 1))
    pieces: list[list[int]] = [[]]
    for message in row.messages[start:]:
        for piece in _pieces(message, step):
            if len(pieces[-1]) >= step:
                pieces.append([])
            pieces[-1] += piece
    return _within(pieces, most)


def _pieces(ids: Sequence[int], step: int) -> list[Sequence[int]]:
    if len(ids) <= 2 * step:
        return [ids]
    return [ids[at : at + step] for at in range(0, len(ids), step)]


def _within(pieces: Sequence[list[int]], most: int) -> list[list[int]]:
    kept: list[list[int]] = []
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            break
        kept.append(piece)
    return kept
