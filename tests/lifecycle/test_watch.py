"""The watch over the database keeps no connection that nobody looks through."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest

from storage_service.store.postgres import DatabaseSettings, migrate, watch
from storage_service.store.postgres.database import Database
from tests.faults.proxy import Proxy
from tests.faults.servers import until
from tests.postgres_server import MakeDatabase, PostgresServer

# In a loop of their own: what they change of the watch must not meet the watches of other tests' databases, which live on in the session's.
pytestmark = pytest.mark.asyncio(loop_scope="function")


async def test_a_look_that_is_left_behind_leaves_no_connection(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Database(DatabaseSettings(make_database()))
    await watched.start(30)
    looked_through: list[psycopg.AsyncConnection[Any]] = []

    async def late(connection: psycopg.AsyncConnection[Any]) -> int:
        looked_through.append(connection)
        await connection.execute("SELECT pg_sleep(20)")
        return 0

    async def are_closed() -> bool:
        return len(looked_through) > 2 and all(connection.closed for connection in looked_through[:2])

    # The server is there, and ends the statement when it is told to: the connection itself stays whole.
    monkeypatch.setattr(watch, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "revision", late)
    try:
        await until(are_closed, 8)
    finally:
        await watched.close()


async def test_a_session_that_is_never_answered_is_not_waited_for(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first connection is taken and not served, as behind a balancer that has lost its server; those after it are well.
    monkeypatch.setattr(watch, "_FIRST_ANSWER_SECONDS", 0.5)
    name = postgres_server.create_database()
    async with Proxy(postgres_server.port) as proxy:
        proxy.swallowed = 1
        watched = Database(DatabaseSettings(f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"))
        await watched.start(0.1)

        async def serves() -> bool:
            return not watched.trouble

        await until(serves, 20)
        await watched.close()


async def test_a_loop_that_stood_still_is_not_taken_for_a_database_that_does(
    make_database: MakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Database(DatabaseSettings(make_database()))
    await watched.start(30)
    caplog.clear()
    for _ in range(3):
        await asyncio.sleep(0.7)
        time.sleep(2.6)  # noqa: ASYNC251 - that is the fault
    await asyncio.sleep(0.5)
    assert watched.trouble == ""
    assert "calls get UNAVAILABLE" not in caplog.text
    await watched.close()
