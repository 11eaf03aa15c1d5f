"""A call through the exchange and the same call as a plain RPC: results, errors, log lines; large answers and bad messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from agentstorage.v1 import exchange_pb2 as pb
from agentstorage.v1 import store_pb2, threads_pb2
from tests.faults.servers import Serve
from tests.postgres_server import MakeDatabase
from tests.rpc.at_work import LOGS_ALL, connect, log_lines, logged
from tests.rpc.raw_stream import RawStream, call, code_of, plain, reason_of
from tests.service import ServerProcess


@pytest.fixture(scope="module", params=("memory", "postgres"))
def server(request: pytest.FixtureRequest, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A running server, on each backend."""
    return servers[request.param]


@pytest.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with connect(server) as channel:
        yield channel


ITEM: dict[str, Any] = {"namespace": ["a"], "key": "k"}
CALLS = [
    ("OK", call(1, "GetItem", owner_id="o", **ITEM)),
    ("NOT_FOUND", call(1, "GetThread", owner_id="o", thread_id="nowhere")),
    ("INVALID_ARGUMENT", call(1, "PutItem", owner_id="o", namespace=["a"] * 40, key="", value="{")),
    ("INVALID_ARGUMENT", call(1, "SearchThreads", owner_id="")),
    ("INVALID_ARGUMENT", call(1, "GetThread", b"\xff\xff\xff")),
    ("INVALID_ARGUMENT", call(1, "SearchThreads", owner_id="o", page_token="garbage")),
    ("ABORTED", call(1, "PutItem", owner_id="o", **ITEM, value="2", expected_version=9)),
]


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_the_same_as_a_plain_rpc(serve: Serve, make_database: MakeDatabase, backend: str) -> None:
    server = await serve(make_database() if backend == "postgres" else "", environment=LOGS_ALL)
    async with connect(server) as channel:
        stream = RawStream(channel)
        assert code_of(await stream.ask(call(2, "PutItem", owner_id="o", **ITEM, value='{"a": 1}'))) == "OK"
        await logged(server, 0, 1)
        for code, one in CALLS:
            start = server.log.stat().st_size
            by_rpc = await plain(channel, one)
            await logged(server, start, 1)
            by_exchange = await stream.ask(one)
            del stream.outcomes[one.id]
            assert code_of(by_rpc) == code
            assert by_exchange == by_rpc
            if isinstance(by_rpc, status_pb2.Status) and isinstance(by_exchange, status_pb2.Status):
                # As the bytes of grpc-status-details-bin.
                assert by_exchange.SerializeToString(deterministic=True) == by_rpc.SerializeToString(deterministic=True)
                assert by_rpc.details
            first, second = await logged(server, start, 2)
            assert first == second
            assert first["code"] == code
        await stream.close()


async def test_no_such_method_and_streams(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    stream = RawStream(channel)
    for id, method in enumerate(("/x.y/Z", "", "GetThread", "/agentstorage.v1.ThreadService/getthread"), 1):
        by_exchange = await stream.ask(pb.Call(id=id, method=method))
        assert by_exchange == await plain(channel, pb.Call(method=method or "/"))
        assert code_of(by_exchange) == "UNIMPLEMENTED"
    for id, method in enumerate(("ExportOwner", "/agentstorage.v1.ExchangeService/Exchange"), 10):
        assert code_of(await stream.ask(call(id, method, b""))) == "UNIMPLEMENTED"
    assert code_of(await stream.ask(call(20, "GetServerInfo"))) == "OK"
    await stream.close()


async def test_tokens(serve: Serve, tmp_path: Any) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text('[[token]]\nname = "one"\ntoken = "token-of-one-0123456789"\nowners = ["alice"]\n')
    server = await serve(environment={"STORAGE_TOKEN_FILE": str(file), **LOGS_ALL})
    metadata = ("authorization", "Bearer token-of-one-0123456789")
    async with grpc.aio.insecure_channel(server.target) as channel:
        status = await RawStream(channel).end()
        assert (code_of(status), reason_of(status)) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert log_lines(server) == []
        stream = RawStream(channel, metadata)
        await stream.send(
            call(1, "SearchThreads", owner_id="bob"),
            call(2, "SearchThreads", owner_id="alice"),
            call(3, "SearchThreads"),
            call(4, "Truncate", resources=["RESOURCE_THREADS"]),
        )
        outcomes = await stream.answers(1, 2, 3, 4)
        assert [reason_of(outcome) for outcome in outcomes] == [
            "PERMISSION_DENIED",
            "",
            "OWNER_REQUIRED",
            "PERMISSION_DENIED",
        ]
        await stream.close()
        lines = await logged(server, 0, 4)
        assert {line["caller"] for line in lines} == {"one"}


async def test_an_empty_message_is_answered(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    stream = RawStream(channel, seconds=2)
    for count in (1, 2, 3):
        await stream.send()
        assert await stream.read()
        assert stream.messages == [[]] * count
    await stream.close()


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"GET / HTTP/1.1\r\n\r\n"])
async def test_garbage_ends_the_stream(server: ServerProcess, channel: grpc.aio.Channel, data: bytes) -> None:
    stream = RawStream(channel)
    assert code_of(await stream.ask(call(1, "GetServerInfo"))) == "OK"
    await stream.send_bytes(data)
    status = await stream.end()
    assert (code_of(status), reason_of(status)) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    other = RawStream(channel)
    assert code_of(await other.ask(call(1, "GetServerInfo"))) == "OK"
    await other.close()


