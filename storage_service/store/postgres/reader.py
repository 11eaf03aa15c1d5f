"""Reads the rows of a statement a few at a time, so that no more of a large answer is held than a message takes.

The driver's ``execute`` holds the whole answer before anybody can look at it, and a page of large rows may have gigabytes. Its ``stream``
does not, but prepares no statement, and to plan one costs more than to read a small page. Here a page takes no longer than by ``execute``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import FeatureNotSupported, InvalidSqlStatementName, error_from_result

from storage_service.store import is_too_large, too_large
from storage_service.store.postgres.lane import Row

Connection = psycopg.AsyncConnection[Any]

# One at a time would cost a thousand small rows a tenth more.
_ROWS_AT_ONCE: Final = 4
# The libpq that has several; psycopg's own wheel brings a newer one.
_CHUNKS: Final = 170000
# What can be large. Other texts are short by the rules of the API.
_JSONB: Final = psycopg.adapters.types["jsonb"].oid
_MOST_PREPARED: Final = 100
# The names of what is prepared, by text; what was used last comes last.
_prepared: WeakKeyDictionary[Connection, dict[str, bytes]] = WeakKeyDictionary()
_numbers = itertools.count()


async def read(connection: Connection, statement: str, values: Sequence[Any], most_bytes: int) -> list[Row]:
    """Run one statement and give its rows. Raises LimitReached (see ``is_too_large``) and psycopg.Error."""
    async with connection.lock:
        try:
            rows = await connection.wait(_read(connection, statement, values, most_bytes))
        except (InvalidSqlStatementName, FeatureNotSupported):
            # With a rollback the driver has the server forget every statement of the connection; after a change of the schema one may
            # have other columns than when it was prepared.
            _prepared.pop(connection, None)
            rows = await connection.wait(_read(connection, statement, values, most_bytes))
        if rows is None:
            # Nobody reads the rest, and the server stops sending it.
            connection.pgconn.finish()
            raise too_large()
        return rows


def _read(connection: Connection, statement: str, values: Sequence[Any], most_bytes: int) -> PQGen[list[Row] | None]:
    """The rows, or None when they are too large: a failure raised here would hold those that were read as long as it lives."""
    pgconn, transformer = connection.pgconn, Transformer(connection)
    bound = transformer.dump_sequence(values, [PyFormat.TEXT] * len(values))
    # In a transaction a statement that is forgotten could not be sent again.
    if connection.prepare_threshold is None or pgconn.transaction_status != pq.TransactionStatus.IDLE:
        pgconn.send_query_params(statement.encode(), bound, result_format=pq.Format.BINARY)
    else:
        name = yield from _prepare(connection, statement)
        pgconn.send_query_prepared(name, bound, result_format=pq.Format.BINARY)
    if pq.version() >= _CHUNKS:
        pgconn.set_chunked_rows_mode(_ROWS_AT_ONCE)
    else:
        pgconn.set_single_row_mode()
    yield from generators.send(pgconn)
    rows: list[Row] = []
    large: list[int] = []
    size = 0
    while (result := (yield from generators.fetch(pgconn))) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            # After an error comes the end of the answer, or that of the connection.
            with contextlib.suppress(psycopg.DatabaseError):
                yield from generators.fetch_many(pgconn)
            raise error_from_result(result)
        if result.ntuples:
            if is_too_large(size, most_bytes):
                return None
            if not rows:
                large = [place for place in range(result.nfields) if result.ftype(place) == _JSONB]
            transformer.set_pgresult(result, set_loaders=not rows)
            found = transformer.load_rows(0, result.ntuples, tuple)
            size += sum([_size(row[place]) for row in found for place in large if row[place]])
            rows += found
    return rows


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _prepare(connection: Connection, statement: str) -> PQGen[bytes]:
    """The name under which the statement is prepared on the connection by now."""
    names = _prepared.setdefault(connection, {})
    if name := names.pop(statement, b""):
        names[statement] = name
        return name
    pgconn = connection.pgconn
    if len(names) >= _MOST_PREPARED:
        pgconn.send_query(b"DEALLOCATE " + names.pop(next(iter(names))))
        yield from generators.execute(pgconn)
    name = b"r%d" % next(_numbers)
    pgconn.send_prepare(name, statement.encode())
    for result in (yield from generators.execute(pgconn)):
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
    names[statement] = name
    return name
