"""CheckpointService; the contract is in checkpoints.proto."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from agentstorage.v1 import checkpoints_pb2 as pb
from agentstorage.v1.threads_pb2 import PRUNE_STRATEGY_KEEP_LATEST
from storage_service.errors import InvalidRequest, NotFound
from storage_service.services import Call, contains
from storage_service.store.change import Change, Put, Stamp
from storage_service.store.checkpoints import START, Place, Superstep, ValuePlace, Writes
from storage_service.store.where import Equals, Less, Where

# A listing is read in batches of so many checkpoints.
_FIRST_ROWS, _MOST_ROWS = 20, 500
# What a batch has at most, and a part of a checkpoint that has more.
_BATCH_BYTES: Final = 2 * 1024 * 1024


class CheckpointService:
    """LangGraph's checkpoints."""

    async def put_checkpoint(self, request: pb.PutCheckpointRequest, call: Call) -> pb.PutCheckpointResponse:
        await call.rows.write_checkpoints(Superstep(request.thread_id, request))
        return pb.PutCheckpointResponse()

    async def put_writes(self, request: pb.PutWritesRequest, call: Call) -> pb.PutWritesResponse:
        _check_writes([request])
        await call.rows.write_checkpoints(Superstep(request.thread_id, writes=[request]))
        return pb.PutWritesResponse()

    async def commit_superstep(self, request: pb.CommitSuperstepRequest, call: Call) -> pb.CommitSuperstepResponse:
        _check_writes(request.writes)
        changed: list[Change] = [
            Put(name, value) for name in ("values", "interrupts") if (value := getattr(request, name))
        ]
        if request.values and not request.status:
            changed.append(Stamp("state_updated_at"))
        await call.rows.write_checkpoints(
            Superstep(request.thread_id, request, request.writes, request.status, changed)
        )
        return pb.CommitSuperstepResponse()

    async def get_checkpoint(self, request: pb.GetCheckpointRequest, call: Call) -> pb.GetCheckpointResponse:
        checkpoint = await call.rows.get_checkpoint(
            request.thread_id, request.checkpoint_ns, request.checkpoint_id, call.limits.message_bytes
        )
        if checkpoint is None:
            raise _absent(request)
        return pb.GetCheckpointResponse(checkpoint=checkpoint)

    async def list_checkpoints(
        self, request: pb.ListCheckpointsRequest, call: Call
    ) -> AsyncIterator[pb.ListCheckpointsResponse]:
        where = _where(request, call)
        after: Place | None = None
        left, rows = request.limit, _FIRST_ROWS
        while True:
            wanted = min(rows, left) if request.limit else rows
            listed = await call.rows.list_checkpoints(
                request.thread_id, where, after, wanted, _part_bytes(call), summary=request.summary
            )
            for item in listed:
                yield pb.ListCheckpointsResponse(checkpoint=item.checkpoint, more=not item.whole)
                after = item.place
                if not item.whole:
                    async for part in _parts(after, call):
                        yield part
            left -= len(listed)
            if not listed or (request.limit and not left):
                return
            rows = min(rows * 2, _MOST_ROWS)

    async def delete_thread_checkpoints(
        self, request: pb.DeleteThreadCheckpointsRequest, call: Call
    ) -> pb.DeleteThreadCheckpointsResponse:
        deleted = await call.rows.delete_checkpoints([request.thread_id])
        return pb.DeleteThreadCheckpointsResponse(deleted=deleted)

    async def delete_run_checkpoints(
        self, request: pb.DeleteRunCheckpointsRequest, call: Call
    ) -> pb.DeleteRunCheckpointsResponse:
        return pb.DeleteRunCheckpointsResponse(deleted=await call.rows.delete_run_checkpoints(request.run_ids))

    async def copy_thread_checkpoints(
        self, request: pb.CopyThreadCheckpointsRequest, call: Call
    ) -> pb.CopyThreadCheckpointsResponse:
        copied = await call.rows.copy_checkpoints(request.thread_id, request.new_thread_id)
        return pb.CopyThreadCheckpointsResponse(copied=copied)

    async def prune_checkpoints(self, request: pb.PruneCheckpointsRequest, call: Call) -> pb.PruneCheckpointsResponse:
        if request.strategy == PRUNE_STRATEGY_KEEP_LATEST:
            return pb.PruneCheckpointsResponse(deleted=await call.rows.prune_checkpoints(request.thread_ids))
        return pb.PruneCheckpointsResponse(deleted=await call.rows.delete_checkpoints(request.thread_ids))

    async def get_delta_channel_history(
        self, request: pb.GetDeltaChannelHistoryRequest, call: Call
    ) -> pb.GetDeltaChannelHistoryResponse:
        histories = await call.rows.delta_history(
            request.thread_id,
            request.checkpoint_ns,
            request.checkpoint_id,
            request.channels,
            call.limits.message_bytes,
        )
        if histories is None:
            raise _absent(request)
        return pb.GetDeltaChannelHistoryResponse(channels=histories)


def _absent(request: pb.GetCheckpointRequest | pb.GetDeltaChannelHistoryRequest) -> NotFound:
    """The failure of a read; what has no id is the newest checkpoint of its thread."""
    return NotFound("checkpoint", request.checkpoint_id or request.thread_id)


def _check_writes(groups: Sequence[Writes]) -> None:
    """Raises InvalidRequest for two writes with the same task and index."""
    known = set()
    for group in groups:
        for write in group.writes:
            place = (group.checkpoint_ns, group.checkpoint_id, write.task_id, write.index)
            if place in known:
                raise InvalidRequest(violations={"writes": "holds two with the same task and index"})
            known.add(place)


def _where(request: pb.ListCheckpointsRequest, call: Call) -> list[Where]:
    where: list[Where] = []
    if request.checkpoint_id:
        where.append(Equals("checkpoint_id", request.checkpoint_id))
    if request.HasField("checkpoint_ns"):
        where.append(Equals("checkpoint_ns", request.checkpoint_ns))
    if request.metadata:
        where.append(contains(call, "metadata", request.metadata))
    if request.before:
        where.append(Less("checkpoint_id", request.before))
    return where


def _part_bytes(call: Call) -> int:
    return min(_BATCH_BYTES, call.limits.message_bytes // 2)


async def _parts(place: Place, call: Call) -> AsyncIterator[pb.ListCheckpointsResponse]:
    """The values of a large checkpoint."""
    after: ValuePlace | None = START
    while after is not None:
        values, after = await call.rows.checkpoint_values(place, after, _part_bytes(call))
        yield pb.ListCheckpointsResponse(checkpoint=values, more=after is not None)
