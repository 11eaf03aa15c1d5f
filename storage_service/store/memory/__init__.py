"""The memory backend: the model that Postgres is tested against, and a server without a database. Its rows end with the process."""

from __future__ import annotations

from collections.abc import Sequence

from agentstorage.v1 import common_pb2
from agentstorage.v1.server_pb2 import PoolFigures
from storage_service.caller import Scope
from storage_service.store.memory.items import RESOURCES, Owners
from storage_service.store.memory.rows import Clock, Tables, utc_now


class MemoryHandle(Owners):
    """The rows of one scope in memory."""


class MemoryStore:
    """The memory backend; see :class:`storage_service.store.Store`."""

    name = "memory"

    def __init__(self, clock: Clock = utc_now) -> None:
        self._tables = Tables(clock)

    def seen_by(self, scope: Scope, most_bytes: int) -> MemoryHandle:
        # A handle serves one operation, which runs without a pause.
        self._tables.begin()
        return MemoryHandle(self._tables, scope, most_bytes)

    async def truncate(self, resources: Sequence[common_pb2.Resource]) -> None:
        for resource in resources:
            for table in RESOURCES[resource]:
                self._tables.of(table).clear()

    def trouble(self) -> str:
        return ""

    def revision(self) -> int:
        return 0

    def pool(self) -> PoolFigures | None:
        return None


__all__ = ["MemoryHandle", "MemoryStore"]
