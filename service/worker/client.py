"""The model worker seen from the gateway: a `Counter` and a `Scorer` over its socket. Imports no torch, no tokenizer.

A worker that is away never stops a request: counts become stated estimates, and scoring is `Unavailable`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from ctxmem import chat
from ctxmem.errors import ModelError, Unavailable
from ctxmem.ports import TokenScores
from ctxmem.tokens.counts import Remembered, well_formed
from ctxmem.tokens.estimate import Estimate
from ctxmem.types import Message
from service.worker.channel import Channel
from service.worker.wire import CountReply, CountRequest, Health, ScoreReply, ScoreRequest, unpack

Reply = TypeVar("Reply")
Asked = TypeVar("Asked")
Stated = TypeVar("Stated")

TIMEOUT = 2.0
"""Seconds to wait for a count."""

PATIENCE = 600.0
"""Seconds to wait for scores that nobody is waiting for."""

_MODELS = 64  # whose counts are remembered; clients name models as they like
_SURROGATE = re.compile("[\ud800-\udfff]")
_PAUSE = 0.5  # seconds between two looks at a model that is being loaded
_MARGIN = 0.25  # seconds that an answer to a deadline may come late
_BYTES_PER_TOKEN = 3.0  # of UTF-8, on the low side: English has about 4.5


class WorkerClient:
    """Calls the worker. Safe to use from many threads."""

    def __init__(self, socket_path: Path | str, *, timeout: float = TIMEOUT) -> None:
        """Name the worker's socket; nothing is opened before the first call.

        Args:
            socket_path: its Unix socket.
            timeout: seconds to wait for an answer to a count.
        """
        self._channel = Channel(socket_path)
        self._timeout = timeout
        self._counts: dict[str, ModelCounts] = {}

    def counts(self, model: str) -> ModelCounts:
        """What was counted for a model so far; shared by all counters of that model."""
        counts = self._counts.get(model) or ModelCounts(self, model)
        if len(self._counts) < _MODELS:
            self._counts[model] = counts
        return counts

    def count(self, asked: CountRequest) -> CountReply:
        """Have something counted.

        Raises:
            Unavailable: the worker is away.
            ModelError: it has no tokenizer for the model.
            InvalidInput: the model's chat template refuses the messages.
        """
        body = msgspec.msgpack.encode(asked)
        reply = self._channel.exchange("POST", "/count", body, timeout=self._timeout)
        return _understood(lambda: msgspec.msgpack.decode(reply, type=CountReply))

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> ScoreReply:
        """Have texts scored.

        Raises:
            Unavailable: the worker is away, still loading, or too slow.
            ModelError: its model is broken.
        """
        body = msgspec.msgpack.encode(ScoreRequest([_same_length(text) for text in texts], deadline))
        timeout = PATIENCE if deadline is None else deadline + _MARGIN
        reply = self._channel.exchange("POST", "/score", body, timeout=timeout)
        return _understood(lambda: msgspec.msgpack.decode(reply, type=ScoreReply))

    def health(self) -> Health:
        """How the worker is.

        Raises:
            Unavailable: it is away.
        """
        reply = self._channel.exchange("GET", "/healthz", timeout=self._timeout)
        return _understood(lambda: msgspec.json.decode(reply, type=Health))

    def close(self) -> None:
        """Close the connections that are idle."""
        self._channel.close()


def affinity(tenant: str, session_id: str) -> str:
    """What to send as `x-ctxmem-session` with a chat, so that the worker keeps sessions of different tenants apart."""
    return sha256(f"{tenant}\0{session_id}".encode()).hexdigest()


class ModelCounts:
    """Counts of one model, remembered: texts and messages that were counted cost no call."""

    def __init__(self, client: WorkerClient, model: str) -> None:
        self.texts = Remembered(lambda texts: self._count(CountRequest(model, texts=texts)))
        self.messages = Remembered(self._messages)
        self._client = client
        self._model = model
        self._facts: CountReply | None = None

    def facts(self) -> CountReply:
        """Who counts: name, exactness and window.

        Raises:
            Unavailable: the worker is away and was never asked.
        """
        return self._facts or self._told(CountRequest(self._model))

    def request(self, messages: Sequence[bytes], tools: bytes | None) -> int:
        """Tokens of a rendered request."""
        return self._count(CountRequest(self._model, messages=list(messages), request=True, tools=tools))[0]

    def _messages(self, raws: list[str]) -> list[int]:
        return self._count(CountRequest(self._model, messages=[raw.encode() for raw in raws]))

    def _count(self, asked: CountRequest) -> list[int]:
        return self._told(asked).counts

    def _told(self, asked: CountRequest) -> CountReply:
        self._facts = self._client.count(asked)
        return self._facts


class RemoteCounter:
    """Counts with the worker's tokenizers; a stated estimate for good once the worker did not answer.

    One is made for each request, so that all counts of a request are of one kind. Implements `ctxmem.ports.Counter`.
    """

    def __init__(self, client: WorkerClient, model: str) -> None:
        self._counts = client.counts(model)
        self._stand_in: Estimate | None = None

    @property
    def name(self) -> str:
        """Fingerprint of the tokenizer and template, or of the estimate."""
        return self._facts().name

    @property
    def exact(self) -> bool:
        """Whether counts are the model's own; False from the first one on that the worker did not give."""
        return self._facts().exact

    @property
    def window(self) -> int | None:
        """The model's window in tokens, as far as it is known."""
        return self._facts().window

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone."""
        whole = [well_formed(text) for text in texts]
        return self._first(lambda: self._counts.texts(whole), lambda estimate: estimate.texts(texts))

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Tokens each message adds to a request.

        Raises:
            InvalidInput: the model's chat template refuses a message.
        """
        raws = [_raw(message).decode(errors="replace") for message in messages]
        return self._first(lambda: self._counts.messages(raws), lambda estimate: estimate.messages(messages))

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """Tokens of the rendered request.

        Raises:
            InvalidInput: the model's chat template refuses the messages.
        """
        raws = [_raw(message) for message in messages]
        return self._first(
            lambda: self._counts.request(raws, tools), lambda estimate: estimate.request(messages, tools)
        )

    def _facts(self) -> CountReply | Estimate:
        return self._first(self._counts.facts, lambda estimate: estimate)

    def _first(self, ask: Callable[[], Asked], estimate: Callable[[Estimate], Stated]) -> Asked | Stated:
        """What the worker says, or the estimate from the moment it has nothing to say."""
        if self._stand_in is None:
            try:
                return ask()
            except (Unavailable, ModelError):
                self._stand_in = Estimate()
        return estimate(self._stand_in)


