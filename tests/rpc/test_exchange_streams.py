"""Streams of the exchange from their beginning to their end: age, cuts, clients that do not read, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import psutil
import pytest

from agentstorage import Connection
from agentstorage.v1 import server_pb2, server_pb2_grpc
from storage_service.caller import Callers
from storage_service.exchange import Exchange
from storage_service.rpc import Pipeline
from storage_service.settings import Limits
from storage_service.store.memory import MemoryStore
from tests.faults.servers import Serve, troubles, until
from tests.rpc.at_work import Locked, connect
from tests.rpc.raw_stream import RawStream, call, code_of, path_of, reason_of
from tests.rpc.test_pipeline import Handlers, Misbehaving
from tests.service import ServerProcess

MIB = 1 << 20


@dataclass
class Served:
    """An exchange in this process, and the service behind it."""

    service: Misbehaving
    pipeline: Pipeline
    exchange: Exchange
    target: str

    async def is_idle(self) -> bool:
        """Whether no call has a place."""
        started = time.monotonic()
        await self.pipeline.idle(0.05)
        return time.monotonic() - started < 0.05


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """An exchange whose streams live for a second, and one more for their clients, and that has places for 200 calls and 3 streams."""
    monkeypatch.setattr("storage_service.exchange._RENEWAL_SECONDS", 1.0)
    service = Misbehaving()
    limits = Limits(calls_in_flight=200, call_seconds=20, exchange_streams=3)
    pipeline = Pipeline(MemoryStore(), Callers.open_to_all({"admin", "unscoped"}), limits)
    pipeline.register(server_pb2.DESCRIPTOR.services_by_name["ServerService"], service)
    exchange = Exchange(pipeline, limits, stream_seconds=1)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((exchange.handlers(), Handlers(pipeline)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Served(service, pipeline, exchange, f"127.0.0.1:{port}")
    await server.stop(0)


@pytest.fixture
async def stream(served: Served) -> AsyncIterator[RawStream]:
    """A stream of it."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        yield RawStream(channel)


class Blocked:
    """Work of a service that waits until it may go on."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.begun = self.ended = 0

    async def __call__(self) -> server_pb2.GetServerInfoResponse:
        self.begun += 1
        try:
            await self.goes_on.wait()
        finally:
            self.ended += 1
        return server_pb2.GetServerInfoResponse()


async def so(check: Callable[[], bool], seconds: float = 5) -> float:
    """Wait until something is so."""

    async def checked() -> bool:
        return check()

    return await until(checked, seconds)


async def test_age(served: Served, stream: RawStream) -> None:
    # The end is announced, and what was sent before the client could know of it is answered.
    id = 0
    started = time.monotonic()
    reading = asyncio.create_task(stream.end())
    while not stream.is_draining:
        id += 1
        await stream.send(call(id, "GetServerInfo"))
        await asyncio.sleep(0.005)
    assert 0.7 < time.monotonic() - started < 1.2
    # Longer than a server that stops would wait.
    await asyncio.sleep(0.7)
    await stream.send(call(id + 1, "GetServerInfo"))
    assert (await reading).code == 0
    assert [code_of(stream.outcomes[it]) for it in range(1, id + 2)] == ["OK"] * (id + 1)


async def test_a_stream_too_many(served: Served) -> None:
    async with contextlib.AsyncExitStack() as opened:
        channel = await opened.enter_async_context(grpc.aio.insecure_channel(served.target))
        streams = [RawStream(channel) for _ in range(3)]
        for stream in streams:
            assert code_of(await stream.ask(call(1, "GetServerInfo"))) == "OK"
        status = await RawStream(channel).end()
        assert (code_of(status), reason_of(status)) == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
        # A client makes plain calls then.
        connection = await opened.enter_async_context(Connection(served.target, streams=1))
        assert await connection.stub(server_pb2_grpc.ServerServiceStub).GetServerInfo(server_pb2.GetServerInfoRequest())
        await streams[0].close()
        assert code_of(await RawStream(channel).ask(call(1, "GetServerInfo"))) == "OK"


async def test_streams_that_are_renewed_leave_room_for_their_successors(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        streams = [RawStream(channel) for _ in range(3)]
        for stream in streams:
            while not stream.is_draining:
                assert await stream.read()
        assert code_of(await RawStream(channel).ask(call(1, "GetServerInfo"))) == "OK"
        assert not any(stream.rpc.done() for stream in streams[-1:])


@pytest.fixture
def long_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies gather for much longer than a test takes."""
    monkeypatch.setattr("storage_service.exchange_stream._GATHER_SECONDS", 60.0)
    monkeypatch.setattr("storage_service.exchange_stream._LONG", 60.0)


