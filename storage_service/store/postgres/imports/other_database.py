"""Checkpoints in another Postgres, in the tables that LangGraph's own savers made there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, cast

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import tuple_row

from storage_service.store.postgres import faults
from storage_service.store.postgres.connect import DatabaseSettings, connection_string
from storage_service.store.postgres.imports.checkpoints import TABLES, Row, Table
from storage_service.store.postgres.imports.report import Refused, SourceError
from storage_service.store.postgres.migrate import connected

#: The variable that names the database; its URL is in no command line, which others can see.
VARIABLE = "SOURCE_DATABASE_URL"

# The tables are those that a saver with this connection string finds, in whatever schema. LangGraph.js knows no paths of tasks.
_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
_OPTIONAL = {"task_path": "''"}
# What comes from a role that sees no row, or from a transaction that was ended, would pass for everything.
_BEGIN = (
    "SELECT set_config('row_security', 'off', true), (SELECT count(set_config(name, '0', true)) FROM pg_settings WHERE name IN"
    " ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'))"
)


class OtherDatabase:
    """An open database, read in one transaction: what a runtime writes meanwhile is not seen."""

    def __init__(self, conn: AsyncConnection[Any], columns: dict[str, set[str]]) -> None:
        self._conn = conn
        self._columns = columns

    async def rows(self, table: Table) -> AsyncGenerator[Row | Refused, None]:
        """See ``Source``."""
        there = self._columns[table.name]
        columns = [
            f"{name}::text" if type == "jsonb" else name if name in there else _OPTIONAL[name]
            for name, type in table.columns.items()
        ]
        keys = ", ".join(list(table.columns)[: table.key])
        query = f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {keys}"
        try:
            # Row by row, as the reader takes them, however many there are.
            stream = cast("AsyncGenerator[Row, None]", self._conn.cursor(row_factory=tuple_row).stream(sql.SQL(query)))
            async with aclosing(stream) as rows:
                async for row in rows:
                    yield row
        except psycopg.Error as error:
            raise _failed(error) from error


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OtherDatabase]:
    """Opens a database to be read only. Raises SourceError for one that can't be read, or that has not LangGraph's tables."""
    async with AsyncExitStack() as stack:
        try:
            conninfo = connection_string(DatabaseSettings(url))
            conn = await stack.enter_async_context(connected(conninfo))
            await stack.enter_async_context(conn.transaction(force_rollback=True))
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            await conn.execute(_BEGIN)
            source = OtherDatabase(conn, {table.name: await _columns(conn, table) for table in TABLES})
        except psycopg.Error as error:
            raise _failed(error) from error
        yield source


async def _columns(conn: AsyncConnection[Any], table: Table) -> set[str]:
    cursor = await conn.execute(_COLUMNS, (table.name,))
    found = {row["attname"] for row in await cursor.fetchall()}
    if missing := set(table.columns) - set(_OPTIONAL) - found:
        lacks = f"column {', '.join(sorted(missing))} in the table" if found else "table"
        raise SourceError(
            f"the database of {VARIABLE} has no {lacks} {table.name}: it holds no checkpoints of LangGraph"
        )
    return found


def _failed(error: psycopg.Error) -> SourceError:
    """What to tell of an error of the source, which is not one of the database that is filled."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return SourceError(f"{VARIABLE} is not a connection string, like postgresql://user@host:5432/database")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return SourceError(f"the source can't be reached ({faults.why_unreachable(error)}); check {VARIABLE}")
    return SourceError(
        f"the source can't be read ({faults.kind_of(error)}); check {VARIABLE}, and what its role may do"
    )
