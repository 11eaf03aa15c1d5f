"""The logs of RunService; the contract is in runs.proto."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Final

from agentstorage.v1 import runs_pb2 as pb
from storage_service.errors import EventsDeleted, InvalidRequest, NotFound
from storage_service.services import Call
from storage_service.services.run_queue import FINAL, MARGIN_SECONDS, look_again
from storage_service.store import Log
from storage_service.store.tables import RUNS
from storage_service.store.where import Equals
from storage_service.wakeups import Waiter, log_of

# What a message of a stream has at most, but for one event that is larger.
_BATCH_BYTES: Final = 1024 * 1024


class RunLogs:
    """Events: appending, following and waiting for the end."""

    async def append_run_events(self, request: pb.AppendRunEventsRequest, call: Call) -> pb.AppendRunEventsResponse:
        if any(len(event.data) > call.limits.blob_bytes for event in request.events):
            raise InvalidRequest(violations={"events": f"has data of more than {call.limits.blob_bytes} bytes"})
        thread_id, last = await call.rows.append_events(
            request.run_id, request.lease_token, request.first_sequence, request.events
        )
        call.store.wakeups.tell(log_of("run", request.run_id), log_of("thread", thread_id))
        return pb.AppendRunEventsResponse(last_sequence=last)

    async def stream_run_events(
        self, request: pb.StreamRunEventsRequest, call: Call
    ) -> AsyncIterator[pb.StreamRunEventsResponse]:
        if bool(request.run_id) == bool(request.thread_id):
            raise InvalidRequest(violations={"run_id": "or thread_id is required, and not both"})
        kind, id = ("run", request.run_id) if request.run_id else ("thread", request.thread_id)
        with call.store.wakeups.waiter(log_of(kind, id)) as waiter:
            async for message in _follow(kind, id, request.after, call, waiter):
                yield message

    async def wait_run(self, request: pb.WaitRunRequest, call: Call) -> pb.WaitRunResponse:
        until = time.monotonic() + min(request.wait_seconds, call.seconds() - MARGIN_SECONDS)
        with call.store.wakeups.waiter(log_of("run", request.run_id)) as waiter:
            while True:
                # Not all of it, again and again: what a run was asked to do may be large.
                seen = await _run(request.run_id, call, frozenset({"status"}))
                rest = until - time.monotonic()
                if seen.status in FINAL or rest <= 0:
                    return pb.WaitRunResponse(run=await _run(request.run_id, call))
                await waiter.wait(min(rest, look_again()))


async def _run(run_id: str, call: Call, fields: frozenset[str] | None = None) -> pb.Run:
    run = await call.rows.get(RUNS, Equals("run_id", run_id), fields=fields)
    if run is None:
        raise NotFound("run", run_id)
    return run


async def _read(kind: str, id: str, after: int, call: Call) -> Log:
    read = call.rows.read_run_events if kind == "run" else call.rows.read_thread_events
    last = 0
    for _ in range(2):
        log = await read(id, after, _BATCH_BYTES)
        if log is None:
            raise NotFound(kind, id)
        last = log.last
        if log.events or last <= max(after, log.deleted):
            return log
    # They were there a moment ago, or have been deleted by others.
    raise EventsDeleted(last)


async def _follow(
    kind: str, id: str, after: int, call: Call, waiter: Waiter
) -> AsyncIterator[pb.StreamRunEventsResponse]:
    told = pb.CANCEL_ACTION_UNSPECIFIED
    while True:
        log = await _read(kind, id, max(after, 0), call)
        if after < 0:
            # From here on.
            after = log.last
            log.events.clear()
        if after < log.deleted:
            raise EventsDeleted(log.deleted)
        message = pb.StreamRunEventsResponse(events=log.events)
        if log.cancel != told:
            told = log.cancel
            message.cancel = told
        if log.events:
            last = log.events[-1]
            after = last.sequence if kind == "run" else last.position
        is_whole = after >= log.last
        # A log may have gone on after an end, where a run was started again: its last word counts.
        is_over = kind == "run" and is_whole and log.status in FINAL
        if is_over:
            message.run.CopyFrom(await _run(id, call))
        if message.ByteSize():
            yield message
        if is_over:
            return
        if is_whole:
            await waiter.wait(look_again())
