"""The queue of RunService; the contract is in runs.proto."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final

from agentstorage.v1 import runs_pb2 as pb
from agentstorage.v1.threads_pb2 import THREAD_STATUS_ERROR, THREAD_STATUS_IDLE, THREAD_STATUS_INTERRUPTED, ThreadStatus
from storage_service.caller import Owner, Scope
from storage_service.errors import Failure, InvalidRequest, NotFound
from storage_service.services import Call
from storage_service.store import Access, Lapsed, Store
from storage_service.store.change import Change, Put
from storage_service.store.tables import RUN_STATUS, THREADS
from storage_service.store.where import Equals, OneOf, Where
from storage_service.wakeups import log_of, queue_of

IN_FLIGHT: Final = (pb.RUN_STATUS_PENDING, pb.RUN_STATUS_RUNNING)
FINAL: Final = tuple(number for number in RUN_STATUS if number not in IN_FLIGHT)
#: How long a lease lasts that a worker sets no time for, in seconds.
LEASE_SECONDS: Final = 30.0
# The most leases that one call takes back that says no number.
_SWEPT_RUNS: Final = 100
# Who waits looks for itself so often, in seconds: a hint may be lost, and a run becomes due, a lease lapses, or a runtime ends a run
# by itself, without a word.
_POLL_SECONDS: Final = 1.0
#: What an answer needs of the time that its call has left.
MARGIN_SECONDS: Final = 0.25
# What gives back runs whose callers have gone: the loop alone would not keep it.
_GIVING_BACK: Final[set[asyncio.Task[None]]] = set()
_THREAD_STATUS: Final[dict[int, ThreadStatus]] = {
    pb.RUN_STATUS_SUCCESS: THREAD_STATUS_IDLE,
    pb.RUN_STATUS_ERROR: THREAD_STATUS_ERROR,
    pb.RUN_STATUS_TIMEOUT: THREAD_STATUS_ERROR,
    pb.RUN_STATUS_INTERRUPTED: THREAD_STATUS_INTERRUPTED,
}


def look_again() -> float:
    """How long who waits does so, at the longest, before looking again, in seconds."""
    return _POLL_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311 - spreads the looks


def queued(call: Call, thread_id: str) -> None:
    """Tell those who claim, and those who follow the thread, that there may be a run."""
    call.store.wakeups.tell(*_queues(call.owner_id), log_of("thread", thread_id))


def left(call: Call, thread_id: str, *run_ids: str) -> None:
    """Tell those who follow that something happened to runs, and those who claim that the thread may be free."""
    call.store.wakeups.tell(*(log_of("run", run_id) for run_id in run_ids))
    queued(call, thread_id)


def _queues(owner_id: str | None) -> list[str]:
    return [queue_of(None), *([] if owner_id is None else [queue_of(owner_id)])]


async def take_back(store: Store, scope: Scope, limit: int, most_attempts: int) -> Lapsed:
    """Take back leases that have lapsed, and tell of it."""
    lapsed = await store.seen_by(scope).sweep_runs(limit, most_attempts)
    for run_id, thread_id in (*lapsed.requeued, *lapsed.failed, *lapsed.stopped):
        # Whose they are is not known here: those who claim for one owner look for themselves.
        store.wakeups.tell(
            log_of("run", run_id), log_of("thread", thread_id), *_queues(scope.id if isinstance(scope, Owner) else None)
        )
    return lapsed


async def _claim(request: pb.ClaimRunsRequest, call: Call) -> list[pb.ClaimedRun]:
    """Claim runs; when the call is cancelled meanwhile, give back what it gets, instead of leaving it until the leases lapse."""
    claiming = asyncio.ensure_future(
        call.rows.claim_runs(request.worker_id, request.limit or 1, request.lease_seconds or LEASE_SECONDS)
    )
    try:
        return await asyncio.shield(claiming)
    except asyncio.CancelledError:
        giving_back = asyncio.create_task(_give_back(claiming, call))
        _GIVING_BACK.add(giving_back)
        giving_back.add_done_callback(_GIVING_BACK.discard)
        raise


async def _give_back(claiming: asyncio.Future[list[pb.ClaimedRun]], call: Call) -> None:
    with contextlib.suppress(Failure):
        for one in await claiming:
            # Where the database is away, the lease lapses.
            with contextlib.suppress(Failure):
                await call.rows.release_run(one.run.run_id, one.lease_token, 0)
            call.store.wakeups.tell(*_queues(one.owner_id or None))


class RunQueue:
    """Handing out runs to workers."""

    async def cancel_runs(self, request: pb.CancelRunsRequest, call: Call) -> pb.CancelRunsResponse:
        if not (request.run_ids or request.thread_id):
            raise InvalidRequest(violations={"run_ids": "is required without thread_id"})
        where: list[Where] = []
        if request.run_ids:
            where.append(OneOf("run_id", tuple(request.run_ids)))
        if request.thread_id:
            where.append(Equals("thread_id", request.thread_id))
        stopped, asked = await call.rows.cancel_runs(where, request.action or pb.CANCEL_ACTION_INTERRUPT)
        if request.thread_id and not (stopped or asked):
            named = Equals("thread_id", request.thread_id)
            if await call.rows.get(THREADS, named, access=Access.OWN, fields=frozenset({"status"})) is None:
                raise NotFound("thread", request.thread_id)
        left(call, request.thread_id, *stopped, *asked)
        return pb.CancelRunsResponse(stopped_run_ids=stopped, asked_run_ids=asked)

    async def claim_runs(self, request: pb.ClaimRunsRequest, call: Call) -> pb.ClaimRunsResponse:
        until = time.monotonic() + min(request.wait_seconds, call.seconds() - MARGIN_SECONDS)
        with call.store.wakeups.waiter(queue_of(call.owner_id)) as waiter:
            while True:
                claimed = await _claim(request, call)
                rest = until - time.monotonic()
                if claimed or rest <= 0:
                    break
                # Those who wait look one after the other.
                await waiter.wait(min(rest, look_again()))
        if claimed:
            # Hints that came together are one: whoever waits beside this one looks too, if there is more to have.
            call.store.wakeups.hear([queue_of(call.owner_id)])
        for one in claimed:
            call.store.wakeups.tell(log_of("run", one.run.run_id))
        return pb.ClaimRunsResponse(runs=claimed)

    async def heartbeat_run(self, request: pb.HeartbeatRunRequest, call: Call) -> pb.HeartbeatRunResponse:
        return await call.rows.heartbeat_run(
            request.run_id, request.lease_token, request.lease_seconds or LEASE_SECONDS
        )

    async def finish_run(self, request: pb.FinishRunRequest, call: Call) -> pb.FinishRunResponse:
        if request.status not in FINAL:
            raise InvalidRequest(violations={"status": "must be SUCCESS, ERROR, TIMEOUT or INTERRUPTED"})
        changes: list[Change] = [Put("interrupts", request.interrupts or "{}"), Put("error", request.error)]
        if request.values:
            changes.append(Put("values", request.values))
        finished = await call.rows.finish_run(
            request.run_id, request.lease_token, request.status, request.error, _THREAD_STATUS[request.status], changes
        )
        left(call, finished.thread_id, request.run_id)
        return pb.FinishRunResponse(run=finished.run)

    async def release_run(self, request: pb.ReleaseRunRequest, call: Call) -> pb.ReleaseRunResponse:
        finished = await call.rows.release_run(request.run_id, request.lease_token, request.delay_seconds)
        left(call, finished.thread_id, request.run_id)
        return pb.ReleaseRunResponse()

    async def get_run_stats(self, request: pb.GetRunStatsRequest, call: Call) -> pb.GetRunStatsResponse:
        return await call.rows.run_stats()

    async def sweep_runs(self, request: pb.SweepRunsRequest, call: Call) -> pb.SweepRunsResponse:
        lapsed = await take_back(call.store, call.scope, request.limit or _SWEPT_RUNS, call.limits.run_attempts)
        return pb.SweepRunsResponse(
            requeued=len(lapsed.requeued), failed=len(lapsed.failed), stopped=len(lapsed.stopped)
        )
