"""Calls that wait for something to happen: they are RPCs of their own, have the time that they wait, and are not repeated blindly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.methods import METHODS, service_config
from agentstorage.v1 import exchange_pb2_grpc, runs_pb2_grpc
from agentstorage.v1 import runs_pb2 as pb
from tests.clients.fake_exchange import FakeExchange, never, until
from tests.clients.fake_runs import FakeRuns
from tests.clients.queueing import queue_at
from tests.service import ServerProcess


@contextlib.asynccontextmanager
async def serving_both(exchange: FakeExchange, runs: FakeRuns) -> AsyncIterator[str]:
    """Serve an exchange beside the RPCs; gives the target."""
    server = grpc.aio.server()
    exchange_pb2_grpc.add_ExchangeServiceServicer_to_server(exchange, server)
    runs_pb2_grpc.add_RunServiceServicer_to_server(runs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_the_methods_that_wait() -> None:
    waiting = {path.rpartition("/")[2] for path, method in METHODS.items() if method.waits}
    assert waiting == {"ClaimRuns", "WaitRun"}
    repeated = {name["method"] for name in json.loads(service_config())["methodConfig"][0]["name"]}
    assert repeated & {"ClaimRuns", "WaitRun", "FinishRun", "AppendRunEvents", "ReleaseRun"} == {
        "WaitRun",
        "FinishRun",
        "AppendRunEvents",
        "ReleaseRun",
    }


async def test_a_call_that_waits_is_none_of_the_exchange() -> None:
    exchange, runs = FakeExchange(never), FakeRuns()
    runs.add("r1")
    async with serving_both(exchange, runs) as target, Connection(target) as connection:
        stub = connection.stub(runs_pb2_grpc.RunServiceStub)
        beat = asyncio.ensure_future(_awaited(stub.HeartbeatRun(pb.HeartbeatRunRequest(run_id="r", lease_token=1))))
        await until(lambda: exchange.calls)
        reply = await stub.ClaimRuns(pb.ClaimRunsRequest(worker_id="w", limit=1, wait_seconds=5))
        assert [one.run.run_id for one in reply.runs] == ["r1"]
        assert [call.method.rpartition("/")[2] for call in exchange.calls] == ["HeartbeatRun"]
        beat.cancel()


async def _awaited(call: object) -> object:
    return await call  # type: ignore[misc]  # a call is awaitable


async def test_a_wait_is_added_to_the_time_of_a_call(server: ServerProcess) -> None:
    async with (
        queue_at(server.target) as queue,
        Connection(server.target, owner_id=queue.owner, read_timeout=1, write_timeout=1) as connection,
    ):
        submitted = await queue.submit()
        stub = connection.stub(runs_pb2_grpc.RunServiceStub)
        began = time.monotonic()
        waiting = pb.WaitRunRequest(owner_id=queue.owner, run_id=submitted.run_id, wait_seconds=1.5)
        assert (await stub.WaitRun(waiting)).run.status == pb.RUN_STATUS_PENDING
        claiming = pb.ClaimRunsRequest(owner_id=queue.owner, worker_id="w", wait_seconds=1.5)
        assert len((await stub.ClaimRuns(claiming)).runs) == 1
        assert len((await stub.ClaimRuns(claiming)).runs) == 0
        assert 3 <= time.monotonic() - began < 8
        # The caller's word counts, and the server waits less.
        began = time.monotonic()
        assert (await stub.WaitRun(waiting, timeout=1)).run.status == pb.RUN_STATUS_RUNNING
        assert time.monotonic() - began < 1.2
        for seconds in (-1.0, 3601.0, float("nan"), float("inf")):
            waiting.wait_seconds = seconds
            with pytest.raises(errors.InvalidRequest):
                await stub.WaitRun(waiting)
