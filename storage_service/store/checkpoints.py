"""What checkpoints are, for both backends: what is written at once, where a listing goes on, and which values make up a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from agentstorage.v1 import checkpoints_pb2 as pb
from storage_service.store.change import Change

# What a checkpoint is written by: both have the same fields.
Put: TypeAlias = pb.PutCheckpointRequest | pb.CommitSuperstepRequest
Writes: TypeAlias = pb.PutWritesRequest | pb.CheckpointWrites

#: The type of the value of a channel that has none.
EMPTY: Final = "empty"
#: The channel of what tasks send. Before this format of checkpoints it was kept only with the writes for the parent.
TASKS: Final = "__pregel_tasks"
SENDS_KEPT: Final = 4


@dataclass(frozen=True, slots=True)
class Superstep:
    """What is written to one thread at once; the thread is made where there is none."""

    thread_id: str
    # A checkpoint; one whose "checkpoint" is empty is the values of its channels alone.
    put: Put | None = None
    writes: Sequence[Writes] = ()
    # The thread's new status, 0 for none, and other changes to its row.
    status: int = 0
    changes: Sequence[Change] = ()

    @property
    def changes_thread(self) -> bool:
        """Whether the thread's row changes too. Values that come ahead of their checkpoint are noted there: they are not forgotten ones."""
        is_ahead = self.put is not None and not self.put.checkpoint
        return bool(self.status or self.changes or is_ahead)


class Place(NamedTuple):
    """Which checkpoint it is. Checkpoints are listed by these fields, greatest first."""

    checkpoint_id: str
    thread_id: str
    checkpoint_ns: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint of a listing. One that is not ``whole`` has more values than were asked for, and comes without any."""

    checkpoint: pb.Checkpoint
    whole: bool

    @property
    def place(self) -> Place:
        """Which it is."""
        return Place(self.checkpoint.checkpoint_id, self.checkpoint.thread_id, self.checkpoint.checkpoint_ns)


class ValuePlace(NamedTuple):
    """Where a value of a checkpoint is; values are read by these fields, smallest first."""

    kind: int
    # The channel and version of a channel; the task's path and id of a write.
    first: str
    second: str
    idx: int


#: The kinds of values: of channels, of writes, and of what the parent's tasks sent.
CHANNEL, WRITE, SEND = 1, 2, 3
#: Before the first value.
START: Final = ValuePlace(0, "", "", 0)
