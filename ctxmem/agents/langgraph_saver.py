"""LangGraph's checkpoints in ctxmem's database: one file, or one PostgreSQL, then holds everything of an agent."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

try:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        WRITES_IDX_MAP,
        BaseCheckpointSaver,
        ChannelVersions,
        CheckpointMetadata,
        CheckpointTuple,
        get_checkpoint_id,
        get_checkpoint_metadata,
    )
    from langgraph.checkpoint.base import Checkpoint as GraphCheckpoint
    from langgraph.checkpoint.serde.base import SerializerProtocol
except ImportError as error:
    raise ImportError('ctxmem.agents.langgraph_saver needs langgraph: pip install "ctxmem[langgraph]"') from error

from ctxmem.agents.opening import opened
from ctxmem.agents.threads import each_in_thread, in_thread
from ctxmem.checkpoint import Asked, Checkpoint, CheckpointKey, Packed, PendingWrite, Saved
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager

_PAGE = 100  # checkpoints looked through at a time


class CtxMemSaver(BaseCheckpointSaver[str]):
    """Keeps a graph's checkpoints: `builder.compile(checkpointer=CtxMemSaver(manager))`. Safe for threads.

    A thread is a session: erasing the session, or its user, erases its checkpoints. A user is known by `user_id` in
    the config, or by the middleware's session of the same name.
    """

    def __init__(self, manager: ContextManager, *, serde: SerializerProtocol | None = None) -> None:
        """Make the saver.

        Args:
            manager: whose database and tenant.
            serde: turns values into bytes; LangGraph's own by default.
        """
        super().__init__(serde=serde)
        self._kept = manager.engine.store.checkpoints
        self._tenant = manager.tenant

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str) -> Iterator[CtxMemSaver]:
        """A saver on a file, a database URL or `:memory:`, closed at the end of the block."""
        with opened(conn_string) as manager:
            yield cls(manager)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that is named, or the newest of its thread and namespace."""
        thread, namespace = _place(config)
        saved = self._kept.get(self._tenant, thread, namespace, get_checkpoint_id(config) or None)
        return None if saved is None else self._tuple(saved)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, as they are when they are reached."""
        asked = Asked(before=get_checkpoint_id(before) if before else None)
        if config is not None:
            place = config["configurable"]
            asked = replace(asked, session_id=str(place["thread_id"]), namespace=place.get("checkpoint_ns"))
            asked = replace(asked, id=get_checkpoint_id(config) or None)
        left = limit
        for head in self._heads(asked):
            if left is not None and left <= 0:
                return
            if filter and not _has(self._unpacked(head.metadata), filter):
                continue
            saved = self._kept.get(self._tenant, head.key.session_id, head.key.namespace, head.key.id)
            if saved is not None:
                left = None if left is None else left - 1
                yield self._tuple(saved)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: GraphCheckpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint; durable on return. A channel that did not change is not written again."""
        del new_versions  # the content says what is new
        thread, namespace = _place(config)
        told = cast(dict[str, Any], get_checkpoint_metadata(config, metadata))
        values = {name: self._packed(value) for name, value in checkpoint["channel_values"].items()}
        hashes = {name: _digest(value) for name, value in values.items()}
        user = config["configurable"].get("user_id")
        kept = Checkpoint(
            CheckpointKey(checkpoint["id"], thread, namespace),
            get_checkpoint_id(config) or None,
            self._packed({**checkpoint, "channel_values": {}}),
            self._packed(told),
            hashes,
            tuple(sorted(set(told.get("counters_since_delta_snapshot") or ()) - set(values))),
            str(told.get("run_id") or ""),
            user if isinstance(user, str) else "",
        )
        by_hash = {hashes[name]: value for name, value in values.items()}
        self._kept.put(self._tenant, kept, by_hash).result()
        return _config(kept.key)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote; durable on return, all or nothing."""
        thread, namespace = _place(config)
        kept = [
            PendingWrite(task_id, WRITES_IDX_MAP.get(channel, place), task_path, channel, self._packed(value))
            for place, (channel, value) in enumerate(writes)
        ]
        key = CheckpointKey(config["configurable"]["checkpoint_id"], thread, namespace)
        self._kept.put_writes(self._tenant, key, kept).result()

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread's checkpoints and writes; what ctxmem logged of the session stays."""
        self._kept.delete(self._tenant, [str(thread_id)]).result()

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that runs made, with their writes."""
        self._kept.delete_runs(self._tenant, [str(run_id) for run_id in run_ids if run_id]).result()

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with all its checkpoints and writes; what the target has already stays."""
        self._kept.copy(self._tenant, str(source_thread_id), str(target_thread_id)).result()

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete old checkpoints.

        Args:
            thread_ids: the threads.
            strategy: `keep_latest` keeps the newest checkpoint of each namespace, and those before it that its delta
                channels are put together from; `delete` keeps none.

        Raises:
            InvalidInput: another strategy.
        """
        threads = [str(thread_id) for thread_id in thread_ids]
        if strategy == "delete":
            self._kept.delete(self._tenant, threads).result()
        elif strategy == "keep_latest":
            self._kept.prune(self._tenant, threads).result()
        else:
            raise InvalidInput(f"a strategy is keep_latest or delete, got {strategy!r}", param="strategy")

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """The version after this one; strings, in the form that LangGraph's savers for databases give."""
        del channel
        before = int(current.partition(".")[0]) if isinstance(current, str) else current or 0
        return f"{before + 1:032}.{0:016}"

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The same as `list`."""
        async for one in each_in_thread(self.list(config, filter=filter, before=before, limit=limit)):
            yield one

    aget_tuple = in_thread(get_tuple)
    aput = in_thread(put)
    aput_writes = in_thread(put_writes)
    adelete_thread = in_thread(delete_thread)
    adelete_for_runs = in_thread(delete_for_runs)
    acopy_thread = in_thread(copy_thread)
    aprune = in_thread(prune)

    def _heads(self, asked: Asked) -> Iterator[Checkpoint]:
        while page := self._kept.find(self._tenant, asked, limit=_PAGE):
            yield from page
            asked = replace(asked, after=page[-1].key)

    def _tuple(self, saved: Saved) -> CheckpointTuple:
        head = saved.checkpoint
        channels = {name: self._unpacked(saved.values[sha256]) for name, sha256 in head.channels.items()}
        parent = head.key._replace(id=head.parent_id) if head.parent_id else None
        return CheckpointTuple(
            _config(head.key),
            cast(GraphCheckpoint, {**self._unpacked(head.state), "channel_values": channels}),
            self._unpacked(head.metadata),
            _config(parent) if parent else None,
            [(write.task_id, write.channel, self._unpacked(write.value)) for write in saved.writes],
        )

    def _packed(self, value: Any) -> Packed:
        return Packed(*self.serde.dumps_typed(value))

    def _unpacked(self, value: Packed) -> Any:
        return self.serde.loads_typed((value.kind, value.body))


def _place(config: RunnableConfig) -> tuple[str, str]:
    """Thread and namespace."""
    return str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns", "")


def _config(key: CheckpointKey) -> RunnableConfig:
    return {
        "configurable": {"thread_id": key.session_id, "checkpoint_ns": key.namespace, "checkpoint_id": key.id},
    }


def _has(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(metadata.get(name) == value for name, value in wanted.items())


def _digest(value: Packed) -> str:
    """Names a channel's value: equal names are equal bytes, read the same way."""
    return hashlib.sha256(value.kind.encode() + b"\0" + value.body).hexdigest()
