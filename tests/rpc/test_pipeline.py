"""What a client sees when a method ends as no method should: a service of the test behind the real pipeline and a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from typing import Any

import grpc
import psycopg
import pytest

from agentstorage.v1 import owner_pb2, server_pb2
from storage_service.caller import Callers
from storage_service.errors import LimitReached
from storage_service.logs import JsonLines
from storage_service.rpc import Pipeline
from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store.memory import MemoryStore
from tests.service import CallFailed, GrpcApi

SECRET = "postgres://user:hunter2@db.internal/prod"


class Misbehaving:
    """Services whose methods do what the test says."""

    def __init__(self) -> None:
        self.work: Callable[[], Awaitable[Any]] = self.answer

    async def answer(self) -> server_pb2.GetServerInfoResponse:
        return server_pb2.GetServerInfoResponse(version="1")

    async def get_server_info(self, request: Any, call: Any) -> Any:
        return await self.work()

    async def truncate(self, request: Any, call: Any) -> Any:
        return await self.work()

    async def get_owner_usage(self, request: Any, call: Any) -> Any:
        return await self.work()

    async def erase_owner(self, request: Any, call: Any) -> Any:
        return await self.work()

    async def export_owner(self, request: Any, call: Any) -> AsyncIterator[Any]:
        yield owner_pb2.ExportOwnerResponse()
        await self.work()


class Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Hands grpc the handlers of a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._pipeline.service(handler_call_details)


@pytest.fixture
def service() -> Misbehaving:
    """The service."""
    return Misbehaving()


@pytest.fixture
async def api(service: Misbehaving) -> AsyncIterator[GrpcApi]:
    """The way to it: two calls at once at most, and messages of up to 1 MiB."""
    limits = Limits(calls_in_flight=2, message_bytes=1024 * 1024, call_seconds=0.5)
    pipeline = Pipeline(MemoryStore(), Callers.open_to_all({"admin", "unscoped"}), limits)
    for module in (server_pb2, owner_pb2):
        for descriptor in module.DESCRIPTOR.services_by_name.values():
            pipeline.register(descriptor, service)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(pipeline),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        # No deadline of the client's: what hangs, hangs.
        yield GrpcApi(channel, "memory", timeout=None)
    await server.stop(0)


async def failure_of(calling: Awaitable[Any]) -> CallFailed:
    async with asyncio.timeout(5):
        with pytest.raises(CallFailed) as caught:
            await calling
    return caught.value


def begin(api: GrpcApi, way: str) -> Awaitable[Any]:
    return api.call("GetServerInfo") if way == "unary" else api.stream("ExportOwner", owner_id="o")


def test_what_waits_leaves_places_to_others() -> None:
    store = MemoryStore()
    pipeline = build_pipeline(Settings(limits=Limits(calls_in_flight=10)), store)
    runs = "/agentstorage.v1.RunService/"
    waits, streams, other = [pipeline.method(runs + name) for name in ("WaitRun", "StreamRunEvents", "HeartbeatRun")]
    assert waits
    assert streams
    assert other
    for _ in range(8):
        pipeline.admit(waits, 1)
    for method in (waits, streams):
        with pytest.raises(LimitReached):
            pipeline.admit(method, 1)
    pipeline.admit(other, 1)
    pipeline.admit(other, 1)
    with pytest.raises(LimitReached):
        pipeline.admit(other, 1)


@pytest.mark.parametrize("way", ["unary", "stream"])
async def test_a_cancellation_inside(service: Misbehaving, api: GrpcApi, way: str) -> None:
    async def work() -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        inner.cancel()
        await inner

    service.work = work
    failure = await failure_of(begin(api, way))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    service.work = service.answer
    await api.call("GetServerInfo")


ERRORS = [
    ValueError(f"cannot parse {SECRET}"),
    KeyError(SECRET),
    RecursionError(SECRET),
    MemoryError(SECRET),
    OSError(5, SECRET),
    ExceptionGroup(SECRET, [RuntimeError(SECRET)]),
    psycopg.errors.UndefinedTable(f'relation "{SECRET}" does not exist'),
    StopAsyncIteration(SECRET),
]


@pytest.mark.parametrize("way", ["unary", "stream"])
@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
async def test_an_unexpected_exception(
    service: Misbehaving, api: GrpcApi, caplog: pytest.LogCaptureFixture, way: str, error: Exception
) -> None:
    async def work() -> None:
        raise error

    service.work = work
    with caplog.at_level(logging.INFO, "storage_service.calls"):
        failure = await failure_of(begin(api, way))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    error_id = failure.metadata["error_id"]
    assert len(error_id) == 16
    for seen in (failure.message, str(failure.metadata), failure.details.decode("latin-1")):
        assert "hunter2" not in seen
        assert type(error).__name__ not in seen
    # One line, which has the same id and says where it came from, and not what it said.
    (record,) = [record for record in caplog.records if record.name == "storage_service.calls"]
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["code"], line["error_id"]) == ("error", "INTERNAL", error_id)
    assert any(type(error).__name__ in cause for cause in line["cause"])
    assert any("test_pipeline.py" in cause for cause in line["cause"])
    assert "hunter2" not in json.dumps(line)


async def test_corrupted_data(service: Misbehaving, api: GrpcApi) -> None:
    async def work() -> None:
        raise psycopg.errors.DataCorrupted(SECRET)

    service.work = work
    failure = await failure_of(api.call("GetServerInfo"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.DATA_LOSS, "DATA_LOSS")
    assert "hunter2" not in failure.message + failure.details.decode("latin-1")


async def test_the_cap_of_a_call_without_a_deadline(service: Misbehaving, api: GrpcApi) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    service.work = work
    failure = await failure_of(api.call("GetServerInfo"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    async with asyncio.timeout(2):
        await ended.wait()


async def test_the_cap_holds_for_work_that_will_not_end(service: Misbehaving, api: GrpcApi) -> None:
    # As a driver that, cancelled, first talks to a server that does not answer.
    goes_on = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await goes_on.wait()

    service.work = work
    failure = await failure_of(api.call("GetServerInfo"))
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    goes_on.set()
    service.work = service.answer
    await api.call("GetServerInfo")


async def test_a_client_that_goes_away_ends_the_work(service: Misbehaving, api: GrpcApi) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    service.work = work
    calling = asyncio.ensure_future(api.call("GetServerInfo"))
    async with asyncio.timeout(2):
        await begun.wait()
        calling.cancel()
        await ended.wait()


async def test_too_many_calls_at_once(service: Misbehaving, api: GrpcApi) -> None:
    goes_on = asyncio.Event()
    at_work = 0

    async def work() -> server_pb2.GetServerInfoResponse:
        nonlocal at_work
        at_work += 1
        await goes_on.wait()
        return server_pb2.GetServerInfoResponse()

    service.work = work
    calls = [asyncio.ensure_future(api.call("GetServerInfo")) for _ in range(10)]
    async with asyncio.timeout(5):
        for calling in islice(asyncio.as_completed(calls), 8):
            failure = await failure_of(calling)
            assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
        goes_on.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, server_pb2.GetServerInfoResponse) for answer in answers) == 2
    assert at_work == 2
    # The places are free again, however the calls in them ended.
    for _ in range(5):
        await asyncio.gather(api.call("GetServerInfo"), api.call("GetServerInfo"))


async def test_an_answer_too_large(service: Misbehaving, api: GrpcApi) -> None:
    async def work() -> server_pb2.GetServerInfoResponse:
        return server_pb2.GetServerInfoResponse(version="x" * 1024 * 1024)

    service.work = work
    failure = await failure_of(api.call("GetServerInfo"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    assert "smaller page" in failure.message


async def test_an_answer_of_another_type(service: Misbehaving, api: GrpcApi) -> None:
    async def work() -> None:
        return None

    service.work = work
    assert (await failure_of(api.call("GetServerInfo"))).code is grpc.StatusCode.INTERNAL


async def test_a_large_request_has_its_place_until_it_is_read(
    service: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(MemoryStore(), Callers.open_to_all({"admin"}), Limits(bytes_in_flight=3 << 20))
    pipeline.register(server_pb2.DESCRIPTOR.services_by_name["ServerService"], service)
    method = pipeline.method("/agentstorage.v1.ServerService/GetServerInfo")
    assert method is not None
    is_read = threading.Event()
    monkeypatch.setattr(pipeline, "_open", lambda *_: is_read.wait(10))
    calls = [asyncio.create_task(pipeline.answer(method, b" " * (2 << 20), (), 5)) for _ in range(2)]
    # The second finds no place beside the first, also when the caller of that has gone.
    with pytest.raises(LimitReached):
        await calls[1]
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    with pytest.raises(LimitReached):
        await pipeline.answer(method, b" " * (2 << 20), (), 5)
    is_read.set()
    async with asyncio.timeout(5):
        await pipeline.idle(5)
    pipeline.admit(method, 3 << 20)
