"""Following the events of runs, and waiting for the end of one, for as long as it takes and whatever happens to the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

import grpc

from agentstorage.connection import Connection, checked_owner
from agentstorage.errors import DeadlineExceeded, ServerFault, StorageError
from agentstorage.queue.records import FINAL, Event, QueuedRun
from agentstorage.queue.retrying import Pauses, connection_of, may_pass
from agentstorage.v1 import runs_pb2 as pb
from agentstorage.v1 import runs_pb2_grpc

if TYPE_CHECKING:
    from agentstorage.storage import GrpcStorage

log = logging.getLogger("agentstorage.queue")

_STUB: Any = runs_pb2_grpc.RunServiceStub
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs
# Seconds: how long one call of wait_run waits, what it may take beyond that when there is a timeout, after how long a stream that ended
# had been there, and after how long it had surely reached the service, though it said nothing: no try to connect takes so long.
_WAIT, _MARGIN, _LIVED, _REACHED = 20.0, 2.0, 10.0, 60.0


async def follow_run(
    connection: Connection | GrpcStorage, run_id: str, owner_id: str | None = None, after: int = 0
) -> AsyncGenerator[Event, None]:
    """Give the events of a run, those that are there and then those that come, up to its end marker.

    Each comes once and in order. While the service is away this waits for it, however long, and goes on after the last event
    seen: limit it with ``asyncio.timeout``. The log has a warning for each time that it is away. To stop before the end, ``aclose``
    the iterator, or cancel the task that iterates.

    A run that has ended and was started again, as by a status that is set with force, has several end markers: the last one ends this.

    Args:
        connection: An open connection or storage.
        run_id: The run.
        owner_id: Its owner. Default: that of the connection, else none.
        after: The sequence after which events are given: 0 for all, -1 for those to come alone.

    Raises:
        NotFound: There is no such run, or it is deleted, as one that is rolled back is.
        EventsDeleted: Events after this place are deleted by now.
    """
    connection = connection_of(connection)
    owner = _owner(connection, owner_id)
    absence = _Absence(f"following run {run_id}")
    if after < 0:
        # A place to come back to, should the stream break before its first event.
        after = (await _read(connection, pb.GetRunRequest(owner_id=owner, run_id=run_id), absence)).last_sequence
    request = pb.StreamRunEventsRequest(owner_id=owner, run_id=run_id, after=after)
    events = _follow(connection, request, "sequence", absence)
    try:
        async for event in events:
            yield event
    finally:
        await events.aclose()


async def follow_thread(
    connection: Connection | GrpcStorage, thread_id: str, owner_id: str | None = None, after: int = 0
) -> AsyncGenerator[Event, None]:
    """Give the events of all runs of a thread, those that are there and then those that come, without an end.

    Otherwise as :func:`follow_run`.

    Args:
        connection: An open connection or storage.
        thread_id: The thread.
        owner_id: Its owner. Default: that of the connection, else none.
        after: The position after which events are given: 0 for all, -1 for those that come from when the service has the call;
            should it be away before the first of them, from when it is back.

    Raises:
        NotFound: There is no such thread, or it is deleted.
        EventsDeleted: Events after this place are deleted by now.
    """
    connection = connection_of(connection)
    request = pb.StreamRunEventsRequest(owner_id=_owner(connection, owner_id), thread_id=thread_id, after=after)
    events = _follow(connection, request, "position", _Absence(f"following thread {thread_id}"))
    try:
        async for event in events:
            yield event
    finally:
        await events.aclose()


async def wait_run(
    connection: Connection | GrpcStorage,
    run_id: str,
    owner_id: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it tells the service how long to wait, and bears an absent answer
) -> QueuedRun:
    """Wait until the status of a run is final, and return it.

    Args:
        connection: An open connection or storage.
        run_id: The run.
        owner_id: Its owner. Default: that of the connection, else none.
        timeout: The most seconds to wait, 0 for one look; up to two more pass when the service does not answer. None for as long as
            it takes, also while the service is away.

    Raises:
        NotFound: There is no such run, or it is deleted, as one that is rolled back is.
        TimeoutError: The time is over and the run is not, as far as is known: it names the failure of the last look.
        ValueError: The timeout is no number of seconds.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError("timeout must be 0 seconds or more")
    connection = connection_of(connection)
    request = pb.WaitRunRequest(owner_id=_owner(connection, owner_id), run_id=run_id)
    deadline = None if timeout is None else time.monotonic() + timeout
    absence = _Absence(f"wait_run of {run_id}")
    hint = ""
    while True:
        left = _WAIT if deadline is None else max(0.0, deadline - time.monotonic())
        request.wait_seconds = min(left, _WAIT)
        # Without a deadline of its own the call gets the wait and what any call gets.
        limit = None if deadline is None else request.wait_seconds + _MARGIN
        pause, failure = 0.0, None
        try:
            run = (await connection.stub(_STUB).WaitRun(request, timeout=limit)).run
            absence.end()
            if run.status in FINAL:
                return QueuedRun.of(run)
            is_queued = run.HasField("run_after") or run.status != pb.RUN_STATUS_PENDING
            hint = "" if is_queued else ": it was recorded and not queued, so that no worker claims it"
        except StorageError as error:
            if not _passes(error):
                raise
            absence.tell(error)
            pause, failure, hint = absence.pauses.next(), error, f", as far as is known; the last look failed: {error}"
        if deadline is not None and time.monotonic() + pause >= deadline:
            raise TimeoutError(f"run {run_id} has not ended after {timeout:g} seconds{hint}") from failure
        await asyncio.sleep(pause)


