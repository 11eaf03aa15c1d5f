"""Plain calls that the client itself sends again: what they say and do between two attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.v1 import store_pb2, store_pb2_grpc
from tests.clients.fake_exchange import outcomes, until

# Seconds between the attempts here: between 0.8 and 1.2 times as much.
PAUSE = 0.3


class Store:
    """A server that answers PutItem with the codes of ``fails``, one after another, then well. ``keys`` holds what came."""

    def __init__(self) -> None:
        self.target = ""
        self.keys: list[str] = []
        self.fails: list[grpc.StatusCode] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.given_up = 0

    def servicer(self) -> Any:
        async def put_item(_: Any, request: Any, context: Any) -> Any:
            self.keys.append(request.key)
            try:
                await self.answers.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            if self.fails:
                await context.abort(self.fails.pop(0), "as told")
            return store_pb2.PutItemResponse()

        base: Any = store_pb2_grpc.StoreServiceServicer
        return type("Servicer", (base,), {"PutItem": put_item})()


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr("agentstorage.channel.FIRST_PAUSE", PAUSE)
    made = Store()
    server = grpc.aio.server()
    store_pb2_grpc.add_StoreServiceServicer_to_server(made.servicer(), server)
    made.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield made
    await server.stop(None)


@pytest.fixture
async def connection(store: Store) -> AsyncIterator[Connection]:
    async with Connection(store.target, exchange=False) as made:
        yield made


def put(connection: Connection, key: str = "k") -> Any:
    """Begin a call that the client may send again and grpc does not."""
    return connection.stub(store_pb2_grpc.StoreServiceStub).PutItem(store_pb2.PutItemRequest(key=key))


async def until_first_failure(call: Any) -> None:
    """Wait until the first attempt has failed, from which on there is a pause."""
    with pytest.raises(grpc.aio.AioRpcError):
        await call.wait_for_connection()


async def test_between_two_attempts_it_is_not_over(store: Store, connection: Connection) -> None:
    store.fails = [grpc.StatusCode.UNAVAILABLE]
    call = put(connection)
    ended: list[Any] = []
    call.add_done_callback(ended.append)
    await until_first_failure(call)
    assert (call.done(), call.cancelled(), ended) == (False, False, [])
    assert await call.code() is grpc.StatusCode.OK
    assert (call.done(), call.cancelled(), ended, await call.details()) == (True, False, [call], "")
    assert (await call) == (await call) == store_pb2.PutItemResponse()
    assert not call.cancel()
    assert len(store.keys) == 2


async def test_cancelled_between_two_attempts_it_is_not_sent_again(store: Store, connection: Connection) -> None:
    store.fails = [grpc.StatusCode.UNAVAILABLE]
    call = put(connection)
    awaiter = asyncio.ensure_future(call)
    await until_first_failure(call)
    assert call.cancel()
    assert (call.done(), call.cancelled(), call.cancel()) == (True, True, False)
    with pytest.raises(asyncio.CancelledError):
        await awaiter
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED
    await asyncio.sleep(2 * PAUSE)
    assert len(store.keys) == 1


async def test_nor_is_it_when_who_awaits_it_is_cancelled(store: Store, connection: Connection) -> None:
    store.fails = [grpc.StatusCode.UNAVAILABLE]
    call = put(connection)
    awaiter = asyncio.ensure_future(call)
    await until_first_failure(call)
    awaiter.cancel()
    assert await outcomes(awaiter) == {"CancelledError": 1}
    assert (call.done(), call.cancelled()) == (True, True)
    await asyncio.sleep(2 * PAUSE)
    assert len(store.keys) == 1


async def test_cancelled_during_an_attempt_it_ends_at_the_server(store: Store, connection: Connection) -> None:
    store.fails = [grpc.StatusCode.UNAVAILABLE]
    call = put(connection)
    await until_first_failure(call)
    store.answers.clear()
    await until(lambda: len(store.keys) == 2)
    assert call.cancel()
    assert call.done()
    await until(lambda: store.given_up)
    assert await outcomes(call) == {"CancelledError": 1}


async def test_cancelled_at_once_it_is_never_sent(store: Store, connection: Connection) -> None:
    call = put(connection, "cancelled")
    assert call.cancel()
    assert (call.done(), call.cancelled()) == (True, True)
    assert await outcomes(call) == {"CancelledError": 1}
    await put(connection, "other")
    assert store.keys == ["other"]


async def test_a_failure_is_the_same_however_often_it_is_awaited(
    store: Store, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstorage.channel.FIRST_PAUSE", 0.01)
    store.fails = [grpc.StatusCode.UNAVAILABLE] * 8
    call = put(connection)
    for _ in range(2):
        with pytest.raises(errors.Unreachable):
            await call
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert len(store.keys) == 4


def test_it_may_be_begun_outside_of_its_loop() -> None:
    async def stub(connection: Connection) -> Any:
        return connection.stub(store_pb2_grpc.StoreServiceStub)

    loop = asyncio.new_event_loop()
    connection = Connection("127.0.0.1:1", exchange=False)
    call = loop.run_until_complete(stub(connection)).PutItem(store_pb2.PutItemRequest())
    with pytest.raises(errors.Unreachable):
        loop.run_until_complete(call)
    loop.run_until_complete(connection.close())
    loop.close()


async def test_closing_the_connection_cancels_a_call_between_two_attempts(store: Store, connection: Connection) -> None:
    store.fails = [grpc.StatusCode.UNAVAILABLE] * 4
    call = put(connection)
    await until_first_failure(call)
    await connection.close()
    assert (call.done(), call.cancelled()) == (True, True)
    with pytest.raises(asyncio.CancelledError):
        await call
