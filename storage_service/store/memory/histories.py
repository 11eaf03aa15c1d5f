"""What LangGraph's three tables hold of one thread, in dictionaries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentstorage.v1 import checkpoints_pb2 as pb
from agentstorage.v1.owner_pb2 import ExportedCheckpoint, ExportedCheckpointBlob, ExportedCheckpointWrite
from storage_service import jsontext
from storage_service.store.checkpoints import CHANNEL, EMPTY, SEND, SENDS_KEPT, TASKS, WRITE, ValuePlace
from storage_service.store.tables import CHECKPOINT_BLOBS, CHECKPOINTS, Table

# Namespace and checkpoint.
Id = tuple[str, str]
# Namespace, channel and version.
BlobKey = tuple[str, str, str]


@dataclass(slots=True)
class History:
    """The checkpoints of one thread."""

    checkpoints: dict[Id, ExportedCheckpoint] = field(default_factory=dict)
    blobs: dict[BlobKey, ExportedCheckpointBlob] = field(default_factory=dict)
    # By the checkpoint, then by task and index.
    writes: dict[Id, dict[tuple[str, int], ExportedCheckpointWrite]] = field(default_factory=dict)

    def newest(self, checkpoint_ns: str) -> str:
        """The id of the newest checkpoint of a namespace, "" for none."""
        return max((id for ns, id in self.checkpoints if ns == checkpoint_ns), default="")

    def rows(self, table: Table[Any]) -> Iterable[Any]:
        """The rows of one of the tables."""
        if table is CHECKPOINTS:
            return self.checkpoints.values()
        if table is CHECKPOINT_BLOBS:
            return self.blobs.values()
        return (write for writes in self.writes.values() for write in writes.values())

    def copy_to(self, other: History, thread_id: str) -> int:
        """Copy to the history of another thread what that has not; says how many checkpoints."""
        before = len(other.checkpoints)
        for id, checkpoint in self.checkpoints.items():
            other.checkpoints.setdefault(id, _moved(checkpoint, thread_id))
        for key, blob in self.blobs.items():
            other.blobs.setdefault(key, _moved(blob, thread_id))
        for id, writes in self.writes.items():
            theirs = other.writes.setdefault(id, {})
            for place, write in writes.items():
                theirs.setdefault(place, _moved(write, thread_id))
        return len(other.checkpoints) - before

    def drop(self, ids: Iterable[Id]) -> int:
        """Delete checkpoints with their writes, and the values that nothing else uses; says how many."""
        gone = [self.checkpoints.pop(id) for id in ids]
        for row in gone:
            self.writes.pop((row.checkpoint_ns, row.checkpoint_id), None)
        used = {key for row in self.checkpoints.values() for key in blob_keys(row)}
        for key in {key for row in gone for key in blob_keys(row)} - used:
            self.blobs.pop(key, None)
        return len(gone)

    def drop_namespaces(self, namespaces: Collection[str]) -> None:
        """Delete all that is left of namespaces."""
        for rows in (self.checkpoints, self.blobs, self.writes):
            for key in [key for key in rows if key[0] in namespaces]:
                del rows[key]  # type: ignore[arg-type]  # the three have keys of their own

    def values(self, row: ExportedCheckpoint) -> list[tuple[ValuePlace, pb.ChannelValue | pb.PendingWrite]]:
        """The values of a checkpoint in the order of their places."""
        found: list[tuple[ValuePlace, pb.ChannelValue | pb.PendingWrite]] = []
        for key in blob_keys(row):
            if key in self.blobs:
                blob = self.blobs[key]
                value = pb.ChannelValue(channel=blob.channel, version=blob.version, type=blob.type, value=blob.blob)
                found.append((ValuePlace(CHANNEL, blob.channel, blob.version, 0), value))
        found += self._writes_of(WRITE, (row.checkpoint_ns, row.checkpoint_id))
        form = jsontext.parse(row.checkpoint).get("v")
        if isinstance(form, Decimal) and 0 <= form < SENDS_KEPT:
            sends = self._writes_of(SEND, (row.checkpoint_ns, row.parent_checkpoint_id))
            found += [(place, write) for place, write in sends if write.channel == TASKS]
        return sorted(found, key=lambda item: item[0])

    def _writes_of(self, kind: int, id: Id) -> Iterator[tuple[ValuePlace, pb.PendingWrite]]:
        for row in self.writes.get(id, {}).values():
            yield ValuePlace(kind, row.task_path, row.task_id, row.idx), pending(row)

    def seed(self, row: ExportedCheckpoint, channel: str) -> ExportedCheckpointBlob | str | None:
        """The value of a channel that the checkpoint itself keeps, as a blob or as JSON; None where it keeps none."""
        for key in blob_keys(row):
            if key[1] == channel and key in self.blobs and self.blobs[key].type != EMPTY:
                return self.blobs[key]
        inline = jsontext.members(row.checkpoint, "channel_values").get(channel, "null")
        return None if inline == "null" else inline


def pending(row: ExportedCheckpointWrite) -> pb.PendingWrite:
    """A write, as a row of its table, as it is answered."""
    return pb.PendingWrite(
        task_id=row.task_id, task_path=row.task_path, index=row.idx, channel=row.channel, type=row.type, value=row.blob
    )


def head(row: ExportedCheckpoint, *, summary: bool = False) -> pb.Checkpoint:
    """A checkpoint without its values."""
    return pb.Checkpoint(
        thread_id=row.thread_id,
        checkpoint_ns=row.checkpoint_ns,
        checkpoint_id=row.checkpoint_id,
        parent_checkpoint_id=row.parent_checkpoint_id,
        checkpoint=jsontext.merge(row.checkpoint, "{}", ("channel_values",)) if summary else row.checkpoint,
        metadata=row.metadata,
    )


def add_values(checkpoint: pb.Checkpoint, values: Iterable[tuple[ValuePlace, Any]]) -> pb.Checkpoint:
    """Give a checkpoint values."""
    for place, value in values:
        fields: dict[int, Any] = {CHANNEL: checkpoint.channels, WRITE: checkpoint.writes, SEND: checkpoint.parent_sends}
        fields[place.kind].append(value)
    return checkpoint


def blob_keys(row: ExportedCheckpoint) -> Iterator[BlobKey]:
    """The keys of the values that a checkpoint uses."""
    for channel, version in jsontext.members(row.checkpoint, "channel_versions").items():
        if version != "null":
            yield row.checkpoint_ns, channel, jsontext.text_of(version)


def _moved(row: Any, thread_id: str) -> Any:
    copy = type(row)()
    copy.CopyFrom(row)
    copy.thread_id = thread_id
    return copy
