"""What LangChain keeps by key, in ctxmem's database: bytes, answers of models, and the messages of a chat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

try:
    from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
    from langchain_core.outputs import ChatGeneration, Generation
    from langchain_core.stores import BaseStore
except ImportError as error:
    raise ImportError('ctxmem.agents.langchain_values needs langchain-core: pip install "ctxmem[langchain]"') from error

from ctxmem.agents.shared import IN_MEMORY, KeptFolder
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from ctxmem.ports import Change


class CtxMemByteStore(BaseStore[str, bytes]):
    """Bytes by key, durable when `mset` returns; each call is one moment. Safe for threads and processes."""

    def __init__(
        self,
        db_path: str | Path = IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        name: str = "bytes",
        user: str = "",
    ) -> None:
        """Open the store.

        Args:
            db_path: the database file; `:memory:` keeps nothing.
            manager: use this manager's database and tenant instead.
            name: tells several stores of one database apart.
            user: whose it is; erasing the user erases it.
        """
        self._kept = KeptFolder(f"langchain/bytes/{name}", db_path, manager, user)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of some keys, None where there is none."""
        found = self._kept.read().items if len(keys) > 1 else self._kept.read(key=keys[0]).items if keys else {}
        return [found.get(key) for key in keys]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Set values; of a key that is given twice the last one counts.

        Raises:
            InvalidInput: a key is no text, or a value no bytes; nothing is written.
        """
        for key, value in key_value_pairs:
            if not isinstance(key, str) or not isinstance(value, bytes):
                raise InvalidInput(f"a store takes pairs of str and bytes, got {key!r}: {type(value).__name__}")
        if key_value_pairs:
            self._kept.change(Change(put=dict(key_value_pairs)))

    def mdelete(self, keys: Sequence[str]) -> None:
        """Take keys out; those that are not there do not matter."""
        if keys:
            self._kept.change(Change(delete=list(keys)))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Keys that begin so, or all, in the order of their code points, as they are now."""
        yield from self._kept.read(prefix=prefix or "").items

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._kept.close()


class CtxMemCache(BaseCache):
    """Answers of models by prompt and settings: `set_llm_cache(CtxMemCache("cache.db"))`.

    Of a prompt only a hash is kept.
    """

    def __init__(
        self,
        db_path: str | Path = IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        name: str = "cache",
        user: str = "",
    ) -> None:
        """Open the cache; see `CtxMemByteStore`."""
        self._kept = KeptFolder(f"langchain/cache/{name}", db_path, manager, user)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The generations that were kept, or None."""
        key = _digest(prompt, llm_string)
        found = self._kept.read(key=key).items.get(key)
        return [_generation(told) for told in json.loads(found)] if found is not None else None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep generations."""
        told = json.dumps([_told(one) for one in return_val], ensure_ascii=False, default=str)
        self._kept.change(Change(put={_digest(prompt, llm_string): told.encode()}))

    def clear(self, **kwargs: Any) -> None:
        """Forget everything."""
        del kwargs
        self._kept.change(Change(clear=True))

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._kept.close()


class CtxMemChatMessageHistory(BaseChatMessageHistory):
    """The messages of a session, whole and in order, for code that still uses `RunnableWithMessageHistory`.

    New code does better with `CtxMemContext` or `CtxMemMiddleware`: this interface hands out all there is.
    """

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        user: str = "",
    ) -> None:
        """Open a session's messages; see `CtxMemByteStore`.

        Raises:
            InvalidInput: the session has no name.
        """
        if not session_id:
            raise InvalidInput("a history needs a session", param="session_id")
        self._kept = KeptFolder(f"langchain/history/{session_id}", db_path, manager, user)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # the base declares a field
        """All messages, oldest first."""
        return messages_from_dict([json.loads(raw) for raw in self._kept.read().items.values()])

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages, all or none; no other writer comes in between."""
        raws = [json.dumps(message_to_dict(message), ensure_ascii=False).encode() for message in messages]
        if raws:
            self._kept.change(Change(append=raws))

    def clear(self) -> None:
        """Forget the session's messages."""
        self._kept.change(Change(clear=True))

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        self._kept.close()


def _told(kept: Generation) -> dict[str, Any]:
    """A generation as JSON; no class is named in it, so that reading makes no object but these two."""
    message = {"message": message_to_dict(kept.message)} if isinstance(kept, ChatGeneration) else {}
    return {"text": kept.text, "generation_info": kept.generation_info, **message}


def _generation(told: dict[str, Any]) -> Generation:
    if "message" not in told:
        return Generation(text=told["text"], generation_info=told["generation_info"])
    message = messages_from_dict([told["message"]])[0]
    return ChatGeneration(message=message, generation_info=told["generation_info"])


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
