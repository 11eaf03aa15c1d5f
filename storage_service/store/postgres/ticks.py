"""Gives the crons of runtimes, which know no next tick, the one that their schedule says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from storage_service import schedule

_PAGE = 200
_WITHOUT = (
    "SELECT id, schedule, timezone FROM langgraph_server.crons WHERE enabled AND next_run_date IS NULL"
    " AND (end_time IS NULL OR end_time > now()) AND (%(after)s::text IS NULL OR id > %(after)s::text) ORDER BY id LIMIT %(size)s"
)
# A cron that was changed meanwhile has its tick from that change.
_SET = (
    "UPDATE langgraph_server.crons c SET next_run_date = t.tick"
    " FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[]) AS t (id, schedule, timezone, tick)"
    " WHERE c.id = t.id AND c.schedule = t.schedule AND c.timezone = t.timezone AND c.enabled AND c.next_run_date IS NULL"
    " AND (c.end_time IS NULL OR c.end_time >= t.tick)"
)


async def set_next_ticks(conn: AsyncConnection[Any], after: str | None) -> str | None:
    """Compute ``next_run_date`` of a page of crons that are on and have none; gives what to pass as ``after``, None at the end.

    A schedule or time zone that cannot be used stays without. ``updated_at`` does not change. Raises psycopg.Error.
    """
    cursor = conn.cursor(row_factory=tuple_row)
    rows = await (await cursor.execute(_WITHOUT, {"after": after, "size": _PAGE})).fetchall()
    now = datetime.now(UTC)
    found = [(*row, tick) for row in rows if (tick := _tick(row[1], row[2], now)) is not None]
    if found:
        await conn.execute(_SET, [list(column) for column in zip(*found, strict=True)])
    return rows[-1][0] if len(rows) == _PAGE else None


def _tick(text: str, zone: str, now: datetime) -> datetime | None:
    try:
        return schedule.next_tick(text, zone, now)
    except schedule.InvalidSchedule:
        return None
