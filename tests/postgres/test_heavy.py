"""Statements with large values, in a thread of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from storage_service.store.postgres import adapt, heavy
from storage_service.store.postgres.adapt import Blobs, Integers, Texts
from tests.postgres_server import MakeDatabase

VALUE = "ä" * (8 << 20)


@pytest.fixture
async def connection(make_database: MakeDatabase) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    connection = await psycopg.AsyncConnection.connect(make_database(), autocommit=True)
    adapt.register(connection)
    yield connection
    await connection.close()


Connection = psycopg.AsyncConnection[tuple[object, ...]]


def test_what_values_weigh() -> None:
    assert heavy.weight(["xä", b"xyz", Blobs([b"x" * 40_000, None]), Texts(["x" * 40_000] * 2)]) == 120_005
    assert heavy.weight([Texts(), Integers([1] * 1000), None, 7]) == 0


def test_what_is_heavy() -> None:
    one = "x" * (1 << 20)
    assert not heavy.is_heavy([one, None, 1])
    for values in ([one, "x"], [one.encode(), b"x"], [Texts([one, None]), "x"], [Blobs([one.encode(), b"x"])]):
        assert heavy.is_heavy(values), type(values[0])


async def test_values_go_and_come_whole(connection: Connection) -> None:
    blobs, texts = [b"\0" * (1 << 20), None, b""], ["a", "b'\\"]
    rows = await heavy.execute(
        connection,
        "SELECT $1::text, $2::bytea[], $3::text[], $4::int[], $5::int, $6::text",
        [VALUE, Blobs(blobs), Texts(texts), Integers([1, 2]), 3, None],
    )
    assert rows == [(VALUE, blobs, texts, [1, 2], 3, None)]


async def test_a_connection_goes_on_after_it_and_after_an_error(connection: Connection) -> None:
    await connection.execute("CREATE TEMPORARY TABLE kept (value text UNIQUE, size int CHECK (size > 0))")
    for size in (1, 0, 2):
        statement, values = "INSERT INTO kept VALUES (md5($1) || $2, $2::int)", [VALUE, f"{size}"]
        if size:
            assert await heavy.execute(connection, statement, values) == []
        else:
            with pytest.raises(psycopg.errors.CheckViolation):
                await heavy.execute(connection, statement, values)
        assert connection.pgconn.nonblocking
    async with connection.transaction(force_rollback=True):
        await heavy.execute(connection, "DELETE FROM kept WHERE $1 <> ''", [VALUE])
    found = await (await connection.execute("SELECT count(*) FROM kept")).fetchone()
    assert found == (2,)


async def test_the_event_loop_goes_on_meanwhile(connection: Connection) -> None:
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - started)

    looking = asyncio.create_task(look())
    working = asyncio.create_task(heavy.execute(connection, "SELECT length($1), pg_sleep(1)::text", [VALUE]))
    await asyncio.sleep(0.5)
    # Where it waits for the server, it takes nobody's processor.
    started = time.thread_time(), time.process_time()
    await asyncio.sleep(0.3)
    spent = time.process_time() - started[1] - (time.thread_time() - started[0])
    assert await working == [(len(VALUE), "")]
    looking.cancel()
    assert spent < 0.1
    assert longest < 0.3


async def test_cancelled_it_lets_go_of_its_thread_and_its_connection(
    connection: Connection, make_database: MakeDatabase
) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await heavy.execute(connection, "SELECT $1::text, pg_sleep(30)", [VALUE])
    assert time.monotonic() - started < 2
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")


async def test_a_connection_that_is_lost_is_an_error(connection: Connection, make_database: MakeDatabase) -> None:
    pid = connection.info.backend_pid
    working = asyncio.create_task(heavy.execute(connection, "SELECT $1::text, pg_sleep(30)", [VALUE]))
    await asyncio.sleep(0.3)
    async with await psycopg.AsyncConnection.connect(connection.info.dsn, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError):
            await working
