"""A service on a database of its own, whose rows a test can lock beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.faults.servers import until
from tests.postgres_server import PostgresServer
from tests.service import Api, DirectApi

# Longer than a statement waits on a connection that it shares: what waits so long stands in the queue of the lock for good.
_SETTLED_SECONDS = 0.15
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    f" AND clock_timestamp() - query_start > interval '{_SETTLED_SECONDS} s'"
)


@dataclass
class Bench:
    """The service, its database, and a connection to look at it and to lock its rows."""

    api: Api
    database_url: str
    connection: psycopg.AsyncConnection[Any]

    async def hold(self, table: str, id: str) -> psycopg.AsyncConnection[Any]:
        """Lock a row on a new connection; to be released by closing that."""
        holder = await psycopg.AsyncConnection.connect(self.database_url)
        cursor = await holder.execute(f"SELECT FROM langgraph_server.{table} WHERE id = %s FOR UPDATE", [id])
        assert cursor.rowcount == 1
        return holder

    async def until_waiting(self, statements: int) -> None:
        """Wait until so many statements stand in the queues of locks."""

        async def are() -> bool:
            return await self.number(_WAITING) == statements

        await until(are, 5)

    async def number(self, statement: str, *values: object) -> int:
        """The number that a statement gives."""
        row = await (await self.connection.execute(statement, values)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="package")
async def shared_bench(postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    """The bench of all tests here."""
    url = postgres_server.url(postgres_server.create_database())
    # Long enough for tests that queue; those that wait for the end of it have a store of their own.
    store = PostgresStore(DatabaseSettings(url, lock_timeout=10))
    await store.start(30)
    assert not store.trouble()
    settings = Settings(anonymous_rights="unscoped,admin")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield Bench(DirectApi(build_pipeline(settings, store), "postgres"), url, connection)
    await store.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    """A service whose statements wait up to 10 s for a lock."""
    return shared_bench


@pytest.fixture
async def hasty(postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    """A service whose statements wait up to 1 s for a lock, and whose streams end after 1 s."""
    url = postgres_server.url(postgres_server.create_database())
    store = PostgresStore(DatabaseSettings(url, lock_timeout=1))
    await store.start(30)
    assert not store.trouble()
    settings = Settings(anonymous_rights="unscoped,admin", limits=Limits(stream_seconds=1))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield Bench(DirectApi(build_pipeline(settings, store), "postgres"), url, connection)
    await store.close()
