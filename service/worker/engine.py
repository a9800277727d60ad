"""The worker's models: counters at once, the language model once its thread has loaded it.

The language model lives in the compute thread alone: it is loaded, asked and closed there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctxmem.errors import ModelError, Unavailable
from ctxmem.models import is_packaged, packaged
from ctxmem.ports import SlotName, TokenScores
from ctxmem.types import Message
from service.errors import UnknownModel
from service.worker.loading import LOADING
from service.worker.memories import Found, Memories
from service.worker.scores import ScoreCache
from service.worker.turns import Rank, Turns, Work
from service.worker.wire import CountReply, CountRequest, ScoreReply, pack

if TYPE_CHECKING:
    from ctxmem.lm.causal import CausalLM
    from ctxmem.lm.generate import ChatModel
    from ctxmem.lm.reply import Completion, Piece, Sampling

_LOG = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds a chat waits for a model that is still being loaded; converting one takes about 15."""

MOST_WORK = 32
"""Chats and scorings admitted at once."""

_CACHED_SCORES = 32 * 2**20
"""Bytes of scores kept: about 2.8 million tokens."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The language model, ready for use in the compute thread."""

    lm: CausalLM
    chat: ChatModel


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a chat is to be answered to.

    Attributes:
        ids: the request as token ids.
        session: whose cached prefix may be used.
        memory: what is read before it, in place of a part that `ids` then lack.
    """

    ids: list[int]
    session: str | None = None
    memory: Found | None = None


class Engine:
    """Counts, scores and chats with the worker's models."""

    def __init__(self, model: str, *, cache_dir: Path | None = None, memories: Memories | None = None) -> None:
        self.model = model
        self.memories = memories
        self.turns = Turns(limit=MOST_WORK)
        self._cache_dir = cache_dir
        self._scores = ScoreCache(_CACHED_SCORES)
        self._loading: asyncio.Task[Loaded] | None = None

    @property
    def model_id(self) -> str:
        """The model's name for OpenAI clients."""
        return packaged(self.model).alias or self.model if is_packaged(self.model) else self.model

    @property
    def tokenizer(self) -> str:
        """The model's name for `counter_for`, to which a bare hub id says nothing."""
        local = is_packaged(self.model) or Path(self.model).expanduser().is_dir()
        return self.model if local else f"hf:{self.model.removeprefix('hf:')}"

    @property
    def loaded(self) -> Loaded | None:
        """The model once it is ready."""
        task = self._loading
        return task.result() if task and task.done() and not task.cancelled() and not task.exception() else None

    @property
    def failure(self) -> BaseException | None:
        """Why the model could not be loaded."""
        task = self._loading
        return task.exception() if task and task.done() and not task.cancelled() else None

    def start(self) -> None:
        """Begin to load the model in the compute thread."""
        self._loading = asyncio.create_task(self.turns.call(self._load))
        self._loading.add_done_callback(self._report)

    def close(self) -> None:
        """Start no more work."""
        if self.memories is not None:
            self.memories.close()
        self.turns.close()

    def check(self, model: str) -> None:
        """Refuse a model that this worker does not serve.

        Raises:
            UnknownModel: it is not this worker's model.
        """
        if model not in (self.model, self.model_id):
            raise UnknownModel(model)

    def count(self, asked: CountRequest, messages: Sequence[Message]) -> CountReply:
        """Count in the calling thread; needs no torch.

        Raises:
            ModelError: the tokenizer that was asked for is missing.
            InvalidInput: the chat template refuses the messages.
        """
        from ctxmem.tokens.resolve import counter_for

        name = self.tokenizer if asked.model in (self.model, self.model_id) else asked.model
        counter = counter_for(name, cache_dir=self._cache_dir)
        if asked.request:
            counts = [counter.request(messages, asked.tools)]
        else:
            counts = counter.messages(messages) if messages else counter.texts(asked.texts)
        return CountReply(counter.name, counter.exact, counter.window, counts)

    def encode(self, messages: Sequence[Message], tools: bytes | None) -> list[int]:
        """Token ids of a request to this worker's model, as it is counted.

        Raises:
            InvalidInput: the chat template refuses the messages.
        """
        from ctxmem.tokens.hf import HFCounter
        from ctxmem.tokens.resolve import counter_for

        counter = counter_for(self.tokenizer, cache_dir=self._cache_dir)
        if not isinstance(counter, HFCounter):
            raise ModelError(f"model {self.model!r} has no tokenizer of its own")
        return counter.encode_request(messages, tools)

    def token(self, id: int) -> str:
        """The text of one token of the language model, once that is loaded."""
        return self.loaded.lm.tokenizer.token(id) if self.loaded else ""

    async def score(self, texts: Sequence[str], deadline: float | None) -> ScoreReply:
        """Score texts; those scored before cost nothing.

        Raises:
            Unavailable: the model is not loaded, or the deadline would be missed.
            Overloaded: too much work is waiting.
        """
        loaded = self.loaded
        if loaded is None:
            raise Unavailable(f"the model {self.model!r} is not loaded: {self.failure or 'in progress'}")
        new = [text for text in dict.fromkeys(texts) if self._scores.get(text) is None]
        fresh: dict[str, bytes] = {}
        if new:
            rank = Rank.BACKGROUND if deadline is None else Rank.DEADLINE
            async with self.turns.work(loaded.lm.scoring(new), rank=rank) as work:
                fresh = {text: pack(scores) for text, scores in zip(new, await _within(work, deadline), strict=True)}
        found = [fresh.get(text) or self._scores.get(text) or b"" for text in texts]
        for text, packed in fresh.items():
            self._scores.put(text, packed)
        return ScoreReply(loaded.lm.name, loaded.lm.rate, found)

    async def memory(self, name: SlotName) -> Found | None:
        """A compressed memory, once it has been made; waits for the model as `chat` does.

        Raises:
            Unavailable, ModelError: as `chat`.
        """
        if self.memories is None:
            return None
        loaded = await self._ready()
        return await self.memories.find(name, loaded.lm, self.turns)

    @asynccontextmanager
    async def chat(self, asked: Prompt, sampling: Sampling) -> AsyncIterator[Work[Piece, Completion]]:
        """Begin a reply, waiting for the model when it is still being loaded.

        Raises:
            Unavailable: the model is not there in time.
            ModelError: it could not be loaded.
            Overloaded: too much work is waiting.
        """
        loaded = await self._ready()
        reply = (
            loaded.chat.reply(asked.ids, sampling, session=asked.session)
            if asked.memory is None
            else asked.memory.reply(loaded.chat, asked.ids, sampling, session=asked.session)
        )
        async with self.turns.work(reply, rank=Rank.CHAT) as work:
            yield work

    async def _ready(self) -> Loaded:
        if self._loading is None:
            raise Unavailable("the worker has not started")
        try:
            return await asyncio.wait_for(asyncio.shield(self._loading), PATIENCE)
        except TimeoutError as error:
            raise Unavailable(f"the model {self.model!r} is still being loaded; try again soon") from error

    def _report(self, loading: asyncio.Task[Loaded]) -> None:
        if not loading.cancelled() and (failure := loading.exception()):
            _LOG.error("the model %r could not be loaded: %s", self.model, failure)

    def _load(self) -> Loaded:
        """Load the model in the compute thread. Of a packaged one, counting writes the tokenizer that scoring reads."""
        with LOADING:
            from ctxmem.tokens.resolve import counter_for

            if is_packaged(self.model):
                counter_for(self.model, cache_dir=self._cache_dir)
            from ctxmem.lm.causal import CausalLM
            from ctxmem.lm.generate import ChatModel

            lm = CausalLM.load(self.model, cache_dir=self._cache_dir)
            return Loaded(lm, ChatModel(lm))


async def _within(work: Work[float, list[TokenScores]], deadline: float | None) -> list[TokenScores]:
    """Drive a scoring to its end, or give up as soon as the deadline cannot be kept."""
    end = None if deadline is None else time.monotonic() + deadline
    try:
        async with asyncio.timeout(deadline):
            async for needed in work:
                if end is not None and time.monotonic() + needed > end:
                    raise Unavailable(f"scoring would miss its deadline of {deadline} s")
    except TimeoutError as error:
        raise Unavailable(f"scoring missed its deadline of {deadline} s") from error
    return work.result
