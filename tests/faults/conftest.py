"""Fixtures for faults: a Postgres that may be broken, servers, channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from tests.faults.cluster import Cluster
from tests.faults.servers import Serve, serve, until_healthy
from tests.service import GrpcApi, ServerProcess

__all__ = ["serve"]


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """The Postgres of all tests here."""
    found = Cluster()
    yield found
    found.end()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """A Postgres to break; a test leaves it running."""
    return shared_cluster


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The connection string of a new database in it."""
    return cluster.create_database()


@pytest.fixture
async def server(serve: Serve, database: str) -> ServerProcess:
    """A server on that database; a call without a deadline gets 2 s."""
    return await serve(database, environment={"STORAGE_CALL_SECONDS": "2"})


@pytest.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to that server."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        yield channel


@pytest.fixture
def api(channel: grpc.aio.Channel) -> GrpcApi:
    """The API of that server, with deadlines of 10 s."""
    return GrpcApi(channel, "postgres", timeout=10)
