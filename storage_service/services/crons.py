"""CronService; the contract is in crons.proto."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import crons_pb2 as pb
from storage_service import schedule
from storage_service.errors import Conflict, InvalidRequest, NotFound
from storage_service.paging import Paging, order_by
from storage_service.services import Call, changes, filters, id_for, keep_or_raise, stamp
from storage_service.services.firing import FIRED_CRONS, fire_due
from storage_service.store import Access
from storage_service.store.change import Change, Put
from storage_service.store.tables import CRONS
from storage_service.store.where import Equals, Where

# How often an update that others got between is tried.
_TRIES = 20
_SORTS = ("created_at", "updated_at", "next_run_date", "end_time", "assistant_id", "thread_id", "cron_id")


class CronService:
    """Crons."""

    async def create_cron(self, request: pb.CreateCronRequest, call: Call) -> pb.CreateCronResponse:
        enabled = request.enabled if request.HasField("enabled") else True
        zone = request.timezone or "UTC"
        now = await call.store.now()
        end = _end_time(request, now)
        cron = pb.Cron(
            cron_id=id_for(request, call, request.cron_id),
            assistant_id=request.assistant_id,
            thread_id=request.thread_id,
            schedule=request.schedule,
            timezone=zone,
            enabled=enabled,
            end_time=end,
            user_id=request.user_id,
            payload=request.payload,
            metadata=request.metadata,
            next_run_date=_next_run(request.schedule, zone, enabled, end, now),
            on_run_completed=request.on_run_completed or pb.ON_RUN_COMPLETED_DELETE,
            misfire_policy=request.misfire_policy or pb.MISFIRE_POLICY_COALESCE,
        )
        inserted = await call.rows.create_cron(cron, stamp(request, call), must_exist=not request.record_only)
        return pb.CreateCronResponse(cron=keep_or_raise(CRONS, request, call, inserted, cron.cron_id))

    async def get_cron(self, request: pb.GetCronRequest, call: Call) -> pb.GetCronResponse:
        return pb.GetCronResponse(cron=await self._own(request.cron_id, call))

    async def update_cron(self, request: pb.UpdateCronRequest, call: Call) -> pb.UpdateCronResponse:
        if request.HasField("end_time") and request.clear_end_time:
            raise InvalidRequest(violations={"clear_end_time": "can't go together with end_time"})
        timed = request.clear_end_time or any(
            request.HasField(name) for name in ("schedule", "timezone", "enabled", "end_time")
        )
        changed = changes(
            call, CRONS, request, "schedule", "enabled", "user_id", "payload", "on_run_completed", "misfire_policy"
        )
        if not timed:
            cron = await call.rows.update(CRONS, [Equals("cron_id", request.cron_id)], changed)
            if cron is None:
                raise NotFound("cron", request.cron_id)
            return pb.UpdateCronResponse(cron=cron)
        now = await call.store.now()
        given_end = _end_time(request, now)
        # The next tick follows from fields old and new together: it is computed from the row, and written if they stayed.
        for _ in range(_TRIES):
            current = await self._own(request.cron_id, call)
            zone = (request.timezone or "UTC") if request.HasField("timezone") else current.timezone
            text = request.schedule if request.HasField("schedule") else current.schedule
            enabled = request.enabled if request.HasField("enabled") else current.enabled
            end = given_end
            if end is None and not request.clear_end_time and current.HasField("end_time"):
                end = current.end_time
            anew = request.HasField("schedule") or request.HasField("timezone")
            if anew or (enabled and not current.enabled):
                next_run = _next_run(text, zone, enabled, end, now)
            else:
                # A kept schedule that can't be read does not stand in the way of switching the cron off.
                next_run = _kept(current, end, now) if enabled else None
            timing: list[Change] = [Put("next_run_date", next_run)]
            if request.HasField("timezone"):
                timing.append(Put("timezone", zone))
            if given_end is not None or request.clear_end_time:
                timing.append(Put("end_time", given_end))
            # Every update moves updated_at, so that one between the reading and the writing is noticed.
            unchanged = [Equals("cron_id", request.cron_id), Equals("updated_at", current.updated_at)]
            cron = await call.rows.update(CRONS, unchanged, [*changed, *timing])
            if cron is not None:
                return pb.UpdateCronResponse(cron=cron)
        raise Conflict()

    async def delete_cron(self, request: pb.DeleteCronRequest, call: Call) -> pb.DeleteCronResponse:
        deleted = await call.rows.delete(CRONS, [Equals("cron_id", request.cron_id)])
        if not (deleted or request.allow_missing):
            raise NotFound("cron", request.cron_id)
        return pb.DeleteCronResponse()

    async def search_crons(self, request: pb.SearchCronsRequest, call: Call) -> pb.SearchCronsResponse:
        paging = Paging(CRONS, order_by(request, _SORTS, "cron_id"), request, call.scope)
        rows = await call.rows.find(CRONS, _where(request, call), paging.order, paging.page)
        rows, token = paging.cut(rows)
        return pb.SearchCronsResponse(crons=rows, next_page_token=token)

    async def count_crons(self, request: pb.CountCronsRequest, call: Call) -> pb.CountCronsResponse:
        return pb.CountCronsResponse(count=await call.rows.count(CRONS, _where(request, call)))

    async def fire_due_crons(self, request: pb.FireDueCronsRequest, call: Call) -> pb.FireDueCronsResponse:
        fired = await fire_due(call.store, call.scope, request.limit or FIRED_CRONS)
        return pb.FireDueCronsResponse(crons=fired)

    async def _own(self, cron_id: str, call: Call) -> pb.Cron:
        cron = await call.rows.get(CRONS, Equals("cron_id", cron_id), access=Access.OWN)
        if cron is None:
            raise NotFound("cron", cron_id)
        return cron


def _where(request: pb.SearchCronsRequest | pb.CountCronsRequest, call: Call) -> list[Where]:
    where = filters(
        call, request, cron_ids="cron_id", assistant_id="assistant_id", thread_id="thread_id", metadata="metadata"
    )
    return [*where, Equals("enabled", request.enabled)] if request.HasField("enabled") else where


def _end_time(request: pb.CreateCronRequest | pb.UpdateCronRequest, now: datetime) -> Timestamp | None:
    """The end that the request gives, to the microsecond. Raises InvalidRequest when it is past."""
    if not request.HasField("end_time"):
        return None
    end = Timestamp()
    end.FromMicroseconds(request.end_time.ToMicroseconds())
    if end.ToMicroseconds() <= now.timestamp() * 1_000_000:
        raise InvalidRequest(violations={"end_time": "must lie ahead"})
    return end


def _next_run(text: str, zone: str, enabled: bool, end: Timestamp | None, now: datetime) -> Timestamp | None:
    """The next tick; none for a cron that is off, or whose end comes before."""
    try:
        tick = schedule.next_tick(text, zone, now)
    except schedule.InvalidSchedule as error:
        raise InvalidRequest(violations={error.field: str(error)}) from error
    if not enabled:
        return None
    found = Timestamp()
    found.FromDatetime(tick)
    return None if end is not None and found.ToMicroseconds() > end.ToMicroseconds() else found


def _kept(current: pb.Cron, end: Timestamp | None, now: datetime) -> Timestamp | None:
    """The tick of a cron of which only the end changes."""
    if current.HasField("next_run_date") and (
        end is None or current.next_run_date.ToMicroseconds() <= end.ToMicroseconds()
    ):
        return current.next_run_date
    return _next_run(current.schedule, current.timezone, current.enabled, end, now)
