"""A row that somebody holds on to, and a line that is long, hold up nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from storage_service.caller import AllOwners, Owner
from storage_service.services.firing import fire_due
from storage_service.store import Store
from storage_service.store.postgres import PostgresStore
from tests.conformance.queue import Queue, held, reason
from tests.conformance.test_firing import Crons

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
LINE = 4000


@pytest.fixture
def store(stores: dict[str, Store]) -> PostgresStore:
    """The backend that has locks."""
    found = stores["postgres"]
    assert isinstance(found, PostgresStore)
    return found


@pytest.fixture
async def sql(store: PostgresStore) -> AsyncIterator[Connection]:
    """A connection of somebody else."""
    async with await psycopg.AsyncConnection.connect(store.database.settings.url) as connection:
        yield connection
        await connection.rollback()


@pytest.fixture
def crons(store: PostgresStore, owner: str) -> Crons:
    """The runs and crons of a new owner."""
    return Crons(store, owner, [datetime.now(UTC)])


@pytest.fixture
def others(store: PostgresStore, other: str) -> Crons:
    """Those of another one."""
    return Crons(store, other, [datetime.now(UTC)])


async def hold(sql: Connection, table: str, id: str) -> None:
    await sql.execute(f"SELECT FROM langgraph_server.{table} WHERE id = %s FOR UPDATE", [id])


async def test_a_cron_that_can_not_be_fired(store: PostgresStore, sql: Connection, crons: Crons, others: Crons) -> None:
    thread = await crons.thread()
    stuck, due = await crons.cron(thread_id=thread), await others.cron()
    await crons.come(stuck, 50)
    await others.come(due, 10)
    await hold(sql, "threads", thread)
    put_off: dict[str, float] = {}
    fired = {one.cron_id for one in await fire_due(store, AllOwners(), 1000, put_off)}
    assert due in fired
    assert stuck not in fired
    assert stuck in put_off
    # It does not fill the next pass either.
    began = time.monotonic()
    assert stuck not in {one.cron_id for one in await fire_due(store, AllOwners(), 1000, put_off)}
    assert time.monotonic() - began < 1
    await sql.rollback()
    assert [one.cron_id for one in await crons.fire()] == [stuck]


async def test_a_lease_that_can_not_be_taken_back(
    store: PostgresStore, sql: Connection, crons: Crons, others: Crons
) -> None:
    thread = await crons.thread()
    await crons.admit(thread)
    behind = await crons.admit(thread)
    await others.admit()
    for queue in (crons, others):
        await queue.claim(lease_seconds=0.05)
    await asyncio.sleep(0.1)
    # The run that comes next when the first one is pending again.
    await hold(sql, "runs", behind)
    swept = await store.seen_by(AllOwners()).sweep_runs(1000, 5)
    (run,) = await others.runs()
    assert run.run_id in [run_id for run_id, _ in swept.requeued]
    await sql.rollback()
    assert (await crons.call("SweepRuns")).requeued == 1


async def test_another_owner_waits_for_no_lock(sql: Connection, crons: Crons, others: Crons) -> None:
    thread = await crons.thread()
    await crons.admit(thread)
    (claimed,) = await crons.claim()
    await hold(sql, "threads", thread)
    began = time.monotonic()
    call = others.call("AppendRunEvents", **held(claimed), first_sequence=1, events=[{"type": "t"}])
    assert await reason(call) == "NOT_FOUND"
    assert time.monotonic() - began < 1


async def line(sql: Connection, queue: Queue) -> str:
    """A thread with a run that is due and thousands behind it."""
    thread = await queue.thread()
    await queue.admit(thread)
    await queue.admit(thread)
    copied = (
        "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, metadata, status, multitask_strategy, run_after, waits_behind)"
        " SELECT thread_id || '-' || number, thread_id, assistant_id, metadata, 'pending', multitask_strategy, run_after, true"
        " FROM langgraph_server.runs, generate_series(1, %s) AS number WHERE thread_id = %s AND waits_behind"
    )
    await sql.execute(copied, (LINE, thread))
    await sql.execute("ANALYZE langgraph_server.runs")
    await sql.commit()
    return thread


STOPS: dict[str, Callable[[Queue, str], Any]] = {
    "interrupted": lambda queue, thread: queue.call("CancelRuns", thread_id=thread),
    "rolled back": lambda queue, thread: queue.call("CancelRuns", thread_id=thread, action="CANCEL_ACTION_ROLLBACK"),
    "interrupted by a run": lambda queue, thread: queue.admit(thread, "INTERRUPT"),
    "rolled back by a run": lambda queue, thread: queue.admit(thread, "ROLLBACK"),
    "deleted": lambda queue, thread: queue.call("DeleteThread", thread_id=thread),
}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS.keys())
async def test_a_long_line_is_stopped(
    store: PostgresStore, sql: Connection, crons: Crons, stop: Callable[[Queue, str], Any]
) -> None:
    thread = await line(sql, crons)
    began = time.monotonic()
    await stop(crons, thread)
    # Each of them looked at all the others once: 16 seconds.
    assert time.monotonic() - began < 4
    stats = await store.seen_by(Owner(crons.owner)).run_stats()
    assert stats.due <= 1


async def test_a_log_of_which_events_are_gone(store: PostgresStore, sql: Connection, crons: Crons) -> None:
    run_id = await crons.admit(await crons.thread())
    (claimed,) = await crons.claim()
    await crons.call("AppendRunEvents", **held(claimed), first_sequence=1, events=[{"type": "t"}] * 3)
    await crons.finish(claimed)
    # As retention does it, between the looks at the run and at its events.
    await sql.execute("DELETE FROM langgraph_server.run_events WHERE run_id = %s", [run_id])
    await sql.commit()
    assert await reason(crons.api.stream("StreamRunEvents", owner_id=crons.owner, run_id=run_id)) == "EVENTS_DELETED"


async def test_a_long_log_is_deleted(store: PostgresStore, sql: Connection, crons: Crons) -> None:
    run_id = await crons.admit(await crons.thread())
    (claimed,) = await crons.claim()
    await crons.call("AppendRunEvents", **held(claimed), first_sequence=1, events=[{"type": "t"}])
    await crons.finish(claimed)
    # Longer than a statement of a call may take.
    slow = (
        "CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.6); RETURN OLD; END $$;"
        " CREATE TRIGGER slow BEFORE DELETE ON langgraph_server.run_events FOR EACH ROW"
        f" WHEN (OLD.run_id = '{run_id}') EXECUTE FUNCTION pg_temp.slow()"
    )
    settings = replace(store.database.settings, statement_timeout=0.5)
    hasty = PostgresStore(settings)
    await hasty.start(30)
    try:
        await sql.execute(slow)
        await sql.commit()
        assert await hasty.seen_by(Owner(crons.owner)).sweep_events(10, 0) == 2
    finally:
        await sql.execute("DROP TRIGGER slow ON langgraph_server.run_events")
        await sql.commit()
        await hasty.close()
