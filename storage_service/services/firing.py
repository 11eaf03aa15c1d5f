"""Firing crons: of a tick that has come, one run.

The tick is taken, the run inserted and the next tick set in one transaction of the backend, for each cron by itself; all times are the
backend's. A tick that comes more than a minute late was missed: then COALESCE makes one run for all that were missed, and SKIP none.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import crons_pb2 as pb
from agentstorage.v1.runs_pb2 import RUN_STATUS_PENDING, MultitaskStrategy, Run
from storage_service import jsontext, schedule
from storage_service.caller import AllOwners, Owner, Scope
from storage_service.errors import Conflict, DeadlineExceeded
from storage_service.ids import new_id
from storage_service.store import DueCron, Store
from storage_service.store.tables import MULTITASK_STRATEGY
from storage_service.wakeups import log_of, queue_of

log = logging.getLogger(__name__)

#: The most crons of one call that says no number.
FIRED_CRONS: Final = 100
# How late a tick may be taken that was not missed.
_GRACE: Final = timedelta(minutes=1)
# How long a cron that could not be fired is left alone: not so long that its tick is missed by that.
_PUT_OFF_SECONDS: Final = 10.0
_STRATEGIES: Final = {word: MultitaskStrategy.Name(number) for number, word in MULTITASK_STRATEGY.items()}


async def fire_due(
    store: Store, scope: Scope, limit: int, put_off: dict[str, float] | None = None
) -> list[pb.FiredCron]:
    """Take the ticks that have come, of up to ``limit`` crons of a scope, and tell those who claim of the runs.

    The crons in ``put_off`` are left alone. Those that could not be fired are put there, with the time until when it is better to leave
    them alone, by the monotonic clock in seconds.
    """
    found = []
    put_off = {} if put_off is None else put_off
    for due in await store.seen_by(scope).due_crons(limit, list(put_off)):
        # A run is its cron's owner's, whoever fires.
        whose: Scope = AllOwners() if due.owner_id is None else Owner(due.owner_id)
        run = None if _is_skipped(due) else _run_of(due.cron)
        try:
            fired = await store.seen_by(whose).fire_cron(due.cron, _following(due, is_skipped=run is None), run)
        except (Conflict, DeadlineExceeded) as failure:
            # One whose thread somebody holds on to, or that takes too long, must not hold up the others.
            log.warning("cron %s could not be fired yet: %s", due.cron.cron_id, failure.message)
            put_off[due.cron.cron_id] = time.monotonic() + _PUT_OFF_SECONDS
            continue
        if fired is not None:
            found.append(fired)
            if fired.run_id:
                store.wakeups.tell(queue_of(due.owner_id), queue_of(None), log_of("thread", fired.thread_id))
    return found


def _is_skipped(due: DueCron) -> bool:
    late = due.now.ToDatetime() - due.cron.next_run_date.ToDatetime()
    return due.cron.misfire_policy == pb.MISFIRE_POLICY_SKIP and late > _GRACE


def _following(due: DueCron, *, is_skipped: bool) -> Timestamp | None:
    """The first tick that is still to come; none after the cron's end, or where its schedule can't be read.

    Where one was skipped, it may have come meanwhile without having been missed.
    """
    cron = due.cron
    seen = due.now.ToMicroseconds() - (round(_GRACE.total_seconds() * 1_000_000) if is_skipped else 0)
    after = max(seen, cron.next_run_date.ToMicroseconds())
    last = Timestamp()
    last.FromMicroseconds(after)
    try:
        tick = schedule.next_tick(cron.schedule, cron.timezone, last.ToDatetime(UTC))
    except schedule.InvalidSchedule:
        return None
    following = Timestamp()
    following.FromDatetime(tick)
    is_over = cron.HasField("end_time") and following.ToMicroseconds() > cron.end_time.ToMicroseconds()
    return None if is_over else following


def _run_of(cron: pb.Cron) -> Run:
    """The run that a tick of a cron makes."""
    asked = jsontext.text_at(cron.payload, "multitask_strategy") or ""
    return Run(
        run_id=new_id(),
        thread_id=cron.thread_id or new_id(),
        assistant_id=cron.assistant_id,
        status=RUN_STATUS_PENDING,
        metadata=cron.metadata,
        kwargs=cron.payload,
        multitask_strategy=_STRATEGIES.get(asked, _STRATEGIES["enqueue"]),
        cron_id=cron.cron_id,
        cron_tick=cron.next_run_date,
    )
