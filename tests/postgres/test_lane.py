"""A lane: many statements on one connection, each alone in its success and its failure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import pq
from psycopg.adapt import Buffer, Loader

from storage_service.store.postgres import adapt
from storage_service.store.postgres.adapt import Blobs, Integers, Texts
from storage_service.store.postgres.lane import Lane, NotSent
from tests.postgres_server import MakeDatabase, PostgresServer


class _Unreadable(Loader):
    format = pq.Format.BINARY

    def load(self, data: Buffer) -> int:
        raise ValueError(len(data))


@pytest.fixture
async def lane(make_database: MakeDatabase) -> AsyncIterator[Lane]:
    connection = await psycopg.AsyncConnection.connect(make_database(), autocommit=True)
    adapt.register(connection)
    lane = Lane(connection)
    yield lane
    lane.abandon()


async def test_many_statements_in_flight_get_their_own_rows(lane: Lane) -> None:
    futures = [lane.send("SELECT $1::int, $2::text", [number, f"row {number}"]) for number in range(500)]
    rows = await asyncio.gather(*futures)
    assert rows == [[(number, f"row {number}")] for number in range(500)]
    assert not lane.in_flight
    assert lane.waited == 0


async def test_a_failing_statement_fails_alone(lane: Lane) -> None:
    before = lane.send("SELECT 1", [])
    broken = lane.send("SELECT 1 / $1::int", [0])
    unknown = lane.send("SELECT nothing FROM nowhere", [])
    after = lane.send("SELECT 2", [])
    assert await before == [(1,)]
    with pytest.raises(psycopg.errors.DivisionByZero):
        await broken
    with pytest.raises(psycopg.errors.UndefinedTable):
        await unknown
    assert await after == [(2,)]


async def test_a_statement_that_failed_can_be_sent_again(lane: Lane) -> None:
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await lane.send("SELECT 1 / $1::int", [0])
    assert await lane.send("SELECT 1 / $1::int", [1]) == [(1,)]
    with pytest.raises(psycopg.errors.UndefinedTable):
        await lane.send("SELECT * FROM later", [])
    await lane.send("CREATE TABLE later (id int)", [])
    assert await lane.send("SELECT * FROM later", []) == []


async def test_each_statement_is_a_transaction_of_its_own(lane: Lane) -> None:
    await lane.send("CREATE TABLE one (id int PRIMARY KEY)", [])
    good = lane.send("INSERT INTO one VALUES ($1)", [1])
    bad = lane.send("INSERT INTO one VALUES ($1)", [1])
    other = lane.send("INSERT INTO one VALUES ($1)", [2])
    await good
    with pytest.raises(psycopg.errors.UniqueViolation):
        await bad
    await other
    assert await lane.send("SELECT id FROM one ORDER BY id", []) == [(1,), (2,)]


async def test_a_failure_takes_nothing_from_those_that_went_with_it(lane: Lane) -> None:
    await lane.send("CREATE TABLE many (id int PRIMARY KEY CHECK (id <> 13))", [])
    sent = [lane.send("INSERT INTO many VALUES ($1) RETURNING id", [number]) for number in range(40)]
    answers = await asyncio.gather(*sent, return_exceptions=True)
    assert isinstance(answers.pop(13), psycopg.errors.CheckViolation)
    assert answers == [[(number,)] for number in range(40) if number != 13]
    assert await lane.send("SELECT count(*) FROM many", []) == [(39,)]


async def test_a_commit_that_fails_fails_its_own_statement(lane: Lane) -> None:
    await lane.send("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)", [])
    sent = [lane.send("INSERT INTO late VALUES ($1) RETURNING id", [number]) for number in (1, 2, 2, 3)]
    answers = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, list, psycopg.errors.UniqueViolation, list]
    assert await lane.send("SELECT id FROM late ORDER BY id", []) == [(1,), (2,), (3,)]


async def test_statements_that_gather_are_committed_together(lane: Lane) -> None:
    await lane.send("CREATE TABLE together (id int)", [])
    insert = "INSERT INTO together VALUES ($1) RETURNING xmin::text"
    rows = await asyncio.gather(*(lane.send(insert, [number]) for number in range(128)))
    assert len({row[0] for row in rows}) == 2, "128 statements are two groups of 64"


async def test_a_statement_that_waits_for_a_lock_is_the_only_one_to_fail(lane: Lane) -> None:
    await lane.send("CREATE TABLE rows AS SELECT id, 0 AS hits FROM generate_series(1, 5) AS id", [])
    await lane.send("SET lock_timeout = '25ms'", [])
    async with await psycopg.AsyncConnection.connect(lane.connection.info.dsn) as other:
        await other.execute("SELECT FROM rows WHERE id = 3 FOR UPDATE")
        update = "UPDATE rows SET hits = hits + 1 WHERE id = $1 RETURNING hits"
        sent = [lane.send(update, [number]) for number in range(1, 6)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
    assert isinstance(answers.pop(2), psycopg.errors.LockNotAvailable)
    assert answers == [[(1,)]] * 4


async def test_a_caller_that_leaves_disturbs_nobody(lane: Lane) -> None:
    futures = [lane.send("SELECT $1::int", [number]) for number in range(10)]
    for future in futures[::2]:
        future.cancel()
    assert [await future for future in futures[1::2]] == [[(number,)] for number in range(1, 10, 2)]


async def test_large_values_go_and_come(lane: Lane) -> None:
    texts = [letter * 3_000_000 for letter in "abc"]
    rows = await asyncio.gather(*(lane.send("SELECT $1::text", [text]) for text in texts))
    assert rows == [[(text,)] for text in texts]


async def test_a_value_that_cannot_be_sent_is_refused_before_it_is(lane: Lane) -> None:
    with pytest.raises(psycopg.DataError):
        lane.send("SELECT $1::text", ["a\x00b"])
    assert not lane.in_flight
    assert await lane.send("SELECT $1::text", ["ab"]) == [("ab",)]


async def test_json_stays_text_and_odd_times_are_absent(lane: Lane) -> None:
    [(text, time, infinite, far)] = await lane.send(
        "SELECT '{\"a\": 9007199254740993}'::jsonb, '2026-01-02T03:04:05.678901Z'::timestamptz,"
        " 'infinity'::timestamptz, '20000-01-01'::timestamptz",
        [],
    )
    assert text == '{"a": 9007199254740993}'
    assert time.ToJsonString() == "2026-01-02T03:04:05.678901Z"
    assert infinite is None
    assert far is None


async def test_a_row_that_cannot_be_read_fails_its_caller_alone(lane: Lane) -> None:
    lane.connection.adapters.register_loader("int4", _Unreadable)
    unreadable = lane.send("SELECT 1::int4", [])
    assert await lane.send("SELECT 1::int8", []) == [(1,)]
    with pytest.raises(psycopg.DataError, match="can't be read"):
        await unreadable


async def test_a_lost_connection_fails_all_in_flight(lane: Lane, make_database: MakeDatabase) -> None:
    [(pid,)] = await lane.send("SELECT pg_backend_pid()", [])
    waiting = [lane.send("SELECT pg_sleep($1::float8)", [10]), lane.send("SELECT 1", [])]
    async with await psycopg.AsyncConnection.connect(make_database(), autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [pid])
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, psycopg.OperationalError)
    assert not lane.usable
    with pytest.raises(psycopg.OperationalError):
        lane.send("SELECT 1", [])


async def test_an_abandoned_lane_leaves_no_socket(make_database: MakeDatabase) -> None:
    connection = await psycopg.AsyncConnection.connect(make_database(), autocommit=True)
    descriptor = connection.fileno()
    lane = Lane(connection)
    waiting = lane.send("SELECT pg_sleep(10)", [])
    lane.abandon()
    with pytest.raises(psycopg.OperationalError):
        await waiting
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_a_statement_whose_columns_have_changed_is_prepared_anew(lane: Lane) -> None:
    await lane.send("CREATE TABLE changing (a int)", [])
    await lane.send("INSERT INTO changing VALUES (1)", [])
    read = "SELECT a FROM changing"
    assert await lane.send(read, []) == [(1,)]
    await lane.send("ALTER TABLE changing ALTER COLUMN a TYPE text", [])
    assert await asyncio.gather(*(lane.send(read, []) for _ in range(3))) == [[("1",)]] * 3
    await lane.send("DEALLOCATE ALL", [])
    assert await lane.send(read, []) == [("1",)]


async def test_what_cannot_be_read_from_the_connection_ends_it(postgres_server: PostgresServer) -> None:
    # A message whose length can't be: libpq gives the connection up, and is neither busy nor has a result then.
    garbled = False

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", postgres_server.port)

        async def there() -> None:
            while data := await reader.read(65536):
                far_writer.write(data)

        async def back() -> None:
            while data := await far_reader.read(65536):
                writer.write(b"D\x00\x00\x00\x01" + data if garbled else data)

        await asyncio.wait({asyncio.create_task(there()), asyncio.create_task(back())}, return_when="FIRST_COMPLETED")
        far_writer.close()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.sockets[0].getsockname()[1]}/postgres"
        broken = Lane(await psycopg.AsyncConnection.connect(url, autocommit=True))
        assert await broken.send("SELECT 1", []) == [(1,)]
        garbled = True
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(broken.send("SELECT 2", []), 5)
        assert not broken.usable


async def test_a_statement_that_never_went_is_told_from_one_that_did(lane: Lane) -> None:
    went = lane.send("SELECT pg_sleep($1::float8)", [10])
    await asyncio.sleep(0.05)
    kept_back = [lane.send("SELECT $1::int", [number]) for number in range(130)]
    lane.abandon()
    outcomes = await asyncio.gather(went, *kept_back, return_exceptions=True)
    assert type(outcomes[0]) is psycopg.OperationalError
    assert all(type(outcome) is NotSent for outcome in outcomes[1:])


async def test_a_statement_with_a_large_answer_is_known_for_a_while(lane: Lane) -> None:
    statement = "SELECT repeat('x', $1::int)"
    await lane.send(statement, [1000])
    assert not lane.is_heavy(statement)
    await lane.send(statement, [300_000])
    assert lane.is_heavy(statement)
    assert not lane.is_heavy("SELECT 1")
    rows = "SELECT n, CASE n WHEN 2 THEN decode(repeat('ab', $1::int), 'hex') END FROM generate_series(1, 3) AS n"
    await lane.send(rows, [1000])
    assert not lane.is_heavy(rows)
    await lane.send(rows, [300_000])
    assert lane.is_heavy(rows)


async def test_arrays_go_in_binary_beside_other_values(lane: Lane, make_database: MakeDatabase) -> None:
    statement = "SELECT $1::text, $2::text[], $3::bytea[], $4::int8, $5::int4[], $6::text"
    filled = ["x", Texts(["", "null", 'é"{}\\', "a,b"]), Blobs([b"\x00\xff", None, b"", b"\\x"]), 7]
    filled += [Integers([0, -1, 2**31 - 1, -(2**31)]), None]
    empty = [None, Texts(), Blobs(), None, Integers(), ""]
    connection = await psycopg.AsyncConnection.connect(
        make_database(), autocommit=True, cursor_factory=psycopg.AsyncRawCursor
    )
    async with connection:
        adapt.register(connection)
        for values in (filled, empty):
            expected = [tuple(values)]
            assert await lane.send(statement, values) == expected
            assert (
                await (await connection.cursor(binary=True).execute(statement.encode(), values)).fetchall() == expected
            )
    large = Blobs([bytes(range(256)) * 4000])
    assert await lane.send("SELECT $1::bytea[]", [large]) == [(list(large),)]
