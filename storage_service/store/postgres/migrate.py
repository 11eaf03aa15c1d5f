"""Brings a database to the schema that this service needs, from empty or from what the runtimes left.

Numbered files in ``migrations/`` are applied once each, in order, and recorded in ``langgraph_server.storage_service_migrations`` (revision
0 there is LangGraph's own ``setup()``). The first line of a file says how it runs:

- nothing: the whole file in one transaction, together with its record.
- ``-- mode: walk``: each statement again and again, a page of rows to a transaction (see ``_walk``).
- ``-- mode: concurrently``: each statement creates one index without blocking writers, outside of any transaction.

Every step can be done again, so that a migration killed anywhere is completed by the next. Row-level security, the repair of indexes
whose building was killed and the next ticks of crons that have none are looked after on every run.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import dict_row

from storage_service.store.postgres.rights import LANGGRAPH_TABLES, TABLES, MigrationError, check_rights, secure, tables
from storage_service.store.postgres.ticks import set_next_ticks

__all__ = ["LATEST", "MIGRATIONS", "Connection", "MigrationError", "connected", "migrate", "revision"]

T = TypeVar("T")
Connection = AsyncConnection[dict[str, Any]]

_log = logging.getLogger(__name__)

# "agntstor": the advisory lock of everything that changes the schema.
_LOCK = 0x61676E7473746F72
_PAGE = 1000
# Another process that creates the same objects, as runtimes do when they start, or that waits for the same rows.
_COLLISIONS = (
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateSchema,
    errors.DuplicateColumn,
    errors.InternalError_,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
)


@dataclass(frozen=True)
class Migration:
    """A numbered file."""

    revision: int
    path: Path

    @property
    def name(self) -> str:
        """The name of the file, without its ending."""
        return self.path.stem

    @cached_property
    def text(self) -> str:
        """The SQL, which comes with the program."""
        return self.path.read_text(encoding="utf-8")

    @property
    def mode(self) -> str:
        """How the file runs: "transaction", "walk" or "concurrently"."""
        found = re.match(r"-- mode: (\w+)\n", self.text)
        return found[1] if found else "transaction"

    @property
    def statements(self) -> list[str]:
        """The statements of a file whose statements hold no ";" at the end of a line but their own."""
        parts = (part.strip() for part in re.split(r";\s*$", self.text, flags=re.MULTILINE))
        return [part for part in parts if part]


MIGRATIONS = tuple(
    Migration(int(path.name[:4]), path)
    for path in sorted((Path(__file__).parent / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
)
LATEST: int = MIGRATIONS[-1].revision


async def revision(conn: AsyncConnection[Any]) -> int:
    """The revision of the schema; 0 when it is not there. Raises psycopg.Error."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'langgraph_server' AND c.relname = 'storage_service_migrations'"
    )
    if await cursor.fetchone() is None:
        return 0
    await cursor.execute(
        "SELECT coalesce(max(revision), 0) AS revision FROM langgraph_server.storage_service_migrations"
    )
    row = await cursor.fetchone()
    return int(row["revision"]) if row else 0


async def migrate(conninfo: str, *, timeout: float = 300) -> list[str]:  # noqa: ASYNC109 - the whole wait, over several connections
    """Brings the database to ``LATEST`` and answers the names of what was applied, "langgraph ..." for LangGraph's ``setup()``.

    Any number of processes may call this at once: one works, the others wait for up to ``timeout`` seconds and then find the work done.
    Raises MigrationError, and psycopg.OperationalError when the database cannot be reached or goes away.
    """
    deadline = time.monotonic() + timeout
    try:
        async with connected(conninfo) as lock, connected(conninfo) as conn, _locked(lock, deadline):
            return await _migrate(lock, conn, deadline)
    except errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"the role of the connection may not change the schema ({_cause(error)}); run `storage-service migrate` as the role that owns"
            f" the schemas langgraph_server and public"
        ) from error
    except errors.ReadOnlySqlTransaction as error:
        raise MigrationError(
            "the database is read-only (a standby?); point DATABASE_URL at the primary, for instance with target_session_attrs=read-write"
        ) from error
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        raise MigrationError(
            f"a table stayed locked by another session ({_cause(error)}); end long transactions and run `storage-service migrate` again"
        ) from error
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise MigrationError(
            f"the database refused a statement ({_cause(error)}); see what `storage-service doctor` says,"
            " then run `storage-service migrate` again"
        ) from error


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[Connection]:
    """A connection of its own: autocommit, and nothing prepared, so that a pooler may stand between."""
    async with await AsyncConnection.connect(
        conninfo,
        autocommit=True,
        prepare_threshold=None,
        row_factory=dict_row,
        application_name="storage-service migrate",
    ) as conn:
        yield conn


