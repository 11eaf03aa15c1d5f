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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import psycopg
from psycopg import AsyncRawCursor, AsyncTransaction
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from storage_service.errors import Conflict, DatabaseUnavailable
from storage_service.store.postgres import adapt, faults, heavy, reader
from storage_service.store.postgres.connect import DatabaseSettings, connection_string
from storage_service.store.postgres.lane import Lane, NotSent, Row
from storage_service.store.postgres.turns import Turns
from storage_service.store.postgres.watch import Watch

T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]

log = logging.getLogger(__name__)

# Values above this many bytes go on a connection of their own, so that they hold up nothing.
_LARGE: Final = 65536
# A lane whose oldest statement waits longer gets no more (seconds), and one that waits longer still is given up.
_STALLED, _FROZEN_MARGIN = 0.25, 2.0
# How long a connection is used (seconds).
_LIFETIME: Final = 1800.0
# How long a lock is waited for on a lane, where all other writes wait as well, and on a connection of the pool; after that the wait goes
# on in a turn, as long as the setting says.
_SHORTEST_LOCK_WAIT: Final = b"SET lock_timeout = '2ms'"
_SHORT_LOCK_WAIT: Final = b"SET lock_timeout = '20ms'"
# How often a statement or transaction runs in all when it collides with another.
_TRIES: Final = 3


