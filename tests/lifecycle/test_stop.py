"""Servers that stop: health first, calls at work to their end, and no call lost where a second server stands by."""

from __future__ import annotations

import asyncio
import signal
import time

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2

from agentstorage import Connection, StorageError
from agentstorage.v1 import store_pb2, store_pb2_grpc, threads_pb2, threads_pb2_grpc
from tests.faults.servers import Serve, health, troubles, until, until_healthy
from tests.postgres_server import MakeDatabase
from tests.service import CallFailed, GrpcApi, ServerProcess


async def ended(server: ServerProcess, seconds: float = 30) -> int:
    """The exit status of a server that was told to end."""
    return await asyncio.to_thread(server.process.wait, seconds)


@pytest.mark.parametrize("backend", ["memory", "postgres"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ends_cleanly(serve: Serve, make_database: MakeDatabase, backend: str, number: signal.Signals) -> None:
    server = await serve(make_database() if backend == "postgres" else "")
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        await GrpcApi(channel, backend).call("CreateThread", owner_id="o")
        server.process.send_signal(number)
        assert await ended(server, 10) == 0
    assert troubles(server.log) == []


async def test_ends_before_it_has_begun(serve: Serve) -> None:
    # Told to end while it still waits for a database that is not there.
    starting = ServerProcess("postgres", "postgresql://postgres@127.0.0.1:1/x")
    started = asyncio.create_task(asyncio.to_thread(starting.start))

    async def handles_signals() -> bool:
        return hasattr(starting, "process") and "UNAVAILABLE" in starting.log.read_text()

    await until(handles_signals, 20)
    starting.process.send_signal(signal.SIGTERM)
    await started
    assert await ended(starting, 10) == 0
    assert troubles(starting.log) == []
    starting.kill()


async def test_health_first(serve: Serve) -> None:
    # Whoever watches health learns of it while calls still succeed.
    server = await serve(environment={"STORAGE_DRAIN_SECONDS": "1.5"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        api = GrpcApi(channel, "memory")
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service=""), timeout=20)
        first = await watch.read()
        assert isinstance(first, health_pb2.HealthCheckResponse)
        assert first.status == health_pb2.HealthCheckResponse.SERVING
        server.process.terminate()
        told = time.monotonic()
        second = await watch.read()
        assert isinstance(second, health_pb2.HealthCheckResponse)
        assert second.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert time.monotonic() - told < 1
        for service in ("", "agentstorage.v1.StoreService"):
            assert await health(channel, service) == "NOT_SERVING"
        await api.call("CreateThread", owner_id="o")
        watch.cancel()
        assert await ended(server, 10) == 0
        assert time.monotonic() - told > 1
    assert troubles(server.log) == []


async def test_calls_at_work_end(serve: Serve, make_database: MakeDatabase, owner: str) -> None:
    url = make_database()
    server = await serve(url, environment={"DATABASE_LOCK_TIMEOUT": "20"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        api = GrpcApi(channel, "postgres")
        await api.call("CreateThread", owner_id=owner, thread_id="held")
        async with await psycopg.AsyncConnection.connect(url) as holder:
            await holder.execute("SELECT FROM langgraph_server.threads WHERE id = 'held' FOR UPDATE")
            working = asyncio.create_task(
                api.call("UpdateThread", owner_id=owner, thread_id="held", metadata='{"a": 1}')
            )

            async def waits() -> bool:
                cursor = await holder.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                row = await cursor.fetchone()
                return row is not None and row[0] > 0

            await until(waits, 10)
            server.process.terminate()

            async def refuses() -> bool:
                try:
                    await api.call("GetServerInfo")
                except CallFailed as failure:
                    return failure.code is grpc.StatusCode.UNAVAILABLE
                return False

            await until(refuses, 10)
            assert not working.done()
            await holder.commit()
        assert (await working).thread.metadata
        assert await ended(server, 10) == 0
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT metadata ->> 'a' FROM langgraph_server.threads WHERE id = 'held'").fetchone()
    assert row == ("1",)
    assert troubles(server.log) == []


async def test_rolling_restarts(serve: Serve, make_database: MakeDatabase, owner: str) -> None:
    # Two servers share a database; each is replaced three times. The client's retries hide it all.
    url = make_database()
    environment = {"STORAGE_DRAIN_SECONDS": "0.3"}
    servers = list(await asyncio.gather(*(serve(url, environment=environment) for _ in range(2))))
    target = "ipv4:" + ",".join(server.target for server in servers)
    failures: list[str] = []
    acked: set[str] = set()
    calls = 0
    stop = False

    async with Connection(target, owner_id=owner) as connection:
        items = connection.stub(store_pb2_grpc.StoreServiceStub)
        threads = connection.stub(threads_pb2_grpc.ThreadServiceStub)

        async def keep_calling(caller: int) -> None:
            nonlocal calls
            number = 0
            while not stop:
                number += 1
                key = f"{caller}-{number}"
                try:
                    await items.PutItem(
                        store_pb2.PutItemRequest(owner_id=owner, namespace=["roll"], key=key, value=str(number))
                    )
                    acked.add(key)
                    await items.GetItem(store_pb2.GetItemRequest(owner_id=owner, namespace=["roll"], key=key))
                    await threads.CreateThread(threads_pb2.CreateThreadRequest(owner_id=owner))
                    await threads.SearchThreads(threads_pb2.SearchThreadsRequest(owner_id=owner, page_size=1))
                except StorageError as error:
                    failures.append(f"{type(error).__name__}: {error}")
                calls += 4
                await asyncio.sleep(0.005)

        callers = [asyncio.create_task(keep_calling(caller)) for caller in range(12)]
        for _ in range(3):
            for index, server in enumerate(servers):
                before = calls

                async def more(wanted: int = before + 200) -> bool:
                    return calls >= wanted

                await until(more, 20)
                server.process.terminate()
                assert await ended(server) == 0
                assert troubles(server.log) == []
                replacement = await serve(url, environment=environment, port=server.port)
                servers[index] = replacement
                async with grpc.aio.insecure_channel(replacement.target) as channel:
                    await until_healthy(channel, 10)
        stop = True
        await asyncio.gather(*callers)
    assert failures == []
    assert calls > 1200
    with psycopg.connect(url) as conn:
        found = {str(key) for (key,) in conn.execute("SELECT key FROM langgraph_server.store_items")}
    assert acked <= found
