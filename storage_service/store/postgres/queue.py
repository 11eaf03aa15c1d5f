"""Runs as a queue, as SQL. Every time is the database's: what a lease is worth does not depend on any other clock."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentstorage.v1.runs_pb2 import (
    CANCEL_ACTION_ROLLBACK,
    RUN_STATUS_ERROR,
    RUN_STATUS_INTERRUPTED,
    ClaimedRun,
    GetRunStatsResponse,
    HeartbeatRunResponse,
    Run,
    RunsOfStatus,
    RunStatus,
)
from agentstorage.v1.threads_pb2 import THREAD_STATUS_ERROR, THREAD_STATUS_IDLE, ThreadStatus
from storage_service.errors import Conflict, Failure, LeaseLost, NotFound
from storage_service.store import LAPSED, Access, Finished, Lapsed
from storage_service.store.change import Change, Put
from storage_service.store.postgres.adapt import Texts
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.rows import Values, message
from storage_service.store.postgres.runs import Runs
from storage_service.store.postgres.stopping import LEASED, undo_runs
from storage_service.store.postgres.threads import RUN_IN_FLIGHT_BUT
from storage_service.store.tables import CRONS, RUN_STATUS, RUNS, THREADS, M, Table
from storage_service.store.where import Equals, Where

# Greater with each claim of a run, whatever a clock or a lost sequence does; the seconds keep it so behind a standby that lagged.
_NEXT_CLAIM: Final = (
    "greatest(runs.lease_token + 1, (extract(epoch FROM clock_timestamp())::int8 << 24)"
    " | (nextval('langgraph_server.run_claims') & 16777215))"
)
# Whose runs of the thread of a run r the run o is among. What names the same thread and is another owner's is none of them.
_BESIDE: Final = "o.thread_id = r.thread_id AND o.owner_id IS NOT DISTINCT FROM r.owner_id"
# OFFSET 0 keeps each question to the rows that are looked at: they are few, and in order.
_IS_FREE: Final = (
    f"NOT EXISTS (SELECT FROM {RUNS.name} AS o WHERE {_BESIDE} AND o.status = 'running' OFFSET 0)"
    f" AND r.id = (SELECT o.id FROM {RUNS.name} AS o WHERE {_BESIDE} AND o.status = 'pending' AND o.run_after IS NOT NULL"
    ' AND NOT o.waits_behind ORDER BY o.run_after, o.id COLLATE "C" LIMIT 1)'
)
_TRIES: Final = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """A run with what its message does not show."""

    status: str
    token: int
    settled_token: int
    is_leased: bool
    is_in_time: bool
    run: Run

    @property
    def is_lapsed(self) -> bool:
        """Whether it has a lease whose time is over."""
        return self.is_leased and not self.is_in_time

    def is_held_by(self, token: int) -> bool:
        """Whether the token is that of its lease."""
        return self.is_leased and self.is_in_time and self.token == token


def _seconds(arg: str) -> str:
    return f"make_interval(secs => {arg}::float8)"


class Queue(Runs):
    """The named operations of the queue."""

    async def update(self, table: Table[M], where: Sequence[Where], changes: Sequence[Change]) -> M | None:
        if table is RUNS and any(change.field == "status" for change in changes):
            # What may end a run does so behind the lock of its thread, as everything that does.
            rows = await self.behind_locks([self.lock_threads_of(where)], *self.updating(table, where, changes))
            return message(table, rows[0]) if rows else None
        return await super().update(table, where, changes)

    async def claim_runs(self, worker_id: str, limit: int, lease_seconds: float) -> list[ClaimedRun]:
        values = Values()
        own = self.visible(RUNS, Access.OWN, values)
        statement = (
            f"WITH due AS MATERIALIZED (SELECT r.id AS due_id FROM {RUNS.name} AS r WHERE {own} AND r.status = 'pending'"
            f" AND NOT r.waits_behind AND r.run_after <= now() AND {_IS_FREE}"
            f' ORDER BY r.run_after, r.id COLLATE "C" LIMIT {values(limit)} FOR UPDATE SKIP LOCKED)'
            f" UPDATE {RUNS.name} SET status = 'running', attempt = attempt + 1, worker_id = {values(worker_id)},"
            f" lease_token = {_NEXT_CLAIM}, lease_expires_at = clock_timestamp() + {_seconds(values(lease_seconds))},"
            " cancel = NULL, updated_at = now() FROM due WHERE runs.id = due_id"
            f" RETURNING coalesce(runs.owner_id, ''), runs.lease_token, {RUNS.select}"
        )
        for left in reversed(range(_TRIES)):
            try:
                rows = await self.run(statement, values)
                break
            except Conflict:
                # Another claim took another run of the thread: the index allows one.
                if not left:
                    return []
        claimed = [
            ClaimedRun(owner_id=owner, lease_token=token, run=message(RUNS, tuple(row))) for owner, token, *row in rows
        ]
        return sorted(claimed, key=lambda one: (one.run.run_after.ToMicroseconds(), one.run.run_id))

    async def heartbeat_run(self, run_id: str, token: int, lease_seconds: float) -> HeartbeatRunResponse:
        values = Values()
        expires = f"clock_timestamp() + {_seconds(values(lease_seconds))}"
        statement = (
            f"UPDATE {RUNS.name} SET lease_expires_at = {expires} WHERE {self.held(run_id, token, values)}"
            f" RETURNING lease_expires_at, {RUNS.columns['cancel'].select}"
        )
        rows = await self.run(statement, values)
        if not rows:
            raise await self.lost(run_id)
        return HeartbeatRunResponse(expires_at=rows[0][0], cancel=rows[0][1])

    def held(self, run_id: str, token: int, values: Values) -> str:
        """The condition that a token is the one of a run, whose lease has not lapsed."""
        own = self.conditions(RUNS, [Equals("run_id", run_id)], Access.OWN, values)
        return f"{own} AND {LEASED} AND lease_token = {values(token)}::int8 AND lease_expires_at > clock_timestamp()"

    async def lost(self, run_id: str) -> NotFound | LeaseLost:
        """Why a run is not held."""
        known = await self.get(RUNS, Equals("run_id", run_id), access=Access.OWN, fields=frozenset({"status"}))
        return NotFound("run", run_id) if known is None else LeaseLost()

    async def finish_run(
        self,
        run_id: str,
        token: int,
        status: RunStatus,
        error: str,
        thread_status: ThreadStatus,
        changes: Sequence[Change],
    ) -> Finished:
        async def work(transaction: Transaction) -> Finished:
            row = await self._locked(transaction, run_id)
            if not row.is_held_by(token):
                if row.settled_token == token and row.status == RUN_STATUS[status]:
                    return Finished(row.run.thread_id, row.run)
                raise LeaseLost()
            if row.run.cancel == CANCEL_ACTION_ROLLBACK:
                await undo_runs(transaction, [run_id])
                return Finished(row.run.thread_id, None)
            return await self._end(transaction, run_id, status, error, thread_status, changes, settled=token)

        return await self.atomic(work)

    async def release_run(self, run_id: str, token: int, delay_seconds: float) -> Finished:
        async def work(transaction: Transaction) -> Finished:
            row = await self._locked(transaction, run_id)
            if not row.is_held_by(token):
                if row.settled_token == token and row.status in ("pending", "interrupted"):
                    return Finished(row.run.thread_id, row.run)
                raise LeaseLost()
            if row.run.cancel:
                return await self._stop(transaction, row, settled=token)
            values = Values()
            later = (
                f"greatest(run_after, clock_timestamp() + {_seconds(values(delay_seconds))})"
                if delay_seconds
                else "run_after"
            )
            await transaction.run(
                f"UPDATE {RUNS.name} SET status = 'pending', run_after = {later}, settled_token = {values(token)},"
                f" updated_at = now() WHERE id = {values(run_id)}",
                values,
            )
            return Finished(row.run.thread_id, row.run)

        return await self.atomic(work)

    async def sweep_runs(self, limit: int, most_attempts: int) -> Lapsed:
        values = Values()
        lapsed = f"{self.visible(RUNS, Access.OWN, values)} AND {LEASED} AND lease_expires_at <= clock_timestamp()"
        ends = f"(cancel IS NOT NULL OR lapses + 1 >= {values(most_attempts)})"
        rows = await self.run(
            f"SELECT id, {ends} FROM {RUNS.name} WHERE {lapsed} ORDER BY {ends}, lease_expires_at, lease_token"
            f" LIMIT {values(limit)}",
            values,
        )
        found = Lapsed()
        requeued = [id for id, ends_now in rows if not ends_now]
        try:
            found.requeued.extend(await self._requeue(requeued, most_attempts))
        except Conflict:
            # A row that somebody holds on to, as that of the run that comes next, must not hold up the others.
            for run_id in requeued:
                try:
                    found.requeued.extend(await self._requeue([run_id], most_attempts))
                except Conflict as failure:
                    _log_left(failure)
        for run_id in (id for id, ends_now in rows if ends_now):
            await self._end_lapsed(run_id, found)
        return found

    async def _requeue(self, run_ids: Sequence[str], most_attempts: int) -> list[tuple[str, str]]:
        """Make runs pending again whose leases have lapsed, but those that are locked; gives them with their threads."""
        if not run_ids:
            return []
        values = Values([Texts(run_ids), most_attempts])
        rows = await self.run(
            f"WITH lapsed AS (SELECT id AS lapsed_id FROM {RUNS.name} WHERE id = ANY ($1::text[]) AND {LEASED}"
            " AND lease_expires_at <= clock_timestamp() AND cancel IS NULL AND lapses + 1 < $2"
            " ORDER BY lease_expires_at, lease_token FOR UPDATE SKIP LOCKED)"
            f" UPDATE {RUNS.name} SET status = 'pending', lapses = lapses + 1, updated_at = now()"
            " FROM lapsed WHERE runs.id = lapsed_id RETURNING runs.id, runs.thread_id",
            values,
        )
        return [(id, thread_id or "") for id, thread_id in rows]

    async def _end_lapsed(self, run_id: str, found: Lapsed) -> None:
        async def work(transaction: Transaction) -> _Row | None:
            row = await self._locked(transaction, run_id)
            if not row.is_lapsed:
                return None
            await self._stop(transaction, row)
            return row

        try:
            row = await self.atomic(work)
        except NotFound:
            # Deleted meanwhile: there is nothing to take back.
            return
        except Failure as failure:
            # One that somebody holds on to, or that takes too long to undo, must not hold up the others.
            _log_left(failure)
            return
        if row is not None:
            (found.stopped if row.run.cancel else found.failed).append((run_id, row.run.thread_id))

    async def _stop(self, transaction: Transaction, row: _Row, *, settled: int = 0) -> Finished:
        """End a run that is to stop, or whose attempts are over."""
        run_id = row.run.run_id
        if row.run.cancel == CANCEL_ACTION_ROLLBACK:
            await undo_runs(transaction, [run_id])
            return Finished(row.run.thread_id, None)
        if row.run.cancel:
            return await self._end(
                transaction, run_id, RUN_STATUS_INTERRUPTED, "", THREAD_STATUS_IDLE, (), settled=settled
            )
        error = [Put("error", LAPSED)]
        return await self._end(transaction, run_id, RUN_STATUS_ERROR, LAPSED, THREAD_STATUS_ERROR, error)

    async def _locked(self, transaction: Transaction, run_id: str) -> _Row:
        """A run, locked behind its thread. Raises NotFound."""
        named = [Equals("run_id", run_id)]
        values = Values()
        statement = (
            f"SELECT status, lease_token, settled_token, {LEASED}, lease_expires_at > clock_timestamp(), {RUNS.select}"
            f" FROM {RUNS.name} WHERE {self.conditions(RUNS, named, Access.OWN, values)} FOR UPDATE"
        )
        rows = (await transaction.run_all([self.lock_threads_of(named), (statement, values)]))[1]
        if not rows:
            raise NotFound("run", run_id)
        status, token, settled, is_leased, is_due, *row = rows[0]
        return _Row(status, token, settled, is_leased, bool(is_due), message(RUNS, tuple(row)))

    async def _end(
        self,
        transaction: Transaction,
        run_id: str,
        status: RunStatus,
        error: str,
        thread_status: ThreadStatus,
        changes: Sequence[Change],
        *,
        settled: int = 0,
    ) -> Finished:
        """Give a run its final status, and its thread what follows from it."""
        values = Values()
        columns = RUNS.columns
        terms = [change.sql(THREADS, values) for change in changes]
        word = values(THREADS.columns["status"].dump(thread_status))
        busy = RUN_IN_FLIGHT_BUT.format(" AND r.id NOT IN (SELECT id FROM ended)")
        statement = (
            f"WITH ended AS (UPDATE {RUNS.name} SET status = {values(RUN_STATUS[status])}, error ="
            f" {columns['error'].write.format(values(error or None))}, finished_at = now(), updated_at = now(),"
            f" settled_token = {values(settled)}"
            f" WHERE id = {values(run_id)} RETURNING *),"
            f" thread AS (UPDATE {THREADS.name} SET {''.join(term + ', ' for term in terms)}"
            f' "status" = CASE WHEN {busy} THEN \'busy\' ELSE {word} END, "updated_at" = now(), "state_updated_at" = now()'
            ' FROM ended WHERE "threads".id = ended.thread_id'
            ' AND coalesce(ended.owner_id, "threads".owner_id) IS NOT DISTINCT FROM "threads".owner_id)'
            f" SELECT {RUNS.select} FROM ended"
        )
        rows = await transaction.run(statement, values)
        run = message(RUNS, rows[0])
        return Finished(run.thread_id, run)

    async def run_stats(self) -> GetRunStatsResponse:
        values = Values()
        own = self.visible(RUNS, Access.OWN, values)
        crons = self.visible(CRONS, Access.OWN, values)
        queued = f"FROM {RUNS.name} WHERE {own} AND status = 'pending' AND run_after IS NOT NULL AND run_after"
        statement = (
            f"SELECT (SELECT count(*) {queued} <= now()), (SELECT count(*) {queued} > now()),"
            f" (SELECT count(*) FROM {RUNS.name} WHERE {own} AND {LEASED}),"
            f" coalesce((SELECT extract(epoch FROM now() - min(run_after)) {queued} <= now()), 0)::float8,"
            f" (SELECT count(*) FROM {CRONS.name} WHERE {crons} AND enabled AND next_run_date <= now()),"
            " (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM langgraph_server.run_claims)"
        )
        due, delayed, leased, wait, crons_due, claims = (await self.run(statement, values, again=True, slow=True))[0]
        values = Values()
        status = RUNS.columns["status"]
        counted = await self.run(
            f"SELECT {status.read.format(status.stored)} AS number, count(*) FROM {RUNS.name}"
            f" WHERE {self.visible(RUNS, Access.OWN, values)} GROUP BY 1 ORDER BY 1",
            values,
            again=True,
            slow=True,
        )
        return GetRunStatsResponse(
            runs=[RunsOfStatus(status=number, count=count) for number, count in counted],
            due=due,
            delayed=delayed,
            leased=leased,
            oldest_wait_seconds=wait,
            crons_due=crons_due,
            claims=claims,
        )


def _log_left(failure: Failure) -> None:
    log.warning("a lease that lapsed could not be taken back yet: %s", failure.message)
