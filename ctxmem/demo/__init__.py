"""The bundled conversation that `ctxmem demo` replays: 72 user messages of one long acquaintance.

Sources and licence: `LICENSES.md` beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

SYSTEM = "You are a helpful assistant."
"""The system message of the replay."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message of the conversation.

    Attributes:
        number: position, from 1.
        source: data set, record and day it was taken from.
        text: what the user says.
    """

    number: int
    source: str
    text: str


def turns() -> tuple[Turn, ...]:
    """The conversation in order."""
    lines = files(__name__).joinpath("conversation.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return tuple(Turn(row["turn"], row["source"], row["text"]) for row in rows)
