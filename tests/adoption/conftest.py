"""Databases for adoption."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from storage_service.store.postgres.migrate import migrate
from tests.adoption import runtimes
from tests.postgres_server import MakeDatabase, PostgresServer


@pytest.fixture
def legacy(postgres_server: PostgresServer, make_database: MakeDatabase) -> str:
    """The connection string of a database that both runtimes have used, not yet adopted."""
    return make_database(postgres_server.template("legacy", runtimes.both))


@pytest.fixture
def empty(make_database: MakeDatabase) -> str:
    """The connection string of a database that nobody has used."""
    return make_database()


@pytest.fixture(params=["empty", "legacy"])
def either(request: pytest.FixtureRequest) -> str:
    """One, then the other."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def migrated(postgres_server: PostgresServer, make_database: MakeDatabase) -> str:
    """The connection string of a database as this service has it, without rows."""
    return make_database(postgres_server.template("migrated", lambda url: asyncio.run(_migrate(url))))


async def _migrate(url: str) -> None:
    await migrate(url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a SQLite file may be."""
    return tmp_path / "check points%.sqlite"
