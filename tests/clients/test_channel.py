"""What a call does on its way, against a server that fails as no real one does on demand."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from agentstorage import Connection, GrpcStorage, errors
from agentstorage.v1 import (
    exchange_pb2,
    exchange_pb2_grpc,
    owner_pb2,
    owner_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
    threads_pb2,
    threads_pb2_grpc,
)
from tests.clients.fake_exchange import FakeExchange

pytestmark = pytest.mark.usefixtures("way")

Answer = Callable[[Any, Any], Awaitable[Any]]
ThreadStub: Any = threads_pb2_grpc.ThreadServiceStub
StoreStub: Any = store_pb2_grpc.StoreServiceStub
RunStub: Any = runs_pb2_grpc.RunServiceStub
OwnerStub: Any = owner_pb2_grpc.OwnerServiceStub
#: The class of each method's request.
REQUESTS: dict[str, Any] = {
    f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
    for module in (threads_pb2, store_pb2, runs_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Fake:
    """A server whose methods are set by the test; it keeps what it was asked."""

    def __init__(self) -> None:
        self.target = ""
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.seconds_left: list[float] = []
        self.answers: dict[str, Answer] = {}

    def answer(self, method: str, *results: Any) -> None:
        """Answer calls of a method one after another: a message, or a code to fail with; the last one for good."""
        left = list(results)

        async def answer(_: Any, context: Any) -> Any:
            result = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(result, grpc.StatusCode):
                await context.abort(result, "as told")
            return result

        self.answers[method] = answer

    async def _handle(self, name: str, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.seconds_left.append(context.time_remaining())
        return await self.answers[name](request, context)

    def servicer(self, base: type[Any]) -> Any:
        def method(name: str) -> Callable[..., Awaitable[Any]]:
            async def handle(_: Any, request: Any, context: Any) -> Any:
                return await self._handle(name, request, context)

            return handle

        names = [name for name in vars(base) if name[0].isupper() and name != "ExportOwner"]
        return type("Servicer", (base,), {name: method(name) for name in names})()


async def export(_: Any, request: Any, context: Any) -> AsyncIterator[Any]:
    """Stream two messages, then fail if the owner's name says so."""
    yield owner_pb2.ExportOwnerResponse()
    yield owner_pb2.ExportOwnerResponse()
    if request.owner_id == "fails":
        await context.abort(grpc.StatusCode.NOT_FOUND, "as told")


class Aborted(Exception):
    """A call through the exchange was ended by its answer."""


class ExchangedContext:
    """What an answer is given of a call through the exchange."""

    def __init__(self, call: exchange_pb2.Call, metadata: dict[str, Any]) -> None:
        self._seconds = call.timeout_ms / 1000
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...]:
        return tuple(self._metadata.items())

    def time_remaining(self) -> float:
        return self._seconds

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


def exchange_of(fake: Fake) -> FakeExchange:
    """An exchange that has the answers of a fake."""

    async def answer(call: exchange_pb2.Call) -> list[exchange_pb2.Reply]:
        name = call.method.rpartition("/")[2]
        request = REQUESTS[call.method].FromString(call.request)
        try:
            result = await fake._handle(name, request, ExchangedContext(call, made.metadata[-1]))
        except Aborted as aborted:
            code, details = aborted.args
            return [exchange_pb2.Reply(error=exchange_pb2.Status(code=code.value[0], message=details))]
        return [exchange_pb2.Reply(response=result.SerializeToString())]

    made = FakeExchange(answer)
    return made


Exporter: Any = type("Exporter", (owner_pb2_grpc.OwnerServiceServicer,), {"ExportOwner": export})


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    made = Fake()
    server = grpc.aio.server()
    threads_pb2_grpc.add_ThreadServiceServicer_to_server(made.servicer(threads_pb2_grpc.ThreadServiceServicer), server)
    store_pb2_grpc.add_StoreServiceServicer_to_server(made.servicer(store_pb2_grpc.StoreServiceServicer), server)
    runs_pb2_grpc.add_RunServiceServicer_to_server(made.servicer(runs_pb2_grpc.RunServiceServicer), server)
    owner_pb2_grpc.add_OwnerServiceServicer_to_server(Exporter(), server)
    exchange_pb2_grpc.add_ExchangeServiceServicer_to_server(exchange_of(made), server)
    made.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield made
    await server.stop(None)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


UNAVAILABLE, CANCELLED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED


async def test_a_server_that_is_not_there() -> None:
    target = f"127.0.0.1:{closed_port()}"
    started = time.monotonic()
    async with GrpcStorage(target) as storage:
        with pytest.raises(errors.Unreachable, match=target) as caught:
            await storage.threads.get("t", "alice")
    assert "storage-service serve" in str(caught.value)
    assert caught.value.safe_to_retry
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    assert time.monotonic() - started < 5


