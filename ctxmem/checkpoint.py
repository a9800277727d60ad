"""Checkpoints of graphs, as values: what a graph's channels held after a step, and what its tasks wrote since.

The model is LangGraph's (`langgraph.checkpoint.base`). What a channel held is kept under the hash of its bytes, so that
a channel which did not change is kept once for a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class CheckpointKey(NamedTuple):
    """Names a checkpoint of a tenant.

    Attributes:
        id: grows with time.
        session_id: the thread.
        namespace: the subgraph; empty for the graph itself.
    """

    id: str
    session_id: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Packed:
    """A serialised value.

    Attributes:
        kind: how to read the bytes.
        body: the bytes.
    """

    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint, without what its channels held.

    Attributes:
        key: its name.
        parent_id: the checkpoint before it; None for the first.
        state: everything but the channels' values.
        metadata: how it came to be.
        channels: by channel, the hash of what it held.
        needs: channels whose value is put together from older checkpoints.
        run_id: the run that made it; empty when unknown.
        user_id: whose it is; empty when unknown.
    """

    key: CheckpointKey
    parent_id: str | None
    state: Packed
    metadata: Packed
    channels: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    run_id: str = ""
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """What a task wrote to a channel after a checkpoint.

    Attributes:
        task_id: the task.
        place: of the write among the task's; negative ones are special, and replaced when written again.
        path: where the task stands in the graph.
        channel: the channel.
        value: what was written.
    """

    task_id: str
    place: int
    path: str
    channel: str
    value: Packed


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint with all that belongs to it.

    Attributes:
        checkpoint: the checkpoint.
        values: by hash, what its channels held.
        writes: in the order in which a graph applies them.
    """

    checkpoint: Checkpoint
    values: Mapping[str, Packed]
    writes: tuple[PendingWrite, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which checkpoints are meant; what is None does not restrict.

    Attributes:
        session_id: of this thread.
        namespace: of this subgraph.
        id: with this id.
        before: with a smaller id.
        after: those that come after this one in the list.
    """

    session_id: str | None = None
    namespace: str | None = None
    id: str | None = None
    before: str | None = None
    after: CheckpointKey | None = None
