"""The Postgres backend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import common_pb2
from agentstorage.v1.server_pb2 import PoolFigures
from storage_service.caller import Scope
from storage_service.store import MESSAGE_BYTES
from storage_service.store.postgres.assistants import Assistants
from storage_service.store.postgres.connect import DatabaseSettings
from storage_service.store.postgres.database import Database, Transaction
from storage_service.store.postgres.firing import Firing
from storage_service.store.postgres.hints import Hints
from storage_service.store.postgres.items import Items
from storage_service.store.postgres.owners import RESOURCES, Owners
from storage_service.store.postgres.retention import CLAIM, Retention
from storage_service.store.postgres.rows import Values
from storage_service.store.tables import (
    CHECKPOINT_BLOBS,
    CHECKPOINT_WRITES,
    CHECKPOINTS,
    DISPLACED_ITEMS,
    ITEMS,
    THREADS,
)
from storage_service.wakeups import Wakeups


class PostgresHandle(Assistants, Retention, Firing, Items, Owners):
    """The rows of one scope in Postgres."""


class PostgresStore:
    """The Postgres backend; see :class:`storage_service.store.Store`."""

    name = "postgres"

    def __init__(self, settings: DatabaseSettings) -> None:
        self.database = Database(settings)
        self.thread_ttl = settings.thread_ttl
        self.wakeups = Wakeups()
        self._hints = Hints(self.database, self.wakeups)

    async def start(self, probe_seconds: float) -> None:
        """Begin to connect, and wait up to ``probe_seconds`` until the database serves."""
        await self.database.start(probe_seconds)

    async def close(self) -> None:
        """Close every connection."""
        await self._hints.stop()
        await self.database.close()

    def seen_by(self, scope: Scope, most_bytes: int = MESSAGE_BYTES) -> PostgresHandle:
        return PostgresHandle(self.database, scope, most_bytes)

    async def truncate(self, resources: Sequence[common_pb2.Resource]) -> None:
        names = []
        for resource in resources:
            table, part = RESOURCES[resource]
            names.extend([table.name] if part is None else [table.name, part[0].name])
        if ITEMS.name in names:
            names.append(DISPLACED_ITEMS.name)
        # The ids of threads whose checkpoints stay would be taken for ever.
        checkpoints = (CHECKPOINTS, CHECKPOINT_BLOBS, CHECKPOINT_WRITES) if THREADS.name in names else ()

        async def work(transaction: Transaction) -> None:
            for table in checkpoints:
                await transaction.run(
                    f"DELETE FROM {table.name} WHERE thread_id IN (SELECT id FROM {THREADS.name})", []
                )
            await transaction.run(f"TRUNCATE {', '.join(names)}", [])

        await self.database.atomic(work)

    async def claim(self, name: str, seconds: float) -> bool:
        return bool(await self.database.run(CLAIM, Values((name, seconds)), slow=True))

    async def now(self) -> datetime:
        now: Timestamp = (await self.database.run("SELECT now()", [], reads=True))[0][0]
        return now.ToDatetime(UTC)

    def trouble(self) -> str:
        return self.database.trouble

    def revision(self) -> int:
        return self.database.revision

    def pool(self) -> PoolFigures | None:
        figures = self.database.pool_figures()
        if not figures:
            return None
        return PoolFigures(
            # The watch's connection is one, too.
            size=figures["pool_size"] + 1,
            max_size=figures["pool_max"] + 1,
            available=figures["pool_available"],
            waiting=figures["requests_waiting"],
        )


__all__ = ["DatabaseSettings", "PostgresHandle", "PostgresStore"]
