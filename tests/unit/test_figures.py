"""What ``GetServerInfo`` tells of the calls of each method, whatever way they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from agentstorage.v1 import server_pb2
from storage_service.figures import Figures
from storage_service.server import Server
from storage_service.settings import Settings
from storage_service.store.memory import MemoryStore
from tests.faults.servers import until
from tests.service import METHODS, CallFailed, GrpcApi, connected

OK, CANCELLED, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND


def test_what_is_counted() -> None:
    figures = Figures()
    for seconds, code in ((0.25, OK), (0.5, NOT_FOUND), (0.125, CANCELLED)):
        figures.add(seconds, code)
    assert figures.message("/package.Service/Method") == server_pb2.MethodFigures(
        method="package.Service/Method", calls=3, failed=2, seconds=0.875, longest_seconds=0.5
    )


def test_leaving_what_waits_is_no_failure() -> None:
    figures = Figures(waits=True)
    for code in (OK, CANCELLED, NOT_FOUND):
        figures.add(1, code)
    assert (figures.calls, figures.failed) == (3, 1)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server of this process."""
    server = Server(Settings(port=0, drain_seconds=0, grace_seconds=1, anonymous_rights="unscoped"), MemoryStore())
    await server.start()
    yield server
    await server.stop()


def target(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


async def figures(api: GrpcApi) -> dict[str, server_pb2.MethodFigures]:
    """The figures by the method's own name."""
    found = {}
    for each in (await api.call("GetServerInfo")).methods:
        name = each.method.rpartition("/")[2]
        assert each.method == f"{METHODS[name].containing_service.full_name}/{name}"
        assert each.calls >= each.failed >= 0
        assert each.seconds >= each.longest_seconds > 0
        assert name not in found
        found[name] = each
    return found


@pytest.mark.parametrize("way", ["grpc", "exchange"])
async def test_calls_of_either_way(server: Server, way: str) -> None:
    async with connected(target(server), "memory", way) as api:
        assert await figures(api) == {}, "what was not called is not told, nor the call that asks"
        await api.call("CreateThread", owner_id="o", thread_id="t")
        for _ in range(3):
            await api.call("GetThread", owner_id="o", thread_id="t")
        # As the store, the service and the rules of the request refuse it.
        for thread_id in ("absent", "x" * 300, ""):
            with pytest.raises(CallFailed):
                await api.call("GetThread", owner_id="o", thread_id=thread_id)
        found = await figures(api)
    assert {name: (each.calls, each.failed) for name, each in found.items()} == {
        "CreateThread": (1, 0),
        "GetThread": (6, 3),
        "GetServerInfo": (1, 0),
    }


async def test_both_ways_count_together(server: Server) -> None:
    for way in ("grpc", "exchange"):
        async with connected(target(server), "memory", way) as api:
            await asyncio.gather(*(api.call("CountThreads", owner_id="o") for _ in range(50)))
    async with connected(target(server), "memory", "grpc") as api:
        assert (await figures(api))["CountThreads"].calls == 100


async def test_a_stream_counts_once(server: Server) -> None:
    async with connected(target(server), "memory", "grpc") as api:
        for number in range(20):
            await api.call("CreateThread", owner_id="o", thread_id=f"t{number}")
        assert len(await api.stream("ExportOwner", owner_id="o")) > 0
        with pytest.raises(CallFailed):
            await api.stream("ExportOwner", owner_id="")
        found = (await figures(api))["ExportOwner"]
        assert (found.calls, found.failed) == (2, 1)


async def test_those_who_leave(server: Server) -> None:
    """A client that goes away while it waits for a run is no failure; the time that it waited counts."""
    async with connected(target(server), "memory", "grpc") as api:
        await api.call("CreateAssistant", owner_id="o", assistant_id="a", graph_id="g")
        await api.call("CreateThread", owner_id="o", thread_id="t")
        await api.call("CreateRun", owner_id="o", run_id="r", thread_id="t", assistant_id="a")
        waiting = [
            asyncio.ensure_future(api.call("WaitRun", owner_id="o", run_id="r", wait_seconds=60)),
            asyncio.ensure_future(api.stream("StreamRunEvents", owner_id="o", run_id="r")),
        ]
        await asyncio.sleep(0.3)
        for each in waiting:
            each.cancel()

        async def both_ended() -> bool:
            return {"WaitRun", "StreamRunEvents"} <= (await figures(api)).keys()

        await until(both_ended, 5)
        found = await figures(api)
    for name in ("WaitRun", "StreamRunEvents"):
        assert (found[name].calls, found[name].failed) == (1, 0)
        assert 0.2 < found[name].longest_seconds < 5


async def test_calls_without_a_known_token(tmp_path_factory: pytest.TempPathFactory) -> None:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    tokens.write_text('[[token]]\ntoken = "a-token-of-this-test"\nowners = "all"\n')
    server = Server(Settings(port=0, drain_seconds=0, grace_seconds=1, token_file=str(tokens)), MemoryStore())
    await server.start()
    try:
        async with connected(target(server), "memory", "grpc") as api:
            with pytest.raises(CallFailed) as caught:
                await api.call("GetThread", owner_id="o", thread_id="t")
            assert caught.value.reason == "UNAUTHENTICATED"
            bearer = {"authorization": "Bearer a-token-of-this-test"}
            response = server_pb2.GetServerInfoResponse.FromString(await api.send("GetServerInfo", b"", bearer))
        (found,) = response.methods
        assert (found.method, found.calls, found.failed) == ("agentstorage.v1.ThreadService/GetThread", 1, 1)
    finally:
        await server.stop()
