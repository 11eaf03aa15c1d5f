"""Admission on Postgres when calls certainly overlap: all wait for the same row before any of them goes on."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.conformance.rows import ASSISTANTS, RUNS, THREADS
from tests.service import Api, CallFailed

pytestmark = pytest.mark.parametrize("api", ["postgres-direct", "postgres-grpc", "unprepared-grpc"], indirect=True)

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_runs_that_wait_for_one_thread_are_admitted_one_by_one(api: Api, database_url: str, owner: str) -> None:
    thread_id, assistant_id = f"{owner}-t", f"{owner}-a"
    await THREADS.create(api, owner, thread_id)
    await ASSISTANTS.create(api, owner, assistant_id)
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watcher,
    ):
        await holder.execute("SELECT FROM langgraph_server.threads WHERE id = %s FOR UPDATE", [thread_id])
        calls = [
            asyncio.ensure_future(
                RUNS.create(api, owner, thread_id=thread_id, assistant_id=assistant_id, record_only=False)
            )
            for _ in range(4)
        ]
        for _ in range(300):
            row = await (await watcher.execute(WAITING)).fetchone()
            if row is not None and row[0] >= 2:
                break
            await asyncio.sleep(0.005)
        else:
            raise AssertionError("the calls do not wait for the thread")
        await holder.rollback()
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, CallFailed)]
    assert [result.reason for result in refused] == ["THREAD_BUSY"] * 3
    assert await RUNS.count(api, owner) == 1
