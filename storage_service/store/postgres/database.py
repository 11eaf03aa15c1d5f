"""The way to the database: a pool, lanes on some of its connections, and a watch that tells whether it is there.

    statement ──> lane (pipelined, point operations)     ──┐
    statement ──> pooled connection (searches, big values) ├──> Postgres
    transaction ─> pooled connection                     ──┘

The watch connects by itself once a second. While the database does not answer, or its schema does not fit, every call fails at once with
UNAVAILABLE; when it is back, the watch brings the schema up to date, opens a new pool and calls go through again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncRawCursor, AsyncTransaction
from psycopg_pool import AsyncConnectionPool

from storage_service.errors import Conflict, DatabaseUnavailable
from storage_service.store.postgres import adapt, faults, migrate
from storage_service.store.postgres.connect import DatabaseSettings, connection_string
from storage_service.store.postgres.lane import Lane, Row

T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]

log = logging.getLogger(__name__)

# Values above this many bytes go on a connection of their own, so that they hold up nothing.
_LARGE: Final = 65536
# A lane whose oldest statement waits longer gets no more (seconds), and one that waits longer still is given up.
_STALLED, _FROZEN_MARGIN = 0.25, 2.0
# How long a connection is used (seconds).
_LIFETIME: Final = 1800.0
# The lock wait of a statement on a lane; those on connections of their own have the setting's. All other writes wait as long.
_SHORT_LOCK_WAIT: Final = b"SET lock_timeout = '10ms'"
_WATCH_SECONDS, _ANSWER_SECONDS, _RECOVERY_SECONDS = 1.0, 1.75, 0.5
# How often a statement or transaction runs in all when it collides with another, a read when its connection is lost, and a look when
# its session is.
_TRIES: Final = 3


class Database:
    """Statements and transactions on one database. Errors come out as failures (``storage_service.errors``)."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.conninfo = connection_string(settings)
        self.revision = 0
        self.trouble = "the database has not been reached yet"
        self._pool: AsyncConnectionPool[Connection] | None = None
        # The one that reads (True), and the one that writes.
        self._lanes: dict[bool, Lane] = {}
        self._opening_lanes: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._probe: Connection | None = None
        self._looked = asyncio.Event()
        self._returning: set[asyncio.Task[None]] = set()
        piped = settings.prepared_statements and not settings.transaction_pooler
        # Never the pool's last connection.
        self._wanted_lanes = [
            reading for reading, least in ((False, 3), (True, 4)) if piped and settings.pool_max_size >= least
        ]
        # Writes that wait for another's lock leave room for everything else.
        self._behind_locks = asyncio.Semaphore(max(1, settings.pool_max_size // 2))

    # Lifecycle.

    async def start(self, probe_seconds: float) -> None:
        """Begin to watch, and wait for the first look at the database, but no longer than ``probe_seconds``."""
        self._watching = asyncio.create_task(self._watch(), name="database watch")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), probe_seconds)

    async def close(self) -> None:
        """Stop watching and close every connection."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching}, timeout=1)
        await self._drop_pool()
        await self._drop_probe()

    async def _watch(self) -> None:
        while True:
            try:
                trouble = await self._look()
            # Without the watch nothing would ever serve again, so a fault of its own is reported and looked past.
            except Exception as error:
                log.error("the watch over the database failed", exc_info=error)
                trouble = f"the database can't be watched ({_kind_of(error)})"
            if trouble != self.trouble:
                if trouble:
                    log.warning("%s; calls get UNAVAILABLE until it serves", trouble)
                else:
                    log.info("the database serves")
                self.trouble = trouble
            self._looked.set()
            if not trouble:
                self._tend_lanes()
            elif self._pool is not None:
                await self._drop_pool()
            await asyncio.sleep(_RECOVERY_SECONDS if trouble else _WATCH_SECONDS)

    async def _look(self) -> str:
        """What keeps the database from serving, or ""."""
        # A session that is lost or frozen is not the database: what an old one says against it must be said by new ones too.
        had_session, began = self._probe is not None, time.monotonic()
        for _ in range(_TRIES):
            trouble = await self._look_once()
            if not (trouble and had_session) or time.monotonic() - began > 1.5 * _ANSWER_SECONDS:
                break
        return trouble

    async def _look_once(self) -> str:
        # A frozen server answers neither a query nor its cancellation, so the look is left behind, not waited for.
        looking = asyncio.create_task(self._connect_and_look())
        try:
            done, _ = await asyncio.wait({looking}, timeout=_ANSWER_SECONDS if self._pool else None)
        except asyncio.CancelledError:
            looking.add_done_callback(forget)
            looking.cancel()
            raise
        if not done:
            probe, self._probe = self._probe, None

            def leave(look: asyncio.Task[str]) -> None:
                forget(look)
                if probe is not None:
                    probe.pgconn.finish()

            looking.add_done_callback(leave)
            looking.cancel()
            return f"the database did not answer within {_ANSWER_SECONDS:g} s"
        try:
            return looking.result()
        except psycopg.Error as error:
            await self._drop_probe()
            return f"the database can't be reached ({faults.why_unreachable(error)}); check DATABASE_URL and that Postgres is up"
        except migrate.MigrationError as error:
            return str(error)

    async def _connect_and_look(self) -> str:
        if self._probe is None or self._probe.closed:
            self._probe = await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True, prepare_threshold=None)
        if self._pool is None and self.settings.migrate:
            await migrate.migrate(self.conninfo)
        self.revision = await migrate.revision(self._probe)
        if self.revision != migrate.LATEST:
            return f"the database has schema revision {self.revision}, this server needs {migrate.LATEST}; " + (
                "run storage-service migrate" if self.revision < migrate.LATEST else "upgrade the server"
            )
        if self._pool is None:
            await self._open_pool()
        return ""

    async def _open_pool(self) -> None:
        settings = self.settings
        plain = settings.transaction_pooler or not settings.prepared_statements

        async def configure(connection: Connection) -> None:
            adapt.register(connection)
            connection.prepare_threshold = None if plain else 2

        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self.conninfo,
            # The watch has a connection of its own.
            min_size=max(1, settings.pool_min_size - 1),
            max_size=max(1, settings.pool_max_size - 1),
            timeout=settings.pool_timeout,
            max_waiting=settings.max_waiting,
            max_lifetime=_LIFETIME,
            reconnect_timeout=5,
            kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor},
            configure=configure,
            open=False,
        )
        try:
            await pool.open(wait=True, timeout=10)
        except BaseException:
            await asyncio.shield(pool.close(timeout=1))
            raise
        self._pool = pool
        for reading in self._wanted_lanes:
            await self._open_lane(reading)

    async def _drop_pool(self) -> None:
        pool, self._pool = self._pool, None
        lanes = list(self._lanes.values())
        self._lanes.clear()
        for lane in lanes:
            lane.abandon()
        if pool is not None:
            for lane in lanes:
                await pool.putconn(lane.connection)
            await pool.close(timeout=1)

    async def _drop_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.pgconn.finish()

    # Lanes.

    async def _open_lane(self, reading: bool) -> None:
        pool = self._pool
        if pool is None or reading in self._lanes:
            return
        connection = await pool.getconn()
        try:
            if not reading:
                # A write that waits for another's row holds up those behind it: it goes to a connection of its own soon.
                await connection.execute(_SHORT_LOCK_WAIT)
        except BaseException:
            await self._give_back(pool, connection)
            raise
        if pool is self._pool:
            self._lanes[reading] = Lane(connection)
        else:  # dropped meanwhile
            await self._give_back(pool, connection)

    async def _open_lanes(self) -> None:
        try:
            for reading in self._wanted_lanes:
                await self._open_lane(reading)
        except psycopg.Error as error:
            log.warning("no connection for many statements at once: %s", _kind_of(error))

    def _fit_lane(self, reading: bool) -> Lane | None:
        """The lane, when it is fit for one more statement. Reads have one of their own, since a write may wait for a lock."""
        lane = self._lanes.get(reading)
        if lane is None or not lane.usable or (lane.in_flight and lane.waited > _STALLED):
            return None
        return lane

    def _tend_lanes(self) -> None:
        """Give up lanes that do not answer, or have lived long, return to the pool what cannot be used, and open what is missing."""
        for reading, lane in list(self._lanes.items()):
            is_frozen = lane.waited > self.settings.statement_timeout + _FROZEN_MARGIN
            is_old = not lane.in_flight and (lane.age > _LIFETIME or lane.is_full)
            if lane.usable and (is_frozen or is_old):
                lane.abandon()
            if not lane.usable and self._pool is not None:
                del self._lanes[reading]
                self._return(self._pool, lane.connection)
        is_missing = len(self._lanes) < len(self._wanted_lanes)
        if is_missing and (self._opening_lanes is None or self._opening_lanes.done()):
            self._opening_lanes = asyncio.create_task(self._open_lanes(), name="lanes")

    # Statements.

    async def run(
        self,
        statement: str,
        values: Sequence[Any],
        *,
        reads: bool = False,
        again: bool = False,
        slow: bool = False,
    ) -> list[Row]:
        """Run one statement as a transaction of its own and give its rows.

        ``reads`` says that it locks nothing; ``again``, as a read, that it may run twice, so that a lost connection is made good by a
        second try; ``slow`` that it may take long, so that it gets a connection of its own and ends when the call is cancelled.
        """
        for left in reversed(range(_TRIES)):
            try:
                return await self._run_once(statement, values, slow, reads)
            except Exception as error:
                # A statement that collided has left no trace; one whose connection was lost may have.
                lost = (again or reads) and faults.is_connection_lost(error)
                if left and (faults.is_collision(error) or lost):
                    slow = True
                    continue
                raise self._failure(error) from error
        raise Conflict()

    async def _run_once(self, statement: str, values: Sequence[Any], slow: bool, reads: bool) -> list[Row]:
        lane = None if slow or _is_large(values) else self._fit_lane(reads)
        if lane is not None:
            try:
                return await lane.send(statement, values)
            except psycopg.errors.LockNotAvailable:
                # It did not run: it waits for its lock elsewhere.
                async with self._behind_locks:
                    return await self._run_alone(statement, values)
            except psycopg.errors.InvalidSqlStatementName:
                # Nor did this: the statement that was to prepare it failed.
                lane = None
        return await self._run_alone(statement, values)

    async def _run_alone(self, statement: str, values: Sequence[Any]) -> list[Row]:
        async with self._connection() as connection:
            return await _execute(connection, statement, values)

    async def atomic(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run statements as one transaction; again, up to three times in all, when it collides with another."""
        for left in reversed(range(_TRIES)):
            try:
                async with self._connection() as connection, connection.transaction() as transaction:
                    return await work(Transaction(connection, transaction))
            except Exception as error:
                if not (faults.is_collision(error) and left):
                    raise self._failure(error) from error
        raise Conflict()

    def _failure(self, error: Exception) -> Exception:
        """What the error means to a client; faults of this server stay what they are."""
        failure = faults.translate(error)
        if isinstance(error, psycopg.Error) and error.sqlstate in faults.POOLER_LOST_STATEMENT:
            log.error("a pooler lost a prepared statement; set DATABASE_TRANSACTION_POOLER=true")
        return failure or error

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A whole connection of the pool."""
        pool = self._pool
        if pool is None or self.trouble:
            raise DatabaseUnavailable()
        connection = await pool.getconn()
        # The pool's own check would wait a second after each lost connection that it finds.
        while _is_lost(connection):
            connection.pgconn.finish()
            await self._give_back(pool, connection)
            connection = await pool.getconn()
        try:
            yield connection
        finally:
            await self._give_back(pool, connection)

    async def _give_back(self, pool: AsyncConnectionPool[Connection], connection: Connection) -> None:
        """Return a connection to its pool, also when the call is cancelled meanwhile: the pool would lose it for ever."""
        await asyncio.shield(self._return(pool, connection))

    def _return(self, pool: AsyncConnectionPool[Connection], connection: Connection) -> asyncio.Task[None]:
        """Begin to return a connection to its pool."""
        returning = asyncio.create_task(pool.putconn(connection))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)
        return returning

    def pool_figures(self) -> dict[str, int]:
        """How the connections are used: psycopg_pool's statistics; empty while there is no pool."""
        return {} if self._pool is None else self._pool.get_stats()


