"""The queue on tables to which runtimes go on writing that know nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.adoption import runtimes
from tests.adoption.runtimes import row, rows
from tests.service import Api, CallFailed, DirectApi

OWNER: dict[str, Any] = {"owner_id": "alice"}
RUN: dict[str, Any] = {**OWNER, "run_id": "r"}


@pytest.fixture
async def api(migrated: str) -> AsyncIterator[Api]:
    """The service, with a thread and an assistant of alice."""
    store = PostgresStore(DatabaseSettings(migrated))
    await store.start(30)
    api = DirectApi(build_pipeline(Settings(anonymous_rights="unscoped"), store), "postgres")
    await api.call("CreateAssistant", **OWNER, assistant_id="a", graph_id="g")
    await api.call("CreateThread", **OWNER, thread_id="t")
    yield api
    await store.close()


@pytest.fixture
def runtime(migrated: str) -> Iterator[psycopg.Connection[Any]]:
    """A runtime's connection."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        yield connection


async def admit(api: Api, run_id: str = "r", **more: Any) -> None:
    strategy = "MULTITASK_STRATEGY_ENQUEUE"
    place = {"thread_id": "t", "assistant_id": "a", "multitask_strategy": strategy}
    await api.call("CreateRun", **OWNER, **place | {"run_id": run_id, **more})


async def claim(api: Api, limit: int = 10) -> list[Any]:
    return list((await api.call("ClaimRuns", **OWNER, worker_id="w", limit=limit)).runs)


async def types_of(api: Api, run_id: str = "r") -> list[tuple[int, str, int]]:
    """The log of a run that has ended."""
    parts = await api.stream("StreamRunEvents", **OWNER | {"run_id": run_id})
    return [(event.sequence, event.type, event.end) for part in parts for event in part.events]


@pytest.mark.parametrize("status", ["success", "error", "timeout", "interrupted"])
async def test_a_runtime_that_ends_a_run_ends_its_lease_and_its_log(
    api: Api, runtime: psycopg.Connection[Any], status: str
) -> None:
    await admit(api)
    (claimed,) = await claim(api)
    held: dict[str, Any] = {**RUN, "lease_token": claimed.lease_token}
    await api.call("AppendRunEvents", **held, first_sequence=1, events=[{"type": "t"}])
    follower = asyncio.create_task(types_of(api))
    waiter = asyncio.create_task(api.call("WaitRun", **RUN, wait_seconds=20))
    await asyncio.sleep(0.2)
    runtime.execute("UPDATE langgraph_server.runs SET status = %s, updated_at = now() WHERE id = 'r'", (status,))
    number = {"success": 3, "error": 4, "timeout": 5, "interrupted": 6}[status]
    assert await follower == [(1, "t", 0), (2, "end", number)]
    ended = (await waiter).run
    assert (ended.status, ended.HasField("lease"), ended.HasField("finished_at"), ended.last_sequence) == (
        number,
        False,
        True,
        2,
    )
    for method in ("HeartbeatRun", "ReleaseRun"):
        with pytest.raises(CallFailed, match="LEASE_LOST"):
            await api.call(method, **held)
    # Said twice it ends once.
    runtime.execute("UPDATE langgraph_server.runs SET status = %s WHERE id = 'r'", (status,))
    assert await types_of(api) == [(1, "t", 0), (2, "end", number)]


async def test_a_runtime_that_ends_a_pending_run_takes_it_out_of_the_queue(
    api: Api, runtime: psycopg.Connection[Any]
) -> None:
    await admit(api)
    await admit(api, "second")
    runtime.execute("UPDATE langgraph_server.runs SET status = 'interrupted' WHERE id = 'r'")
    assert [one.run.run_id for one in await claim(api)] == ["second"]
    assert await types_of(api) == [(1, "end", 6)]


