"""The drop-in storage interface: the calls that agent runtimes make, answered by the storage service."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from agentstorage.connection import Connection
from agentstorage.opening import opened
from agentstorage.storage.assistants import Assistants
from agentstorage.storage.crons import Crons
from agentstorage.storage.rows import Assistant, AssistantConfig, Cron, Item, Run, Thread, ThreadState
from agentstorage.storage.runs import Runs
from agentstorage.storage.store import Store
from agentstorage.storage.threads import Threads

__all__ = [
    "Assistant",
    "AssistantConfig",
    "Assistants",
    "Cron",
    "Crons",
    "GrpcStorage",
    "Item",
    "Run",
    "Runs",
    "Store",
    "Thread",
    "ThreadState",
    "Threads",
]


class GrpcStorage:
    """Everything that a runtime stores, behind the interface that it already calls.

        storage = GrpcStorage("localhost:50051")
        thread = await storage.threads.create({"metadata": {"topic": "tea"}}, "alice")

    It may be made outside of an event loop and used from several: each gets its own channel. Rows that are absent, or
    another owner's, are None or False, never an exception; what the service refuses or cannot do is a ``StorageError``.

    Args:
        target: ``host:port`` of the service, or an open ``Connection``, which stays open when the storage is closed.
            Default: ``AGENTSTORAGE_TARGET``, else ``localhost:50051``.
        settings: What ``Connection`` takes beside the target: owner_id, token, tls_ca and the rest. Not together with an
            open connection.

    Attributes:
        assistants: The assistants.
        threads: The threads and their states.
        runs: The runs.
        store: The long-term store.
        crons: The crons.
    """

    def __init__(self, target: str | Connection | None = None, **settings: Any) -> None:
        self._connection, self._owned = opened(self, target, settings)
        self.assistants = Assistants(self._connection)
        self.threads = Threads(self._connection)
        self.runs = Runs(self._connection)
        self.store = Store(self._connection)
        self.crons = Crons(self._connection)

    @property
    def connection(self) -> Connection:
        """The connection, for the generated stubs."""
        return self._connection

    async def clear_all(self) -> None:
        """Delete every row of all resources, of all owners. For tests: the server must allow it, and the token too."""
        for resource in (self.runs, self.crons, self.threads, self.assistants, self.store):
            await resource.clear()

    async def close(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            await self._connection.close()

    async def __aenter__(self) -> GrpcStorage:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
