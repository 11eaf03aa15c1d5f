"""RunService; the contract is in runs.proto."""

from __future__ import annotations

from typing import Final

from agentstorage.v1 import runs_pb2 as pb
from storage_service.errors import InvalidRequest, NotFound, RunEnded, StatusMismatch
from storage_service.paging import Paging, order_by
from storage_service.services import Call, changes, filters, id_for, keep_or_raise, known_statuses, stamp
from storage_service.store import Access, Order, Page
from storage_service.store.change import Put, Stamp
from storage_service.store.tables import RUN_STATUS, RUNS
from storage_service.store.where import Equals, NoneOf, OneOf, Where

IN_FLIGHT: Final = (pb.RUN_STATUS_PENDING, pb.RUN_STATUS_RUNNING)
FINAL: Final = tuple(number for number in RUN_STATUS if number not in IN_FLIGHT)
_SORTS = ("created_at", "updated_at", "status", "run_id")
_NEWEST = Order(("created_at", "run_id"), True)


class RunService:
    """Runs."""

    async def create_run(self, request: pb.CreateRunRequest, call: Call) -> pb.CreateRunResponse:
        strategy = request.multitask_strategy or pb.MULTITASK_STRATEGY_REJECT
        if not request.record_only:
            if request.status not in (pb.RUN_STATUS_UNSPECIFIED, pb.RUN_STATUS_PENDING):
                raise InvalidRequest(violations={"status": "must be PENDING without record_only"})
            if strategy not in (pb.MULTITASK_STRATEGY_REJECT, pb.MULTITASK_STRATEGY_ENQUEUE):
                raise InvalidRequest(
                    violations={"multitask_strategy": "is only taken with record_only by this version"}
                )
        run = pb.Run(
            run_id=id_for(request, call, request.run_id),
            thread_id=request.thread_id,
            assistant_id=request.assistant_id,
            status=request.status or pb.RUN_STATUS_PENDING,
            metadata=request.metadata,
            kwargs=request.kwargs,
            multitask_strategy=strategy,
        )
        inserted = await call.rows.create_run(run, stamp(request, call), admit=not request.record_only)
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
        return pb.UpdateRunResponse(run=run)

    async def delete_run(self, request: pb.DeleteRunRequest, call: Call) -> pb.DeleteRunResponse:
        deleted = await call.rows.delete_run(_named(request))
        if not (deleted or request.allow_missing):
            raise NotFound("run", request.run_id)
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
