"""Threads and their states, as SQL."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from agentstorage.v1.threads_pb2 import Thread, ThreadState
from storage_service.errors import Conflict
from storage_service.store import Access, Inserted, Page
from storage_service.store.change import Change
from storage_service.store.postgres.rows import Rows, Statement, Values, message
from storage_service.store.tables import (
    CRONS,
    LANGGRAPH_TABLES,
    RUNS,
    THREAD_STATES,
    THREADS,
    written,
)
from storage_service.store.where import Equals, OneOf, Where

# What hangs on the threads of the WITH query "gone" (id, owner_id). States go by their foreign key. Runs and crons of another owner
# that names the same thread id are not this thread's.
DELETE_THREAD_ROWS = (
    f"deleted_runs AS (DELETE FROM {RUNS.name} AS r USING gone WHERE r.thread_id = gone.id"
    " AND coalesce(r.owner_id, gone.owner_id) IS NOT DISTINCT FROM gone.owner_id),"
    f" deleted_thread_crons AS (DELETE FROM {CRONS.name} AS c USING gone WHERE c.thread_id = gone.id"
    " AND coalesce(c.owner_id, gone.owner_id) IS NOT DISTINCT FROM gone.owner_id),"
    " deleted_checkpoints AS (DELETE FROM public.checkpoints AS c USING gone WHERE c.thread_id = gone.id),"
    " deleted_blobs AS (DELETE FROM public.checkpoint_blobs AS c USING gone WHERE c.thread_id = gone.id),"
    " deleted_writes AS (DELETE FROM public.checkpoint_writes AS c USING gone WHERE c.thread_id = gone.id)"
)
# Whether a thread has a run that is pending or running, with ``{}`` for what else is asked of the run r.
RUN_IN_FLIGHT_BUT = (
    f"EXISTS (SELECT FROM {RUNS.name} AS r WHERE r.thread_id = \"threads\".id AND r.status IN ('pending', 'running')"
    ' AND coalesce(r.owner_id, "threads".owner_id) IS NOT DISTINCT FROM "threads".owner_id{})'
)
RUN_IN_FLIGHT = RUN_IN_FLIGHT_BUT.format("")
# Makes the threads IDLE that are BUSY without a run in flight but those of the WITH query "ended" (id, thread_id, owner_id).
FREE_THREADS = (
    f"freed AS (UPDATE {THREADS.name} SET status = 'idle', updated_at = now(), state_updated_at = now()"
    # Thousands of runs of one thread may end at once.
    " FROM (SELECT DISTINCT thread_id, owner_id FROM ended) AS ended"
    ' WHERE "threads".id = ended.thread_id AND "threads".status = \'busy\''
    ' AND coalesce(ended.owner_id, "threads".owner_id) IS NOT DISTINCT FROM "threads".owner_id'
    f" AND NOT {RUN_IN_FLIGHT_BUT.format(' AND r.id NOT IN (SELECT id FROM ended)')})"
)


class Threads(Rows):
    """The named operations on threads."""

    async def delete_threads(self, thread_ids: Sequence[str]) -> int:
        where = [OneOf("thread_id", tuple(thread_ids))]
        # Runs that were admitted while this waited go too.
        rows = await self.behind_locks([self.lock(THREADS, where, Access.OWN)], *self.deletion(thread_ids))
        return int(rows[0][0])

    def deletion(self, thread_ids: Sequence[str]) -> Statement:
        """The statement that deletes threads with all that hangs on them, and gives their number."""
        values = Values()
        conditions = self.conditions(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN, values)
        statement = (
            f"WITH gone AS (DELETE FROM {THREADS.name} WHERE {conditions} RETURNING id, owner_id),"
            f" {DELETE_THREAD_ROWS} SELECT count(*) FROM gone"
        )
        return statement, values

    async def copy_thread(self, thread_id: str, new_id: str, request_id: str) -> Inserted[Thread] | None:
        values = Values()
        conditions = self.conditions(THREADS, [Equals("thread_id", thread_id)], Access.BY_ID, values)
        new, old = values(new_id), values(thread_id)
        free = "true" if self.owner_id is None else f"NOT {THREADS.taken.format(new)}"
        states = "values, next, tasks, metadata, interrupts, created_at"
        # One such term in a row is enough: the setting holds for the whole transaction.
        copied = states.replace("values", written("values"))
        # What a reader of a shared thread may read are its states and runs, not its checkpoints.
        mine = (
            ""
            if self.owner_id is None
            else f" AND EXISTS (SELECT FROM source WHERE owner_id = {values(self.owner_id)})"
        )
        # A copied state's parent is the copy of its parent.
        parent = (
            "CASE WHEN parent_checkpoint ->> 'thread_id' = thread_id"
            f" THEN jsonb_set(parent_checkpoint, '{{thread_id}}', to_jsonb({new}::text)) ELSE parent_checkpoint END"
        )
        statement = (
            f"WITH source AS (SELECT * FROM {THREADS.name} WHERE {conditions}),"
            f" copy AS (INSERT INTO {THREADS.name} (id, metadata, config, values, interrupts, state_updated_at, request_id, ttl)"
            f" SELECT {new}, {self.stamp('metadata', values)}, config, {written('values')}, interrupts,"
            f" CASE WHEN state_updated_at IS NOT NULL THEN now() END, {values(request_id or None)},"
            f" {THREADS.columns['ttl'].write.format(values(self.default_ttl))}"
            f" FROM source WHERE {free} ON CONFLICT DO NOTHING RETURNING *),"
            f" states AS (INSERT INTO {THREAD_STATES.name} (thread_id, checkpoint_id, {states}, parent_checkpoint, by_service)"
            f" SELECT {new}, checkpoint_id, {copied}, {parent}, false FROM {THREAD_STATES.name}"
            f" WHERE thread_id = {old} AND EXISTS (SELECT FROM copy) ORDER BY id),"
            + ", ".join(
                f" copied_{number} AS (INSERT INTO {table} (thread_id, {columns})"
                f" SELECT {new}, {columns} FROM {table} WHERE thread_id = {old} AND EXISTS (SELECT FROM copy)"
                f"{mine} ON CONFLICT DO NOTHING)"
                for number, (table, columns) in enumerate(CHECKPOINT_COLUMNS.items())
            )
            + f" SELECT EXISTS (SELECT FROM copy), {THREADS.select} FROM copy"
            f" UNION ALL SELECT false, {THREADS.select} FROM source WHERE NOT EXISTS (SELECT FROM copy)"
        )
        rows = await self.run(statement, values, slow=True)
        if not rows:
            return None
        if rows[0][0]:
            return Inserted(message(THREADS, rows[0][1:]), True)
        return await self.existing(THREADS, new_id, request_id)

    async def set_thread_status(
        self, thread_id: str, status: int, expected: Sequence[Where], changes: Sequence[Change]
    ) -> Thread | None:
        statement, values = self.change_of_thread(thread_id, status, expected, changes)
        own = [Equals("thread_id", thread_id)]
        statement += f" RETURNING {THREADS.select}"
        rows = await self.behind_locks([self.lock(THREADS, own, Access.OWN)], statement, values)
        return message(THREADS, rows[0]) if rows else None

    def change_of_thread(
        self, thread_id: str, status: int, expected: Sequence[Where], changes: Sequence[Change]
    ) -> Statement:
        """The statement that changes a thread, and sets its status where one is given: BUSY while it has a run in flight."""
        values = Values()
        terms = [change.sql(THREADS, values) for change in changes]
        if status:
            word = values(THREADS.columns["status"].dump(status))
            terms.append(f"\"status\" = CASE WHEN {RUN_IN_FLIGHT} THEN 'busy' ELSE {word} END")
            terms.append('"state_updated_at" = now()')
        conditions = self.conditions(THREADS, [Equals("thread_id", thread_id), *expected], Access.OWN, values)
        statement = (
            f"UPDATE {THREADS.name} SET {''.join(term + ', ' for term in terms)}"
            f' "updated_at" = now() WHERE {conditions}'
        )
        return statement, values

    async def thread_state(self, thread_id: str) -> ThreadState | None:
        values = Values()
        conditions = self.conditions(THREADS, [Equals("thread_id", thread_id)], Access.BY_ID, values)
        statement = (
            f"WITH thread AS (SELECT * FROM {THREADS.name} WHERE {conditions})"
            f" SELECT {THREAD_STATES.select} FROM (SELECT * FROM (SELECT thread_id, checkpoint_id, values, next, tasks, metadata,"
            f" interrupts, parent_checkpoint, created_at, id FROM {THREAD_STATES.name}"
            " WHERE thread_id = (SELECT id FROM thread) ORDER BY id DESC LIMIT 1) AS newest"
            " UNION ALL SELECT id, '', values, '{}', '[]', metadata, interrupts, NULL, coalesce(state_updated_at, created_at), 0"
            " FROM thread) AS state ORDER BY id DESC LIMIT 1"
        )
        rows = await self.run(statement, values, reads=True)
        return message(THREAD_STATES, rows[0]) if rows else None

    async def add_thread_state(self, state: ThreadState) -> Inserted[ThreadState] | None:
        values = Values()
        conditions = self.conditions(THREADS, [Equals("thread_id", state.thread_id)], Access.OWN, values)
        thread, checkpoint = values(state.thread_id), values(state.checkpoint_id)
        columns = THREAD_STATES.columns
        bound = {
            column.stored: column.write.format(values(column.dump(getattr(state, column.field))))
            for column in columns.values()
            if column.field in ("values", "next", "tasks", "metadata", "interrupts")
        }
        current = bound[columns["values"].stored]
        newest = (
            "SELECT jsonb_build_object('thread_id', thread_id, 'checkpoint_ns', '', 'checkpoint_id', checkpoint_id)"
            f" FROM {THREAD_STATES.name} WHERE thread_id = {thread} ORDER BY id DESC LIMIT 1"
        )
        bound['"parent_checkpoint"'] = (
            f"nullif(coalesce({values(state.parent_checkpoint or None)}::jsonb, ({newest})), 'null'::jsonb)"
        )
        # A statement that waited for another one's state has not seen it, and would take an older one for the newest. The thread's row
        # has moved then, and the statement finds nothing: once more, behind a lock of its own. (As text, for a TID scan is not rechecked.)
        moved = (
            ""
            if state.parent_checkpoint
            else f" AND ctid::text = (SELECT ctid::text FROM {THREADS.name} WHERE id = {thread})"
        )
        statement = (
            f"WITH thread AS (UPDATE {THREADS.name} SET values = {current}, updated_at = now(), state_updated_at = now()"
            f" WHERE {conditions}{moved} AND NOT EXISTS (SELECT FROM {THREAD_STATES.name}"
            f" WHERE thread_id = {thread} AND checkpoint_id = {checkpoint}) RETURNING id)"
            f" INSERT INTO {THREAD_STATES.name} (thread_id, checkpoint_id, by_service, {', '.join(bound)})"
            f" SELECT id, {checkpoint}, true, {', '.join(bound.values())} FROM thread RETURNING {THREAD_STATES.select}"
        )

        own = [Equals("thread_id", state.thread_id)]
        for locked in (False, True):
            try:
                rows = await (
                    self.behind_locks([self.lock(THREADS, own, Access.OWN)], statement, values)
                    if locked
                    else self.run(statement, values)
                )
            except Conflict as error:
                # The same checkpoint id was added meanwhile: the unique index refused the second.
                if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                    raise
                rows = []
            if rows:
                return Inserted(message(THREAD_STATES, rows[0]), True)
            existing = await self._state(state.thread_id, state.checkpoint_id)
            if existing or not moved:
                return Inserted(existing, False) if existing else None
        return None

    async def _state(self, thread_id: str, checkpoint_id: str) -> ThreadState | None:
        """The newest own state with this checkpoint id."""
        values = Values()
        where = [Equals("thread_id", thread_id)]
        conditions = self.conditions(THREADS, where, Access.OWN, values)
        statement = (
            f"SELECT {THREAD_STATES.select} FROM {THREAD_STATES.name} WHERE checkpoint_id = {values(checkpoint_id)}"
            f" AND thread_id = (SELECT id FROM {THREADS.name} WHERE {conditions}) ORDER BY id DESC LIMIT 1"
        )
        rows = await self.run(statement, values, reads=True)
        return message(THREAD_STATES, rows[0]) if rows else None

    async def list_thread_states(
        self, thread_id: str, where: Sequence[Where], before: str, page: Page
    ) -> list[ThreadState] | None:
        values = Values()
        conditions = self.conditions(THREADS, [Equals("thread_id", thread_id)], Access.BY_ID, values)
        mark = values(before)
        terms = [f"({mark} = '' OR id < thread.mark)", *(term.sql(THREAD_STATES, values) for term in where)]
        if page.after is not None:
            terms.append(f"id < {values(page.after[0])}")
        statement = (
            "WITH thread AS (SELECT id AS of, (SELECT max(s.id) FROM"
            f" {THREAD_STATES.name} AS s WHERE s.thread_id = {THREADS.name}.id AND s.checkpoint_id = {mark}) AS mark"
            f" FROM {THREADS.name} WHERE {conditions})"
            f" SELECT {mark} <> '' AND thread.mark IS NULL, state.* FROM thread LEFT JOIN LATERAL (SELECT"
            f" {THREAD_STATES.select_only(page.fields)}, id AS position FROM {THREAD_STATES.name} WHERE thread_id = thread.of"
            f" AND {' AND '.join(terms)} ORDER BY id DESC LIMIT {values(page.limit)} OFFSET {values(page.offset)})"
            " AS state ON true ORDER BY state.position DESC"
        )
        rows = await self.run_page(statement, values)
        if not rows or rows[0][0]:
            return None
        return [message(THREAD_STATES, row[1:-1], page.fields) for row in rows if row[-1] is not None]

    async def prune_thread_states(self, thread_ids: Sequence[str]) -> int:
        values = Values()
        conditions = self.conditions(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN, values)
        statement = (
            f"WITH pruned AS (SELECT id FROM {THREADS.name} WHERE {conditions}),"
            f" deleted AS (DELETE FROM {THREAD_STATES.name} AS s USING pruned WHERE s.thread_id = pruned.id AND s.id <"
            f" (SELECT max(n.id) FROM {THREAD_STATES.name} AS n WHERE n.thread_id = pruned.id))"
            " SELECT count(*) FROM pruned"
        )
        return await self.number(statement, values, slow=True)


CHECKPOINT_COLUMNS = {
    table.name: ", ".join(column.stored for column in table.columns.values() if column.field != "thread_id")
    for table in LANGGRAPH_TABLES
}