async def test_what_a_runtime_inserts_is_never_claimed_and_keeps_its_thread(
    api: Api, migrated: str, runtime: psycopg.Connection[Any]
) -> None:
    for id, status in (("pending", "pending"), ("running", "running"), ("odd", "queued")):
        runtimes.insert(runtime, "runs", id=id, thread_id="t", status=status, metadata={"owner": "alice"})
    await admit(api)
    assert await claim(api) == []
    # As a runtime ends its run, which leaves no log: it was not queued.
    runtime.execute("UPDATE langgraph_server.runs SET status = 'success' WHERE id = 'running'")
    assert [one.run.run_id for one in await claim(api)] == ["r"]
    assert await types_of(api, "running") == []
    # Beside a leased run a runtime may run as many as it likes.
    runtimes.insert(runtime, "runs", id="beside", thread_id="t", status="running", metadata={"owner": "alice"})
    runtime.execute("UPDATE langgraph_server.runs SET status = 'running' WHERE id = 'pending'")
    assert {run["id"] for run in rows(migrated, "SELECT id FROM langgraph_server.runs WHERE status = 'running'")} == {
        *("r", "beside", "pending")
    }


async def test_a_runtime_that_takes_a_queued_run_itself(
    api: Api, migrated: str, runtime: psycopg.Connection[Any]
) -> None:
    """A pending run that a runtime sets running has no lease: nobody claims it or takes it back, and who cancels it ends it."""
    await admit(api)
    runtime.execute("UPDATE langgraph_server.runs SET status = 'running' WHERE id = 'r'")
    assert await claim(api) == []
    swept = await api.call("SweepRuns", **OWNER)
    assert (swept.requeued, swept.failed, swept.stopped) == (0, 0, 0)
    assert row(migrated, "runs", "r")["status"] == "running"
    stopped = await api.call("CancelRuns", **OWNER, thread_id="t")
    assert (list(stopped.stopped_run_ids), list(stopped.asked_run_ids)) == (["r"], [])
    assert await types_of(api) == [(1, "end", 6)]


async def test_a_runtime_that_deletes_runs_and_threads(
    api: Api, migrated: str, runtime: psycopg.Connection[Any]
) -> None:
    """Its deletions succeed as before, and the events of what it deletes go too."""
    for run_id in ("r", "second"):
        await admit(api, run_id)
        (claimed,) = await claim(api)
        held: dict[str, Any] = {**OWNER, "run_id": run_id, "lease_token": claimed.lease_token}
        await api.call("AppendRunEvents", **held, first_sequence=1, events=[{"type": "t"}])
        if run_id == "r":
            await api.call("FinishRun", **held, status="RUN_STATUS_SUCCESS")
    runtime.execute("DELETE FROM langgraph_server.runs WHERE id = 'r'")
    assert rows(migrated, "SELECT DISTINCT run_id FROM langgraph_server.run_events") == [{"run_id": "second"}]
    runtime.execute("DELETE FROM langgraph_server.threads WHERE id = 't'")
    # Its worker goes on without the thread.
    assert (await api.call("FinishRun", **held, status="RUN_STATUS_ERROR", values='{"a": 1}')).run.status == 4
    assert rows(migrated, "SELECT count(*) FROM langgraph_server.threads") == [{"count": 0}]


async def test_a_runtime_that_makes_an_ended_run_pending_again(api: Api, runtime: psycopg.Connection[Any]) -> None:
    """It is queued again, its attempts and its log go on, and an earlier worker's token opens nothing."""
    await admit(api)
    (first,) = await claim(api)
    await api.call("FinishRun", **RUN, lease_token=first.lease_token, status="RUN_STATUS_ERROR")
    runtime.execute("UPDATE langgraph_server.runs SET status = 'pending', metadata = %s", (Jsonb({"again": 1}),))
    (second,) = await claim(api)
    assert (second.run.attempt, second.run.last_sequence) == (2, 1)
    assert second.lease_token > first.lease_token
    with pytest.raises(CallFailed, match="LEASE_LOST"):
        await api.call("FinishRun", **RUN, lease_token=first.lease_token, status="RUN_STATUS_ERROR")
    await api.call("FinishRun", **RUN, lease_token=second.lease_token, status="RUN_STATUS_SUCCESS")
    assert await types_of(api) == [(1, "end", 4), (2, "end", 3)]
