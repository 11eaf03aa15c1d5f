"""Crons whose tick has come, as SQL."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import crons_pb2 as pb
from agentstorage.v1.runs_pb2 import Run
from storage_service.errors import Conflict, NotFound, ThreadBusy
from storage_service.store import Access, DueCron
from storage_service.store.postgres.adapt import Texts
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.events import Events
from storage_service.store.postgres.rows import WITHOUT_TIMEOUT, Values, message
from storage_service.store.postgres.threads import RUN_IN_FLIGHT
from storage_service.store.tables import ASSISTANTS, CRONS, THREADS
from storage_service.store.where import Equals

log = logging.getLogger(__name__)


class Firing(Events):
    """The named operations on ticks."""

    async def due_crons(self, limit: int, but: Sequence[str] = ()) -> list[DueCron]:
        values = Values()
        own = self.visible(CRONS, Access.OWN, values)
        statement = (
            f"SELECT owner_id, now(), {CRONS.select} FROM {CRONS.name} WHERE {own} AND enabled AND next_run_date <= now()"
            f" AND NOT id = ANY ({values(Texts(but))}::text[]) ORDER BY next_run_date LIMIT {values(limit)}"
        )
        rows = await self.run(statement, values, again=True, slow=True)
        return [DueCron(message(CRONS, tuple(row)), owner, now) for owner, now, *row in rows]

    async def sweep_threads_of_crons(self, limit: int, seconds: float) -> int:
        values = Values()
        own = self.visible(THREADS, Access.OWN, values)
        statement = (
            f"SELECT id FROM {THREADS.name} WHERE {own} AND ends_with_runs AND NOT {RUN_IN_FLIGHT}"
            f" AND updated_at < now() - make_interval(secs => {values(seconds)}::float8) ORDER BY updated_at LIMIT {values(limit)}"
        )
        return sum([await self._delete_ended(id) for (id,) in await self.run(statement, values, slow=True)])

    async def _delete_ended(self, thread_id: str) -> int:
        """Delete a thread, however much of it there is, unless somebody holds on to it or a run is in flight."""

        async def work(transaction: Transaction) -> int:
            # Behind the lock no run is admitted any more.
            lock = f"SELECT id FROM {THREADS.name} WHERE id = $1 FOR UPDATE SKIP LOCKED"
            if not (await transaction.run_all([WITHOUT_TIMEOUT, (lock, Values([thread_id]))]))[1]:
                return 0
            free = f"SELECT id FROM {THREADS.name} WHERE id = $1 AND NOT {RUN_IN_FLIGHT}"
            if not await transaction.run(free, Values([thread_id])):
                return 0
            await transaction.run(*self.deletion([thread_id]))
            return 1

        try:
            return await self.atomic(work)
        except Conflict as failure:
            log.warning("thread %s of a cron could not be deleted yet: %s", thread_id, failure.message)
            return 0

    async def fire_cron(self, cron: pb.Cron, next_run: Timestamp | None, run: Run | None) -> pb.FiredCron | None:
        fired = pb.FiredCron(cron_id=cron.cron_id, tick=cron.next_run_date)
        # A thread that is made for the run goes with it; the cron's thread stays.
        ends_with_runs = not cron.thread_id and cron.on_run_completed == pb.ON_RUN_COMPLETED_DELETE

        async def work(transaction: Transaction) -> pb.FiredCron | None:
            if not await self._take(transaction, cron, next_run):
                return None
            if run is None:
                fired.outcome = pb.TICK_OUTCOME_SKIPPED
                return fired
            if not run.assistant_id:
                raise NotFound("assistant", "")
            try:
                row = await self.admit(transaction, run, "", not cron.thread_id)
            except ThreadBusy:
                fired.outcome = pb.TICK_OUTCOME_REJECTED
                return fired
            if row is None:  # the tick made a run before
                if not cron.thread_id:
                    await transaction.run(*self.deletion([run.thread_id]))
                fired.outcome = pb.TICK_OUTCOME_SKIPPED
                return fired
            if ends_with_runs:
                await transaction.run(_ENDING_WITH_RUNS, Values([run.thread_id]))
            fired.outcome = pb.TICK_OUTCOME_FIRED
            fired.run_id, fired.thread_id = run.run_id, run.thread_id
            return fired

        try:
            return await self.atomic(work)
        except NotFound:
            return await self._switch_off(cron, fired)

    async def _switch_off(self, cron: pb.Cron, fired: pb.FiredCron) -> pb.FiredCron | None:
        """Switch a cron off that names what is not there, unless it is not as it was."""
        values = Values()
        statement = (
            f"UPDATE {CRONS.name} SET enabled = false, next_run_date = NULL, updated_at = now()"
            f" WHERE {self._as_seen(cron, values)} RETURNING id"
        )
        fired.outcome = pb.TICK_OUTCOME_DISABLED
        return fired if await self.run(statement, values) else None

    def _as_seen(self, cron: pb.Cron, values: Values) -> str:
        """The condition that an own cron is as it was seen, with its tick."""
        conditions = self.conditions(CRONS, [Equals("cron_id", cron.cron_id)], Access.OWN, values)
        tick, seen = (CRONS.columns[name].dump(getattr(cron, name)) for name in ("next_run_date", "updated_at"))
        return (
            f"{conditions} AND enabled AND next_run_date = {values(tick)}::timestamptz"
            f" AND updated_at = {values(seen)}::timestamptz"
        )

    async def _take(self, transaction: Transaction, cron: pb.Cron, next_run: Timestamp | None) -> bool:
        """Set the next tick, unless the cron is not as it was, or another is at it."""
        values = Values()
        taken = f"SELECT id FROM {CRONS.name} WHERE {self._as_seen(cron, values)} FOR UPDATE SKIP LOCKED"
        following = values(CRONS.columns["next_run_date"].dump(next_run))
        statement = (
            f"UPDATE {CRONS.name} SET next_run_date = {following}::timestamptz, updated_at = now()"
            f" WHERE id IN ({taken}) RETURNING id"
        )
        # What it names is locked first, in the order in which deletions lock it, which then delete the cron.
        locks = [self.lock(ASSISTANTS, [Equals("assistant_id", cron.assistant_id)], Access.SEARCH, "KEY SHARE")]
        if cron.thread_id:
            locks.append(self.lock(THREADS, [Equals("thread_id", cron.thread_id)], Access.OWN))
        return bool((await transaction.run_all([*locks, (statement, values)]))[-1])


_ENDING_WITH_RUNS: Final = f"UPDATE {THREADS.name} SET ends_with_runs = true WHERE id = $1"