@pytest.mark.usefixtures("long_gathering")
async def test_replies_gather_for_a_client_that_waits_for_many(served: Served, stream: RawStream) -> None:
    served.service.work = blocked = Blocked()
    # A quarter of 16 are enough for a message.
    await stream.send(call(1, "GetServerInfo"), *(call(id, "/no/such", b"") for id in (2, 3, 4)), in_flight=16)
    reading = asyncio.create_task(stream.answers(2, 3, 4, 5))
    await asyncio.wait({reading}, timeout=0.2)
    assert stream.messages == []
    await stream.send(call(5, "/no/such", b""), in_flight=16)
    await reading
    assert stream.messages == [[2, 3, 4, 5]]
    # Once nothing else is at work, nothing more is to come.
    await stream.send(call(6, "/no/such", b""), in_flight=16)
    reading = asyncio.create_task(stream.answers(1, 6))
    await asyncio.wait({reading}, timeout=0.2)
    blocked.goes_on.set()
    await reading
    assert stream.messages[1:] == [[6, 1]]


@pytest.mark.usefixtures("long_gathering")
@pytest.mark.parametrize("in_flight", [0, 15])
async def test_replies_to_others_go_at_once(served: Served, stream: RawStream, in_flight: int) -> None:
    served.service.work = Blocked()
    await stream.send(call(1, "GetServerInfo"), call(2, "/no/such", b""), in_flight=in_flight)
    await stream.answers(2)
    assert stream.messages == [[2]]


async def test_a_reply_does_not_gather_for_long(served: Served, stream: RawStream) -> None:
    served.service.work = Blocked()
    started = time.monotonic()
    await stream.send(call(1, "GetServerInfo"), call(2, "/no/such", b""), in_flight=1000)
    await stream.answers(2)
    assert time.monotonic() - started < 0.5


async def test_age_with_a_call_at_work(served: Served, stream: RawStream) -> None:
    served.service.work = blocked = Blocked()
    await stream.send(call(1, "GetServerInfo"))
    while not stream.is_draining:
        assert await stream.read()
    await asyncio.sleep(1)
    assert not stream.rpc.done()
    blocked.goes_on.set()
    assert (await stream.end()).code == 0
    assert code_of(stream.outcomes[1]) == "OK"


@pytest.mark.parametrize("after", [0.0, 0.02, 0.5])
async def test_a_cut_ends_the_work(served: Served, after: float) -> None:
    # Whatever had begun of it: 64 calls begin at once, the others when those take long.
    served.service.work = blocked = Blocked()
    async with grpc.aio.insecure_channel(served.target) as channel:
        stream = RawStream(channel)
        await stream.send(*(call(id, "GetServerInfo") for id in range(180)))
        await so(lambda: blocked.begun >= 1)
        await asyncio.sleep(after)
    await until(served.is_idle, 5)
    assert blocked.begun == blocked.ended
    assert blocked.begun <= 64 if after < 0.1 else blocked.begun == 180
    # Every place is free.
    blocked.goes_on.set()
    async with grpc.aio.insecure_channel(served.target) as channel:
        again = RawStream(channel)
        await again.send(*(call(id, "GetServerInfo") for id in range(200)))
        assert {code_of(outcome) for outcome in await again.answers(*range(200))} == {"OK"}


async def test_cancels_free_every_place(served: Served, stream: RawStream) -> None:
    served.service.work = blocked = Blocked()
    for round in range(5):
        await stream.send(*(call(id, "GetServerInfo") for id in range(200)))
        await stream.send(cancels=range(200))
        # Answered at once, after what was sent before it has come.
        await stream.ask(call(1000 + round, "/no/method", b""))
        await until(served.is_idle, 5)
    assert blocked.begun == blocked.ended < 1000
    blocked.goes_on.set()
    await stream.send(*(call(id, "GetServerInfo") for id in range(200)))
    assert {code_of(outcome) for outcome in await stream.answers(*range(200))} == {"OK"}


async def test_the_deadline_of_a_call_that_has_not_begun(served: Served, stream: RawStream) -> None:
    served.service.work = blocked = Blocked()
    started = time.monotonic()
    await stream.send(*(call(id, "GetServerInfo") for id in range(64)), call(100, "GetServerInfo", None, 100))
    (outcome,) = await stream.answers(100)
    assert (code_of(outcome), blocked.begun) == ("DEADLINE_EXCEEDED", 64)
    assert 0.1 <= time.monotonic() - started < 0.3
    blocked.goes_on.set()
    assert {code_of(outcome) for outcome in await stream.answers(*range(64))} == {"OK"}
    await asyncio.sleep(0.1)
    assert blocked.begun == 64
    assert await served.is_idle()


async def test_no_stream_begins_while_the_server_drains(served: Served, stream: RawStream) -> None:
    served.service.work = blocked = Blocked()
    await stream.send(call(1, "GetServerInfo"))
    await so(lambda: blocked.begun == 1)
    served.pipeline.refuse_calls()
    served.exchange.drain()
    async with grpc.aio.insecure_channel(served.target) as channel:
        status = await RawStream(channel).end()
        assert (code_of(status), reason_of(status)) == ("UNAVAILABLE", "SHUTTING_DOWN")
    blocked.goes_on.set()
    assert (await stream.end()).code == 0
    assert code_of(stream.outcomes[1]) == "OK"
    async with asyncio.timeout(2):
        await served.exchange.ended()


