"""What an operator looks up in the database, as SQL that only reads: rows as they are, across owners.

Rows come as JSON text, with the columns that there are, so that nothing that a row holds can be in the way: a word that the service does
not know, an infinite time, a number of a hundred digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from storage_service.store.postgres.database import Database, Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.rows import Statement, Values
from storage_service.store.tables import ASSISTANTS, CRONS, ITEMS, RUN_EVENTS, RUNS, THREADS, Table

#: An owner's rows are counted up to so many.
MOST_COUNTED: Final = 100_000
#: Before the figures, in their transaction: an index that begins with the owner is read as far as is counted, and in no other way.
BY_INDEX: Final[Statement] = (
    "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true)",
    Values(),
)
# Every table that has owners; each has an index that begins with the owner, and one with the owner and the last change.
_OWNED: Final[tuple[Table[Any], ...]] = (ASSISTANTS, THREADS, RUNS, CRONS, ITEMS)
_IN_FLIGHT: Final = ("pending", "running")
# What a list shows of a row: short columns alone.
_RUN: Final = (
    "id AS run_id, owner_id, thread_id, assistant_id, status, attempt, worker_id, lease_expires_at, cancel, run_after, cron_id,"
    " last_sequence, created_at, updated_at, finished_at"
)
_THREAD: Final = "id AS thread_id, owner_id, status, visibility, created_at, updated_at, expires_at"


@dataclass(frozen=True, slots=True)
class Found:
    """Rows as JSON text each, whether there are more, and the time by the database's clock."""

    rows: list[str]
    more: bool
    now: datetime


async def find_runs(
    database: Database, owner: str | None, *, thread_id: str = "", statuses: Sequence[str] = (), limit: int
) -> Found:
    """The newest runs that match what is given; statuses as the database has them."""
    values = Values()
    terms = _terms(RUNS, owner, statuses, values)
    if thread_id:
        terms.append(f"thread_id = {values(thread_id)}")
    return await _find(database, _RUN, RUNS, terms, values, limit, owner)


async def find_threads(database: Database, owner: str | None, *, statuses: Sequence[str] = (), limit: int) -> Found:
    """The newest threads that match what is given, each with the number of its runs in flight."""
    values = Values()
    in_flight = (
        f"(SELECT count(*) FROM {RUNS.name} AS r WHERE r.thread_id = found.thread_id AND r.status IN {_IN_FLIGHT}"
        " AND coalesce(r.owner_id, found.owner_id) IS NOT DISTINCT FROM found.owner_id)"
    )
    more = f" || jsonb_build_object('runs_in_flight', {in_flight})"
    return await _find(database, _THREAD, THREADS, _terms(THREADS, owner, statuses, values), values, limit, owner, more)


async def _find(
    database: Database,
    columns: str,
    table: Table[Any],
    terms: Sequence[str],
    values: Values,
    limit: int,
    owner: str | None,
    more: str = "",
) -> Found:
    statement = (
        f"SELECT (to_jsonb(found){more})::text, now() FROM (SELECT {columns} FROM {table.name}"
        f" WHERE {' AND '.join(terms) or 'true'} ORDER BY created_at DESC, {table.columns[table.id].sort_key} DESC"
        f" LIMIT {values(limit + 1)}) AS found"
    )
    return _found(await database.run(statement, values, owner, again=True, slow=True), limit)


def _terms(table: Table[Any], owner: str | None, statuses: Sequence[str], values: Values) -> list[str]:
    terms = [] if owner is None else [f"owner_id = {values(owner)}"]
    if statuses:
        # Told twice: by what the index of an owner holds, and by what the index of runs in flight is about. They are words of the service.
        words = "', '".join(statuses)
        terms.append(f"{table.columns['status'].sort_key} = ANY (ARRAY['{words}']) AND status IN ('{words}')")
    return terms


def _found(rows: Sequence[Row], limit: int) -> Found:
    now = rows[0][1] if rows else Timestamp()
    return Found([row for row, _ in rows[:limit]], len(rows) > limit, now.ToDatetime(UTC))


@dataclass(frozen=True, slots=True)
class Fields:
    """All of one row: each field's value as JSON text, and the time by the database's clock."""

    values: dict[str, str]
    now: datetime


