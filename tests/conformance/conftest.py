from __future__ import annotations

import pytest

from storage_service.store import Store
from storage_service.store.postgres import PostgresStore
from tests.conformance.queue import Queue
from tests.service import Api, ServerProcess


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, api: Api, servers: dict[str, ServerProcess], stores: dict[str, Store]
) -> str:
    """The connection string of the database behind ``api``."""
    backend, _, way = request.node.callspec.params["api"].partition("-")
    if way == "direct":
        store = stores[backend]
        assert isinstance(store, PostgresStore)
        return store.database.settings.url
    return servers[backend].database_url


@pytest.fixture
def queue(api: Api, owner: str) -> Queue:
    """The queue of a new owner."""
    return Queue(api, owner)
