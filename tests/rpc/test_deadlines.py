"""Calls that end early: all or none of what they wrote, and nothing of them left behind in the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import grpc
import psutil
import psycopg
import pytest

from tests.faults.servers import Serve, health, troubles, until, until_healthy
from tests.postgres_server import MakeDatabase
from tests.service import CallFailed, GrpcApi, ServerProcess


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """An empty database."""
    return make_database()


@pytest.fixture
async def server(serve: Serve, database: str) -> ServerProcess:
    """A server of this test alone, for few calls at once."""
    return await serve(database, environment={"STORAGE_CALLS_IN_FLIGHT": "64", "DATABASE_LOCK_TIMEOUT": "20"})


@pytest.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        yield channel


def rows(database: str, query: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(database) as conn:
        return conn.execute(query, values).fetchall()


async def idle(database: str, api: GrpcApi) -> None:
    """Wait until the server has let go of everything: no statement at work, no connection in use but those that it keeps."""

    async def is_idle() -> bool:
        pool = (await api.call("GetServerInfo")).pool
        busy = rows(
            database,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND state <> 'idle'",
        )
        # At most four connections are kept for pipelined statements, and one for the watch over the database.
        return not busy and not pool.waiting and pool.size - pool.available <= 5

    await until(is_idle, 20)


async def test_five_milliseconds(database: str, server: ServerProcess, channel: grpc.aio.Channel, owner: str) -> None:
    api = GrpcApi(channel, "postgres")
    hasty = GrpcApi(channel, "postgres", timeout=0.005)
    await api.call("CreateThread", owner_id=owner, thread_id="t")
    await api.call("CreateAssistant", owner_id=owner, assistant_id="a", graph_id="g")
    acked: dict[str, set[int]] = {"batch": set(), "state": set(), "run": set()}
    codes: set[str] = set()

    async def one(number: int) -> None:
        for kind, method, fields in (
            (
                "batch",
                "Batch",
                {
                    "operations": [
                        {"put": {"namespace": [f"b{number}"], "key": str(key), "value": "1"}} for key in range(5)
                    ]
                },
            ),
            (
                "state",
                "AddThreadState",
                {"thread_id": "t", "checkpoint_id": f"s{number}", "values": f'{{"number": {number}}}'},
            ),
            (
                "run",
                "CreateRun",
                {"thread_id": "t", "assistant_id": "a", "run_id": f"r{number}", "multitaskStrategy": 2},
            ),
        ):
            try:
                await hasty.call(method, owner_id=owner, **fields)
            except CallFailed as failure:
                codes.add(failure.code.name)
            else:
                acked[kind].add(number)

    for start in range(0, 150, 10):
        await asyncio.gather(*(one(number) for number in range(start, start + 10)))
    await idle(database, api)
    assert "DEADLINE_EXCEEDED" in codes
    assert codes <= {"DEADLINE_EXCEEDED", "CANCELLED"}
    batches = {
        int(str(namespace)[1:]): count
        for namespace, count in rows(
            database, "SELECT namespace, count(*) FROM langgraph_server.store_items GROUP BY 1"
        )
    }
    assert set(batches.values()) <= {5}
    assert acked["batch"] <= batches.keys()
    states = {int(str(id)[1:]) for (id,) in rows(database, "SELECT checkpoint_id FROM langgraph_server.thread_states")}
    assert acked["state"] <= states
    runs = {int(str(id)[1:]) for (id,) in rows(database, "SELECT id FROM langgraph_server.runs")}
    assert acked["run"] <= runs
    # The thread holds the values of its newest state: both were written, or neither.
    newest = rows(
        database,
        "SELECT s.values = t.values FROM langgraph_server.threads t JOIN langgraph_server.thread_states s ON s.thread_id = t.id"
        " WHERE t.id = 't' ORDER BY s.id DESC LIMIT 1",
    )
    assert newest in ([], [(True,)])
    assert troubles(server.log) == []


async def test_cancelled_calls_leave_nothing(
    database: str, server: ServerProcess, channel: grpc.aio.Channel, owner: str
) -> None:
    api = GrpcApi(channel, "postgres")
    process = psutil.Process(server.process.pid)
    dice = random.Random(7)
    await api.call("CreateThread", owner_id=owner, thread_id="t", metadata='{"a": 1}')

    async def one(number: int) -> None:
        method, fields = dice.choice(
            (
                ("PutItem", {"namespace": ["c"], "key": str(number % 100), "value": '{"a": "' + "x" * 2000 + '"}'}),
                ("SearchItems", {"limit": 100}),
                ("UpdateThread", {"thread_id": "t", "metadata": '{"a": 2}'}),
                ("Batch", {"operations": [{"put": {"namespace": ["c"], "key": "b", "value": "1"}}]}),
                ("GetThread", {"thread_id": "t"}),
            )
        )
        calling = asyncio.ensure_future(api.call(method, owner_id=owner, **fields))
        await asyncio.sleep(dice.uniform(0, 0.004))
        calling.cancel()
        await asyncio.wait({calling})

    async def cancel(count: int) -> None:
        for start in range(0, count, 40):
            await asyncio.gather(*(one(number) for number in range(start, start + 40)))

    await cancel(500)
    await idle(database, api)
    files = process.num_fds()
    memory = []
    for _ in range(6):
        await cancel(750)
        await idle(database, api)
        memory.append(process.memory_info().rss)
    # It goes up and down by some 13 MiB as the allocator likes; 12,000 cancels left 2.5 MiB.
    assert min(memory[3:]) - min(memory[:3]) < 8 * 1024 * 1024
    # The pool may have more connections than before, of the ten that it may have.
    assert process.num_fds() <= files + 10
    # Every place among the calls at work is free: as many as there are fit at once.
    await asyncio.gather(*(api.call("GetThread", owner_id=owner, thread_id="t") for _ in range(60)))
    assert troubles(server.log) == []


async def test_overload(serve: Serve, database: str, owner: str) -> None:
    # Four calls wait for a lock; the rest is told so at once, health is not affected, and the four succeed.
    environment = {"STORAGE_CALLS_IN_FLIGHT": "4", "DATABASE_LOCK_TIMEOUT": "20"}
    server = await serve(database, environment=environment)
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        api = GrpcApi(channel, "postgres")
        await api.call("CreateThread", owner_id=owner, thread_id="t")
        async with await psycopg.AsyncConnection.connect(database) as holder:
            await holder.execute("SELECT FROM langgraph_server.threads WHERE id = 't' FOR UPDATE")
            waiting = [
                asyncio.ensure_future(
                    api.call("UpdateThread", owner_id=owner, thread_id="t", metadata=f'{{"k{n}": {n}}}')
                )
                for n in range(4)
            ]

            async def all_wait() -> bool:
                async with await psycopg.AsyncConnection.connect(database, autocommit=True) as looker:
                    found = await looker.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                    )
                    # Of one owner two wait in the database, and the others for their turn.
                    return await found.fetchone() == (2,)

            async def is_full() -> bool:
                try:
                    await api.call("GetThread", owner_id=owner, thread_id="t")
                except CallFailed as failure:
                    return (failure.code.name, failure.reason) == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
                return False

            await until(all_wait, 10)
            await until(is_full, 10)
            outcomes = await asyncio.gather(
                *(api.call("GetThread", owner_id=owner, thread_id="t") for _ in range(30)), return_exceptions=True
            )
            assert {outcome.code for outcome in outcomes if isinstance(outcome, CallFailed)} == {
                grpc.StatusCode.RESOURCE_EXHAUSTED
            }
            assert len([outcome for outcome in outcomes if isinstance(outcome, CallFailed)]) == 30
            assert await health(channel) == "SERVING"
            await holder.commit()
        await asyncio.gather(*waiting)
        found = await api.call("GetThread", owner_id=owner, thread_id="t")
        assert all(f'"k{n}"' in found.thread.metadata for n in range(4))
    assert troubles(server.log) == []


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_a_huge_answer(serve: Serve, database: str, owner: str, backend: str) -> None:
    server = await serve(database if backend == "postgres" else "", environment={"STORAGE_MESSAGE_BYTES": "1000000"})
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(server.target, options=options) as channel:
        await until_healthy(channel, 10)
        api = GrpcApi(channel, backend)
        value = '"' + "x" * 400_000 + '"'
        for key in "abc":
            await api.call("PutItem", owner_id=owner, namespace=["big"], key=key, value=value)
        with pytest.raises(CallFailed) as caught:
            await api.call("SearchItems", owner_id=owner)
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
        assert len((await api.call("SearchItems", owner_id=owner, limit=2)).items) == 2
        with pytest.raises(CallFailed) as caught:
            await api.call("PutItem", owner_id=owner, namespace=["big"], key="d", value='"' + "x" * 1_100_000 + '"')
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await api.call("GetItem", owner_id=owner, namespace=["big"], key="a")
    assert troubles(server.log) == []