def _cause(error: psycopg.Error) -> str:
    """What the server says, in one line."""
    return " ".join((error.diag.message_primary or type(error).__name__).split())


# Timeouts of the role or the database, where they are set, and where this version of Postgres knows them.
_NO_TIMEOUTS = (
    "SELECT set_config(name, '0', %s) FROM pg_settings WHERE setting <> '0'"
    " AND name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
)


@asynccontextmanager
async def _locked(conn: Connection, deadline: float) -> AsyncIterator[None]:
    """Holds the lock of the schema by a transaction that stays open on a connection of its own.

    A lock of the transaction, unlike one of the session, also holds behind a pooler. It is polled, and the transaction holds no snapshot:
    a waiting session would otherwise keep CREATE INDEX CONCURRENTLY waiting for ever.
    """
    while True:
        async with conn.transaction(force_rollback=True):
            await conn.execute(_NO_TIMEOUTS, (True,))
            cursor = await conn.execute("SELECT pg_try_advisory_xact_lock(%s) AS got", (_LOCK,))
            row = await cursor.fetchone()
            if row and row["got"]:
                yield
                return
        if time.monotonic() >= deadline:
            raise MigrationError(
                "another process is still migrating this database; wait for it, or end it, and start again"
            )
        await asyncio.sleep(random.uniform(0.05, 0.15))  # noqa: S311 - spreads the replicas


async def _migrate(lock: Connection, conn: Connection, deadline: float) -> list[str]:
    await conn.execute(_NO_TIMEOUTS, (False,))
    # An open transaction with a snapshot would keep CREATE INDEX CONCURRENTLY waiting for ever.
    patience = max(1.0, deadline - time.monotonic())
    await conn.execute("SELECT set_config('lock_timeout', %s, false)", (f"{patience:.3f}s",))
    facts = await tables(conn)
    check_rights(facts, pending=False)
    current = await revision(conn)
    if current > LATEST:
        raise MigrationError(
            f"the database has schema revision {current} and this service knows {LATEST}; upgrade the service to the version that made it"
        )
    check_rights(facts, pending=current < LATEST)
    if current == 0:
        await _again(deadline, lambda: _create_record(conn))
    # LangGraph's tables first: there are indexes on them, too. (The statement also ends the snapshot that the lock was taken with.)
    await lock.execute("SELECT 1")
    applied = await _again(deadline, lambda: _set_up_langgraph(conn))
    for migration in MIGRATIONS:
        if migration.revision <= current:
            continue
        await lock.execute("SELECT 1")  # Whoever lost the lock with its connection must not go on.
        await _apply(conn, migration, deadline)
        _log.info("applied migration %s", migration.name)
        applied.append(migration.name)
    await lock.execute("SELECT 1")
    await _repair_indexes(conn, deadline)
    await _again(deadline, lambda: secure(conn))
    after: str | None = None
    while (after := await _again(deadline, partial(set_next_ticks, conn, after))) is not None:
        pass
    return applied


async def _again(deadline: float, step: Callable[[], Awaitable[T]]) -> T:
    """Does a step again, a few times, when another process got in its way: a runtime may create the same tables at this moment."""
    attempt = 0
    while True:
        try:
            return await step()
        except _COLLISIONS as error:
            attempt += 1
            waiting = isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected)
            if time.monotonic() >= deadline or (attempt >= 5 and not waiting):
                raise
            await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - spreads the collisions


async def _create_record(conn: Connection) -> None:
    async with conn.transaction():
        # CREATE SCHEMA IF NOT EXISTS needs a right on the database even where the schema exists.
        cursor = await conn.execute("SELECT to_regnamespace('langgraph_server') IS NULL AS absent")
        row = await cursor.fetchone()
        if row and row["absent"]:
            await conn.execute("CREATE SCHEMA langgraph_server")
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS langgraph_server.storage_service_migrations"
            " (revision INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )


_RECORD = (
    "INSERT INTO langgraph_server.storage_service_migrations (revision, name) VALUES (%s, %s)"
    " ON CONFLICT (revision) DO UPDATE SET name = EXCLUDED.name, applied_at = now()"
)


async def _apply(conn: Connection, migration: Migration, deadline: float) -> None:
    if migration.mode == "transaction":
        await _again(deadline, lambda: _apply_whole(conn, migration))
        return
    for statement in migration.statements:
        if migration.mode == "walk":
            await _walk(conn, statement, deadline)
        else:
            await _again(deadline, partial(_build_index, conn, statement))
    await conn.execute(_RECORD, (migration.revision, migration.name))