async def test_unknown_fields_and_ids_of_cancels_are_nothing(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    stream = RawStream(channel)
    await stream.send_bytes(pb.ExchangeRequest(cancels=[1, 2, 2**64 - 1]).SerializeToString() + b"\xfa\x7f\x01x")
    one = call(2**64 - 1, "GetServerInfo")
    assert code_of(await stream.ask(one)) == "OK"
    await stream.close()


async def test_replies_come_in_any_order_and_ids_serve_again(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    stream = RawStream(channel)
    for _ in range(3):
        await stream.send(
            *(call(id, "PutItem", owner_id="o", namespace=["a"], key=f"{id}", value=f"{id}") for id in range(200))
        )
        for id, outcome in enumerate(await stream.answers(*range(200))):
            assert isinstance(outcome, bytes)
            assert store_pb2.PutItemResponse.FromString(outcome).item.value == f"{id}"
        stream.outcomes.clear()
    await stream.close()


async def large(channel: grpc.aio.Channel, owner: str, count: int = 4) -> pb.Call:
    """A call whose answer has so many times 15 MiB."""
    for key in range(count):
        value = '"' + "x" * (15 << 20) + '"'
        made = await plain(channel, call(0, "PutItem", owner_id=owner, namespace=["a"], key=f"{key}", value=value))
        assert code_of(made) == "OK"
    return call(1, "SearchItems", owner_id=owner)


async def begun(stream: RawStream, one: pb.Call) -> None:
    """Send a call and wait for the first part of its answer."""
    await stream.send(one)
    while not any(one.id in message for message in stream.messages):
        assert await stream.read()


async def test_a_large_answer_comes_in_parts(server: ServerProcess, channel: grpc.aio.Channel, owner: str) -> None:
    one = await large(channel, owner)
    stream = RawStream(channel)
    await begun(stream, one)
    await stream.send(*(call(id, "GetServerInfo") for id in range(2, 100)))
    assert {code_of(outcome) for outcome in await stream.answers(*range(2, 100))} == {"OK"}
    assert 1 not in stream.outcomes
    (whole,) = await stream.answers(1)
    assert whole == await plain(channel, one)
    assert isinstance(whole, bytes)
    assert len(store_pb2.SearchItemsResponse.FromString(whole).items) == 4
    await stream.close()


async def test_a_cancel_ends_a_large_answer(server: ServerProcess, channel: grpc.aio.Channel, owner: str) -> None:
    one = await large(channel, owner, 2)
    stream = RawStream(channel)
    await begun(stream, one)
    await stream.send(cancels=[1])
    await stream.ask(call(2, "GetServerInfo"))
    parts = sum(1 in message for message in stream.messages)
    # Of 480; what was on its way has come.
    assert parts < 400
    await stream.ask(call(3, "GetServerInfo"))
    assert sum(1 in message for message in stream.messages) == parts
    await stream.close()


async def test_two_streams_with_the_same_ids(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    streams = [RawStream(channel) for _ in range(2)]
    for number, stream in enumerate(streams):
        await stream.send(
            *(call(id, "CreateThread", owner_id=f"o{number}", thread_id=f"{number}-{id}") for id in range(50))
        )
    for number, stream in enumerate(streams):
        for id, outcome in enumerate(await stream.answers(*range(50))):
            assert isinstance(outcome, bytes)
            assert threads_pb2.CreateThreadResponse.FromString(outcome).thread.thread_id == f"{number}-{id}"
        await stream.close()


async def test_a_large_answer_while_draining(serve: Serve) -> None:
    server = await serve()
    async with connect(server) as channel:
        one = await large(channel, "o", 2)
        stream = RawStream(channel)
        await begun(stream, one)
        server.process.terminate()
        (outcome,) = await stream.answers(1)
        assert isinstance(outcome, bytes)
        assert (await stream.end()).code == 0
    assert await asyncio.to_thread(server.process.wait, 5) == 0
