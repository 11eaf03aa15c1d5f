"""Calls of the exchange that take their time: order, cancels, deadlines, limits and the end of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.faults.servers import Serve, troubles
from tests.postgres_server import MakeDatabase
from tests.rpc.at_work import LOGS_ALL, Locked, connect, log_lines, logged
from tests.rpc.raw_stream import RawStream, call, code_of, path_of, plain, reason_of
from tests.service import ServerProcess


@pytest.fixture
async def database(make_database: MakeDatabase) -> str:
    """An empty database."""
    return make_database()


@pytest.fixture
async def held(serve: Serve, database: str) -> ServerProcess:
    """A server on that database."""
    return await serve(database, environment=LOGS_ALL)


@pytest.fixture
async def channel(held: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with connect(held) as channel:
        yield channel


async def test_others_pass_a_call_that_waits(database: str, held: ServerProcess, channel: grpc.aio.Channel) -> None:
    async with Locked(database, channel) as locked:
        stream = RawStream(channel)
        await stream.send(
            locked.update(1), *(call(id, "GetThread", owner_id="o", thread_id="t") for id in range(2, 300))
        )
        started = time.monotonic()
        assert {code_of(outcome) for outcome in await stream.answers(*range(2, 300))} == {"OK"}
        assert time.monotonic() - started < 3
        assert 1 not in stream.outcomes
        await locked.waiting(1)
    assert code_of((await stream.answers(1))[0]) == "OK"
    await stream.close()


async def test_more_calls_that_wait_than_a_stream_has_at_work(
    database: str, held: ServerProcess, channel: grpc.aio.Channel
) -> None:
    # Reads of one row need none of the connections that wait.
    async with Locked(database, channel) as locked:
        stream = RawStream(channel)
        await stream.send(*(locked.update(id) for id in range(1, 151)))
        await stream.send(call(1000, "GetServerInfo"))
        started = time.monotonic()
        assert code_of((await stream.answers(1000))[0]) == "OK"
        assert time.monotonic() - started < 2
        assert len(stream.outcomes) == 1
    assert {code_of(outcome) for outcome in await stream.answers(*range(1, 151))} == {"OK"}
    await stream.close()


async def test_a_cancel_ends_the_work(database: str, held: ServerProcess, channel: grpc.aio.Channel) -> None:
    async with Locked(database, channel) as locked:
        await logged(held, 0, 1)
        start = held.log.stat().st_size
        stream = RawStream(channel)
        await stream.send(locked.update(1), locked.update(2))
        await locked.waiting(2)
        await stream.send(cancels=[1])
        await locked.waiting(1)
        (cancelled,) = await logged(held, start, 1)
        # As that of a plain RPC that its client gives up.
        rpc: Any = channel.unary_unary(path_of("UpdateThread"), None, None)(locked.update(1).request)
        await locked.waiting(2)
        rpc.cancel()
        await locked.waiting(1)
        _, plainly = await logged(held, start, 2)
        assert cancelled == plainly
        assert cancelled["code"] == "CANCELLED"
        # It gets no reply, and its id is free again.
        assert await stream.ask(call(3, "GetServerInfo"))
        assert stream.outcomes.keys() == {3}
        assert code_of(await stream.ask(call(1, "GetServerInfo"))) == "OK"
    assert code_of((await stream.answers(2))[0]) == "OK"
    await stream.close()


async def test_an_id_in_flight_ends_the_stream(database: str, held: ServerProcess, channel: grpc.aio.Channel) -> None:
    async with Locked(database, channel) as locked:
        stream = RawStream(channel)
        await stream.send(locked.update(1))
        await locked.waiting(1)
        await stream.send(call(1, "GetServerInfo"))
        status = await stream.end()
        assert (code_of(status), reason_of(status)) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert "in flight" in status.message
        # With the stream its calls end.
        await locked.waiting(0)


@pytest.mark.parametrize("timeout_ms", [1, 300, 900])
async def test_a_deadline(database: str, held: ServerProcess, channel: grpc.aio.Channel, timeout_ms: int) -> None:
    async with Locked(database, channel) as locked:
        stream = RawStream(channel)
        started = time.monotonic()
        outcome = await stream.ask(locked.update(1, timeout_ms))
        taken = time.monotonic() - started
        assert (code_of(outcome), reason_of(outcome)) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert timeout_ms / 1000 <= taken < timeout_ms / 1000 + 0.2
        await locked.waiting(0)
        await stream.close()


async def test_the_servers_own_deadline(serve: Serve, database: str) -> None:
    server = await serve(database, environment=LOGS_ALL | {"STORAGE_CALL_SECONDS": "0.5"})
    async with connect(server) as channel, Locked(database, channel) as locked:
        await logged(server, 0, 1)
        start = server.log.stat().st_size
        by_rpc = await plain(channel, locked.update(1))
        await logged(server, start, 1)
        stream = RawStream(channel)
        for timeout_ms in (0, 60_000, 2**32 - 1):
            assert await stream.ask(locked.update(1, timeout_ms)) == by_rpc
            stream.outcomes.clear()
        assert code_of(by_rpc) == "DEADLINE_EXCEEDED"
        first, *others = await logged(server, start, 4)
        assert first["code"] == "DEADLINE_EXCEEDED"
        assert others == [first] * 3
        # A client's own deadline, as operation.md has it.
        await stream.ask(locked.update(1, 100))
        assert (await logged(server, start, 5))[-1]["code"] == "CANCELLED"
        await stream.close()


@pytest.mark.parametrize(
    ("limits", "size"), [({"STORAGE_EXCHANGE_CALLS": "10"}, 2), ({"STORAGE_EXCHANGE_BYTES": "1048576"}, 100_000)]
)
async def test_too_many_calls(serve: Serve, database: str, limits: dict[str, str], size: int) -> None:
    server = await serve(database, environment=LOGS_ALL | limits)
    async with connect(server) as channel:
        stream = RawStream(channel)
        values = '{"a": "' + "x" * size + '"}'
        updates = [call(id, "UpdateThread", owner_id="o", thread_id="t", values=values) for id in range(1, 31)]
        async with Locked(database, channel):
            await stream.send(*updates)
            while len(stream.outcomes) < 20:
                assert await stream.read()
            refused = stream.outcomes.copy()
            assert {(code_of(it), reason_of(it)) for it in refused.values()} == {
                ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
            }
            assert 20 <= len(refused) <= 22
            lines = [line for line in log_lines(server) if line["code"] == "RESOURCE_EXHAUSTED"]
            assert [line["reason"] for line in lines] == ["LIMIT_REACHED"] * len(refused)
        others = set(range(1, 31)) - refused.keys()
        assert {code_of(outcome) for outcome in await stream.answers(*others)} == {"OK"}
        # There is room again.
        for id in range(100, 140):
            assert code_of(await stream.ask(call(id, "GetThread", owner_id="o", thread_id="t"))) == "OK"
        await stream.close()


async def test_more_answers_than_a_stream_holds(serve: Serve) -> None:
    # A client that reads gets all of them, whatever comes while others wait to be read.
    server = await serve(environment=LOGS_ALL | {"STORAGE_EXCHANGE_BYTES": "2000000"})
    async with connect(server) as channel:
        stream = RawStream(channel)
        put = call(1000, "PutItem", owner_id="o", namespace=["a"], key="k", value='"' + "x" * 100_000 + '"')
        assert code_of(await stream.ask(put)) == "OK"
        for first in range(0, 200, 20):
            gets = [call(id, "GetItem", owner_id="o", namespace=["a"], key="k") for id in range(first, first + 20)]
            await stream.send(*gets)
        assert {code_of(outcome) for outcome in await stream.answers(*range(200))} == {"OK"}
        await stream.close()


async def test_many_more_calls_than_a_stream_takes(serve: Serve) -> None:
    # A client that reads is told so of each, and keeps its stream.
    server = await serve(environment=LOGS_ALL | {"STORAGE_EXCHANGE_CALLS": "10"})
    async with connect(server) as channel:
        stream = RawStream(channel)
        await stream.send(*(call(id, "GetServerInfo") for id in range(2000)))
        found = {code_of(outcome) for outcome in await stream.answers(*range(2000))}
        assert found == {"OK", "RESOURCE_EXHAUSTED"}
        assert code_of(await stream.ask(call(3000, "GetServerInfo"))) == "OK"
        await stream.close()


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_draining(serve: Serve, database: str, backend: str) -> None:
    server = await serve(
        database if backend == "postgres" else "", environment=LOGS_ALL | {"STORAGE_DRAIN_SECONDS": "0.3"}
    )
    async with connect(server) as channel:
        stream = RawStream(channel)
        assert code_of(await stream.ask(call(1, "CreateThread", owner_id="o", thread_id="t"))) == "OK"
        if backend == "memory":
            server.process.terminate()
        else:
            async with Locked(database, channel) as locked:
                # More than are at work at once.
                await stream.send(*(locked.update(id) for id in range(2, 102)))
                await locked.waiting(*range(2, 15))
                server.process.terminate()
                while not stream.is_draining:
                    assert await stream.read()
                refused = await stream.ask(call(200, "GetServerInfo"))
                assert (code_of(refused), reason_of(refused)) == ("UNAVAILABLE", "SHUTTING_DOWN")
                assert len(stream.outcomes) == 2
            assert {code_of(outcome) for outcome in await stream.answers(*range(2, 102))} == {"OK"}
        assert (await stream.end()).code == 0
        assert stream.is_draining
    assert await asyncio.to_thread(server.process.wait, 5) == 0
    assert troubles(server.log) == []