async def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Connection(f"127.0.0.1:{silent.getsockname()[1]}", read_timeout=0.3) as connection:
            call = connection.stub(ThreadStub).GetThread(
                threads_pb2.GetThreadRequest(thread_id="t"), wait_for_ready=True
            )
            with pytest.raises(errors.DeadlineExceeded, match="GetThread") as caught:
                await call
    assert caught.value.safe_to_retry


async def test_each_call_has_a_deadline(fake: Fake) -> None:
    fake.answer("GetThread", threads_pb2.GetThreadResponse())
    fake.answer("UpdateThread", threads_pb2.UpdateThreadResponse())
    fake.answer("DeleteThread", threads_pb2.DeleteThreadResponse())
    async with Connection(fake.target) as connection:
        stub = connection.stub(ThreadStub)
        await stub.GetThread(threads_pb2.GetThreadRequest())
        await stub.DeleteThread(threads_pb2.DeleteThreadRequest())
        await stub.UpdateThread(threads_pb2.UpdateThreadRequest())
        await stub.GetThread(threads_pb2.GetThreadRequest(), timeout=60)
        with pytest.raises(ValueError, match="more than 0"):
            stub.GetThread(threads_pb2.GetThreadRequest(), timeout=0)
    assert [round(seconds) for seconds in fake.seconds_left] == [5, 10, 10, 60]


async def test_the_token_goes_with_each_call_and_with_the_callers_own_metadata(fake: Fake) -> None:
    fake.answer("GetThread", threads_pb2.GetThreadResponse())
    async with Connection(fake.target, token="s3cret") as connection:
        stub = connection.stub(ThreadStub)
        await stub.GetThread(threads_pb2.GetThreadRequest())
        await stub.GetThread(threads_pb2.GetThreadRequest(), metadata=[("x-trace", "1")])
    assert [found["authorization"] for found in fake.metadata] == ["Bearer s3cret"] * 2
    assert fake.metadata[1]["x-trace"] == "1"


@pytest.mark.parametrize("code", [UNAVAILABLE, CANCELLED])
async def test_idempotent_calls_are_sent_again(fake: Fake, code: grpc.StatusCode) -> None:
    fake.answer("GetThread", code, code, threads_pb2.GetThreadResponse())
    fake.answer("PutItem", code, code, store_pb2.PutItemResponse())
    fake.answer("UpdateRun", code, runs_pb2.UpdateRunResponse())
    async with Connection(fake.target) as connection:
        await connection.stub(ThreadStub).GetThread(threads_pb2.GetThreadRequest())
        await connection.stub(StoreStub).PutItem(store_pb2.PutItemRequest())
        await connection.stub(RunStub).UpdateRun(runs_pb2.UpdateRunRequest())
    assert [type(request).__name__ for request in fake.requests] == (
        ["GetThreadRequest"] * 3 + ["PutItemRequest"] * 3 + ["UpdateRunRequest"] * 2
    )


@pytest.mark.parametrize(
    ("stub", "method", "request_"),
    [
        (StoreStub, "PutItem", store_pb2.PutItemRequest(expected_version=0)),
        (StoreStub, "Batch", store_pb2.BatchRequest()),
        (ThreadStub, "UpdateThread", threads_pb2.UpdateThreadRequest(expected_status=[threads_pb2.THREAD_STATUS_IDLE])),
        (RunStub, "UpdateRun", runs_pb2.UpdateRunRequest(expected_status=[runs_pb2.RUN_STATUS_PENDING])),
        (ThreadStub, "CopyThread", threads_pb2.CopyThreadRequest()),
    ],
)
async def test_other_calls_are_not_sent_again(fake: Fake, stub: Any, method: str, request_: Any) -> None:
    fake.answer(method, UNAVAILABLE)
    async with Connection(fake.target) as connection:
        with pytest.raises(errors.Unavailable) as caught:
            await getattr(connection.stub(stub), method)(request_)
    assert not caught.value.safe_to_retry
    assert len(fake.requests) == 1


@pytest.mark.parametrize(("stub", "method"), [(ThreadStub, "GetThread"), (StoreStub, "PutItem")])
async def test_a_call_is_sent_four_times_at_most(fake: Fake, stub: Any, method: str) -> None:
    fake.answer(method, UNAVAILABLE)
    async with Connection(fake.target) as connection:
        request = {"GetThread": threads_pb2.GetThreadRequest(), "PutItem": store_pb2.PutItemRequest()}[method]
        with pytest.raises(errors.Unavailable):
            await getattr(connection.stub(stub), method)(request)
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_other_failures_are_final(fake: Fake, code: grpc.StatusCode) -> None:
    fake.answer("GetThread", code)
    fake.answer("PutItem", code)
    async with Connection(fake.target) as connection:
        with pytest.raises(errors.StorageError):
            await connection.stub(ThreadStub).GetThread(threads_pb2.GetThreadRequest())
        with pytest.raises(errors.StorageError):
            await connection.stub(StoreStub).PutItem(store_pb2.PutItemRequest())
    assert len(fake.requests) == 2