class _Absence:
    """Whether the service is away from who needs it. The log is told once when it is, whatever is tried meanwhile, and of its return.

    ``pauses`` are those between the tries.
    """

    def __init__(self, who: str) -> None:
        self.pauses = Pauses()
        self._who = who
        self._is_told = False

    def tell(self, error: StorageError) -> None:
        level = logging.INFO if self._is_told else logging.WARNING
        log.log(level, "%s waits for the service: %s", self._who, error)
        self._is_told = True

    def end(self) -> None:
        if self._is_told:
            log.info("%s goes on: the service is there again", self._who)
        self._is_told = False
        self.pauses.reset()


async def _follow(
    connection: Connection, request: pb.StreamRunEventsRequest, field: str, absence: _Absence
) -> AsyncGenerator[Event, None]:
    """Give the events of a stream, and of those that follow it, after the place that the request names."""
    while True:
        began = time.monotonic()
        failure: StorageError | None = None
        call = connection.stub(_STUB).StreamRunEvents(request)
        try:
            while (message := await call.read()) is not _EOF:
                absence.end()
                for entry in message.events:
                    place = getattr(entry, field)
                    if place <= request.after:
                        continue
                    request.after = place
                    yield Event.of(entry)
                # An end marker does not tell: a run may have been started again after it, and its last word counts.
                if message.HasField("run") and message.run.status in FINAL:
                    return
        except StorageError as error:
            if not _passes(error):
                raise
            failure = error
        finally:
            # A stream that nobody reads to its end is never collected by grpc.
            call.cancel()
        lasted = time.monotonic() - began
        if lasted > _LIVED:
            absence.pauses.reset()
        if lasted > _REACHED:
            absence.end()
        # The server ends a stream so when its longest time is over.
        if failure is not None and not (lasted > _LIVED and isinstance(failure, DeadlineExceeded)):
            absence.tell(failure)
        await asyncio.sleep(absence.pauses.next())


async def _read(connection: Connection, request: pb.GetRunRequest, absence: _Absence) -> pb.Run:
    """Read a run, as soon as the service is there."""
    while True:
        try:
            reply = await connection.stub(_STUB).GetRun(request)
        except StorageError as error:
            if not _passes(error):
                raise
            absence.tell(error)
            await asyncio.sleep(absence.pauses.next())
        else:
            absence.end()
            run: pb.Run = reply.run
            return run


def _passes(error: StorageError) -> bool:
    # A fault that the server has logged would most likely meet whoever reads the same rows again.
    return may_pass(error) and not (isinstance(error, ServerFault) and error.reason)


def _owner(connection: Connection, owner_id: str | None) -> str | None:
    return connection.owner_id if owner_id is None else checked_owner(owner_id)
