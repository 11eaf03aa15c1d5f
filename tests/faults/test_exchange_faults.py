"""Mixed calls of many callers through the client's exchange while servers restart or die and connections are cut.

Whatever happens, each call ends exactly once, every acknowledged write is there, and nothing stays behind in the client.

For longer: ``EXCHANGE_CALLS=200000 pytest tests/faults/test_exchange_faults.py``; ``EXCHANGE_SEED`` repeats a run. The figures are
properties of the test in what ``-o junit_family=xunit1 --junitxml=FILE`` writes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import psycopg
import pytest

from agentstorage import Connection, errors
from agentstorage.exchange import ExchangedCall
from agentstorage.v1 import (
    runs_pb2,
    runs_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
    threads_pb2,
    threads_pb2_grpc,
)
from tests.faults.proxy import Proxy
from tests.faults.servers import Record, Serve, troubles, until
from tests.service import ServerProcess

CALLS = int(os.environ.get("EXCHANGE_CALLS", "15000"))
CALLERS = 64
# A fault comes after so many calls, and memory is first looked at when so many are over.
FAULT_EVERY = 2000
SETTLED = CALLS // 4
# Longer than any call may take.
HANGS = 30.0
MIB = 1024 * 1024
ROWS = (
    "SELECT key FROM langgraph_server.store_items WHERE owner_id = %s",
    "SELECT id FROM langgraph_server.threads WHERE owner_id = %s",
    "SELECT id FROM langgraph_server.runs WHERE owner_id = %s",
)


class Campaign:
    """The calls, and what is known of each by its number. Row ``n`` is written by call ``n`` alone, under ``id_of(n)``."""

    def __init__(self, connection: Connection, owner: str, dice: random.Random) -> None:
        self._owner = owner
        self._dice = dice
        self._items = connection.stub(store_pb2_grpc.StoreServiceStub)
        self._threads = connection.stub(threads_pb2_grpc.ThreadServiceStub)
        self._runs = connection.stub(runs_pb2_grpc.RunServiceStub)
        self._number = -1
        # Bytes, so that what this keeps does not look like a leak.
        self.written = bytearray(CALLS)
        self.acked = bytearray(CALLS)
        self.ends = bytearray(CALLS)
        self.over = 0
        self.outcomes: Counter[str] = Counter()
        self.retried_failures: Counter[str] = Counter()
        self.slowest = 0.0

    async def caller(self) -> None:
        """Make calls until all are made."""
        while (number := self._next()) < CALLS:
            await self._one(number)

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def reaches(self, number: int) -> bool:
        """Wait until so many calls are over; False when there will not be so many."""
        while self.over < min(number, CALLS):  # noqa: ASYNC110 - an event would cost every call
            await asyncio.sleep(0.01)
        return number < CALLS

    async def _one(self, number: int) -> None:
        begin, writes, idempotent = self._draw(number)
        self.written[number] = writes
        fate = self._dice.random()
        hurry = self._dice.choice((0.0, 0.001, 0.005, 0.02))
        started = time.monotonic()
        call = begin(timeout=max(hurry, 0.001)) if fate < 0.05 else begin()
        call.add_done_callback(lambda _: self._ended(number))
        if 0.05 <= fate < 0.1:
            asyncio.get_running_loop().call_later(hurry, call.cancel)
        try:
            async with asyncio.timeout(HANGS):
                await call
            outcome = "ok"
            self.acked[number] = writes
        except asyncio.CancelledError:
            outcome = "cancelled"
        except errors.StorageError as failure:
            outcome = type(failure).__name__
            if idempotent and fate >= 0.05:
                self.retried_failures[outcome] += 1
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, time.monotonic() - started)

    def _ended(self, number: int) -> None:
        self.ends[number] += 1
        self.over += 1

    def _draw(self, number: int) -> tuple[Callable[..., Any], bool, bool]:
        """A call, whether it writes the row of its number, and whether it is idempotent."""
        owner, id = self._owner, id_of(number)
        before = id_of(self._dice.randrange(number + 1))
        item: dict[str, Any] = {"namespace": ["campaign"], "key": id, "value": f'{{"n": {number}}}'}
        kind = self._dice.choices(range(8), (25, 10, 8, 7, 25, 10, 10, 5))[0]
        method, request, writes, idempotent = (
            (self._items.PutItem, store_pb2.PutItemRequest(**item), True, True),
            (self._threads.CreateThread, threads_pb2.CreateThreadRequest(thread_id=id), True, True),
            (
                self._runs.CreateRun,
                runs_pb2.CreateRunRequest(run_id=id, thread_id="t", assistant_id="a", record_only=True),
                True,
                True,
            ),
            (
                self._items.Batch,
                store_pb2.BatchRequest(
                    operations=[
                        store_pb2.Operation(
                            put=store_pb2.PutOperation(namespace=["campaign"], key=id, value=item["value"])
                        )
                    ]
                ),
                True,
                False,
            ),
            (self._items.GetItem, store_pb2.GetItemRequest(namespace=["campaign"], key=before), False, True),
            (self._threads.GetThread, threads_pb2.GetThreadRequest(thread_id=before), False, True),
            (self._items.SearchItems, store_pb2.SearchItemsRequest(limit=3), False, True),
            (self._threads.CountThreads, threads_pb2.CountThreadsRequest(), False, True),
        )[kind]
        request.owner_id = owner
        return lambda **options: method(request, **options), writes, idempotent


def id_of(number: int) -> str:
    return f"n{number}"


async def break_things(campaign: Campaign, server: ServerProcess, proxy: Proxy) -> Counter[str]:
    """Restart the server, cut the connections of the proxy and kill the server, in turn, until the calls end."""
    done: Counter[str] = Counter()
    while await campaign.reaches(campaign.over + FAULT_EVERY):
        fault = ("restart", "cut", "kill")[done.total() % 3]
        if fault == "cut":
            proxy.reset()
        else:
            await asyncio.to_thread(server.stop if fault == "restart" else server.kill)
            await asyncio.to_thread(server.start)
        done[fault] += 1
    return done


async def memory(campaign: Campaign, processes: dict[str, int], callers: asyncio.Future[Any]) -> dict[str, float]:
    """By how many MiB processes grow from when the campaign has settled to its end."""
    await campaign.reaches(SETTLED)
    gc.collect()
    before = {name: psutil.Process(pid).memory_info().rss for name, pid in processes.items()}
    await asyncio.wait({callers})
    gc.collect()
    return {
        name: round((psutil.Process(pid).memory_info().rss - before[name]) / MIB, 1) for name, pid in processes.items()
    }


@pytest.mark.timeout(CALLS / 100 + 120)
async def test_every_call_ends_once_and_nothing_acknowledged_is_lost(
    serve: Serve, database: str, owner: str, record_property: Record
) -> None:
    seed = int(os.environ.get("EXCHANGE_SEED", "0")) or random.randrange(1, 1_000_000)
    record_property("seed", seed)
    restarted, other = await serve(database), await serve(database)
    tasks = len(asyncio.all_tasks())

    async def nothing_runs() -> bool:
        # gRPC may take a moment to end the last of its own.
        return len(asyncio.all_tasks()) <= tasks

    async with Proxy(other.port) as proxy:
        target = f"ipv4:{restarted.target},127.0.0.1:{proxy.port}"
        async with Connection(target) as connection:
            campaign = Campaign(connection, owner, random.Random(seed))
            started = time.monotonic()
            callers = asyncio.gather(*(campaign.caller() for _ in range(CALLERS)))
            processes = {"client": os.getpid(), "server": other.process.pid}
            growth, faults, _ = await asyncio.gather(
                memory(campaign, processes, callers), break_things(campaign, restarted, proxy), callers
            )
            seconds = time.monotonic() - started
            gc.collect()
            assert not [found for found in gc.get_objects() if isinstance(found, ExchangedCall)]
    for name, value in {
        "calls": CALLS,
        "seconds": round(seconds, 1),
        "faults": dict(faults),
        "outcomes": dict(campaign.outcomes),
        "slowest_seconds": round(campaign.slowest, 2),
        "growth_mib": growth,
    }.items():
        record_property(name, value)
    await until(nothing_runs, 5)
    assert set(campaign.ends) == {1}, seed
    assert campaign.outcomes.total() == CALLS
    # The client's own retries hide the faults from every idempotent call.
    assert campaign.retried_failures.keys() <= {"NotFound"}, (seed, campaign.retried_failures)
    assert faults.keys() == {"restart", "cut", "kill"}
    written = {id_of(number) for number in range(CALLS) if campaign.written[number]}
    acked = {id_of(number) for number in range(CALLS) if campaign.acked[number]}
    with psycopg.connect(database) as conn:
        found = {str(row) for query in ROWS for (row,) in conn.execute(query, (owner,))}
    assert acked - found == set(), seed
    assert found <= written, seed
    assert max(growth.values()) < 30, growth
    assert troubles(other.log) == [], seed
