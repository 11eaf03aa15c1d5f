"""The database is not there, goes away, or comes back."""

from __future__ import annotations

import asyncio
import time

import grpc
import psycopg
import pytest

from tests.faults.cluster import Cluster
from tests.faults.load import Load
from tests.faults.servers import Record, Serve, health, troubles, until_healthy, until_ok
from tests.service import CallFailed, GrpcApi, ServerProcess

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def fails_at_once(api: GrpcApi) -> None:
    for method, fields in (
        ("GetThread", {"thread_id": "t"}),
        ("CreateThread", {"thread_id": "t"}),
        ("SearchItems", {}),
        ("Batch", {"operations": [{"put": {"namespace": ["a"], "key": "k", "value": "1"}}]}),
    ):
        started = time.monotonic()
        with pytest.raises(CallFailed) as caught:
            await api.call(method, owner_id="o", **fields)
        assert (caught.value.code, caught.value.reason) == (UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert time.monotonic() - started < 0.5


async def test_away_at_the_start(cluster: Cluster, serve: Serve, record_property: Record) -> None:
    url = cluster.create_database()
    cluster.stop()
    try:
        started = time.monotonic()
        server = await serve(url, environment={"STORAGE_LOG_LEVEL": "INFO"})
        assert time.monotonic() - started < 8
        async with grpc.aio.insecure_channel(server.target) as channel:
            api = GrpcApi(channel, "postgres", timeout=5)
            for service in ("", "agentstorage.v1.ThreadService"):
                assert await health(channel, service) == "NOT_SERVING"
            await fails_at_once(api)
            # What needs no database answers.
            info = await api.call("GetServerInfo")
            assert info.backend == "postgres"
            assert not info.HasField("pool")
            assert server.process.poll() is None
            cluster.start()
            back = time.monotonic()
            await until_ok(api, 3)
            record_property("first_ok_seconds", round(time.monotonic() - back, 2))
            await until_healthy(channel, 3)
            await until_healthy(channel, 1, "SERVING")
            assert (await api.call("GetServerInfo")).schema_revision > 0
        log = server.log.read_text()
        assert "calls get UNAVAILABLE until" in log
        assert "postgresql://" not in log
        assert troubles(server.log) == []
    finally:
        cluster.start_if_stopped()


@pytest.mark.parametrize("way", ["fast", "immediate", "kill"])
async def test_restart_under_load(
    cluster: Cluster,
    database: str,
    server: ServerProcess,
    channel: grpc.aio.Channel,
    api: GrpcApi,
    owner: str,
    way: str,
    record_property: Record,
) -> None:
    async with Load(api, owner) as load:
        await load.until_more(200)
        if way == "kill":
            await asyncio.to_thread(cluster.kill)
        else:
            await asyncio.to_thread(cluster.stop, way)
        down = time.monotonic()
        assert await until_healthy(channel, 5, "NOT_SERVING") < 5
        await fails_at_once(api)
        assert load.first_success_after(down) == float("inf")
        await asyncio.to_thread(cluster.start)
        up = time.monotonic()
        await load.until_more(200)
        await until_healthy(channel, 3)
    record_property("first_ok_seconds", round(load.first_success_after(up), 2))
    assert load.first_success_after(up) < 3
    assert load.codes().keys() == {"UNAVAILABLE"}
    assert {failure.reason for _, _, failure in load.failures} == {"DATABASE_UNAVAILABLE"}
    assert load.lost(database) == set()
    assert server.process.poll() is None
    assert troubles(server.log) == []


async def test_a_restart_too_quick_to_notice(
    cluster: Cluster, database: str, server: ServerProcess, api: GrpcApi, owner: str, record_property: Record
) -> None:
    async with Load(api, owner) as load:
        await load.until_more(100)
        await asyncio.to_thread(cluster.restart)
        up = time.monotonic()
        await load.until_more(200)
    record_property("first_ok_seconds", round(load.first_success_after(up), 2))
    assert load.first_success_after(up) < 2
    assert load.codes().keys() <= {"UNAVAILABLE"}
    assert load.lost(database) == set()
    assert troubles(server.log) == []


async def test_ended_sessions(
    database: str, server: ServerProcess, channel: grpc.aio.Channel, api: GrpcApi, owner: str
) -> None:
    # Reads go on by themselves, and health never wavers: each lost session has a successor.
    async with Load(api, owner) as load, await psycopg.AsyncConnection.connect(database, autocommit=True) as admin:
        for _ in range(5):
            await load.until_more(100)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert await health(channel) == "SERVING"
        await load.until_more(100)
        assert await health(channel) == "SERVING"
    assert load.codes("read") == {}
    assert load.codes("write").keys() <= {"UNAVAILABLE"}
    assert sum(load.codes("write").values()) <= 5 * 6
    assert load.lost(database) == set()
    assert troubles(server.log) == []


async def test_no_more_connections(cluster: Cluster, serve: Serve, owner: str) -> None:
    # 53300: the database is there but has no room; the server says so and recovers.
    url = cluster.create_database()
    name = url.rpartition("/")[2]
    with psycopg.connect(cluster.server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE limited_{name} LOGIN CONNECTION LIMIT 1")
        admin.execute(f"ALTER DATABASE {name} OWNER TO limited_{name}")
    limited = url.replace("postgres@", f"limited_{name}@")
    server = await serve(limited, environment={"DATABASE_PROBE_SECONDS": "1"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        api = GrpcApi(channel, "postgres", timeout=5)
        assert await health(channel) == "NOT_SERVING"
        await fails_at_once(api)
        with psycopg.connect(cluster.server.url(), autocommit=True) as admin:
            admin.execute(f"ALTER ROLE limited_{name} CONNECTION LIMIT -1")
        await until_ok(api, 15, owner)
    assert troubles(server.log) == []
