"""How connections are made: over slow networks, for many calls at once, and no more once they are closed."""

from __future__ import annotations

import asyncio
import gc

import pytest

from agentstorage import Connection, GrpcStorage, errors
from agentstorage.v1 import server_pb2, server_pb2_grpc
from tests.faults.proxy import Proxy
from tests.service import ServerProcess

WAYS = pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "plain"])


@WAYS
async def test_a_slow_network(servers: dict[str, ServerProcess], exchange: bool) -> None:
    # Half a second for each round trip, of which a connection takes several.
    async with Proxy(servers["memory"].port) as proxy:
        proxy.delay = 0.25
        async with Connection(f"127.0.0.1:{proxy.port}", exchange=exchange) as connection:
            stub = connection.stub(server_pb2_grpc.ServerServiceStub)
            for _ in range(3):
                assert (await stub.GetServerInfo(server_pb2.GetServerInfoRequest())).backend == "memory"


@WAYS
async def test_thousands_of_calls_at_once(servers: dict[str, ServerProcess], exchange: bool) -> None:
    async with Connection(servers["memory"].target, exchange=exchange) as connection:
        stub = connection.stub(server_pb2_grpc.ServerServiceStub)
        answers = await asyncio.gather(
            *(stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=30) for _ in range(3000)),
            return_exceptions=True,
        )
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []


@WAYS
async def test_a_closed_connection_connects_no_more(exchange: bool) -> None:
    connected = 0

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listener:
        connection = Connection(
            f"127.0.0.1:{listener.sockets[0].getsockname()[1]}", owner_id="alice", exchange=exchange
        )
        storage = GrpcStorage(connection)
        with pytest.raises(errors.Unreachable):
            await storage.threads.get("t")
        await connection.close()
        gc.collect()
        await asyncio.sleep(0.3)
        before = connected
        await asyncio.sleep(3)
        assert connected == before
        with pytest.raises(RuntimeError, match="closed"):
            await storage.threads.get("t")
