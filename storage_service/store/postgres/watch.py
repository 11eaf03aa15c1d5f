"""The watch over the database: it alone tells whether the database serves.

Once a second it looks through a connection of its own. While the database does not answer, or its schema does not fit, there is no pool
and every call fails at once; when it is back, the watch brings the schema up to date and has a new pool opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any, Final, Protocol

import psycopg

from storage_service.store.postgres import faults, migrate

Connection = psycopg.AsyncConnection[Any]

log = logging.getLogger(__name__)

# Between looks while all is well and while it is not; for an answer while there is a pool and while there is none, when a connection
# may have to be made; for a migration. Seconds.
_PAUSE, _RECOVERY_PAUSE = 1.0, 0.5
_ANSWER_SECONDS, _FIRST_ANSWER_SECONDS, _MIGRATION_SECONDS = 1.75, 5.0, 3600.0
# How often a lost session is looked past before the database is taken for lost.
_LOOKS: Final = 3


class Watched(Protocol):
    """What the watch opens and closes."""

    async def open_pool(self) -> None:
        """Open the pool; the database serves."""

    async def drop_pool(self) -> None:
        """Close the pool; the database does not serve."""

    def tend(self) -> None:
        """Look after the connections; called with every look that goes well."""


class Watch:
    """``trouble`` says what keeps the database from serving, or is ""; ``revision`` is that of the schema."""

    def __init__(self, conninfo: str, watched: Watched, *, migrates: bool) -> None:
        self.trouble = "the database has not been reached yet"
        self.revision = 0
        self._conninfo = conninfo
        self._watched = watched
        self._migrates = migrates
        self._has_migrated = False
        self._has_pool = False
        self._probe: Connection | None = None
        self._looked = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def start(self, probe_seconds: float) -> None:
        """Begin, and wait for the first look, but no longer than ``probe_seconds``."""
        self._watching = asyncio.create_task(self._watch(), name="database watch")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), probe_seconds)

    async def stop(self) -> None:
        """End."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching}, timeout=1)
        self._drop_probe()

    async def _watch(self) -> None:
        while True:
            try:
                trouble = await self._look()
            # Without the watch nothing would ever serve again, so a fault of its own is reported and looked past.
            except Exception as error:
                log.error("the watch over the database failed", exc_info=error)
                trouble = f"the database can't be watched ({faults.kind_of(error)})"
            if trouble != self.trouble:
                if trouble:
                    log.warning("%s; calls get UNAVAILABLE until it serves", trouble)
                else:
                    log.info("the database serves")
                self.trouble = trouble
            self._looked.set()
            if not trouble:
                self._watched.tend()
            elif self._has_pool:
                self._has_pool = False
                await self._watched.drop_pool()
            await asyncio.sleep(_RECOVERY_PAUSE if trouble else _PAUSE)

    async def _look(self) -> str:
        """What keeps the database from serving, or ""."""
        # A session that is lost or frozen is not the database: what an old one says against it must be said by new ones too.
        had_session, began = self._probe is not None, time.monotonic()
        for _ in range(_LOOKS):
            try:
                trouble = await self._look_once()
            except psycopg.Error as error:
                self._drop_probe()
                trouble = f"the database can't be reached ({faults.why_unreachable(error)}); check DATABASE_URL and that Postgres is up"
            except migrate.MigrationError as error:
                trouble = str(error)
            if not (trouble and had_session) or time.monotonic() - began > 1.5 * _ANSWER_SECONDS:
                break
        return trouble

    async def _look_once(self) -> str:
        seconds = _ANSWER_SECONDS if self._has_pool else _FIRST_ANSWER_SECONDS
        late = f"the database did not answer within {seconds:g} s"
        if not await self._asked(seconds):
            return late
        if self._has_pool:
            return self._misfit()
        if self._migrates and not (self._has_migrated and self.revision == migrate.LATEST):
            migrating = asyncio.create_task(migrate.migrate(self._conninfo))
            if not await _answered(migrating, _MIGRATION_SECONDS):
                return "the migration of the database does not end"
            migrating.result()
            self._has_migrated = True
            if not await self._asked(seconds):
                return late
        if not self._misfit():
            await self._watched.open_pool()
            self._has_pool = True
        return self._misfit()

    async def _asked(self, seconds: float) -> bool:
        """Ask for the revision of the schema; False when no answer came in time."""
        asking = asyncio.create_task(self._ask(self._probe))
        self._probe = None
        if not await _answered(asking, seconds):
            return False
        self._probe, self.revision = asking.result()
        return True

    async def _ask(self, probe: Connection | None) -> tuple[Connection, int]:
        """The session that was looked through, the given one if it is whole, and the revision of the schema."""
        if probe is None or probe.closed:
            probe = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        try:
            return probe, await migrate.revision(probe)
        except BaseException:
            probe.pgconn.finish()
            raise

    def _misfit(self) -> str:
        if self.revision == migrate.LATEST:
            return ""
        return f"the database has schema revision {self.revision}, this server needs {migrate.LATEST}; " + (
            "run storage-service migrate" if self.revision < migrate.LATEST else "upgrade the server"
        )

    def _drop_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.pgconn.finish()


async def _answered(work: asyncio.Task[Any], seconds: float) -> bool:
    """Wait so long for work. A frozen server answers neither a query nor its cancellation, so work that is late is left behind."""
    try:
        # Late may be this event loop, when it stood still, and not the database: it gets a second chance.
        for _ in range(2):
            began = time.monotonic()
            done, _ = await asyncio.wait({work}, timeout=seconds)
            if done or time.monotonic() - began < seconds + 0.5:
                break
    except asyncio.CancelledError:
        _leave(work)
        raise
    if not done:
        _leave(work)
    return bool(done)


def _leave(work: asyncio.Task[Any]) -> None:
    work.add_done_callback(_dispose)
    work.cancel()


def _dispose(work: asyncio.Task[Any]) -> None:
    """Take note of how work ended that was left behind, and close the session that it gives all the same."""
    if work.cancelled() or work.exception() is not None:
        return
    result = work.result()
    if isinstance(result, tuple):
        result[0].pgconn.finish()