async def find_one(
    database: Database, table: Table[Any], owner: str | None, id: str, *, thread_id: str = ""
) -> Fields | None:
    """The row with the id, if the owner, or any where it is None, has it; None when there is none."""
    values = Values([id])
    terms = ["id = $1"] + ([] if owner is None else [f"owner_id = {values(owner)}"])
    if thread_id:
        terms.append(f"thread_id = {values(thread_id)}")
    row = f"SELECT jsonb_build_object('{table.id}', id) || (to_jsonb(found) - 'id') FROM {table.name} AS found"
    statement = f"SELECT key, jsonb_pretty(value), now() FROM jsonb_each(({row} WHERE {' AND '.join(terms)}))"
    rows = await database.run(statement, values, owner, again=True, slow=True)
    if not rows:
        return None
    return Fields({key: value for key, value, _ in rows}, rows[0][2].ToDatetime(UTC))


async def find_events(database: Database, run_id: str, limit: int) -> Found:
    """The last events of a run, in order, with the number of their bytes and without these."""
    statement = (
        "SELECT to_jsonb(event)::text, now() FROM (SELECT sequence, position, type, octet_length(data) AS bytes, attempt, created_at,"
        f" end_status FROM {RUN_EVENTS.name} WHERE run_id = $1 ORDER BY sequence DESC LIMIT $2) AS event"
    )
    found = _found(await database.run(statement, Values([run_id, limit + 1]), again=True, slow=True), limit)
    return Found(found.rows[::-1], found.more, found.now)


# Owners.


def owners_statement(after: str) -> str:
    """Selects the ids of owners in their order, those after ``$2`` where ``after`` names one, at most ``$1``.

    From each owner it goes to the next one in the indexes, so that it costs as much as there are owners, and not rows, and ends with the
    last one that is wanted.
    """

    def following(condition: str) -> str:
        parts = (f"(SELECT owner_id FROM {table.name} {condition} ORDER BY owner_id LIMIT 1)" for table in _OWNED)
        return f"least({', '.join(parts)})"

    first = following("WHERE owner_id > $2" if after else "WHERE owner_id IS NOT NULL")
    return (
        f"WITH RECURSIVE owners (id) AS (SELECT {first} UNION ALL"
        f" SELECT {following('WHERE owner_id > owners.id')} FROM owners WHERE owners.id IS NOT NULL)"
        " SELECT id FROM owners WHERE id IS NOT NULL LIMIT $1"
    )


def figures_statement(ownerless: bool) -> str:
    """Selects the figures of the owners ``$1``, in this order; with ``ownerless`` those of the rows without one, if there are any."""
    owned = "owner_id IS NULL" if ownerless else "owner_id = owner.id"
    words = "', '".join(_IN_FLIGHT)
    in_flight = f"{RUNS.columns['status'].sort_key} = ANY (ARRAY['{words}']) AND status IN ('{words}')"
    newest = ", ".join(
        f"(SELECT updated_at FROM {table.name} WHERE {owned} ORDER BY updated_at DESC LIMIT 1)" for table in _OWNED
    )
    figures = (
        f"SELECT owner.id AS owner_id, {_count(THREADS, owned)} AS threads, {_count(RUNS, f'{owned} AND {in_flight}')} AS runs_in_flight,"
        f" greatest({newest}) AS updated_at"
    )
    if ownerless:
        figures += " FROM (SELECT NULL::text AS id) AS owner"
        return f"SELECT to_jsonb(found)::text, now() FROM ({figures}) AS found WHERE found.updated_at IS NOT NULL"
    figures += ", owner.place FROM unnest($1::text[]) WITH ORDINALITY AS owner (id, place)"
    return f"SELECT (to_jsonb(found) - 'place')::text, now() FROM ({figures}) AS found ORDER BY found.place"


def _count(table: Table[Any], condition: str) -> str:
    """Counts rows, but no further than to one more than is counted."""
    return f"(SELECT count(*) FROM (SELECT FROM {table.name} WHERE {condition} LIMIT {MOST_COUNTED + 1}) AS counted)"


async def find_owners(database: Database, *, after: str = "", limit: int) -> Found:
    """Owners in the order of the database, those after one, with their threads, runs in flight and the time of their newest change.

    Rows without an owner come last, as those of the owner null. Of more than ``MOST_COUNTED`` rows one more is counted.
    """
    values: list[Any] = [limit + 1, after] if after else [limit + 1]
    ids = [id for (id,) in await database.run(owners_statement(after), Values(values), again=True, slow=True)]
    statements = [BY_INDEX, (figures_statement(False), Values([ids[:limit]]))]
    if len(ids) <= limit:
        statements.append((figures_statement(True), Values()))

    async def work(transaction: Transaction) -> list[Row]:
        return [row for rows in (await transaction.run_all(statements))[1:] for row in rows]

    rows = await database.atomic(work)
    return Found([row for row, _ in rows[:limit]], len(rows) > limit or len(ids) > limit, _found(rows, limit).now)