async def _apply_whole(conn: Connection, migration: Migration) -> None:
    async with conn.transaction():
        # A table lock that is waited for keeps everybody else waiting behind it: give way and try again.
        await conn.execute("SET LOCAL lock_timeout = '3s'")
        await conn.execute(migration.text)
        await conn.execute(_RECORD, (migration.revision, migration.name))


async def _walk(conn: Connection, statement: str, deadline: float) -> None:
    """Runs a statement page by page: it gets the last key of the page before and answers that of its own, until there is none."""
    after: list[str] | None = None

    async def page() -> list[str] | None:
        async with conn.transaction():
            # What the rows hold was written by the runtimes, not by the service.
            await conn.execute("SELECT set_config('storage_service.writer', 'adoption', true)")
            cursor = conn.cursor(row_factory=psycopg.rows.tuple_row)
            await cursor.execute(statement, {"after": after, "size": _PAGE})
            row = await cursor.fetchone()
        return cast("list[str]", row[0]) if row else None

    while (last := await _again(deadline, page)) is not None:
        after = last


async def _build_index(conn: Connection, statement: str) -> None:
    """Creates an index unless it is there and whole; looks again at every attempt, since a failed one leaves an index that is not."""
    found = re.search(r"IF NOT EXISTS (\w+)\s+ON (\w+)\.(\w+) ", statement)
    if found is None:
        raise MigrationError("a migration creates an index without a name; install the service again")
    name, schema, table = found.groups()
    cursor = await conn.execute(
        sql.SQL(
            "SELECT to_regclass({}) IS NOT NULL AS present, coalesce((SELECT indisvalid FROM pg_index"
            " WHERE indexrelid = to_regclass({})), false) AS valid, NOT EXISTS (SELECT FROM {}) AS empty"
        ).format(sql.Literal(f"{schema}.{name}"), sql.Literal(f"{schema}.{name}"), sql.Identifier(schema, table))
    )
    row = await cursor.fetchone()
    if row is None or row["valid"]:
        return
    if row["present"]:
        await conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name)))
    try:
        if row["empty"]:
            # Nothing to build: a short lock, where CONCURRENTLY would wait for every transaction of the database.
            async with conn.transaction():
                await conn.execute("SET LOCAL lock_timeout = '3s'")
                await conn.execute(statement.replace(" CONCURRENTLY", ""))
        else:
            await conn.execute(statement)
    except errors.ProgramLimitExceeded as error:
        raise MigrationError(
            f"a row of {schema}.{table} holds a text that is too long for the index {name}; shorten it"
            " and run `storage-service migrate` again"
        ) from error


async def _set_up_langgraph(conn: Connection) -> list[str]:
    """Runs LangGraph's own ``setup()`` where its version has not been set up here; the import alone costs half a second and 20 MB."""
    name = f"langgraph-checkpoint-postgres {distribution_version('langgraph-checkpoint-postgres')}"
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM langgraph_server.storage_service_migrations WHERE revision = 0 AND name = %s)"
        " AND to_regclass('public.checkpoints') IS NOT NULL AND to_regclass('public.checkpoint_blobs') IS NOT NULL"
        " AND to_regclass('public.checkpoint_writes') IS NOT NULL AND to_regclass('public.checkpoint_migrations') IS NOT NULL AS done",
        (name,),
    )
    row = await cursor.fetchone()
    if row and row["done"]:
        return []
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    cursor = await conn.execute("SELECT current_schema() AS schema")
    row = await cursor.fetchone()
    if row is None or row["schema"] != "public":
        await conn.execute("SET search_path = public")
    await AsyncPostgresSaver(conn).setup()
    await conn.execute(_RECORD, (0, name))
    return [name]


async def _repair_indexes(conn: Connection, deadline: float) -> None:
    """Builds indexes again whose building was killed: IF NOT EXISTS passes over such a one, and no query uses it."""
    cursor = await conn.execute(
        "SELECT n.nspname AS schema, i.relname AS name FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = i.relnamespace"
        " WHERE NOT x.indisvalid AND ((n.nspname = 'langgraph_server' AND t.relname = ANY (%s))"
        " OR (n.nspname = 'public' AND t.relname = ANY (%s)))",
        (list(TABLES), list(LANGGRAPH_TABLES)),
    )
    for row in await cursor.fetchall():
        index = sql.Identifier(row["schema"], row["name"])
        # What a killed REINDEX leaves beside the index itself.
        leftover = re.search(r"_cc(new|old)\d*$", row["name"])
        command = sql.SQL(
            "DROP INDEX CONCURRENTLY IF EXISTS {}" if leftover else "REINDEX INDEX CONCURRENTLY {}"
        ).format(index)
        await _again(deadline, partial(conn.execute, command))
        _log.info("repaired the index %s", row["name"])
