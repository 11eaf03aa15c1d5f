"""The watch over the database keeps no connection that nobody looks through."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from storage_service.store.postgres import DatabaseSettings, database, migrate
from storage_service.store.postgres.database import Database
from tests.faults.servers import until
from tests.postgres_server import MakeDatabase


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
    monkeypatch.setattr(database, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "revision", late)
    try:
        await until(are_closed, 8)
    finally:
        await watched.close()
