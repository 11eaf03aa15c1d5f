"""The network between the server and Postgres, or between a client and the server, loses and delays what it carries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest

from agentstorage import Connection
from agentstorage.v1 import runs_pb2, runs_pb2_grpc, store_pb2, store_pb2_grpc, threads_pb2, threads_pb2_grpc
from tests.faults.cluster import Cluster
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.servers import Record, Serve, troubles, until_healthy, until_ok
from tests.service import CallFailed, GrpcApi, ServerProcess

CAP = 2.0


@pytest.fixture
async def to_postgres(cluster: Cluster) -> AsyncIterator[Proxy]:
    """The network between the server and Postgres."""
    async with Proxy(cluster.port) as proxy:
        yield proxy


@pytest.fixture
async def server(serve: Serve, cluster: Cluster, database: str, to_postgres: Proxy) -> ServerProcess:
    """A server whose way to Postgres is that network."""
    url = database.replace(f":{cluster.port}/", f":{to_postgres.port}/")
    return await serve(url, environment={"STORAGE_CALL_SECONDS": str(CAP)})


def count(database: str, query: str, *values: object) -> int:
    with psycopg.connect(database) as conn:
        row = conn.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


WRITES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("CreateThread", {"thread_id": "cut-1"}, "SELECT count(*) FROM langgraph_server.threads WHERE id = 'cut-1'"),
    (
        "PutItem",
        {"namespace": ["cut"], "key": "cut-1", "value": "1"},
        "SELECT count(*) FROM langgraph_server.store_items WHERE key = 'cut-1'",
    ),
    (
        "AddThreadState",
        {"thread_id": "t", "checkpoint_id": "cut-1", "values": '{"a": 1}'},
        "SELECT count(*) FROM langgraph_server.thread_states WHERE checkpoint_id = 'cut-1'",
    ),
    (
        "CreateRun",
        {"thread_id": "t", "assistant_id": "a", "run_id": "cut-1", "request_id": "q"},
        "SELECT count(*) FROM langgraph_server.runs WHERE id = 'cut-1'",
    ),
    (
        "Batch",
        {"operations": [{"put": {"namespace": ["cut"], "key": key, "value": "1"}} for key in ("cut-1", "cut-2")]},
        "SELECT count(*) / 2 FROM langgraph_server.store_items WHERE key IN ('cut-1', 'cut-2')",
    ),
)


@pytest.mark.parametrize("marker", ["cut-1", "COMMIT"])
@pytest.mark.parametrize(("method", "fields", "query"), WRITES, ids=[method for method, _, _ in WRITES])
async def test_lost_replies(
    database: str,
    to_postgres: Proxy,
    api: GrpcApi,
    owner: str,
    marker: str,
    method: str,
    fields: dict[str, Any],
    query: str,
) -> None:
    # Postgres has done the statement, or the whole transaction, and nobody hears of it: sending it again finds or makes one row.
    await api.call("CreateThread", owner_id=owner, thread_id="t")
    await api.call("CreateAssistant", owner_id=owner, assistant_id="a", graph_id="g")
    to_postgres.cut_reply_to(marker.encode())
    outcomes: Any = await asyncio.gather(api.call(method, owner_id=owner, **fields), return_exceptions=True)
    outcome = outcomes[0]
    # A write of one statement has no commit to lose.
    assert to_postgres.cuts == 1 or marker == "COMMIT"
    if to_postgres.cuts:
        assert isinstance(outcome, CallFailed), "a reply was lost and the call succeeded"
        assert (outcome.code.name, outcome.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
    to_postgres.restore()
    answer = await api.call(method, owner_id=owner, **fields)
    assert answer.ByteSize() > 0
    assert count(database, query) == 1


async def test_lost_replies_of_the_server(serve: Serve, database: str, owner: str) -> None:
    # The client sends again by itself, and has one row.
    server = await serve(database)
    async with Proxy(server.port) as proxy, Connection(f"127.0.0.1:{proxy.port}", owner_id=owner) as connection:
        threads = connection.stub(threads_pb2_grpc.ThreadServiceStub)
        items = connection.stub(store_pb2_grpc.StoreServiceStub)
        runs = connection.stub(runs_pb2_grpc.RunServiceStub)
        proxy.cut_reply_to(b"twice-thread")
        await threads.CreateThread(threads_pb2.CreateThreadRequest(owner_id=owner, thread_id="twice-thread"))
        proxy.cut_reply_to(b"twice-item")
        await items.PutItem(store_pb2.PutItemRequest(owner_id=owner, namespace=["a"], key="twice-item", value="1"))
        proxy.cut_reply_to(b"twice-run")
        await runs.CreateRun(
            runs_pb2.CreateRunRequest(
                owner_id=owner, run_id="twice-run", thread_id="t", assistant_id="a", record_only=True
            )
        )
        assert proxy.cuts == 3
        assert (await threads.CountThreads(threads_pb2.CountThreadsRequest(owner_id=owner))).count == 1
        assert (await runs.CountRuns(runs_pb2.CountRunsRequest(owner_id=owner))).count == 1
        found = await items.SearchItems(store_pb2.SearchItemsRequest(owner_id=owner))
        assert [json.loads(item.value) for item in found.items] == [1]


async def test_black_hole(
    database: str,
    server: ServerProcess,
    to_postgres: Proxy,
    channel: grpc.aio.Channel,
    api: GrpcApi,
    owner: str,
    record_property: Record,
) -> None:
    load = Load(api, owner)
    load.start()
    await load.until_more(100)
    to_postgres.silence()
    await until_healthy(channel, 5.5, "NOT_SERVING")
    started = time.monotonic()
    with pytest.raises(CallFailed):
        await GrpcApi(channel, "postgres", timeout=None).call("GetThread", owner_id=owner, thread_id="t")
    assert time.monotonic() - started < 0.5
    to_postgres.restore()
    restored = time.monotonic()
    await load.until_more(100)
    await load.stop()
    record_property("first_ok_seconds", round(load.first_success_after(restored), 2))
    # The attempt to connect that is under way ends first.
    assert load.first_success_after(restored) < 4.5
    assert load.codes().keys() <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert max(seconds for seconds, _, _ in load.failures) < CAP + 1
    assert load.lost(database) == set()
    assert troubles(server.log) == []


async def test_resets(database: str, server: ServerProcess, to_postgres: Proxy, api: GrpcApi, owner: str) -> None:
    async with Load(api, owner) as load:
        for _ in range(5):
            await load.until_more(50)
            to_postgres.reset()
        await load.until_more(50)
        to_postgres.limit = 20_000
        await load.until_more(50)
        to_postgres.restore()
        await load.until_more(50)
    assert load.codes().keys() <= {"UNAVAILABLE"}
    assert load.lost(database) == set()
    assert troubles(server.log) == []


async def test_refused_and_back(
    server: ServerProcess, to_postgres: Proxy, channel: grpc.aio.Channel, api: GrpcApi, record_property: Record
) -> None:
    to_postgres.refuse()
    await until_healthy(channel, 5, "NOT_SERVING")
    to_postgres.restore()
    record_property("first_ok_seconds", round(await until_ok(api, 3), 2))
    assert troubles(server.log) == []


async def test_a_slow_way(to_postgres: Proxy, api: GrpcApi, owner: str) -> None:
    # Slower, and no more than that: what goes on at once waits at once.
    to_postgres.delay = 0.1
    started = time.monotonic()
    await asyncio.gather(
        *(api.call("PutItem", owner_id=owner, namespace=["slow"], key=str(number), value="1") for number in range(100))
    )
    assert time.monotonic() - started < CAP
    found = await api.call("SearchItems", owner_id=owner, limit=1000)
    assert len(found.items) == 100
