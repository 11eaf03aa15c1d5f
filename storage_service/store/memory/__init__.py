"""The memory backend: the model that Postgres is tested against, and a server without a database. Its rows end with the process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from agentstorage.v1 import common_pb2
from agentstorage.v1.server_pb2 import PoolFigures
from agentstorage.v1.threads_pb2 import ThreadTtl
from storage_service.caller import Scope
from storage_service.store import MESSAGE_BYTES
from storage_service.store.memory.items import RESOURCES, Owners
from storage_service.store.memory.queue import Queue
from storage_service.store.memory.retention import Retention
from storage_service.store.memory.rows import Clock, Tables, utc_now
from storage_service.store.tables import LANGGRAPH_TABLES, RUN_EVENTS
from storage_service.wakeups import Wakeups


class MemoryHandle(Queue, Retention, Owners):
    """The rows of one scope in memory."""


class MemoryStore:
    """The memory backend; see :class:`storage_service.store.Store`."""

    name = "memory"

    def __init__(self, clock: Clock = utc_now, thread_ttl: ThreadTtl | None = None) -> None:
        self._tables = Tables(clock, thread_ttl=thread_ttl)
        self.thread_ttl = thread_ttl
        self.wakeups = Wakeups()

    def seen_by(self, scope: Scope, most_bytes: int = MESSAGE_BYTES) -> MemoryHandle:
        # A handle serves one operation, which runs without a pause.
        self._tables.begin()
        return MemoryHandle(self._tables, scope, most_bytes)

    async def truncate(self, resources: Sequence[common_pb2.Resource]) -> None:
        for resource in resources:
            for table in RESOURCES[resource]:
                if table in LANGGRAPH_TABLES:
                    self._tables.histories.clear()
                elif table is not RUN_EVENTS:  # they go with their runs
                    self._tables.of(table).clear()

    async def claim(self, name: str, seconds: float) -> bool:
        began = self._tables.sweeps.get(name)
        now = self._tables.clock()
        if began is not None and now - began < timedelta(seconds=seconds):
            return False
        self._tables.sweeps[name] = now
        return True

    async def now(self) -> datetime:
        return self._tables.clock()

    def trouble(self) -> str:
        return ""

    def revision(self) -> int:
        return 0

    def pool(self) -> PoolFigures | None:
        return None


__all__ = ["MemoryHandle", "MemoryStore"]
