"""Wake-ups between the processes that share a database: NOTIFY and LISTEN, as hints that may be lost.

A NOTIFY takes a lock of the whole database at its commit, so none goes with a write: what gathers is sent by itself, at most fifty times a
second from each process, whatever happens. Who listens takes a connection of the pool, from the first wait on; behind a pooler, and where
the pool is small, nobody listens, and those who wait look for themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from storage_service.errors import Failure
from storage_service.store.postgres import faults
from storage_service.store.postgres.database import Database
from storage_service.wakeups import ALL, Wakeups

log = logging.getLogger(__name__)

_CHANNEL: Final = "storage_service"
_SEND: Final = f"SELECT pg_notify('{_CHANNEL}', $1)"
# Seconds between two sendings, and before another try to listen.
_GATHER, _RETRY = 0.02, 1.0
# Postgres takes less than 8,000 bytes.
_MOST_BYTES: Final = 7500
# The smallest pool of which one connection may listen.
_LEAST_POOL: Final = 5


class Hints:
    """Tells other processes what happened here, and hears what happened there."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._topics: dict[str, None] = {}
        self._sending: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        settings = database.settings
        wakeups.relay = self._tell
        if not settings.transaction_pooler and settings.pool_max_size >= _LEAST_POOL:
            wakeups.on_first = self._listen

    async def stop(self) -> None:
        """Send and listen no more."""
        self._wakeups.relay = self._wakeups.on_first = None
        tasks = {task for task in (self._sending, self._listening) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    def _tell(self, topics: Iterable[str]) -> None:
        self._topics.update(dict.fromkeys(topics))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="wake-ups")

    async def _send(self) -> None:
        while self._topics:
            await asyncio.sleep(_GATHER)
            topics, self._topics = self._topics, {}
            payload = "\n".join(topics)
            if len(payload.encode()) > _MOST_BYTES:
                payload = ALL
            try:
                await self._database.run(_SEND, [payload])
            except Failure as failure:
                # Who waits looks for itself.
                log.debug("wake-ups were not sent: %s", failure.message)

    def _listen(self) -> None:
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._keep_listening(), name="listening")

    async def _keep_listening(self) -> None:
        while True:
            try:
                async with self._database.connection() as connection:
                    await self._hear(connection)
            except psycopg.Error as error:
                log.warning("listening for wake-ups ended: %s", faults.kind_of(error))
            except (Failure, PoolTimeout, PoolClosed, TooManyRequests) as error:
                log.debug("not listening for wake-ups: %s", type(error).__name__)
            await asyncio.sleep(_RETRY)

    async def _hear(self, connection: psycopg.AsyncConnection[object]) -> None:
        """Pass on what is heard, as long as the connection belongs to the pool that serves."""
        await connection.execute(f"LISTEN {_CHANNEL}")
        try:
            # What happened while nobody listened.
            self._wakeups.hear([ALL])
            pool = self._database.pools
            while self._database.pools == pool and not self._database.trouble:
                async for notify in connection.notifies(timeout=_RETRY):
                    self._wakeups.hear(notify.payload.split("\n"))
        finally:
            # The pool would hand it out listening.
            connection.pgconn.finish()
