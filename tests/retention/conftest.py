"""A store in this process on each backend, whose threads can be made older, and which is swept when a test says so."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from storage_service.caller import Owner
from storage_service.retention import Sweep
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from storage_service.store.memory import MemoryStore
from storage_service.store.postgres import PostgresStore
from storage_service.store.retention import Swept
from storage_service.store.tables import THREADS
from tests.conformance.checkpoints import Thread
from tests.faults.conftest import cluster, shared_cluster
from tests.faults.servers import serve
from tests.service import Api, DirectApi

__all__ = ["cluster", "serve", "shared_cluster"]


async def expire(sweep: Sweep) -> Swept:
    """End the time of threads and items."""
    return await sweep.threads() + await sweep.items()


@dataclass
class Place:
    """A store, the API over it, and an owner there whose rows are swept."""

    store: Store
    api: Api
    owner: str

    def thread(self, thread_id: str = "t", owner: str = "") -> Thread:
        """A thread of the owner, or of another."""
        return Thread(self.api, owner or self.owner, f"{owner or self.owner}-{thread_id}")

    def sweep(self, thread_id: str = "") -> Sweep:
        """A pass over the owner's rows."""
        return Sweep(self.store, Owner(self.owner), thread_id)

    async def expire(self) -> Swept:
        """Sweep what has expired."""
        return await expire(self.sweep())

    async def age(self, thread: Thread, seconds: float) -> None:
        """Let the last change of a thread, and the end of its time, lie so much further back."""
        if isinstance(self.store, MemoryStore):
            row = self.store._tables.of(THREADS)[(thread.id,)].row
            for field in ("updated_at", "expires_at"):
                if row.HasField(field):
                    stamp: Timestamp = getattr(row, field)
                    stamp.FromMicroseconds(stamp.ToMicroseconds() - round(seconds * 1e6))
            return
        assert isinstance(self.store, PostgresStore)
        async with await psycopg.AsyncConnection.connect(self.store.database.settings.url, autocommit=True) as conn:
            # A change of updated_at begins the time anew, so that goes first.
            set_back = "UPDATE langgraph_server.threads SET {0} = {1} - make_interval(secs => %s) WHERE id = %s"
            rows = await conn.execute("SELECT expires_at FROM langgraph_server.threads WHERE id = %s", (thread.id,))
            [(expires_at,)] = await rows.fetchall()
            await conn.execute(set_back.format("updated_at", "updated_at"), (seconds, thread.id))
            await conn.execute(
                set_back.format("expires_at", "%s::timestamptz"),
                (expires_at, seconds, thread.id),
            )


@pytest.fixture(params=("memory", "postgres"))
def place(request: pytest.FixtureRequest, stores: dict[str, Store], owner: str) -> Place:
    """Each backend, with an owner that nothing belongs to yet."""
    store = stores[request.param]
    return Place(store, DirectApi(build_pipeline(Settings(), store), request.param), owner)


@pytest.fixture
async def places(stores: dict[str, Store], owner: str) -> list[Place]:
    """Both backends, with the same owner."""
    return [Place(store, DirectApi(build_pipeline(Settings(), store), name), owner) for name, store in stores.items()]
