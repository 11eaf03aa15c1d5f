"""Runs a statement with large values in a thread, so that the event loop serves others meanwhile.

A connection that never blocks, as those of the event loop, has libpq move all that is left of a value with every piece that the server
takes: 60 MiB kept the loop busy for more than a second, 50 ms at a time. One that blocks sends in one go, and without Python's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg
from psycopg import generators, pq, waiting
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from storage_service.store.postgres.adapt import Blobs, Texts, dumped
from storage_service.store.postgres.lane import Row

# Values of so many characters or bytes are worth a thread.
_HEAVY: Final = 1024 * 1024
# How often a thread looks whether its connection is still there, beside waiting for it.
_LOOK_SECONDS: Final = 1.0
# No more than a server has memory for; others wait.
_threads = ThreadPoolExecutor(8, "statements")


def is_heavy(values: Sequence[Any]) -> bool:
    """Whether to send these values would keep the event loop busy for milliseconds."""
    return weight(values) > _HEAVY


def weight(values: Sequence[Any]) -> int:
    """What the texts and bytes among the values come to, in characters and bytes."""
    size = 0
    for value in values:
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)
        elif kind is Texts or kind is Blobs:
            size += sum(map(len, filter(None, value)))
    return size


async def execute(connection: psycopg.AsyncConnection[Any], statement: str, values: Sequence[Any]) -> list[Row]:
    """Run one statement and give its rows; cancelled, the connection is lost. Raises psycopg.Error."""
    async with connection.lock:
        working = asyncio.get_running_loop().run_in_executor(_threads, _execute, connection, statement, values)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # A server that is frozen would keep the thread for ever.
            _cut(connection.pgconn)
            with contextlib.suppress(psycopg.Error):
                await working
            raise


def _execute(connection: psycopg.AsyncConnection[Any], statement: str, values: Sequence[Any]) -> list[Row]:
    pgconn, transformer = connection.pgconn, Transformer(connection)
    bound = dumped(transformer, values)
    pgconn.nonblocking = 0
    try:
        pgconn.send_query_params(
            statement.encode(), bound, param_formats=transformer.formats, result_format=pq.Format.BINARY
        )
    finally:
        if pgconn.status == pq.ConnStatus.OK:
            pgconn.nonblocking = 1
    (result,) = waiting.wait(generators.fetch_many(pgconn), pgconn.socket, interval=_LOOK_SECONDS)
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise error_from_result(result)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def _cut(pgconn: pq.abc.PGconn) -> None:
    """End a connection under whoever waits for it."""
    with contextlib.suppress(psycopg.OperationalError, OSError), socket.socket(fileno=os.dup(pgconn.socket)) as cut:
        cut.shutdown(socket.SHUT_RDWR)
