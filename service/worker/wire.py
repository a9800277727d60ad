"""What the model worker and its clients send each other: msgpack for counts and scores, OpenAI's JSON for chat."""

from __future__ import annotations

from array import array
from typing import Annotated, Any

import msgspec

from ctxmem.ports import TokenScores

MSGPACK = "application/msgpack"


class CountRequest(msgspec.Struct, omit_defaults=True):
    """What to count. Give `texts`, or `messages` and perhaps `request`.

    Attributes:
        model: name for `ctxmem.tokens.resolve.counter_for`.
        texts: texts to count each alone.
        messages: JSON of each message.
        request: count the rendered request of all messages, not what each adds.
        tools: JSON array of the tools of that request.
    """

    model: str
    texts: list[str] = []
    messages: list[bytes] = []
    request: bool = False
    tools: bytes | None = None


class CountReply(msgspec.Struct):
    """Counts and who counted.

    Attributes:
        name: the counter's fingerprint.
        exact: whether the counts are the model's own.
        window: context window in tokens; None when unknown.
        counts: one per text or message, or the request's alone.
    """

    name: str
    exact: bool
    window: int | None
    counts: list[int]


class ScoreRequest(msgspec.Struct):
    """Texts to score.

    Attributes:
        texts: what to score.
        deadline: seconds from receipt after which the answer is of no use; None when there is time.
    """

    texts: list[str]
    deadline: float | None = None


class ScoreReply(msgspec.Struct):
    """Self-information of each text.

    Attributes:
        name: the scorer's fingerprint.
        rate: tokens it reads per second just now.
        scores: per text, the scores as `pack` writes them.
    """

    name: str
    rate: float
    scores: list[bytes]


class Health(msgspec.Struct):
    """The worker's state.

    Attributes:
        state: `loading`, `ready` or `failed`.
        model: name of its model.
        error: why it failed; empty otherwise.
        scorer: fingerprint of the scorer; empty until it is ready.
        rate: tokens read per second just now; 0 until it is ready.
        rss: resident memory in bytes.
        queue: pieces of work admitted and not done.
    """

    state: str
    model: str
    error: str = ""
    scorer: str = ""
    rate: float = 0.0
    rss: int = 0
    queue: int = 0


class StreamOptions(msgspec.Struct):
    """`stream_options` of a chat request."""

    include_usage: bool = False


Probability = Annotated[float, msgspec.Meta(gt=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class ChatRequest(msgspec.Struct):
    """An OpenAI chat request, as far as the worker reads it; unknown fields are ignored, as OpenAI-like servers do."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=8)] | None = 1
    seed: int | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: Any = None
    response_format: Any = None
    modalities: list[str] | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


def pack(scores: TokenScores) -> bytes:
    """Scores as 12 bytes a token: starts and ends as 32-bit integers, nats as 32-bit floats."""
    return b"".join((array("I", scores.starts).tobytes(), array("I", scores.ends).tobytes(), _floats(scores)))


def unpack(packed: bytes) -> TokenScores:
    """What `pack` wrote.

    Raises:
        ValueError: the bytes are not a whole number of tokens.
    """
    third, rest = divmod(len(packed), 3)
    if rest:
        raise ValueError(f"{len(packed)} bytes are not scores")
    starts, ends, nats = array("I"), array("I"), array("f")
    starts.frombytes(packed[:third])
    ends.frombytes(packed[third : 2 * third])
    nats.frombytes(packed[2 * third :])
    return TokenScores(tuple(starts), tuple(ends), tuple(nats))


def _floats(scores: TokenScores) -> bytes:
    return array("f", scores.nats).tobytes()