class RemoteScorer:
    """Scores with the worker's language model. Implements `ctxmem.ports.Scorer`."""

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._name = ""
        self._rate = 0.0
        self._ask_again = 0.0

    @property
    def name(self) -> str:
        """Fingerprint of the worker's model; `unreached` as long as it never answered."""
        self._learn()
        return self._name or "unreached"

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds that scoring the texts takes; infinite as long as the model is not ready."""
        self._learn()
        if self._rate <= 0:
            return math.inf
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return size / _BYTES_PER_TOKEN / self._rate

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Score each text on its own.

        Raises:
            Unavailable: the worker is away, still loading, or past the deadline.
            ModelError: its model is broken.
        """
        reply = self._client.score(texts, deadline=deadline)
        self._name, self._rate = reply.name, reply.rate
        return [unpack(packed) for packed in reply.scores]

    def _learn(self) -> None:
        """Ask for the model's name and speed until they are known, now and then."""
        if self._name or time.monotonic() < self._ask_again:
            return
        self._ask_again = time.monotonic() + _PAUSE
        try:
            health = self._client.health()
        except Unavailable:
            return
        self._name, self._rate = health.scorer, health.rate


def _raw(message: Message) -> bytes:
    """The message's JSON, made from its text when it never had one."""
    if message.raw is not None:
        return message.raw
    wire = {"role": message.role, "content": message.text, "name": message.name, "tool_call_id": message.tool_call_id}
    return chat.dump({key: value for key, value in wire.items() if value is not None})


def _same_length(text: str) -> str:
    """The text with lone surrogates, which have no bytes, read as U+FFFD each, so that offsets stay true."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _understood(decode: Callable[[], Reply]) -> Reply:
    """What was decoded; a worker that answers something else is as good as none."""
    try:
        return decode()
    except msgspec.DecodeError as error:
        raise Unavailable(f"the model worker answered something else: {error}") from error
