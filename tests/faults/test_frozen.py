"""Postgres keeps its connections open and answers nothing: all of it, or one of its processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest

from tests.faults.cluster import Cluster, freeze, thaw
from tests.faults.load import Load
from tests.faults.servers import Record, health, troubles, until, until_healthy, until_ok
from tests.rpc.raw_stream import RawStream, call, code_of
from tests.service import CallFailed, GrpcApi, ServerProcess

DEADLINE, UNAVAILABLE = "DEADLINE_EXCEEDED", "UNAVAILABLE"
# What the server of these tests gives a call without a deadline, and the longest deadline that it grants.
CAP = 2.0
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GetThread", {"thread_id": "t"}),
    ("CreateThread", {"thread_id": "frozen"}),
    ("SearchThreads", {}),
    ("SearchItems", {}),
    ("PutItem", {"namespace": ["a"], "key": "k", "value": "1"}),
    ("Batch", {"operations": [{"put": {"namespace": ["a"], "key": "k", "value": "1"}}]}),
    ("CreateRun", {"thread_id": "t", "assistant_id": "a", "run_id": "r"}),
    ("GetOwnerUsage", {}),
)
# The server sends it in a thread.
LARGE_CALL: tuple[str, dict[str, Any]] = (
    "PutItem",
    {"namespace": ["a"], "key": "large", "value": f'"{"x" * (8 << 20)}"'},
)


@pytest.fixture
def frozen(cluster: Cluster, channel: grpc.aio.Channel) -> Iterator[Cluster]:
    """The cluster, to be frozen by the test; it goes on afterwards."""
    yield cluster
    cluster.thaw()


async def ends(
    channel: grpc.aio.Channel, method: str, fields: dict[str, Any], deadline: float | None
) -> tuple[str, float]:
    """With which status a call ends, and after how many seconds; AssertionError when it hangs."""
    started = time.monotonic()
    async with asyncio.timeout(CAP + 4):
        try:
            await GrpcApi(channel, "postgres", timeout=deadline).call(method, owner_id="o", **fields)
        except CallFailed as failure:
            return failure.code.name, time.monotonic() - started
    return "OK", time.monotonic() - started


async def test_all_of_it(
    frozen: Cluster, server: ServerProcess, channel: grpc.aio.Channel, api: GrpcApi, record_property: Record
) -> None:
    await until_ok(api, 5)
    frozen.freeze()
    started = time.monotonic()
    watched = asyncio.create_task(until_healthy(channel, 5.5, "NOT_SERVING"))
    short = await asyncio.gather(*(ends(channel, method, fields, 0.5) for method, fields in CALLS))
    assert {code for code, _ in short} == {DEADLINE}
    assert max(seconds for _, seconds in short) < 1
    # Without a deadline of the client's, and with one above the server's.
    for timeout in (None, 60.0):
        calls = (*CALLS, LARGE_CALL)
        long = await asyncio.gather(*(ends(channel, method, fields, timeout) for method, fields in calls))
        assert {code for code, _ in long} <= {DEADLINE, UNAVAILABLE}
        assert max(seconds for _, seconds in long) < CAP + 1
    not_serving = await watched
    record_property("not_serving_seconds", round(not_serving, 2))
    assert not_serving < 5
    # From here on nobody waits.
    code, seconds = await ends(channel, "GetThread", {"thread_id": "t"}, None)
    assert (code, seconds < 0.5) == (UNAVAILABLE, True)
    assert time.monotonic() - started < 15
    frozen.thaw()
    back = await until_ok(api, 3)
    record_property("first_ok_seconds", round(back, 2))
    await until_healthy(channel, 2)

    # Nothing of what was left behind is in the way: connections are free again.
    async def is_free() -> bool:
        info = await api.call("GetServerInfo")
        return info.pool.size > 0 and not info.pool.waiting

    await until(is_free, 20)
    assert troubles(server.log) == []


async def test_deadlines_in_the_exchange(frozen: Cluster, channel: grpc.aio.Channel, api: GrpcApi) -> None:
    await until_ok(api, 5)
    stream = RawStream(channel)
    frozen.freeze()
    started = time.monotonic()
    await stream.send(
        *(call(id, method, None, 500, owner_id="o", **fields) for id, (method, fields) in enumerate(CALLS)),
        *(call(100 + id, method, None, 0, owner_id="o", **fields) for id, (method, fields) in enumerate(CALLS)),
    )
    short = await stream.answers(*range(len(CALLS)))
    assert {code_of(outcome) for outcome in short} == {DEADLINE}
    assert 0.5 <= time.monotonic() - started < 0.7
    long = await stream.answers(*range(100, 100 + len(CALLS)))
    assert {code_of(outcome) for outcome in long} == {DEADLINE}
    assert CAP <= time.monotonic() - started < CAP + 0.2
    frozen.thaw()
    await until_ok(api, 5)
    assert code_of(await stream.ask(call(200, "SearchItems", owner_id="o"))) == "OK"
    await stream.close()


async def test_under_load(
    frozen: Cluster, database: str, server: ServerProcess, api: GrpcApi, owner: str, record_property: Record
) -> None:
    load = Load(api, owner)
    load.start()
    await load.until_more(100)
    frozen.freeze()
    await asyncio.sleep(1.5)  # shorter than what the watch takes for an absence: the calls in flight wait and go on
    frozen.thaw()
    thawed = time.monotonic()
    await load.until_more(200)
    record_property("first_ok_seconds", round(load.first_success_after(thawed), 2))
    assert load.first_success_after(thawed) < 2
    frozen.freeze()
    await asyncio.sleep(5)  # longer than that
    frozen.thaw()
    thawed = time.monotonic()
    await load.until_more(200)
    await load.stop()
    record_property("first_ok_seconds_2", round(load.first_success_after(thawed), 2))
    assert load.first_success_after(thawed) < 3
    assert load.codes().keys() <= {DEADLINE, UNAVAILABLE}
    assert max(seconds for seconds, _, _ in load.failures) < CAP + 1
    assert load.lost(database) == set()
    assert troubles(server.log) == []


async def backends(database: str) -> tuple[int, list[int]]:
    """The process behind the server's watch over the database, and those behind its other connections."""
    found: list[tuple[int, bool]] = []

    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:

        async def has_watch() -> bool:
            cursor = await conn.execute(
                "SELECT pid, query LIKE '%storage_service_migrations%' FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            found[:] = await cursor.fetchall()
            return sum(is_watch for _, is_watch in found) == 1

        # After a fault the watch may be about to connect again.
        await until(has_watch, 5)
    (watch,) = [pid for pid, is_watch in found if is_watch]
    return watch, [pid for pid, is_watch in found if not is_watch]


# How often a process is frozen in vain before the service is to blame for what stands still.
MOST_FREEZES = 5


async def freeze_between_locks(load: Load, pid: int) -> None:
    """Freeze a process so that the load goes on. One that is stopped within a lock of Postgres, as at a commit, stops all of Postgres."""
    for _ in range(MOST_FREEZES):
        freeze(pid)
        try:
            await load.until_more(20, seconds=1)
            return
        except AssertionError:
            thaw(pid)
            await load.until_more(50)
    raise AssertionError("nothing goes on while one process is frozen")


async def test_one_of_its_processes(
    database: str, server: ServerProcess, channel: grpc.aio.Channel, api: GrpcApi, owner: str
) -> None:
    # At most the calls that it held fail, and health does not waver, even where it is the one that the watch looks through.
    async with Load(api, owner) as load:
        await load.until_more(300)
        watch, others = await backends(database)
        for pid, seconds in ((others[0], CAP + 0.5), (others[-1], CAP + 0.5), (watch, 4.5)):
            await freeze_between_locks(load, pid)
            failed, succeeded = len(load.failures), len(load.successes)
            try:
                started = time.monotonic()
                while time.monotonic() - started < seconds:
                    assert await health(channel) == "SERVING"
                    await asyncio.sleep(0.1)
            finally:
                thaw(pid)
            assert len(load.successes) - succeeded > 50
            assert len(load.failures) - failed <= 9
            await load.until_more(50)
    assert load.codes().keys() <= {DEADLINE, UNAVAILABLE}
    assert load.lost(database) == set()
    assert troubles(server.log) == []
