"""Fixtures of the whole suite: a Postgres, servers on both backends, and the API by every way in."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from storage_service.store.memory import MemoryStore
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.postgres_server import PostgresServer, make_database, postgres_server, postgres_url
from tests.service import Api, DirectApi, ServerProcess, connected

__all__ = ["make_database", "postgres_server", "postgres_url"]

#: Ways to the API: the backend, and how it is called, both backends and every way among them. The last one prepares no statement, as
#: behind a pooler.
WAYS = ("memory-direct", "memory-grpc", "postgres-direct", "postgres-exchange", "unprepared-grpc")


@pytest.fixture(scope="session")
def servers(postgres_server: PostgresServer) -> Iterator[dict[str, ServerProcess]]:
    """Running servers by backend, each started when it is first asked for."""
    running = _Servers(postgres_server)
    yield running
    for server in running.values():
        server.stop()


class _Servers(dict[str, ServerProcess]):
    def __init__(self, postgres_server: PostgresServer) -> None:
        super().__init__()
        self._postgres = postgres_server

    def __missing__(self, backend: str) -> ServerProcess:
        url = "" if backend == "memory" else self._postgres.url(self._postgres.create_database())
        environment = {"DATABASE_PREPARED_STATEMENTS": "false"} if backend == "unprepared" else {}
        self[backend] = ServerProcess(backend, url, environment=environment).start()
        return self[backend]


@pytest.fixture(params=("memory", "postgres"))
def server(request: pytest.FixtureRequest, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A running server, on each backend; rights unscoped and admin, Truncate on."""
    return servers[request.param]


@pytest.fixture(scope="session")
async def stores(postgres_server: PostgresServer) -> AsyncIterator[dict[str, Store]]:
    """Both backends in this process."""
    postgres = PostgresStore(DatabaseSettings(postgres_server.url(postgres_server.create_database())))
    await postgres.start(30)
    assert not postgres.trouble()
    yield {"memory": MemoryStore(), "postgres": postgres}
    await postgres.close()


@pytest.fixture(params=WAYS)
async def api(
    request: pytest.FixtureRequest, servers: dict[str, ServerProcess], stores: dict[str, Store]
) -> AsyncIterator[Api]:
    """The API by every way in."""
    backend, _, way = request.param.partition("-")
    if way == "direct":
        settings = Settings(anonymous_rights="unscoped,admin", allow_truncate=True)
        yield DirectApi(build_pipeline(settings, stores[backend]), backend)
        return
    async with connected(servers[backend].target, "memory" if backend == "memory" else "postgres", way) as api:
        yield api


@pytest.fixture
def owner() -> str:
    """An owner that nothing belongs to yet."""
    return f"owner-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def other() -> str:
    """Another owner that nothing belongs to yet."""
    return f"other-{uuid.uuid4().hex[:12]}"
