"""What ends a run touches its own thread, its own checkpoints and its own worker, and nothing of anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from storage_service.caller import AllOwners, Owner
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from storage_service.store.postgres import PostgresStore
from tests.conformance.queue import ERROR, STATUS, SUCCESS, Queue, held, reason
from tests.conformance.test_queue_admission import checkpoint, checkpoints
from tests.service import DirectApi


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, stores: dict[str, Store]) -> Store:
    """A backend."""
    return stores[request.param]


@pytest.fixture
def queue(store: Store, owner: str) -> Queue:
    """The queue of a new owner."""
    return Queue(DirectApi(build_pipeline(Settings(anonymous_rights="unscoped"), store), store.name), owner)


@pytest.fixture
async def sql(stores: dict[str, Store]) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    """A runtime's own connection."""
    store = stores["postgres"]
    assert isinstance(store, PostgresStore)
    async with await psycopg.AsyncConnection.connect(store.database.settings.url, autocommit=True) as connection:
        yield connection


async def test_a_rollback_takes_the_checkpoints_of_its_own_thread(queue: Queue, store: Store, other: str) -> None:
    victim = Queue(queue.api, other)
    thread, theirs = await queue.thread(), await victim.thread()
    run_id = await queue.admit(thread)
    await queue.claim(lease_seconds=0.05)
    await checkpoint(queue, thread, "1", run_id)
    # Another owner's checkpoint names the same run, and a copy has it too.
    await checkpoint(victim, theirs, "1", run_id)
    copy = (await queue.call("CopyThread", thread_id=thread)).thread.thread_id
    await queue.call("CancelRuns", run_ids=[run_id], action="CANCEL_ACTION_ROLLBACK")
    await asyncio.sleep(0.1)
    swept = await store.seen_by(AllOwners()).sweep_runs(1000, 5)
    assert run_id in [found for found, _ in swept.stopped]
    assert await checkpoints(queue, thread) == []
    assert await checkpoints(victim, theirs) == ["1"]
    assert await checkpoints(queue, copy) == ["1"]


async def test_an_end_by_others_is_not_the_worker_s(queue: Queue) -> None:
    thread = await queue.thread()
    run_id = await queue.admit(thread)
    (claimed,) = await queue.claim()
    await queue.call("UpdateRun", run_id=run_id, status=SUCCESS)
    assert await reason(queue.finish(claimed, SUCCESS, values='{"lost": 1}')) == "LEASE_LOST"
    run_id = await queue.admit(thread)
    for _ in range(5):
        (claimed,) = await queue.claim(lease_seconds=0.05)
        await asyncio.sleep(0.1)
        await queue.call("SweepRuns")
    assert await queue.status(run_id) == "error"
    assert await reason(queue.finish(claimed, ERROR)) == "LEASE_LOST"


async def test_giving_back_costs_no_lease(queue: Queue) -> None:
    run_id = await queue.admit()
    for _ in range(6):
        (claimed,) = await queue.claim()
        await queue.call("ReleaseRun", **held(claimed))
    await queue.claim(lease_seconds=0.05)
    await asyncio.sleep(0.1)
    assert (await queue.call("SweepRuns")).requeued == 1
    assert await queue.status(run_id) == "pending"


async def test_a_run_without_an_owner_is_stopped_with_the_others(
    queue: Queue, store: Store, sql: psycopg.AsyncConnection[tuple[object, ...]]
) -> None:
    thread = await queue.thread()
    if store.name == "postgres":
        # A runtime that knows no owner; the thread's owner is the run's, as soon as the row is written.
        made = f"old-{queue.owner}"
        await sql.execute(
            "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status) VALUES (%s, %s, 'a', 'running')",
            (made, thread),
        )
    else:
        record: dict[str, Any] = {
            "thread_id": thread,
            "assistant_id": "a",
            "record_only": True,
            "status": "RUN_STATUS_RUNNING",
        }
        made = (await queue.api.call("CreateRun", **record)).run.run_id
    new = await queue.admit(thread, "INTERRUPT")
    assert await queue.status(made) == "interrupted"
    assert [found.run.run_id for found in await queue.claim()] == [new]


async def test_a_burst_wakes_all_who_wait(queue: Queue) -> None:
    waiting = [asyncio.create_task(queue.claim(wait_seconds=10)) for _ in range(10)]
    await asyncio.sleep(0.3)
    for _ in range(10):
        await queue.admit()
    async with asyncio.timeout(5):
        claimed = await asyncio.gather(*waiting)
    assert len({found.run.run_id for one in claimed for found in one}) == 10


async def test_a_log_that_goes_on_after_an_old_end_is_young(
    queue: Queue, store: Store, sql: psycopg.AsyncConnection[tuple[object, ...]], owner: str
) -> None:
    if store.name == "memory":
        return await _a_log_that_goes_on(queue, store, owner, 0.3)
    run_id = await queue.admit()
    (claimed,) = await queue.claim()
    await queue.finish(claimed)
    await sql.execute(
        "UPDATE langgraph_server.run_events SET created_at = now() - interval '8 days' WHERE run_id = %s", (run_id,)
    )
    await queue.call("UpdateRun", run_id=run_id, status="RUN_STATUS_PENDING", force=True)
    (claimed,) = await queue.claim()
    await queue.finish(claimed)
    assert await store.seen_by(Owner(owner)).sweep_events(10, 7 * 86400) == 0
    return None


async def _a_log_that_goes_on(queue: Queue, store: Store, owner: str, seconds: float) -> None:
    run_id = await queue.admit()
    (claimed,) = await queue.claim()
    await queue.finish(claimed)
    await asyncio.sleep(seconds)
    await queue.call("UpdateRun", run_id=run_id, status="RUN_STATUS_PENDING", force=True)
    (claimed,) = await queue.claim()
    await queue.finish(claimed)
    assert await store.seen_by(Owner(owner)).sweep_events(10, seconds) == 0
    assert STATUS[(await queue.run(run_id)).status] == "success"
