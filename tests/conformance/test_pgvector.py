"""Searches by a vector where pgvector is not in the schema that the other tests have it in, or not there at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.conformance.test_vectors import *  # noqa: F403 - all of them again, on the databases below
from tests.conformance.test_vectors import fill, put, search
from tests.postgres_server import PostgresServer
from tests.service import Api, DirectApi

#: What is done to a database after its migration, and where pgvector is then.
CHANGES = {
    "absent": ("DROP EXTENSION vector", None),
    "elsewhere": ('CREATE SCHEMA "Its own"; ALTER EXTENSION vector SET SCHEMA "Its own"', "Its own"),
}


@pytest.fixture(scope="module", params=CHANGES)
async def changed(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> AsyncIterator[PostgresStore]:
    url = postgres_server.url(postgres_server.create_database())
    store = PostgresStore(DatabaseSettings(url))
    await store.start(30)
    change, schema = CHANGES[request.param]
    with psycopg.connect(url, autocommit=True) as connection:
        assert _schema(connection) == "public"
        connection.execute(change)
        assert _schema(connection) == schema
    yield store
    await store.close()


def _schema(connection: psycopg.Connection) -> str | None:
    row = connection.execute(
        "SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE extname = 'vector'"
    ).fetchone()
    return row[0] if row else None


@pytest.fixture
def api(changed: PostgresStore) -> Api:
    return DirectApi(build_pipeline(Settings(anonymous_rights="unscoped,admin"), changed), "postgres")


async def test_pgvector_may_go_and_come_back(postgres_server: PostgresServer, owner: str) -> None:
    url = postgres_server.url(postgres_server.create_database())
    store = PostgresStore(DatabaseSettings(url))
    await store.start(30)
    api = DirectApi(build_pipeline(Settings(), store), "postgres")
    await fill(api, owner, put("k", [1, 2, 3]), put("l", [3, 2, 1]))
    with psycopg.connect(url, autocommit=True) as connection:
        for change in ("SELECT 1", "DROP EXTENSION vector", "CREATE EXTENSION vector SCHEMA langgraph_server"):
            connection.execute(change)
            for _ in range(8):  # until the statement is a prepared one
                found = await search(api, owner, [1, 2, 3])
                assert [(item.key, item.score) for item in found] == [("k", 1.0), ("l", 0.714286)]
    await store.close()


async def test_a_role_that_may_not_make_it_goes_without(postgres_server: PostgresServer, owner: str) -> None:
    name = postgres_server.create_database()
    with psycopg.connect(postgres_server.url(name), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        connection.execute(f"ALTER DATABASE {name} OWNER TO {name}")
        connection.execute(f"ALTER SCHEMA public OWNER TO {name}")
    url = postgres_server.url(name).replace("postgres@", f"{name}@")
    store = PostgresStore(DatabaseSettings(url))
    await store.start(30)
    assert store.trouble() == ""
    with psycopg.connect(url) as connection:
        assert _schema(connection) is None
    api = DirectApi(build_pipeline(Settings(), store), "postgres")
    await fill(api, owner, put("k", [1, 2, 3]))
    [item] = await search(api, owner, [1, 2, 3])
    assert item.score == 1.0
    await store.close()
