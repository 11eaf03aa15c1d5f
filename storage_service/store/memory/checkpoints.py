"""The named operations on checkpoints, in dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agentstorage.v1 import checkpoints_pb2 as pb
from agentstorage.v1.owner_pb2 import ExportedCheckpoint, ExportedCheckpointBlob, ExportedCheckpointWrite
from agentstorage.v1.threads_pb2 import (
    THREAD_STATUS_BUSY,
    THREAD_STATUS_IDLE,
    THREAD_VISIBILITY_PRIVATE,
    Thread,
)
from storage_service import jsontext
from storage_service.errors import LimitReached, NotFound, ParentMismatch
from storage_service.store import Access
from storage_service.store.change import Put as PutField
from storage_service.store.change import Stamp
from storage_service.store.checkpoints import EMPTY, SEND, Listed, Place, Put, Superstep, ValuePlace, Writes
from storage_service.store.memory.histories import History, add_values, blob_keys, head, pending
from storage_service.store.memory.resources import Runs
from storage_service.store.memory.rows import Record
from storage_service.store.retention import is_before
from storage_service.store.tables import THREADS
from storage_service.store.where import Equals, OneOf, Where


class Checkpoints(Runs):
    """The named operations on checkpoints."""

    def history(self, thread_id: str) -> History:
        """The checkpoints of an own thread; nothing's where there is no such thread."""
        record = self.one(THREADS, thread_id, Access.OWN)
        return History() if record is None else self.tables.histories.setdefault(thread_id, History())

    async def write_checkpoints(self, superstep: Superstep) -> None:
        thread_id, put = superstep.thread_id, superstep.put
        if (thread_id,) in self.tables.of(THREADS) and self.one(THREADS, thread_id, Access.OWN) is None:
            raise NotFound("thread", thread_id)
        history = self.history(thread_id)
        if put is not None and put.HasField("expected_parent_id"):
            newest = history.newest(put.checkpoint_ns)
            if put.expected_parent_id != newest and (put.checkpoint_ns, put.checkpoint_id) not in history.checkpoints:
                raise ParentMismatch(newest)
        thread = self._made(thread_id)
        history = self.history(thread_id)
        if put is not None:
            _put(history, put)
        for group in superstep.writes:
            _write(history, thread_id, group)
        if superstep.changes_thread:
            changes = [*superstep.changes]
            if superstep.status:
                reached = THREAD_STATUS_BUSY if self.in_flight(thread) else superstep.status
                changes += [PutField("status", reached), Stamp("state_updated_at")]
            self.change(THREADS, thread, changes)

    def _made(self, thread_id: str) -> Record[Thread]:
        """An own thread, which is made where there is none."""
        record = self.one(THREADS, thread_id, Access.OWN)
        if record is None:
            new = Thread(
                thread_id=thread_id,
                status=THREAD_STATUS_IDLE,
                visibility=THREAD_VISIBILITY_PRIVATE,
                ttl=self.tables.thread_ttl,
            )
            self.insert_now(THREADS, new, "")
            record = self.tables.of(THREADS)[(thread_id,)]
        return record

    async def get_checkpoint(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, most_bytes: int
    ) -> pb.Checkpoint | None:
        history = self.history(thread_id)
        row = history.checkpoints.get((checkpoint_ns, checkpoint_id or history.newest(checkpoint_ns)))
        if row is None:
            return None
        checkpoint = add_values(head(row), history.values(row))
        if checkpoint.ByteSize() > most_bytes:
            raise LimitReached("the checkpoint is larger than a message; ListCheckpoints gives it in parts")
        return checkpoint

    async def list_checkpoints(
        self,
        thread_id: str,
        where: Sequence[Where],
        after: Place | None,
        limit: int,
        most_bytes: int,
        *,
        summary: bool,
    ) -> list[Listed]:
        found: list[tuple[Place, History, ExportedCheckpoint]] = []
        for thread in self.records(THREADS, [Equals("thread_id", thread_id)] if thread_id else [], Access.OWN):
            history = self.history(thread.row.thread_id)
            for row in history.checkpoints.values():
                place = Place(row.checkpoint_id, row.thread_id, row.checkpoint_ns)
                if (after is None or place < after) and all(term.test(row) for term in where):
                    found.append((place, history, row))
        found.sort(key=lambda item: item[0], reverse=True)
        listed: list[Listed] = []
        size = 0
        for _, history, row in found[:limit]:
            values = [] if summary else history.values(row)
            checkpoint = add_values(head(row, summary=summary), values)
            size += checkpoint.ByteSize()
            if size > most_bytes and listed:
                break
            is_whole = size <= most_bytes or not values
            listed.append(Listed(checkpoint if is_whole else head(row), is_whole))
        return listed

    async def checkpoint_values(
        self, place: Place, after: ValuePlace, most_bytes: int
    ) -> tuple[pb.Checkpoint, ValuePlace | None]:
        history = self.history(place.thread_id)
        row = history.checkpoints.get((place.checkpoint_ns, place.checkpoint_id))
        left = [item for item in history.values(row) if item[0] > after] if row is not None else []
        part, size = left[:1], sum(item[1].ByteSize() for item in left[:1])
        for item in left[1:]:
            size += item[1].ByteSize()
            if size > most_bytes:
                break
            part.append(item)
        return add_values(pb.Checkpoint(), part), part[-1][0] if len(part) < len(left) else None

    async def delta_history(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, channels: Sequence[str], most_bytes: int
    ) -> list[pb.DeltaChannelHistory] | None:
        history = self.history(thread_id)
        row = history.checkpoints.get((checkpoint_ns, checkpoint_id or history.newest(checkpoint_ns)))
        if row is None:
            return None
        found = [_delta(history, row, channel) for channel in channels]
        if sum(item.ByteSize() for item in found) > most_bytes:
            raise LimitReached("the history is larger than a message; ask for fewer channels")
        return found

    async def delete_checkpoints(self, thread_ids: Sequence[str]) -> int:
        deleted = 0
        for thread in self.records(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN):
            deleted += len(self.tables.histories.pop(thread.row.thread_id, History()).checkpoints)
        return deleted

    async def delete_run_checkpoints(self, run_ids: Sequence[str]) -> int:
        return self.drop_run_checkpoints(run_ids)

    async def copy_checkpoints(self, thread_id: str, new_id: str) -> int:
        if (new_id,) in self.tables.of(THREADS) and self.one(THREADS, new_id, Access.OWN) is None:
            raise NotFound("thread", new_id)
        source = self.history(thread_id)
        self._made(new_id)
        return source.copy_to(self.history(new_id), new_id)

    async def prune_checkpoints(self, thread_ids: Sequence[str]) -> int:
        deleted = 0
        for thread in self.records(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN):
            deleted += prune(self.history(thread.row.thread_id))
        return deleted


