"""Calls that meet on Postgres: what one transaction does while another is not committed yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from storage_service.caller import AllOwners
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.conformance.queue import Queue, held
from tests.postgres_server import MakeDatabase
from tests.service import DirectApi

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@pytest.fixture
async def store(make_database: MakeDatabase) -> AsyncIterator[PostgresStore]:
    """A backend on a database of its own."""
    store = PostgresStore(DatabaseSettings(make_database()))
    await store.start(30)
    assert not store.trouble()
    yield store
    await store.close()


@pytest.fixture
async def sql(store: PostgresStore) -> AsyncIterator[Connection]:
    """Another connection, in a transaction."""
    async with await psycopg.AsyncConnection.connect(store.database.settings.url) as connection:
        yield connection


def queue_at(store: Store, owner: str) -> Queue:
    """The queue of an owner."""
    return Queue(DirectApi(build_pipeline(Settings(anonymous_rights="unscoped"), store), store.name), owner)


@pytest.fixture
def queue(store: PostgresStore, owner: str) -> Queue:
    """The queue of a new owner."""
    return queue_at(store, owner)


async def test_a_thread_s_positions_are_in_the_order_of_commits(queue: Queue, sql: Connection) -> None:
    thread = await queue.thread()
    await queue.admit(thread)
    waiting = await queue.admit(thread)
    (claimed,) = await queue.claim()
    # A runtime ends the run that waits, and has not committed yet.
    await sql.execute("UPDATE langgraph_server.runs SET status = 'interrupted' WHERE id = %s", (waiting,))
    append = {"first_sequence": 1, "events": [{"type": "t"}]}
    appending = asyncio.create_task(queue.call("AppendRunEvents", **held(claimed), **append))
    await asyncio.sleep(0.3)
    assert not appending.done()
    await sql.commit()
    await appending
    cursor = await sql.execute(
        "SELECT run_id FROM langgraph_server.run_events WHERE thread_id = %s ORDER BY position", (thread,)
    )
    assert [run_id for (run_id,) in await cursor.fetchall()] == [waiting, claimed.run.run_id]


async def test_a_cancel_and_a_lease_that_lapses(queue: Queue, store: PostgresStore, sql: Connection) -> None:
    run_id = await queue.admit()
    await queue.claim(lease_seconds=0.05)
    await asyncio.sleep(0.1)
    # The sweep has the row, and has not committed.
    await sql.execute("UPDATE langgraph_server.runs SET status = 'pending' WHERE id = %s", (run_id,))
    cancelling = asyncio.create_task(queue.call("CancelRuns", run_ids=[run_id]))
    await asyncio.sleep(0.2)
    await sql.commit()
    answer = await cancelling
    assert [*answer.stopped_run_ids, *answer.asked_run_ids] == [run_id]
    assert await queue.status(run_id) == "interrupted"


async def test_one_run_that_somebody_holds_on_to_holds_up_no_other(
    queue: Queue, store: PostgresStore, sql: Connection
) -> None:
    runs = [await queue.admit() for _ in range(2)]
    claimed = await queue.claim(2, lease_seconds=0.05)
    for one in claimed:
        await queue.call("CancelRuns", run_ids=[one.run.run_id])
    await asyncio.sleep(0.1)
    await sql.execute("SELECT FROM langgraph_server.threads WHERE id = %s FOR UPDATE", (claimed[0].run.thread_id,))
    swept = await store.seen_by(AllOwners()).sweep_runs(10, 5)
    assert [run_id for run_id, _ in swept.stopped] == [claimed[1].run.run_id]
    await sql.rollback()
    swept = await store.seen_by(AllOwners()).sweep_runs(10, 5)
    assert [run_id for run_id, _ in swept.stopped] == [claimed[0].run.run_id]
    assert {await queue.status(run_id) for run_id in runs} == {"interrupted"}


async def test_a_long_line_in_one_thread_costs_the_others_nothing(
    queue: Queue, store: PostgresStore, sql: Connection, other: str
) -> None:
    thread = await queue.thread()
    first = await queue.admit(thread)
    await queue.admit(thread)
    # As if they had been admitted one by one.
    await sql.execute(
        "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, metadata, run_after, waits_behind)"
        " SELECT 'line-' || n, %s, 'a', jsonb_build_object('owner', %s::text), now() - interval '1 hour', true"
        " FROM generate_series(1, 20000) AS n",
        (thread, queue.owner),
    )
    await sql.commit()
    stranger = queue_at(store, other)
    (claimed,) = await queue.claim()
    assert claimed.run.run_id == first
    for _ in range(3):
        started = time.monotonic()
        assert await queue.claim(10) == []
        run_id = await stranger.admit()
        (found,) = (await queue.api.call("ClaimRuns", worker_id="w", limit=10)).runs
        assert found.run.run_id == run_id
        assert time.monotonic() - started < 0.5
    # The line moves on, one by one, those first that are due first.
    await queue.finish(claimed)
    order = []
    for _ in range(3):
        (claimed,) = await queue.claim(10)
        order.append(claimed.run.run_id)
        await queue.finish(claimed)
    cursor = await sql.execute(
        "SELECT 'line-' || n FROM generate_series(1, 20000) AS n ORDER BY ('line-' || n) COLLATE \"C\" LIMIT 3"
    )
    assert order == [run_id for (run_id,) in await cursor.fetchall()]


@pytest.mark.parametrize(
    "how", ["finished", "cancelled", "deleted", "released later", "updated", "deleted by a runtime"]
)
async def test_who_waits_behind_a_run_comes_after_it(queue: Queue, sql: Connection, how: str) -> None:
    thread = await queue.thread()
    first, second = await queue.admit(thread), await queue.admit(thread)
    if how == "cancelled":
        await queue.call("CancelRuns", run_ids=[first])
    elif how == "deleted":
        await queue.call("DeleteRun", run_id=first)
    elif how == "updated":
        await queue.call("UpdateRun", run_id=first, status="RUN_STATUS_INTERRUPTED")
    elif how == "deleted by a runtime":
        await sql.execute("DELETE FROM langgraph_server.runs WHERE id = %s", (first,))
        await sql.commit()
    else:
        (claimed,) = await queue.claim()
        assert claimed.run.run_id == first
        if how == "finished":
            await queue.finish(claimed)
        else:
            await queue.call("ReleaseRun", **held(claimed), delay_seconds=1000)
    assert [found.run.run_id for found in await queue.claim(10)] == [second]


async def test_a_thread_made_again_by_another_owner(
    queue: Queue, store: PostgresStore, sql: Connection, other: str
) -> None:
    thread = await queue.thread()
    await queue.admit(thread)
    (claimed,) = await queue.claim()
    await queue.call("AppendRunEvents", **held(claimed), first_sequence=1, events=[{"type": "secret"}])
    await sql.execute("DELETE FROM langgraph_server.threads WHERE id = %s", (thread,))
    await sql.commit()
    stranger = queue_at(store, other)
    await stranger.call("CreateThread", thread_id=thread)
    theirs = await stranger.admit(thread)
    elsewhere = await stranger.admit()
    found = (await queue.api.call("ClaimRuns", worker_id="w", limit=10)).runs
    assert {one.run.run_id for one in found} == {theirs, elsewhere}
    log = await store.seen_by(AllOwners()).read_thread_events(thread, 0, 1000)
    assert log is not None
    assert (log.events, log.last) == ([], 0)


async def test_a_runtime_that_may_write_runs_alone_can_end_them(queue: Queue, sql: Connection, owner: str) -> None:
    run_id = await queue.admit()
    role = f"runtime_{owner.replace('-', '_')}"
    await sql.execute(f'CREATE ROLE "{role}"')
    await sql.execute(f'GRANT USAGE ON SCHEMA langgraph_server TO "{role}"')
    await sql.execute(f'GRANT SELECT, UPDATE ON langgraph_server.runs TO "{role}"')
    await sql.execute("ALTER TABLE langgraph_server.runs OWNER TO CURRENT_USER")
    await sql.execute(f'CREATE POLICY "{role}" ON langgraph_server.runs TO "{role}" USING (true)')
    await sql.execute(f'SET ROLE "{role}"')
    await sql.execute("UPDATE langgraph_server.runs SET status = 'success' WHERE id = %s", (run_id,))
    await sql.execute("RESET ROLE")
    await sql.execute(f'DROP OWNED BY "{role}"')
    await sql.execute(f'DROP ROLE "{role}"')
    await sql.commit()
    log = await queue.api.stream("StreamRunEvents", owner_id=owner, run_id=run_id)
    assert [event.type for part in log for event in part.events] == ["end"]
