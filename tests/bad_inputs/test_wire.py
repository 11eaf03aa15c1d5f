"""Bad bytes below the messages: sizes, encodings, metadata, paths, deadlines and other protocols (B46 to B50, B66, B67, B71, B72)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
import psutil
import pytest

from agentstorage.v1 import server_pb2, threads_pb2
from tests.bad_inputs.rows import frame
from tests.postgres_server import PostgresServer
from tests.service import ServerProcess

_GET = "/agentstorage.v1.ThreadService/GetThread"
_CREATE = "/agentstorage.v1.ThreadService/CreateThread"
_INFO = "/agentstorage.v1.ServerService/GetServerInfo"
_LARGE = 64 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
]


def connect(target: str, options: Sequence[tuple[str, Any]] = ()) -> Any:
    """A channel whose methods take and give bytes."""
    return grpc.aio.insecure_channel(target, options=options)


@pytest.fixture(scope="module", params=("memory", "postgres"))
def server(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[ServerProcess]:
    """A server of its own, since some of these inputs are large."""
    url = postgres_server.url(postgres_server.create_database()) if request.param == "postgres" else ""
    process = ServerProcess(request.param, url, environment={"STORAGE_LOG_LEVEL": "INFO"}).start()
    yield process
    process.stop()


@pytest.fixture
async def channel(server: ServerProcess) -> AsyncIterator[Any]:
    """A channel without limits of its own; in the end the server still answers on another."""
    async with connect(server.target, options=_OPTIONS) as channel:
        yield channel
    async with connect(server.target) as another:
        answer = await another.unary_unary(_INFO)(b"", timeout=5)
        assert server_pb2.GetServerInfoResponse.FromString(answer).backend == server.backend


async def outcome(call: Any) -> tuple[str, str]:
    """The code and the details of a call."""
    return (await call.code()).name, await call.details() or ""


def thread(values: str = "", thread_id: str = "") -> bytes:
    """A request of CreateThread."""
    return threads_pb2.CreateThreadRequest(owner_id="owner", values=values, thread_id=thread_id).SerializeToString()


async def test_a_message_above_the_limit(channel: Any) -> None:
    """B46."""
    code, _ = await outcome(channel.unary_unary(_CREATE)(thread('"' + "x" * _LARGE + '"'), timeout=20))
    assert code == "RESOURCE_EXHAUSTED"


async def test_a_json_field_above_the_limit(channel: Any) -> None:
    """B46: below the limit of a message and above that of a field."""
    code, details = await outcome(channel.unary_unary(_CREATE)(thread('"' + "x" * (17 << 20) + '"'), timeout=20))
    assert code == "INVALID_ARGUMENT"
    assert len(details) < 256


async def test_an_answer_above_the_limit(channel: Any) -> None:
    """B47: the server refuses by itself, and smaller pages get through."""
    owner = f"large-{time.monotonic_ns()}"
    request = threads_pb2.CreateThreadRequest(owner_id=owner, values='"' + "x" * (15 << 20) + '"').SerializeToString()
    for _ in range(5):
        await channel.unary_unary(_CREATE)(request, timeout=20)
    search = channel.unary_unary("/agentstorage.v1.ThreadService/SearchThreads")
    page = threads_pb2.SearchThreadsRequest(owner_id=owner, page_size=5)
    code, _ = await outcome(search(page.SerializeToString(), timeout=20))
    assert code == "RESOURCE_EXHAUSTED"
    page.page_size = 1
    assert await outcome(search(page.SerializeToString(), timeout=20)) == ("OK", "")
    page.page_size = 5
    page.fields.paths.append("thread_id")
    assert await outcome(search(page.SerializeToString(), timeout=20)) == ("OK", "")
    async for _ in channel.unary_stream("/agentstorage.v1.OwnerService/ExportOwner")(
        threads_pb2.GetThreadRequest(owner_id=owner).SerializeToString(), timeout=20
    ):
        pass
    await channel.unary_unary("/agentstorage.v1.OwnerService/EraseOwner")(
        threads_pb2.GetThreadRequest(owner_id=owner).SerializeToString(), timeout=20
    )


async def test_a_compressed_message_that_is_large(server: ServerProcess) -> None:
    """B48: a gzip bomb is refused before it takes its memory."""
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    # A few hundred kilobytes on the wire.
    bomb = thread('"' + "x" * (2 * _LARGE) + '"')
    async with connect(server.target, options=_OPTIONS) as channel:
        call = channel.unary_unary(_CREATE)(bomb, timeout=20, compression=grpc.Compression.Gzip)
        assert (await call.code()).name == "RESOURCE_EXHAUSTED"
    assert process.memory_info().rss < before + 3 * _LARGE


async def test_an_unknown_encoding(server: ServerProcess) -> None:
    """B49: over bare HTTP/2, since the library sends no encoding it does not know."""
    answer = await raw_call(server, [("grpc-encoding", "snappy")], frame(b"x", compressed=True))
    # The library refuses it before the service is asked, with 13, INTERNAL, where the catalogue would have UNIMPLEMENTED.
    assert b"grpc-status\x0213\x00\x0cgrpc-message&Error parsing 'grpc-encoding' metadata" in answer, answer
    async with connect(server.target) as channel:
        assert await channel.unary_unary(_INFO)(b"", timeout=5)


@pytest.mark.parametrize("size", [9_000, 12_000, 64_000])
async def test_metadata_above_the_limit(channel: Any, size: int) -> None:
    """B50: always, not by chance."""
    for _ in range(4):
        call = channel.unary_unary(_INFO)(b"", timeout=5, metadata=grpc.aio.Metadata(("x-large", "x" * size)))
        assert (await call.code()).name == "RESOURCE_EXHAUSTED"


async def test_metadata_below_the_limit(channel: Any) -> None:
    for _ in range(10):
        call = channel.unary_unary(_INFO)(b"", timeout=5, metadata=grpc.aio.Metadata(("x-large", "x" * 6_000)))
        assert (await call.code()).name == "OK"


@pytest.mark.parametrize(
    "path",
    [
        "/agentstorage.v1.ThreadService/Nothing",
        "/agentstorage.v1.Nothing/GetThread",
        "/agentstorage.v1.ThreadService/GetThread/../x",
        "//agentstorage.v1.ThreadService/GetThread",
        "/agentstorage.v1.ThreadService//GetThread",
        "/agentstorage.v1.ThreadService/getthread",
        "/agentstorage.v1.ThreadService/_answer",
        "/agentstorage.v1.ThreadService/" + "x" * 4_000,
        "/",
    ],
)
async def test_an_unknown_path(channel: Any, path: str) -> None:
    """B66, B72."""
    code, details = await outcome(channel.unary_unary(path)(b"", timeout=5))
    assert code == "UNIMPLEMENTED"
    assert len(details) < 256


async def test_a_path_above_the_limit(channel: Any) -> None:
    """B72: a path of 8 KB is metadata above the limit."""
    code, _ = await outcome(channel.unary_unary("/agentstorage.v1.ThreadService/" + "x" * 8_192)(b"", timeout=5))
    assert code in ("UNIMPLEMENTED", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
async def test_a_deadline_that_is_over(channel: Any, seconds: float) -> None:
    """B67: at once; the library lets a call with a deadline of 0 win the race at times."""
    started = time.monotonic()
    code, _ = await outcome(channel.unary_unary(_CREATE)(thread(), timeout=seconds))
    assert code in (("DEADLINE_EXCEEDED",) if seconds < 0 else ("DEADLINE_EXCEEDED", "OK"))
    assert time.monotonic() - started < 2


async def test_no_deadline(channel: Any) -> None:
    """B67: the server gives it one of its own; here it is not needed."""
    request = threads_pb2.GetThreadRequest(owner_id="owner", thread_id="nowhere").SerializeToString()
    assert (await outcome(channel.unary_unary(_GET)(request)))[0] == "NOT_FOUND"


async def test_a_stream_to_a_unary_method(channel: Any) -> None:
    """Two requests where one belongs, and none: the library answers these, and the server goes on."""
    for requests in ([thread(), thread()], []):
        call = channel.stream_unary(_CREATE)(iter(requests), timeout=1)
        assert (await call.code()).name != "UNKNOWN"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /agentstorage.v1.ThreadService/GetThread HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"hello\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        bytes(range(256)) * 16,
    ],
)
async def test_another_protocol(server: ServerProcess, data: bytes) -> None:
    """B71: the connection is closed, the log is not flooded, and others are served."""
    size = server.log.stat().st_size
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
    assert server.log.stat().st_size - size < 20_000
    async with connect(server.target) as channel:
        assert await channel.unary_unary(_INFO)(b"", timeout=5)


async def test_connections_that_say_nothing(server: ServerProcess) -> None:
    """B71: half a preface and silence keep nobody else out."""
    opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
    for _, writer in opened[::2]:
        writer.write(b"PRI * HTTP/2.0\r\n")
    async with connect(server.target) as channel:
        assert await channel.unary_unary(_INFO)(b"", timeout=5)
    for _, writer in opened:
        writer.close()


async def raw_call(server: ServerProcess, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """One call over HTTP/2 that the test writes by itself; all that comes back until the connection rests."""

    def literal(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    def http2(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    fields = [(":method", "POST"), (":scheme", "http"), (":path", _INFO), (":authority", "localhost")]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), *headers]
    block = b"".join(literal(*pair) for pair in fields)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2(4, 0, 0, b""))
    writer.write(http2(1, 4, 1, block) + http2(0, 1, 1, body))
    await writer.drain()
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while True:
            part = await asyncio.wait_for(reader.read(65_536), 1)
            if not part:
                break
            found += part
    writer.close()
    return found