class Transaction:
    """Statements of one transaction."""

    def __init__(self, connection: Connection, transaction: AsyncTransaction) -> None:
        self._connection = connection
        self._transaction = transaction

    async def run(self, statement: str, values: Sequence[Any]) -> list[Row]:
        """Run one statement and give its rows."""
        return await _execute(self._connection, statement, values)

    async def run_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """Run statements in order, in one round trip, and give the rows of each."""
        async with self._connection.pipeline():
            cursors = [self._connection.cursor(binary=True) for _ in statements]
            for cursor, (statement, values) in zip(cursors, statements, strict=True):
                await cursor.execute(statement.encode(), values)
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]


async def _execute(connection: Connection, statement: str, values: Sequence[Any]) -> list[Row]:
    cursor = await connection.cursor(binary=True).execute(statement.encode(), values)
    return await cursor.fetchall() if cursor.description else []


def _is_large(values: Sequence[Any]) -> bool:
    """Whether a value would hold up the statements behind it."""
    for value in values:  # noqa: SIM110 - a generator costs as much as the rest of the way
        if type(value) is str and len(value) > _LARGE:
            return True
    return False


def _is_lost(connection: Connection) -> bool:
    """Whether a connection was lost while it was idle, without a round trip: such a one has nothing to read until it ends."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poller.poll(0))


def forget(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended that was left behind, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()


def _kind_of(error: BaseException) -> str:
    """What kind of error it is, without its text, which may quote the connection string."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}, SQLSTATE {state}" if state else type(error).__name__