@pytest.mark.parametrize("kind", ["large answers", "small calls", "unknown methods"])
async def test_a_client_that_never_reads(serve: Serve, owner: str, kind: str) -> None:
    server = await serve(environment={"STORAGE_EXCHANGE_BYTES": f"{8 * MIB}"})
    process = psutil.Process(server.process.pid)
    search = call(0, "SearchItems", owner_id=owner, limit=16)
    method = "/x/y" if kind == "unknown methods" else path_of("GetServerInfo")
    is_over = asyncio.Event()

    async def send(greedy: RawStream) -> None:
        if kind == "large answers":
            for search.id in range(300):
                await greedy.send(search)
            return
        try:
            for first in itertools.count(0, 100):
                if is_over.is_set():
                    await greedy.rpc.done_writing()
                    return
                await greedy.send(*(call(first + index, method, b"") for index in range(100)))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return

    async with connect(server) as channel, connect(server) as another:
        other = RawStream(channel)
        for key in range(16):
            put = call(key, "PutItem", owner_id=owner, namespace=["a"], key=f"{key}", value='"' + "x" * 100_000 + '"')
            assert code_of(await other.ask(put)) == "OK"
        # One such answer belongs to the quiet server.
        await other.ask(call(100, "SearchItems", owner_id=owner, limit=16))
        before = peak = process.memory_info().rss
        slowest = 0.0
        greedy = RawStream(another, seconds=40)
        sending = asyncio.create_task(send(greedy))
        for id in range(1000, 1080):
            started = time.monotonic()
            assert code_of(await other.ask(call(id, "GetServerInfo"))) == "OK"
            slowest = max(slowest, time.monotonic() - started)
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.02)
        assert slowest < 1
        # The bytes of one stream, some answers that were at work, and what the library holds of them.
        assert peak - before < 100 * MIB
        is_over.set()
        # For whom writes when the stream ends, grpc makes INTERNAL of it. What the network itself has room for is not left unread.
        codes = ("RESOURCE_EXHAUSTED",) if kind == "large answers" else ("RESOURCE_EXHAUSTED", "INTERNAL", "OK")
        assert code_of(await greedy.end()) in codes
        await sending
        await other.close()
    assert troubles(server.log) == []


async def test_streams_leave_nothing(serve: Serve, make_database: Callable[[], str]) -> None:
    database = make_database()
    server: ServerProcess = await serve(database, environment={"STORAGE_CALLS_IN_FLIGHT": "64"})
    process = psutil.Process(server.process.pid)

    async def drop(count: int) -> None:
        for _ in range(count):
            async with grpc.aio.insecure_channel(server.target) as channel:
                stream = RawStream(channel)
                await stream.send(*(locked.update(id) for id in range(1, 20)), call(100, "GetServerInfo"))
                await stream.answers(100)

    async with connect(server) as channel, Locked(database, channel) as locked:
        await drop(60)
        await locked.waiting(0)
        before, files = process.memory_info().rss, process.num_fds()
        await drop(200)
        await locked.waiting(0)
        assert process.memory_info().rss - before < 12 * MIB
        assert process.num_fds() <= files + 10
        stream = RawStream(channel)
        await stream.send(*(call(id, "GetServerInfo") for id in range(60)))
        assert {code_of(outcome) for outcome in await stream.answers(*range(60))} == {"OK"}
        await stream.close()
    assert troubles(server.log) == []


async def test_work_that_goes_on_after_its_end_answers_no_later_call(served: Served, stream: RawStream) -> None:
    # As a driver's wait may do with a cancellation: the work of a call that has ended gives an answer all the same.
    goes_on = asyncio.Event()

    async def stubborn() -> server_pb2.GetServerInfoResponse:
        try:
            await goes_on.wait()
        except asyncio.CancelledError:
            await goes_on.wait()
        return server_pb2.GetServerInfoResponse(version="of another")

    served.service.work = stubborn
    assert code_of(await stream.ask(call(1, "GetServerInfo", timeout_ms=60))) == "DEADLINE_EXCEEDED"
    del stream.outcomes[1]
    served.service.work = blocked = Blocked()
    await stream.send(call(1, "GetServerInfo"))
    await so(lambda: blocked.begun == 1)
    goes_on.set()
    await asyncio.sleep(0.1)
    blocked.goes_on.set()
    assert await stream.answers(1) == [b""]


async def test_more_cancels_than_there_can_be_calls_end_the_stream(stream: RawStream) -> None:
    await stream.send(cancels=range(1, 2002))
    assert code_of(await stream.end()) == "INVALID_ARGUMENT"


async def test_what_nobody_foresaw_says_nothing_to_the_client(
    served: Served, stream: RawStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr(served.pipeline, "method", fail)
    await stream.send(call(1, "GetServerInfo"))
    status = await stream.end()
    assert (code_of(status), reason_of(status)) == ("INTERNAL", "INTERNAL")
    assert "secret" not in status.message
