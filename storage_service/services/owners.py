"""OwnerService; the contract is in owner.proto."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf.message import Message

from agentstorage.v1 import owner_pb2 as pb
from storage_service.errors import DeadlineExceeded
from storage_service.services import Call
from storage_service.store.tables import (
    ASSISTANT_VERSIONS,
    ASSISTANTS,
    CHECKPOINT_BLOBS,
    CHECKPOINT_WRITES,
    CHECKPOINTS,
    CRONS,
    DISPLACED_ITEMS,
    ITEMS,
    RUN_EVENTS,
    RUNS,
    THREAD_STATES,
    THREADS,
    Table,
)

_EXPORTED: dict[str, Table[Any]] = {
    "assistants": ASSISTANTS,
    "assistant_versions": ASSISTANT_VERSIONS,
    "threads": THREADS,
    "thread_states": THREAD_STATES,
    "runs": RUNS,
    "items": ITEMS,
    "crons": CRONS,
    "displaced_items": DISPLACED_ITEMS,
    "checkpoints": CHECKPOINTS,
    "checkpoint_blobs": CHECKPOINT_BLOBS,
    "checkpoint_writes": CHECKPOINT_WRITES,
    "run_events": RUN_EVENTS,
}
_ERASED_ROWS: Final = 200
# Rows are gathered into messages of about this many bytes, so that large rows go one by one.
_MESSAGE_BYTES, _MESSAGE_ROWS, _FIRST_ROWS = 1024 * 1024, 100, 10
# EraseOwner stops this many seconds before its time is over.
_MARGIN_SECONDS: Final = 1.0


class OwnerService:
    """All that one owner has."""

    async def get_owner_usage(self, request: pb.GetOwnerUsageRequest, call: Call) -> pb.GetOwnerUsageResponse:
        return pb.GetOwnerUsageResponse(usage=await call.rows.usage())

    async def erase_owner(self, request: pb.EraseOwnerRequest, call: Call) -> pb.EraseOwnerResponse:
        total, rows = 0, _ERASED_ROWS
        while True:
            try:
                deleted = await call.rows.erase(rows)
            except DeadlineExceeded:
                # So many were too much for one statement: threads may have very much hanging on them.
                if rows == 1:
                    raise
                rows //= 2
                continue
            total += deleted
            if not deleted:
                return pb.EraseOwnerResponse(done=True, deleted=total)
            if call.seconds() < _MARGIN_SECONDS:
                return pb.EraseOwnerResponse(done=False, deleted=total)

    async def export_owner(self, request: pb.ExportOwnerRequest, call: Call) -> AsyncIterator[pb.ExportOwnerResponse]:
        for field, table in _EXPORTED.items():
            after: tuple[Any, ...] | None = None
            wanted = _FIRST_ROWS
            while True:
                rows: list[Message]
                rows, after = await call.rows.export(table, after, wanted)
                # No more at once than what makes a message, as far as the last ones tell.
                is_large = sum(row.ByteSize() for row in rows) > _MESSAGE_BYTES
                wanted = max(1, wanted // 2) if is_large else min(_MESSAGE_ROWS, wanted * 2)
                response, size = pb.ExportOwnerResponse(), 0
                for row in rows:
                    if size and size + row.ByteSize() > _MESSAGE_BYTES:
                        yield response
                        response, size = pb.ExportOwnerResponse(), 0
                    getattr(response, field).append(row)
                    size += row.ByteSize()
                if size:
                    yield response
                if after is None:
                    break