async def test_retries_end_with_the_time_of_the_call(fake: Fake) -> None:
    fake.answer("PutItem", UNAVAILABLE)
    async with Connection(fake.target) as connection:
        started = time.monotonic()
        with pytest.raises(errors.Unavailable):
            await connection.stub(StoreStub).PutItem(store_pb2.PutItemRequest(), timeout=0.12)
        assert time.monotonic() - started < 0.5
    assert 1 <= len(fake.requests) < 4


async def test_a_create_without_an_id_gets_one_and_keeps_it_when_it_is_sent_again(fake: Fake) -> None:
    fake.answer("CreateThread", UNAVAILABLE, threads_pb2.CreateThreadResponse())
    request = threads_pb2.CreateThreadRequest(metadata="{}")
    async with Connection(fake.target) as connection:
        await connection.stub(ThreadStub).CreateThread(request)
    first, second = fake.requests
    assert first == second
    assert len(first.thread_id) == 32
    assert int(first.thread_id, 16) >> 76 & 0xF == 7
    assert request.thread_id == ""


async def test_a_request_id_makes_the_server_choose_the_id(fake: Fake) -> None:
    # With ids of the client's the second sending of a program would be another create with the same request_id.
    fake.answer("CreateThread", threads_pb2.CreateThreadResponse(), threads_pb2.CreateThreadResponse())
    async with Connection(fake.target) as connection:
        stub = connection.stub(threads_pb2_grpc.ThreadServiceStub)
        for _ in range(2):
            await stub.CreateThread(threads_pb2.CreateThreadRequest(owner_id="alice", request_id="r1"))
    assert [(request.thread_id, request.request_id) for request in fake.requests] == [("", "r1")] * 2


async def test_a_retried_drop_in_create_is_one_create(fake: Fake) -> None:
    fake.answer("CreateThread", UNAVAILABLE, threads_pb2.CreateThreadResponse())
    async with GrpcStorage(fake.target) as storage:
        await storage.threads.create({"thread_id": "mine"}, "alice")
        await storage.threads.create({"thread_id": "mine"}, "alice")
    first, again, other = fake.requests
    assert first == again
    assert first.thread_id == other.thread_id == "mine"
    assert first.request_id
    assert first.request_id != other.request_id


async def test_cancelling_the_caller_cancels_the_call(fake: Fake) -> None:
    ended = asyncio.Event()

    async def hang(_: Any, context: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    fake.answers["GetThread"] = hang
    async with Connection(fake.target) as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.stub(ThreadStub).GetThread(threads_pb2.GetThreadRequest())
        async with asyncio.timeout(5):
            await ended.wait()


async def test_streams_fail_with_the_same_classes(fake: Fake) -> None:
    received: list[Any] = []

    async def receive(owner_id: str) -> None:
        async for reply in connection.stub(OwnerStub).ExportOwner(owner_pb2.ExportOwnerRequest(owner_id=owner_id)):
            received.append(reply)

    async with Connection(fake.target) as connection:
        await receive("a")
        assert len(received) == 2
        with pytest.raises(errors.NotFound):
            await receive("fails")
        assert len(received) == 4
        call = connection.stub(OwnerStub).ExportOwner(owner_pb2.ExportOwnerRequest(owner_id="fails"))
        await call.read()
        await call.read()
        with pytest.raises(errors.NotFound):
            await call.read()


async def test_grpcs_own_view_of_a_call_stays_reachable(fake: Fake) -> None:
    fake.answer("GetThread", threads_pb2.GetThreadResponse())
    async with Connection(fake.target) as connection:
        call = connection.stub(ThreadStub).GetThread(threads_pb2.GetThreadRequest())
        await call
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()


async def test_one_storage_serves_several_event_loops(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    async def echo(request: Any, _: Any) -> Any:
        return threads_pb2.GetThreadResponse(thread=threads_pb2.Thread(thread_id=request.thread_id))

    fake.answers["GetThread"] = echo
    storage = GrpcStorage(fake.target)

    async def calls(name: str) -> None:
        async def one(number: int) -> None:
            thread = await storage.threads.get(f"{name}-{number}", "alice")
            assert thread is not None
            assert thread.thread_id == f"{name}-{number}"

        for _ in range(3):
            await asyncio.gather(*(one(number) for number in range(20)))

    def loops(name: str) -> None:
        asyncio.run(calls(f"{name}a"))
        asyncio.run(calls(f"{name}b"))

    with caplog.at_level(logging.WARNING):
        await asyncio.gather(calls("main"), *(asyncio.to_thread(loops, str(number)) for number in range(4)))
    assert not caplog.records
    # Channels of loops that have ended are dropped when the next one begins.
    assert len(storage.connection._loops) <= 5
    await storage.close()


def test_an_open_connection_keeps_no_process_alive() -> None:
    program = (
        "import asyncio, agentstorage\n"
        "storage = agentstorage.GrpcStorage('127.0.0.1:1')\n"
        "async def main():\n"
        "    try:\n"
        "        await storage.threads.get('t', 'alice')\n"
        "    except agentstorage.StorageError:\n"
        "        print('failed as it should')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "failed as it should\n"
    assert done.stderr == ""
