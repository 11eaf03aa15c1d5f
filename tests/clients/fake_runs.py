"""A RunService with one queue in memory, whose answers can be lost, refused and held, and that keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from agentstorage.queue import ClaimedRun, StopReason
from agentstorage.v1 import runs_pb2 as pb
from agentstorage.v1 import runs_pb2_grpc
from storage_service.errors import LeaseLost, SequenceMismatch
from storage_service.rpc import abort
from tests.clients.fake_exchange import until

# Any, since the stubs want a servicer to have every method; those that are not here are unimplemented.
_Base: Any = runs_pb2_grpc.RunServiceServicer


class FakeRuns(_Base):  # type: ignore[misc]  # as said above
    """The service. ``calls`` holds every request by its method's name, ``events`` the log of each run.

    ``faults`` has what becomes of the next calls of a method: a status, with which the call ends before it does anything, or ``"lost"``:
    it is done and then ends with UNAVAILABLE; None for nothing. The methods in ``held`` wait until they are there no more. ``lost`` are
    the ids of runs whose leases are lost, ``cancels`` what heartbeats say of a run; ``streams`` counts the open streams.
    """

    def __init__(self) -> None:
        self.calls: defaultdict[str, list[Any]] = defaultdict(list)
        self.events: defaultdict[str, list[pb.NewRunEvent]] = defaultdict(list)
        self.faults: defaultdict[str, deque[grpc.StatusCode | str | None]] = defaultdict(deque)
        self.held: set[str] = set()
        self.lost: set[str] = set()
        self.cancels: dict[str, pb.CancelAction] = {}
        self.streams = 0
        self._queue: deque[pb.ClaimedRun] = deque()
        self._tokens = itertools.count(1)

    def add(self, run_id: str, owner_id: str = "", **fields: Any) -> None:
        """Queue a run."""
        run = pb.Run(run_id=run_id, thread_id="t", assistant_id="a", attempt=1, **fields)
        self._queue.append(pb.ClaimedRun(run=run, owner_id=owner_id, lease_token=next(self._tokens)))

    async def finished(self, times: int = 1) -> list[pb.FinishRunRequest]:
        """The ends that were told, once there are so many."""
        await until(lambda: len(self.calls["FinishRun"]) >= times)
        return list(self.calls["FinishRun"])

    async def _answer(self, request: Any, context: Any, work: Callable[[], Any] = lambda: None) -> Any:
        name = type(request).__name__.removesuffix("Request")
        self.calls[name].append(request)
        await until(lambda: name not in self.held)
        fault = self.faults[name].popleft() if self.faults[name] else None
        if isinstance(fault, grpc.StatusCode):
            await context.abort(fault, "as told")
        if getattr(request, "run_id", "") in self.lost:
            await abort(context, LeaseLost())
        try:
            answer = work()
        except SequenceMismatch as failure:
            await abort(context, failure)
        if fault == "lost":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return answer

    async def ClaimRuns(self, request: pb.ClaimRunsRequest, context: Any) -> Any:  # noqa: N802 - gRPC's name for it
        """Give what is queued, and wait a little for it."""
        end = time.monotonic() + request.wait_seconds
        while not self._queue and not self.faults["ClaimRuns"] and time.monotonic() < end:  # noqa: ASYNC110 - both are of any kind
            await asyncio.sleep(0.01)

        def work() -> pb.ClaimRunsResponse:
            most = min(request.limit, len(self._queue))
            return pb.ClaimRunsResponse(runs=[self._queue.popleft() for _ in range(most)])

        return await self._answer(request, context, work)

    async def HeartbeatRun(self, request: pb.HeartbeatRunRequest, context: Any) -> Any:  # noqa: N802 - as above
        """Renew the lease."""
        cancel = self.cancels.get(request.run_id, pb.CANCEL_ACTION_UNSPECIFIED)
        return await self._answer(request, context, lambda: pb.HeartbeatRunResponse(cancel=cancel))

    async def FinishRun(self, request: pb.FinishRunRequest, context: Any) -> Any:  # noqa: N802 - as above
        """End the run."""
        return await self._answer(request, context, pb.FinishRunResponse)

    async def ReleaseRun(self, request: pb.ReleaseRunRequest, context: Any) -> Any:  # noqa: N802 - as above
        """Take the run back."""
        return await self._answer(request, context, pb.ReleaseRunResponse)

    async def AppendRunEvents(self, request: pb.AppendRunEventsRequest, context: Any) -> Any:  # noqa: N802 - as above
        """Append what is not there yet."""

        def work() -> pb.AppendRunEventsResponse:
            log, first = self.events[request.run_id], request.first_sequence - 1
            known = log[first:]
            if first > len(log) or known != list(request.events)[: len(known)]:
                raise SequenceMismatch(len(log))
            log.extend(request.events[len(known) :])
            return pb.AppendRunEventsResponse(last_sequence=len(log))

        return await self._answer(request, context, work)

    async def StreamRunEvents(  # noqa: N802 - as above
        self, request: pb.StreamRunEventsRequest, context: Any
    ) -> AsyncIterator[pb.StreamRunEventsResponse]:
        """Say nothing until the call is cancelled."""
        self.streams += 1
        try:
            await self._answer(request, context)
            await asyncio.Event().wait()
            yield pb.StreamRunEventsResponse()
        finally:
            self.streams -= 1


@contextlib.asynccontextmanager
async def serving_runs(runs: FakeRuns) -> AsyncIterator[str]:
    """Serve it; gives the target."""
    server = grpc.aio.server()
    runs_pb2_grpc.add_RunServiceServicer_to_server(runs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def nothing(_: ClaimedRun) -> None:
    """A handler that does nothing."""


def statuses(ends: list[pb.FinishRunRequest]) -> list[str]:
    """How runs ended, as words."""
    return [pb.RunStatus.Name(end.status).removeprefix("RUN_STATUS_").lower() for end in ends]


class Handling:
    """A handler that does nothing until it is cancelled, and keeps why it was."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.reasons: list[StopReason | None] = []
        self.ended: list[float] = []
        self.after: Any = None

    async def __call__(self, run: ClaimedRun) -> Any:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.reasons.append(run.stop_reason)
            self.ended.append(time.monotonic())
            if self.after is not None:
                return await self.after(run)
            raise