class Database:
    """Statements and transactions on one database. Errors come out as failures (``storage_service.errors``)."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.conninfo = connection_string(settings)
        # What a migration sets for its session a pooler would carry over to another client.
        self._watch = Watch(self.conninfo, self, migrates=settings.migrate and not settings.transaction_pooler)
        self._pool: AsyncConnectionPool[Connection] | None = None
        #: How many pools were opened: the connections of each but the last are of no use.
        self.pools = 0
        # The one that reads (True), and the one that writes; and old ones that still have something to answer.
        self._lanes: dict[bool, Lane] = {}
        self._retiring: list[Lane] = []
        self._opening_lanes: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()
        piped = settings.prepared_statements and not settings.transaction_pooler
        # Never the pool's last connection.
        self._wanted_lanes = [
            reading for reading, least in ((False, 3), (True, 4)) if piped and settings.pool_max_size >= least
        ]
        # Behind a pooler a session can't be told how long to wait for locks: there all wait as long.
        self._patience = (
            "" if settings.transaction_pooler else f"SET LOCAL lock_timeout = {round(settings.lock_timeout * 1000)}"
        )
        places = max(1, settings.pool_max_size // 2)
        self._turns = Turns(places, max(1, places // 2))

    # Lifecycle.

    @property
    def trouble(self) -> str:
        """What keeps the database from serving, or ""."""
        return self._watch.trouble

    @property
    def revision(self) -> int:
        """The revision of the schema."""
        return self._watch.revision

    async def start(self, probe_seconds: float) -> None:
        """Begin to watch, and wait for the first look at the database, but no longer than ``probe_seconds``."""
        await self._watch.start(probe_seconds)

    async def close(self) -> None:
        """Stop watching and close every connection."""
        await self._watch.stop()
        await self.drop_pool()

    async def open_pool(self) -> None:
        """Open the pool; for the watch, which then has the lanes opened by :meth:`tend` and waits for neither."""
        settings = self.settings

        async def configure(connection: Connection) -> None:
            adapt.register(connection)
            connection.prepare_threshold = (
                2 if settings.prepared_statements and not settings.transaction_pooler else None
            )
            if self._patience:
                await connection.execute(_SHORT_LOCK_WAIT)

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
        self.pools += 1

    async def drop_pool(self) -> None:
        """Close the pool and the lanes; for the watch."""
        pool, self._pool = self._pool, None
        if self._opening_lanes is not None:
            self._opening_lanes.cancel()
            await asyncio.wait({self._opening_lanes}, timeout=1)
        lanes = [*self._lanes.values(), *self._retiring]
        self._lanes.clear()
        self._retiring.clear()
        for lane in lanes:
            lane.abandon()
        if pool is not None:
            for lane in lanes:
                await pool.putconn(lane.connection)
            await pool.close(timeout=1)

    # Lanes.

    async def _open_lane(self, reading: bool) -> None:
        pool = self._pool
        if pool is None or reading in self._lanes:
            return
        connection = await pool.getconn()
        try:
            if not reading:
                # A write that waits for another's row holds up those behind it: it goes to a connection of its own soon.
                await connection.execute(_SHORTEST_LOCK_WAIT)
        except BaseException:
            await self._give_back(pool, connection)
            raise
        if pool is self._pool:
            self._lanes[reading] = Lane(connection, reads=reading)
        else:  # dropped meanwhile
            await self._give_back(pool, connection)

    async def _open_lanes(self) -> None:
        try:
            for reading in self._wanted_lanes:
                await self._open_lane(reading)
        except psycopg.Error as error:
            log.warning("no connection for many statements at once: %s", faults.kind_of(error))

    def _fit_lane(self, reading: bool, statement: str) -> Lane | None:
        """The lane, when it is fit for one more statement. Reads have one of their own, since a write may wait for a lock."""
        lane = self._lanes.get(reading)
        if lane is None or not lane.usable or lane.is_heavy(statement) or (lane.in_flight and lane.waited > _STALLED):
            return None
        return lane

    def tend(self) -> None:
        """Give up lanes that do not answer, replace those that have lived long, and open what is missing; for the watch."""
        for reading, lane in list(self._lanes.items()):
            if lane.age > _LIFETIME or lane.is_full:
                self._retiring.append(self._lanes.pop(reading))
        for lane in [*self._lanes.values(), *self._retiring]:
            is_frozen = lane.waited > self.settings.statement_timeout + _FROZEN_MARGIN
            if lane.usable and (is_frozen or (lane in self._retiring and not lane.in_flight)):
                lane.abandon()
        for reading, lane in list(self._lanes.items()):
            if not lane.usable:
                self._retiring.append(self._lanes.pop(reading))
        for lane in [lane for lane in self._retiring if not lane.usable]:
            self._retiring.remove(lane)
            if self._pool is not None:
                self._return(self._pool, lane.connection)
        is_missing = len(self._lanes) < len(self._wanted_lanes)
        if is_missing and (self._opening_lanes is None or self._opening_lanes.done()):
            self._opening_lanes = asyncio.create_task(self._open_lanes(), name="lanes")

    # Statements.

    async def run(
        self,
        statement: str,
        values: Sequence[Any],
        owner: str | None = None,
        *,
        reads: bool = False,
        again: bool = False,
        slow: bool = False,
        most_bytes: int | None = None,
    ) -> list[Row]:
        """Run one statement as a transaction of its own and give its rows.

        ``reads`` says that it locks nothing; ``again``, as a read, that it may run twice, so that a lost connection is made good by a
        second try; ``slow`` that it may take long, so that it gets a connection of its own and ends when the call is cancelled.
        ``owner`` is whose rows they are: work of one owner that waits for locks does not hold up another's. ``most_bytes`` is for a slow
        one: raises LimitReached before it holds much more (see ``reader``).
        """
        lane = None if slow or heavy.weight(values) > _LARGE else self._fit_lane(reads, statement)
        if lane is not None:
            try:
                return await lane.send(statement, values)
            except NotSent:
                # Nor will it be: its lane is gone.
                return await self._run_alone(statement, values, owner, again or reads)
            except psycopg.errors.LockNotAvailable:
                return await self._run_alone(statement, values, owner, again or reads, is_patient=True)
            except psycopg.Error as error:
                if not self._may_run_again(error, again or reads):
                    self._fail(error)
        return await self._run_alone(statement, values, owner, again or reads, most_bytes=most_bytes)

    async def _run_alone(
        self,
        statement: str,
        values: Sequence[Any],
        owner: str | None,
        again: bool,
        *,
        is_patient: bool = False,
        most_bytes: int | None = None,
    ) -> list[Row]:
        async def work(connection: Connection, is_patient: bool) -> list[Row]:
            if not is_patient:
                return await _execute(connection, statement, values, most_bytes)
            async with connection.transaction():
                await connection.execute(self._patience)
                return await _execute(connection, statement, values, most_bytes)

        return await self._on_connection(work, owner, again, is_patient)

    async def atomic(self, work: Callable[[Transaction], Awaitable[T]], owner: str | None = None) -> T:
        """Run statements as one transaction; again, up to three times in all, when it collides with another."""

        async def transaction(connection: Connection, is_patient: bool) -> T:
            async with connection.transaction() as transaction:
                if is_patient:
                    await connection.execute(self._patience)
                return await work(Transaction(connection, transaction))

        return await self._on_connection(transaction, owner, False, False)

    async def _on_connection(
        self, work: Callable[[Connection, bool], Awaitable[T]], owner: str | None, again: bool, is_patient: bool
    ) -> T:
        """Do work on a connection of the pool. What waits for another's lock for more than a moment does so in its owner's turn."""
        # Where all sessions end one after the other, a read may meet each of them once.
        tries = _TRIES + (self.settings.pool_max_size if again else 0)
        for left in reversed(range(tries)):
            try:
                if not is_patient:
                    try:
                        async with self.connection() as connection:
                            return await work(connection, False)
                    except psycopg.errors.LockNotAvailable:
                        if not self._patience:
                            raise
                is_patient = True
                async with self._turns.of(owner), self.connection() as connection:
                    return await work(connection, True)
            except psycopg.Error as error:
                if not (left and self._may_run_again(error, again)):
                    self._fail(error)
            except (PoolTimeout, PoolClosed, TooManyRequests) as error:
                self._fail(error)
        raise Conflict()

    @staticmethod
    def _may_run_again(error: psycopg.Error, again: bool) -> bool:
        # A statement that collided has left no trace; one whose connection was lost may have.
        return faults.is_collision(error) or (again and faults.is_connection_lost(error))

    @staticmethod
    def _fail(error: Exception) -> NoReturn:
        """Raise what the error means to a client; faults of this server stay what they are."""
        if isinstance(error, psycopg.Error) and error.sqlstate in faults.POOLER_LOST_STATEMENT:
            log.error("a pooler lost a prepared statement; set DATABASE_TRANSACTION_POOLER=true")
        failure = faults.translate(error)
        if failure is None:
            raise error
        raise failure from error

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A whole connection of the pool. Raises what the pool does, and DatabaseUnavailable."""
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

    async def run(self, statement: str, values: Sequence[Any], most_bytes: int | None = None) -> list[Row]:
        """Run one statement and give its rows; ``most_bytes`` as for :meth:`Database.run`."""
        return await _execute(self._connection, statement, values, most_bytes)

    async def run_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """Run statements in order, in one round trip, and give the rows of each."""
        # In a pipeline a large value would go through the event loop; beside it a round trip is nothing.
        if any(heavy.is_heavy(values) for _, values in statements):
            return [await self.run(statement, values) for statement, values in statements]
        async with self._connection.pipeline():
            cursors = [self._connection.cursor(binary=True) for _ in statements]
            for cursor, (statement, values) in zip(cursors, statements, strict=True):
                await cursor.execute(statement.encode(), values)
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]


async def _execute(
    connection: Connection, statement: str, values: Sequence[Any], most_bytes: int | None = None
) -> list[Row]:
    if most_bytes is not None:
        return await reader.read(connection, statement, values, most_bytes)
    if heavy.is_heavy(values):
        return await heavy.execute(connection, statement, values)
    cursor = await connection.cursor(binary=True).execute(statement.encode(), values)
    return await cursor.fetchall() if cursor.description else []


def _is_lost(connection: Connection) -> bool:
    """Whether a connection was lost while it was idle, without a round trip: such a one has nothing to read until it ends."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poller.poll(0))
