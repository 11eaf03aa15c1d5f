"""Searches that refresh the same items at once: none waits for another, and none is ended for having waited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest

from tests.service import GrpcApi, ServerProcess

ITEMS = 200
CALLERS = 16
# How long Postgres lets transactions wait for each other before it looks whether they do so for ever.
DEADLOCK_SECONDS = 1.0
ORDERS: tuple[dict[str, Any], ...] = (
    {"sort_by": "ITEM_SORT_KEY"},
    {"sort_by": "ITEM_SORT_KEY", "sort_order": "SORT_ORDER_DESC"},
    {"vector": [1.0, 0.0]},
    {"vector": [0.0, 1.0]},
)


@pytest.fixture
async def postgres_api(servers: dict[str, ServerProcess]) -> AsyncIterator[GrpcApi]:
    """Postgres over gRPC."""
    async with grpc.aio.insecure_channel(servers["postgres"].target) as channel:
        yield GrpcApi(channel, "postgres")


async def test_searches_that_refresh_do_not_wait_for_each_other(
    servers: dict[str, ServerProcess], postgres_api: GrpcApi, owner: str
) -> None:
    place: dict[str, Any] = {"owner_id": owner, "namespace": ["refreshed"]}
    operations = [
        {
            "put": {
                "namespace": ["refreshed"],
                "key": f"{number:03}",
                "value": "{}",
                "ttl_minutes": 5,
                "vectors": [{"field": "$", "values": [number / ITEMS, 1 - number / ITEMS]}],
            }
        }
        for number in range(ITEMS)
    ]
    await postgres_api.call("Batch", owner_id=owner, operations=operations)
    slowest = 0.0

    async def search(caller: int) -> None:
        nonlocal slowest
        for number in range(8):
            order = ORDERS[(caller + number) % len(ORDERS)]
            started = time.monotonic()
            found = await postgres_api.call(
                "SearchItems",
                owner_id=owner,
                namespace_prefix=["refreshed"],
                limit=ITEMS,
                refresh_ttl=True,
                **order,
            )
            slowest = max(slowest, time.monotonic() - started)
            assert len(found.items) == ITEMS

    async with await psycopg.AsyncConnection.connect(servers["postgres"].database_url, autocommit=True) as connection:
        before = await ends(connection, owner)
        await asyncio.gather(*(search(caller) for caller in range(CALLERS)))
        assert min(await ends(connection, owner)) > max(before)
    assert slowest < DEADLOCK_SECONDS
    assert (await postgres_api.call("GetItem", key="000", **place)).item.version == 1


async def ends(connection: psycopg.AsyncConnection[Any], owner: str) -> list[Any]:
    """When the items of an owner end."""
    cursor = await connection.execute(
        "SELECT expires_at FROM langgraph_server.store_items WHERE owner_id = %s", (owner,)
    )
    return [row[0] for row in await cursor.fetchall()]