def _put(history: History, put: Put) -> None:
    for value in put.channels:
        blob = ExportedCheckpointBlob(
            thread_id=put.thread_id,
            checkpoint_ns=put.checkpoint_ns,
            channel=value.channel,
            version=value.version,
            type=value.type,
        )
        if value.type != EMPTY:
            blob.blob = value.value
        history.blobs.setdefault((put.checkpoint_ns, value.channel, value.version), blob)
    if not put.checkpoint:
        return
    id = (put.checkpoint_ns, put.checkpoint_id)
    if id not in history.checkpoints:
        history.checkpoints[id] = ExportedCheckpoint(
            thread_id=put.thread_id, checkpoint_ns=put.checkpoint_ns, checkpoint_id=put.checkpoint_id
        )
        if put.parent_checkpoint_id:
            history.checkpoints[id].parent_checkpoint_id = put.parent_checkpoint_id
    history.checkpoints[id].checkpoint = jsontext.canonical(put.checkpoint)
    history.checkpoints[id].metadata = jsontext.canonical(put.metadata or "{}")


def _write(history: History, thread_id: str, group: Writes) -> None:
    kept = history.writes.setdefault((group.checkpoint_ns, group.checkpoint_id), {})
    for write in group.writes:
        place = (write.task_id, write.index)
        if write.index < 0 or place not in kept:
            kept[place] = ExportedCheckpointWrite(
                thread_id=thread_id,
                checkpoint_ns=group.checkpoint_ns,
                checkpoint_id=group.checkpoint_id,
                task_id=write.task_id,
                idx=write.index,
                channel=write.channel,
                type=write.type,
                blob=write.value,
                task_path=write.task_path,
            )


def _ancestors(history: History, row: ExportedCheckpoint) -> Iterator[ExportedCheckpoint]:
    """The checkpoints before one, nearest first; each has a lesser id, so that no circle is walked."""
    while True:
        parent = history.checkpoints.get((row.checkpoint_ns, row.parent_checkpoint_id))
        if parent is None or parent.checkpoint_id >= row.checkpoint_id:
            return
        yield parent
        row = parent


