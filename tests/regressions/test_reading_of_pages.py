"""Pages are read by statements that the connection keeps prepared: whatever becomes of those, the next page is answered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.faults.servers import until
from tests.postgres_server import PostgresServer
from tests.regressions.conftest import Bench
from tests.service import CallFailed, DirectApi

_FIELDS = ("threadId", "metadata", "config", "status", "values", "interrupts", "error")


@pytest.fixture
async def single(postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    """A service with one connection for all calls, whose statements wait up to 1 s for a lock."""
    url = postgres_server.url(postgres_server.create_database())
    store = PostgresStore(DatabaseSettings(url, pool_max_size=2, lock_timeout=1))
    await store.start(30)
    assert not store.trouble()
    settings = Settings(anonymous_rights="unscoped,admin")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield Bench(DirectApi(build_pipeline(settings, store), "postgres"), url, connection)
    await store.close()


async def listed(bench: Bench, owner: str, **fields: Any) -> int:
    """How many threads a search finds."""
    return len((await bench.api.call("SearchThreads", owner_id=owner, **fields)).threads)


async def test_after_a_rollback(single: Bench, owner: str) -> None:
    item: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k", "value": "1", "expected_version": 7}
    for made in range(4, 13, 4):
        # What the driver has prepared itself is forgotten with a rollback, and with it whatever else the connection has prepared.
        for _ in range(4):
            await single.api.call("CreateThread", owner_id=owner)
        assert await listed(single, owner, page_size=100) == made
        with pytest.raises(CallFailed, match="VERSION_MISMATCH"):
            await single.api.call("PutItem", **item)
        assert await listed(single, owner, page_size=100) == made


async def test_more_statements_than_are_kept(single: Bench, owner: str) -> None:
    await single.api.call("CreateThread", owner_id=owner, values='{"a": 1}')
    masks = [",".join(some) for size in range(1, 8) for some in itertools.combinations(_FIELDS, size)]
    assert len(masks) > 120
    for _ in range(2):
        for mask in masks:
            [thread] = (await single.api.call("SearchThreads", owner_id=owner, fields=mask)).threads
            assert thread.values == ('{"a": 1}' if "values" in mask else "")


async def test_after_a_search_that_waited_too_long(single: Bench, owner: str) -> None:
    await single.api.call("CreateThread", owner_id=owner)
    assert await listed(single, owner) == 1
    searching = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND starts_with(query, %s)"
    reader = await single.number(searching, 'SELECT "id"')
    async with await psycopg.AsyncConnection.connect(single.database_url) as holder:
        await holder.execute("LOCK TABLE langgraph_server.threads IN ACCESS EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(CallFailed, match="ABORTED CONFLICT"):
                await listed(single, owner)
    assert await listed(single, owner) == 1
    # By the same connection.
    assert await single.number(searching, 'SELECT "id"') == reader


async def test_after_a_search_that_was_given_up(single: Bench, owner: str) -> None:
    await single.api.call("CreateThread", owner_id=owner)
    assert await listed(single, owner) == 1

    async def waits() -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return await single.number(waiting) == 1

    async with await psycopg.AsyncConnection.connect(single.database_url) as holder:
        await holder.execute("LOCK TABLE langgraph_server.threads IN ACCESS EXCLUSIVE MODE")
        search = asyncio.create_task(listed(single, owner))
        await until(waits, 5)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
    assert await listed(single, owner) == 1


async def test_after_the_schema_changed(single: Bench, owner: str) -> None:
    await single.api.call("CreateThread", owner_id=owner)
    assert await listed(single, owner) == 1
    # What was prepared gives other columns than it promised.
    await single.connection.execute(
        "ALTER TABLE langgraph_server.threads ALTER COLUMN state_updated_at TYPE timestamptz(3)"
    )
    for _ in range(2):
        assert await listed(single, owner) == 1
