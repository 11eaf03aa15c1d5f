"""The logs of runs, as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentstorage.v1.runs_pb2 import NewRunEvent
from storage_service.errors import SequenceMismatch
from storage_service.store import Access, Log
from storage_service.store.postgres.adapt import Blobs, Texts
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.queue import Queue
from storage_service.store.postgres.rows import WITHOUT_TIMEOUT, Values, message
from storage_service.store.tables import RUN_EVENTS, RUNS, THREADS
from storage_service.store.where import Equals

# A part of a log has at most so many events.
_MOST_EVENTS: Final = 500
_FINAL: Final = "status IN ('success', 'error', 'timeout', 'interrupted')"


class Events(Queue):
    """The named operations on events."""

    async def append_events(
        self, run_id: str, token: int, first_sequence: int, events: Sequence[NewRunEvent]
    ) -> tuple[str, int]:
        types, data = Texts(event.type for event in events), Blobs(event.data for event in events)
        last = first_sequence + len(events) - 1

        async def work(transaction: Transaction) -> tuple[str, int] | None:
            values = Values()
            held = self.held(run_id, token, values)
            # The lock keeps the lease, and the order of appends; the row itself is written once. That of the thread keeps its events in
            # the order of their commits: what ends another run of it waits, and with that its end marker.
            lease = f"SELECT thread_id, last_sequence, attempt FROM {RUNS.name} WHERE {held} FOR NO KEY UPDATE"
            thread = self.lock_threads_of([Equals("run_id", run_id)], "KEY SHARE")
            rows = (await transaction.run_all([thread, (lease, values)]))[1]
            if not rows:
                return None
            thread_id, current, attempt = rows[0]
            if current == last and await self._are_there(transaction, run_id, first_sequence, types, data):
                return thread_id, last
            if current != first_sequence - 1:
                raise SequenceMismatch(current)
            await transaction.run_all(
                [
                    (_INSERT, Values((run_id, first_sequence, thread_id, attempt, types, data))),
                    (_ADVANCE, Values((run_id, last))),
                ]
            )
            return thread_id, last

        appended = await self.atomic(work)
        if appended is None:
            raise await self.lost(run_id)
        return appended

    @staticmethod
    async def _are_there(transaction: Transaction, run_id: str, first: int, types: Texts, data: Blobs) -> bool:
        """Whether the last events are these: the same append came before."""
        rows = await transaction.run(_SAME, Values((run_id, first, types, data)))
        return bool(rows[0][0] == len(types))

    async def read_run_events(self, run_id: str, after: int, most_bytes: int) -> Log | None:
        values = Values()
        conditions = self.conditions(RUNS, [Equals("run_id", run_id)], Access.BY_ID, values)
        columns = ", ".join(RUNS.columns[name].select for name in ("status", "cancel"))
        found = f"SELECT last_sequence, deleted_sequence, {columns} FROM {RUNS.name} WHERE {conditions}"
        rows = await self.run(found, values, reads=True)
        if not rows:
            return None
        last, deleted, status, cancel = rows[0]
        if last <= max(after, deleted):
            return Log([], last, deleted, status, cancel)
        events = f"SELECT * FROM {RUN_EVENTS.name} WHERE run_id = $1 AND sequence > $2 AND sequence <= $5"
        given = (run_id, after, most_bytes, _MOST_EVENTS, last)
        rows = await self.run(_part(events, "sequence"), Values(given), again=True, slow=True)
        return Log([message(RUN_EVENTS, row) for row in rows], last, deleted, status, cancel)

    async def read_thread_events(self, thread_id: str, after: int, most_bytes: int) -> Log | None:
        values = Values()
        conditions = self.conditions(THREADS, [Equals("thread_id", thread_id)], Access.BY_ID, values)
        found = (
            "SELECT coalesce((SELECT max(r.deleted_position) FROM"
            f" {RUNS.name} AS r WHERE r.thread_id = t.id AND r.deleted_position > 0 AND {_OF_THREAD}), 0),"
            f" coalesce((SELECT e.position FROM {RUN_EVENTS.name} AS e JOIN {RUNS.name} AS r ON r.id = e.run_id"
            f" WHERE e.thread_id = t.id AND {_OF_THREAD} ORDER BY e.position DESC LIMIT 1), 0)"
            f" FROM (SELECT * FROM {THREADS.name} WHERE {conditions}) AS t"
        )
        rows = await self.run(found, values, reads=True)
        if not rows:
            return None
        deleted, last = rows[0]
        if last <= max(after, deleted):
            return Log([], max(last, deleted), deleted)
        events = (
            f"SELECT e.* FROM {RUN_EVENTS.name} AS e JOIN {RUNS.name} AS r ON r.id = e.run_id"
            f" JOIN {THREADS.name} AS t ON t.id = e.thread_id"
            f" WHERE e.thread_id = $1 AND e.position > $2 AND e.position <= $5 AND {_OF_THREAD}"
        )
        given = (thread_id, after, most_bytes, _MOST_EVENTS, last)
        rows = await self.run(_part(events, "position"), Values(given), again=True, slow=True)
        return Log([message(RUN_EVENTS, row) for row in rows], last, deleted)

    async def sweep_events(self, limit: int, seconds: float) -> int:
        values = Values()
        own = self.visible(RUNS, Access.OWN, values)
        ended = (
            f"SELECT e.run_id FROM {RUN_EVENTS.name} AS e JOIN {RUNS.name} AS r ON r.id = e.run_id"
            f" WHERE e.end_status IS NOT NULL AND e.created_at < now() - make_interval(secs => {values(seconds)}::float8)"
            f" AND e.sequence = r.last_sequence AND r.{_FINAL} AND {own}"
            f" ORDER BY e.created_at LIMIT {values(limit)} FOR NO KEY UPDATE OF r SKIP LOCKED"
        )
        statement = (
            f"WITH ended AS MATERIALIZED ({ended}), gone AS (DELETE FROM {RUN_EVENTS.name} AS e USING ended"
            " WHERE e.run_id = ended.run_id RETURNING e.run_id, e.sequence, e.position),"
            " marks AS (SELECT run_id, max(sequence) AS sequence, max(position) AS position FROM gone GROUP BY run_id),"
            f" noted AS (UPDATE {RUNS.name} SET deleted_sequence = marks.sequence, deleted_position = marks.position"
            " FROM marks WHERE runs.id = marks.run_id) SELECT count(*) FROM gone"
        )

        async def work(transaction: Transaction) -> int:
            rows = (await transaction.run_all([WITHOUT_TIMEOUT, (statement, values)]))[1]
            return int(rows[0][0])

        return await self.atomic(work)


# Runs of another owner that names the same thread id are not this thread's.
_OF_THREAD: Final = "coalesce(r.owner_id, t.owner_id) IS NOT DISTINCT FROM t.owner_id"
_INSERT: Final = (
    f"INSERT INTO {RUN_EVENTS.name} (run_id, sequence, thread_id, type, data, attempt)"
    " SELECT $1, $2::int8 + place - 1, $3, type, data, $4::int4"
    " FROM unnest($5::text[], $6::bytea[]) WITH ORDINALITY AS given (type, data, place) ORDER BY place"
)
_ADVANCE: Final = f"UPDATE {RUNS.name} SET last_sequence = $2::int8 WHERE id = $1"
_SAME: Final = (
    f"SELECT count(*) FROM {RUN_EVENTS.name} AS e"
    " JOIN unnest($3::text[], $4::bytea[]) WITH ORDINALITY AS given (type, data, place)"
    " ON e.sequence = $2::int8 + given.place - 1 AND e.type = given.type AND e.data = given.data"
    " WHERE e.run_id = $1 AND e.end_status IS NULL"
)


def _part(events: str, place: str) -> str:
    """The first of some events, in order: one, and more as long as they have no more than $3 bytes, $4 at most."""
    return (
        f"SELECT {RUN_EVENTS.select} FROM (SELECT *, sum(octet_length(data)) OVER (ORDER BY {place}) - octet_length(data) AS before"
        f" FROM ({events} ORDER BY {place} LIMIT $4) AS next) AS part WHERE before = 0 OR before + octet_length(data) <= $3"
        f" ORDER BY {place}"
    )