def _delta(history: History, row: ExportedCheckpoint, channel: str) -> pb.DeltaChannelHistory:
    found = pb.DeltaChannelHistory(channel=channel)
    collected: list[list[pb.PendingWrite]] = []
    for ancestor in _ancestors(history, row):
        writes = history.writes.get((ancestor.checkpoint_ns, ancestor.checkpoint_id), {}).values()
        mine = sorted((w for w in writes if w.channel == channel), key=lambda w: (w.task_path, w.task_id, w.idx))
        collected.append([pending(write) for write in mine])
        seed = history.seed(ancestor, channel)
        if isinstance(seed, str):
            found.json = seed
            break
        if seed is not None:
            found.value.CopyFrom(
                pb.ChannelValue(channel=channel, version=seed.version, type=seed.type, value=seed.blob)
            )
            break
    for part in reversed(collected):
        found.writes.extend(part)
    return found


def prune(history: History, before: str = "") -> int:
    """Delete all but what the newest checkpoint of each namespace is read from; with ``before`` only what is older, and no later one is."""

    def is_old(checkpoint_id: str) -> bool:
        return not before or is_before(checkpoint_id, before)

    heads = {ns: history.checkpoints[(ns, history.newest(ns))] for ns, _ in history.checkpoints}
    kept = {ns: {row.checkpoint_id} | _needed(history, row) for ns, row in heads.items()}
    for row in history.checkpoints.values():
        if not is_old(row.checkpoint_id):
            kept[row.checkpoint_ns] |= {row.checkpoint_id} | _needed(history, row)
    for ns, row in heads.items():
        if ":" in ns and not is_old(row.checkpoint_id) and (call := _began(history, row)):
            kept[""] |= {call.checkpoint_id} | _needed(history, call)
    # The namespace of a subgraph's call goes with the checkpoint that the call began from.
    for ns, row in heads.items():
        call = _began(history, row)
        if ":" in ns and is_old(row.checkpoint_id) and call and call.checkpoint_id not in kept[""]:
            kept[ns] = set()
    deleted = history.drop([id for id in history.checkpoints if id[1] not in kept[id[0]]])
    history.drop_namespaces({ns for ns, ids in kept.items() if not ids})
    for row in history.checkpoints.values():
        if is_old(row.parent_checkpoint_id) and row.parent_checkpoint_id not in kept[row.checkpoint_ns]:
            row.ClearField("parent_checkpoint_id")
    return deleted


def _began(history: History, row: ExportedCheckpoint) -> ExportedCheckpoint | None:
    """The checkpoint that the call of a subgraph began from, by a checkpoint of its namespace."""
    return history.checkpoints.get(("", jsontext.text_at(row.metadata, "parents", "") or ""))


def _needed(history: History, row: ExportedCheckpoint) -> set[str]:
    """The checkpoints that one is read from, beside itself."""
    needed = {row.parent_checkpoint_id for place, _ in history.values(row) if place.kind == SEND}
    for channel in _delta_channels(history, row):
        for ancestor in _ancestors(history, row) if history.seed(row, channel) is None else ():
            needed.add(ancestor.checkpoint_id)
            if history.seed(ancestor, channel) is not None:
                break
    return needed


def _delta_channels(history: History, head: ExportedCheckpoint) -> set[str]:
    """The channels of a checkpoint that its namespace shows to be delta channels.

    LangGraph counts the steps since a delta channel's snapshot, and marks a snapshot with an inline true beside the blob, which a plain
    true has not. LangGraph.js marks the thread: there, any channel may be one.
    """
    versioned = {channel for _, channel, _ in blob_keys(head)}
    found: set[str] = set()
    for row in history.checkpoints.values():
        if row.checkpoint_ns != head.checkpoint_ns:
            continue
        if jsontext.text_at(row.metadata, "delta_writes_versioned") is not None:
            return versioned
        found.update(jsontext.members(row.metadata, "counters_since_delta_snapshot"))
        inline = jsontext.members(row.checkpoint, "channel_values")
        found.update(
            channel
            for _, channel, version in blob_keys(row)
            if inline.get(channel) == "true" and (row.checkpoint_ns, channel, version) in history.blobs
        )
    return found & versioned
