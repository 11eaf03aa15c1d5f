"""RunService; the contract is in runs.proto."""

from __future__ import annotations

from agentstorage.v1 import runs_pb2 as pb
from storage_service.errors import InvalidRequest, NotFound, RunEnded, StatusMismatch
from storage_service.paging import Paging, order_by
from storage_service.services import Call, changes, filters, id_for, keep_or_raise, known_statuses, stamp
from storage_service.services.run_logs import RunLogs
from storage_service.services.run_queue import FINAL, IN_FLIGHT, RunQueue, left, queued
from storage_service.store import Access, Order, Page
from storage_service.store.change import Put, Stamp
from storage_service.store.tables import RUN_STATUS, RUNS
from storage_service.store.where import Equals, NoneOf, OneOf, Where

_SORTS = ("created_at", "updated_at", "status", "run_id")
_NEWEST = Order(("created_at", "run_id"), True)


class RunService(RunQueue, RunLogs):
    """Runs, the queue of them, and their logs."""

    async def create_run(self, request: pb.CreateRunRequest, call: Call) -> pb.CreateRunResponse:
        strategy = request.multitask_strategy or pb.MULTITASK_STRATEGY_REJECT
        makes_thread = request.if_not_exists == pb.IF_NOT_EXISTS_CREATE
        if request.record_only:
            given = {"run_after": request.HasField("run_after"), "if_not_exists": bool(request.if_not_exists)}
            if wrong := [field for field, is_given in given.items() if is_given]:
                raise InvalidRequest(violations=dict.fromkeys(wrong, "can't go together with record_only"))
        elif request.status not in (pb.RUN_STATUS_UNSPECIFIED, pb.RUN_STATUS_PENDING):
            raise InvalidRequest(violations={"status": "must be PENDING without record_only"})
        run = pb.Run(
            run_id=id_for(request, call, request.run_id),
            thread_id=request.thread_id,
            assistant_id=request.assistant_id,
            status=request.status or pb.RUN_STATUS_PENDING,
            metadata=request.metadata,
            kwargs=request.kwargs,
            multitask_strategy=strategy,
        )
        if request.HasField("run_after"):
            run.run_after.FromMicroseconds(request.run_after.ToMicroseconds())
        inserted = await call.rows.create_run(
            run, stamp(request, call), admit=not request.record_only, makes_thread=makes_thread
        )
        if inserted.created and not request.record_only:
            queued(call, run.thread_id)
        return pb.CreateRunResponse(run=keep_or_raise(RUNS, request, call, inserted, run.run_id))

    async def get_run(self, request: pb.GetRunRequest, call: Call) -> pb.GetRunResponse:
        run = await call.rows.get(RUNS, *_named(request))
        if run is None:
            raise NotFound("run", request.run_id)
        return pb.GetRunResponse(run=run)

    async def search_runs(self, request: pb.SearchRunsRequest, call: Call) -> pb.SearchRunsResponse:
        paging = Paging(RUNS, order_by(request, _SORTS, "run_id"), request, call.scope)
        rows = await call.rows.find(RUNS, _where(request, call), paging.order, paging.page, _access(request))
        rows, token = paging.cut(rows)
        return pb.SearchRunsResponse(runs=rows, next_page_token=token)

    async def count_runs(self, request: pb.CountRunsRequest, call: Call) -> pb.CountRunsResponse:
        return pb.CountRunsResponse(count=await call.rows.count(RUNS, _where(request, call), _access(request)))

    async def update_run(self, request: pb.UpdateRunRequest, call: Call) -> pb.UpdateRunResponse:
        changed = changes(call, RUNS, request, "status", "kwargs", "error")
        expected = known_statuses("expected_status", request.expected_status)
        where: list[Where] = [Equals("run_id", request.run_id)]
        if expected:
            where.append(OneOf("status", expected))
        if request.HasField("status"):
            changed.append(Stamp("finished_at", once=True) if request.status in FINAL else Put("finished_at", None))
            if not request.force:
                # A word that this version does not know is not final: another version's run may be under way.
                where.append(NoneOf("status", tuple(status for status in FINAL if status != request.status)))
        run = await call.rows.update(RUNS, where, changed)
        if run is None:
            current = await call.rows.get(RUNS, Equals("run_id", request.run_id), access=Access.OWN)
            if current is None:
                raise NotFound("run", request.run_id)
            word = RUN_STATUS.get(current.status, "")
            if expected and current.status not in expected:
                raise StatusMismatch(word)
            raise RunEnded(word)
        if request.HasField("status"):
            left(call, run.thread_id, run.run_id)
        return pb.UpdateRunResponse(run=run)

    async def delete_run(self, request: pb.DeleteRunRequest, call: Call) -> pb.DeleteRunResponse:
        deleted = await call.rows.delete_run(_named(request))
        if not (deleted or request.allow_missing):
            raise NotFound("run", request.run_id)
        left(call, request.thread_id, request.run_id)
        return pb.DeleteRunResponse()

    async def get_active_run(self, request: pb.GetActiveRunRequest, call: Call) -> pb.GetActiveRunResponse:
        where: list[Where] = [Equals("thread_id", request.thread_id), OneOf("status", IN_FLIGHT)]
        rows = await call.rows.find(RUNS, where, _NEWEST, Page(1), Access.BY_ID)
        return pb.GetActiveRunResponse(run=rows[0] if rows else None)


def _named(request: pb.GetRunRequest | pb.DeleteRunRequest) -> list[Where]:
    return [
        Equals("run_id", request.run_id),
        *([Equals("thread_id", request.thread_id)] if request.thread_id else []),
    ]


def _access(request: pb.SearchRunsRequest | pb.CountRunsRequest) -> Access:
    """A listing by thread sees the runs of a thread that may be read by its id."""
    return Access.BY_ID if request.thread_id else Access.SEARCH


def _where(request: pb.SearchRunsRequest | pb.CountRunsRequest, call: Call) -> list[Where]:
    known_statuses("statuses", request.statuses)
    return filters(
        call,
        request,
        run_ids="run_id",
        thread_id="thread_id",
        assistant_id="assistant_id",
        statuses="status",
        metadata="metadata",
    )
