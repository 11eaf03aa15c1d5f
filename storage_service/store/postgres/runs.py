"""Runs, and what runs and crons refer to, as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Rollback

from agentstorage.v1.crons_pb2 import Cron
from agentstorage.v1.runs_pb2 import (
    CANCEL_ACTION_INTERRUPT,
    CANCEL_ACTION_ROLLBACK,
    MULTITASK_STRATEGY_INTERRUPT,
    MULTITASK_STRATEGY_ROLLBACK,
    Run,
)
from agentstorage.v1.threads_pb2 import THREAD_STATUS_IDLE, THREAD_VISIBILITY_PRIVATE, Thread
from storage_service.errors import NotFound, ThreadBusy
from storage_service.store import Access, Inserted, key_of_request
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.rows import MADE_BY, Statement, Values, message
from storage_service.store.postgres.stopping import Stopping
from storage_service.store.postgres.threads import FREE_THREADS
from storage_service.store.tables import ASSISTANTS, CRONS, RUNS, THREADS, Table
from storage_service.store.where import Equals, Where


class Runs(Stopping):
    """The named operations on runs and crons."""

    async def create_run(self, run: Run, request_id: str, *, admit: bool, makes_thread: bool = False) -> Inserted[Run]:
        row: Row | None
        if admit:

            async def work(transaction: Transaction) -> Row:
                admitted = await self.admit(transaction, run, request_id, makes_thread)
                if admitted is None:
                    # Nor is a thread left that was made for it.
                    raise Rollback
                return admitted

            row = await self.atomic(work)
        else:
            row = await self._record(run, request_id)
        if row is not None:
            return Inserted(message(RUNS, row), True)
        return await self.existing(RUNS, run.run_id, request_id)

    async def delete_run(self, where: Sequence[Where]) -> int:
        values = Values()
        named = f"SELECT thread_id FROM {RUNS.name} WHERE {self.conditions(RUNS, where, Access.OWN, values)}"
        own = self.visible(THREADS, Access.OWN, values)
        # A run that is admitted meanwhile keeps the thread BUSY.
        lock = f"SELECT FROM {THREADS.name} WHERE {own} AND id IN ({named}) ORDER BY id FOR UPDATE", values
        values = Values()
        statement = (
            f"WITH ended AS (DELETE FROM {RUNS.name} WHERE {self.conditions(RUNS, where, Access.OWN, values)}"
            f" RETURNING id, thread_id, owner_id), {FREE_THREADS} SELECT count(*) FROM ended"
        )
        rows = await self.behind_locks([lock], statement, values)
        return int(rows[0][0])

    async def create_cron(self, cron: Cron, request_id: str, *, must_exist: bool) -> Inserted[Cron]:
        terms, values = self.new_row(CRONS, cron, request_id)
        thread = self._missing(THREADS, cron.thread_id, must_exist, values)
        assistant = self._missing(ASSISTANTS, cron.assistant_id, must_exist, values)
        statement = (
            f"WITH missing AS (SELECT {thread} AS thread, {assistant} AS assistant),"
            f" cron AS ({self._insert_if(CRONS, terms, 'NOT (SELECT thread OR assistant FROM missing)')} RETURNING *)"
            f" SELECT missing.thread, missing.assistant, EXISTS (SELECT FROM cron), made.* FROM missing"
            f" LEFT JOIN (SELECT {CRONS.select} FROM cron) AS made ON true"
        )
        # What it names stays while this runs, and goes with the cron or not at all. Deletions lock in the same order.
        locks = [
            self.lock(table, [Equals(table.id, id)], access, "KEY SHARE")
            for table, id, access in (
                (ASSISTANTS, cron.assistant_id, Access.SEARCH),
                (THREADS, cron.thread_id, Access.OWN),
            )
            if id and must_exist
        ]
        rows = await (self.behind_locks(locks, statement, values) if locks else self.run(statement, values))
        no_thread, no_assistant, made, *row = rows[0]
        if no_thread:
            raise NotFound("thread", cron.thread_id)
        if no_assistant:
            raise NotFound("assistant", cron.assistant_id)
        if made:
            return Inserted(message(CRONS, tuple(row)), True)
        return await self.existing(CRONS, cron.cron_id, request_id)

    @staticmethod
    def _insert_if(table: Table[Any], terms: dict[str, str], condition: str) -> str:
        return (
            f"INSERT INTO {table.name} ({', '.join(terms)}) SELECT {', '.join(terms.values())} WHERE {condition}"
            " ON CONFLICT DO NOTHING"
        )

    async def _record(self, run: Run, request_id: str) -> Row | None:
        terms, values = self.new_row(RUNS, run, request_id)
        thread = self._missing(THREADS, run.thread_id, False, values)
        assistant = self._missing(ASSISTANTS, run.assistant_id, False, values)
        insert = self._insert_if(RUNS, terms, f"NOT ({thread} OR {assistant})")
        rows = await self.run(f"{insert} RETURNING {RUNS.select}", values)
        if not rows and (missing := await self._foreign_reference(run)):
            raise NotFound(missing, run.thread_id if missing == "thread" else run.assistant_id)
        return rows[0] if rows else None

    async def admit(self, transaction: Transaction, run: Run, request_id: str, makes_thread: bool) -> Row | None:
        """Insert a run that its thread's others and its strategy allow, and stop the others as it says; None when the id is taken.

        Raises NotFound and ThreadBusy; nothing has been inserted then, but maybe the thread.
        """
        locks = [
            # The assistant stays while this runs, and admissions to a thread go one after the other. Deletions lock in the same order.
            self.lock(ASSISTANTS, [Equals("assistant_id", run.assistant_id)], Access.SEARCH, "KEY SHARE"),
            *([self._new_thread(run.thread_id)] if makes_thread else ()),
            self.lock(THREADS, [Equals("thread_id", run.thread_id)], Access.OWN),
        ]
        insert = self._admission(run, request_id)
        no_thread, no_assistant, taken, flight, made, *row = (await transaction.run_all([*locks, insert]))[-1][0]
        if no_thread:
            raise NotFound("thread", run.thread_id)
        if no_assistant:
            raise NotFound("assistant", run.assistant_id)
        if made:
            action = _STOPPING.get(run.multitask_strategy)
            if action and flight:
                await self.stop_runs(transaction, flight, action)
            return tuple(row)
        if flight and not taken:
            raise ThreadBusy(flight[:_NAMED_RUNS])
        return None

    def _new_thread(self, thread_id: str) -> Statement:
        """The statement that makes a thread where there is none of the id."""
        thread = Thread(thread_id=thread_id, status=THREAD_STATUS_IDLE, visibility=THREAD_VISIBILITY_PRIVATE)
        if self.database.settings.thread_ttl is not None:
            thread.ttl.CopyFrom(self.database.settings.thread_ttl)
        return self.insertion(THREADS, thread)

    def _admission(self, run: Run, request_id: str) -> Statement:
        """The statement that inserts a run where that is allowed, and tells what it found; behind the locks of its thread."""
        terms, values = self.new_row(RUNS, run, request_id)
        # Admissions to a thread are in the order in which they had its lock.
        terms = terms | {_DUE: f"coalesce({terms[_DUE]}, clock_timestamp())"}
        # An older one that is not due before it does not hold it up.
        terms['"waits_behind"'] = (
            f"EXISTS (SELECT FROM {RUNS.name} AS o JOIN {THREADS.name} AS t ON t.id = o.thread_id"
            f" WHERE o.thread_id = {values(run.thread_id)} AND o.status IN ('pending', 'running')"
            " AND o.owner_id IS NOT DISTINCT FROM t.owner_id AND o.run_after IS NOT NULL AND NOT o.waits_behind"
            f" AND (o.status = 'running' OR o.run_after <= {terms[_DUE]}))"
        )
        thread = self._missing(THREADS, run.thread_id, True, values)
        assistant = self._missing(ASSISTANTS, run.assistant_id, True, values)
        thread_id = values(run.thread_id)
        strategy = values(RUNS.columns["multitask_strategy"].dump(run.multitask_strategy))
        # All that are to be stopped, or some to be named.
        limit = "" if run.multitask_strategy in _STOPPING else f" LIMIT {_NAMED_RUNS}"
        statement = (
            f"WITH flight AS (SELECT r.id FROM {RUNS.name} AS r JOIN {THREADS.name} AS t ON t.id = r.thread_id"
            f" WHERE r.thread_id = {thread_id} AND r.status IN ('pending', 'running')"
            f" AND coalesce(r.owner_id, t.owner_id) IS NOT DISTINCT FROM t.owner_id ORDER BY r.created_at, r.id{limit}),"
            f" missing AS (SELECT {thread} AS thread, {assistant} AS assistant),"
            f" taken AS (SELECT 1 FROM {RUNS.name} WHERE id = {values(run.run_id)} UNION ALL SELECT 1 FROM {RUNS.name}"
            f" WHERE {MADE_BY.format(values(key_of_request(request_id) or None))}),"
            f" run AS ({self._insert_if(RUNS, terms, _ADMITTED.format(strategy=strategy))} RETURNING *),"
            f" busy AS (UPDATE {THREADS.name} SET status = 'busy', updated_at = now(), state_updated_at = now()"
            f" WHERE id = {thread_id} AND EXISTS (SELECT FROM run))"
            " SELECT missing.thread, missing.assistant, EXISTS (SELECT FROM taken),"
            f" ARRAY(SELECT id FROM flight), EXISTS (SELECT FROM run), admitted.* FROM missing"
            f" LEFT JOIN (SELECT {RUNS.select} FROM run) AS admitted ON true"
        )
        return statement, values

    async def _foreign_reference(self, run: Run) -> str:
        """ "thread" or "assistant" when another owner has it; else ""."""
        values = Values()
        terms = [
            self._missing(table, id, False, values)
            for table, id in ((THREADS, run.thread_id), (ASSISTANTS, run.assistant_id))
        ]
        rows = await self.run(f"SELECT {', '.join(terms)}", values, reads=True)
        no_thread, no_assistant = rows[0]
        return "thread" if no_thread else "assistant" if no_assistant else ""

    def _missing(self, table: Table[Any], id: str, must_exist: bool, values: Values) -> str:
        """The condition that an id is foreign, or absent where it must exist. Threads are written to, assistants only read."""
        if not id:
            return "false"
        access = Access.OWN if table is THREADS else Access.SEARCH
        known = f"SELECT FROM {table.name} WHERE id = {values(id)}"
        visible = self.visible(table, access, values)
        if must_exist:
            return f"NOT EXISTS ({known} AND {visible})"
        return f"EXISTS ({known} AND ({visible}) IS NOT TRUE)"


_DUE = '"run_after"'
# How many runs a refusal names.
_NAMED_RUNS = 3
# How a strategy stops the runs in flight.
_STOPPING = {MULTITASK_STRATEGY_INTERRUPT: CANCEL_ACTION_INTERRUPT, MULTITASK_STRATEGY_ROLLBACK: CANCEL_ACTION_ROLLBACK}
# A retry of a create that was admitted is answered its own row, though the thread is busy with just that.
_ADMITTED = (
    "NOT (SELECT thread OR assistant FROM missing) AND NOT EXISTS (SELECT FROM taken)"
    " AND ({strategy} <> 'reject' OR NOT EXISTS (SELECT FROM flight))"
)
