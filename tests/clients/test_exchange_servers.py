"""The client's exchange and real servers: several of them, restarts, one that is frozen, and processes that just end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest

from agentstorage import Connection, GrpcStorage
from agentstorage.v1 import store_pb2, store_pb2_grpc
from tests.clients.fake_exchange import outcomes, until
from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess

CALLERS = 64


@pytest.fixture
def pair() -> Iterator[list[ServerProcess]]:
    """Two servers, in whose store of items each says which it is."""
    made = [ServerProcess("memory").start() for _ in range(2)]
    yield made
    for server in made:
        with contextlib.suppress(ProcessLookupError):
            server.process.send_signal(signal.SIGCONT)
        server.kill()


def both(pair: list[ServerProcess]) -> str:
    return "ipv4:" + ",".join(server.target for server in pair)


async def name(server: ServerProcess, value: str) -> None:
    """Put a value where ``ask`` finds it."""
    async with Connection(server.target) as connection:
        await connection.stub(store_pb2_grpc.StoreServiceStub).PutItem(
            store_pb2.PutItemRequest(owner_id="o", namespace=["who"], key="me", value=f'"{value}"')
        )


async def ask(connection: Connection) -> str:
    """Which server a call came to."""
    stub = connection.stub(store_pb2_grpc.StoreServiceStub)
    reply = await stub.GetItem(store_pb2.GetItemRequest(owner_id="o", namespace=["who"], key="me"))
    return str(reply.item.value)


async def test_two_servers_behind_one_target_share_the_calls(pair: list[ServerProcess]) -> None:
    for server, value in zip(pair, "ab", strict=True):
        await name(server, value)
    for _ in range(5):
        async with Connection(both(pair)) as connection:
            found: Counter[str] = Counter()
            for _ in range(20):
                found.update(await asyncio.gather(*(ask(connection) for _ in range(CALLERS))))
            assert min(found['"a"'], found['"b"']) > 0.2 * found.total()


async def test_workers_behind_one_port_share_the_streams(make_database: MakeDatabase) -> None:
    server = await asyncio.to_thread(ServerProcess("postgres", make_database(), ("--workers", "2")).start)
    shared = 0
    try:
        for _ in range(4):
            async with Connection(server.target) as connection:
                for _ in range(20):
                    assert await outcomes(*(ask(connection) for _ in range(10))) == {"NotFound": 10}
                # The system gives each connection to one of them by chance, so that now and then one is not found.
                children = psutil.Process(server.process.pid).children()
                shared += all(has_callers(child) for child in children if "--as-worker" in child.cmdline())
    finally:
        await asyncio.to_thread(server.stop)
    assert shared


def has_callers(worker: psutil.Process) -> bool:
    """Whether anybody is connected to the port of a worker."""
    found = worker.net_connections("tcp")
    ports = {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}
    return any(connection.laddr.port in ports for connection in found if connection.status != psutil.CONN_LISTEN)


async def test_a_frozen_server(pair: list[ServerProcess]) -> None:
    for server in pair:
        await name(server, "x")
    ends: Counter[str] = Counter()
    longest = 0.0

    async def caller(until: float) -> None:
        nonlocal longest
        while (started := time.monotonic()) < until:
            ends.update(await outcomes(ask(connection)))
            longest = max(longest, time.monotonic() - started)

    async with Connection(both(pair)) as connection:
        await asyncio.gather(*(caller(time.monotonic() + 1) for _ in range(CALLERS)))
        pair[0].process.send_signal(signal.SIGSTOP)
        await asyncio.gather(*(caller(time.monotonic() + 5) for _ in range(CALLERS)))
    assert longest < 4
    assert ends.total() - ends["ok"] <= 0.01 * ends.total()


async def test_a_rolling_restart_fails_nothing(pair: list[ServerProcess]) -> None:
    for server in pair:
        await name(server, "x")
    ends: Counter[str] = Counter()
    done = asyncio.Event()

    async def caller() -> None:
        while not done.is_set() or ends.total() < 10_000:
            ends.update(await outcomes(ask(connection)))

    async with Connection(both(pair)) as connection:
        callers = asyncio.gather(*(caller() for _ in range(CALLERS)))
        for server in pair:
            before = ends.total()
            await until(lambda before=before: ends.total() >= before + 1000)  # type: ignore[misc]  # bound in the loop
            port = server.port
            assert await asyncio.to_thread(server.stop) == 0
            server.port = port
            await asyncio.to_thread(server.start)
            await name(server, "x")
        done.set()
        await callers
    assert ends.keys() == {"ok"}


async def test_a_rolling_restart_loses_and_doubles_no_write(make_database: MakeDatabase) -> None:
    database = make_database()
    # One after the other, since the first prepares the database.
    pair = [await asyncio.to_thread(ServerProcess("postgres", database).start) for _ in range(2)]
    numbers = itertools.count()
    acknowledged: list[str] = []
    ends: Counter[str] = Counter()
    done = asyncio.Event()

    def put(key: str) -> Any:
        # A write that is there already fails, so that none may be sent again that was begun.
        return connection.stub(store_pb2_grpc.StoreServiceStub).PutItem(
            store_pb2.PutItemRequest(owner_id="o", namespace=["n"], key=key, value="1", expected_version=0)
        )

    async def caller() -> None:
        while not done.is_set():
            key = f"k{next(numbers)}"
            end = await outcomes(put(key))
            ends.update(end)
            acknowledged.extend([key] * end["ok"])

    try:
        async with Connection(both(pair)) as connection:
            callers = asyncio.gather(*(caller() for _ in range(16)))
            for server in pair:
                before = ends.total()
                await until(lambda before=before: ends.total() >= before + 200)  # type: ignore[misc]  # bound in the loop
                assert await asyncio.to_thread(server.stop) == 0
                await asyncio.to_thread(server.start)
            done.set()
            await callers
    finally:
        for server in pair:
            server.kill()
    assert ends.keys() == {"ok"}
    with psycopg.connect(database) as conn:
        found = {key for (key,) in conn.execute("SELECT key FROM langgraph_server.store_items WHERE owner_id = 'o'")}
    assert found == set(acknowledged)
    assert len(acknowledged) == len(found) > 400


async def test_more_calls_at_once_than_a_server_takes(server: ServerProcess, owner: str) -> None:
    async with Connection(server.target, read_timeout=30, write_timeout=30) as connection:
        stub = connection.stub(store_pb2_grpc.StoreServiceStub)
        put = (
            stub.PutItem(store_pb2.PutItemRequest(owner_id=owner, namespace=["n"], key=f"k{number}", value="1"))
            for number in range(3000)
        )
        assert await outcomes(*put) == {"ok": 3000}
        got = (
            stub.GetItem(store_pb2.GetItemRequest(owner_id=owner, namespace=["n"], key=f"k{number}"))
            for number in range(3000)
        )
        assert await outcomes(*got) == {"ok": 3000}


async def test_more_bytes_at_once_than_a_server_takes(server: ServerProcess, owner: str) -> None:
    async with Connection(server.target, read_timeout=30, write_timeout=30) as connection:
        stub = connection.stub(store_pb2_grpc.StoreServiceStub)
        value = f'"{"x" * 200_000}"'
        put = (
            stub.PutItem(store_pb2.PutItemRequest(owner_id=owner, namespace=["n"], key=f"k{number}", value=value))
            for number in range(400)
        )
        assert await outcomes(*put) == {"ok": 400}


async def test_a_server_whose_messages_are_small() -> None:
    server = ServerProcess("memory", environment={"STORAGE_MESSAGE_BYTES": "200000"}).start()
    try:
        async with Connection(server.target) as connection:
            stub = connection.stub(store_pb2_grpc.StoreServiceStub)
            value = f'"{"x" * 30_000}"'
            keys = [f"k{number}" for number in range(100)]
            put = (
                stub.PutItem(store_pb2.PutItemRequest(owner_id="o", namespace=["n"], key=key, value=value))
                for key in keys
            )
            assert await outcomes(*put) == {"ok": 100}
            got = (stub.GetItem(store_pb2.GetItemRequest(owner_id="o", namespace=["n"], key=key)) for key in keys)
            assert await outcomes(*got) == {"ok": 100}
    finally:
        server.stop()


ENDS = {
    "run": "asyncio.run(main())",
    "run, in the middle of calls": "asyncio.run(asyncio.wait_for(main(endless=True), 0.5))",
    "loops that are closed": (
        "for _ in range(3): loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close(); gc.collect()"
    ),
    "a thread": "import threading; t = threading.Thread(target=lambda: asyncio.run(main())); t.start(); t.join()",
}
PROGRAM = """
import asyncio, gc, sys
import agentstorage
storage = agentstorage.GrpcStorage(sys.argv[1], owner_id="alice")

async def caller():
    while True:
        await storage.threads.count()

async def main(endless=False):
    if endless:
        await asyncio.gather(*(caller() for _ in range(10)))
    await asyncio.gather(*(storage.threads.count() for _ in range(10)))

try:
    {end}
except TimeoutError:
    pass
gc.collect()
print("ended")
"""


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_loop_may_end_without_closing(servers: dict[str, ServerProcess], end: str) -> None:
    started = time.monotonic()
    program = PROGRAM.replace("{end}", end)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, servers["memory"].target],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("way")
async def test_closing_a_connection_ends_the_calls_of_all_of_its_loops(servers: dict[str, ServerProcess]) -> None:
    storage = GrpcStorage(servers["memory"].target, owner_id="alice")
    called: list[int] = []

    async def calls() -> Counter[str]:
        ends: Counter[str] = Counter()
        while ends.keys() <= {"ok"}:
            ends.update(await outcomes(storage.threads.count()))
            called.append(1)
        return ends

    async with asyncio.timeout(10):
        loops = [asyncio.create_task(asyncio.to_thread(asyncio.run, calls())) for _ in range(3)]
        await until(lambda: len(called) > 100)
        await storage.close()
        ends = [await loop for loop in loops]
    # Cancelled in flight, or refused.
    assert all(found.total() - found["ok"] == found["CancelledError"] + found["RuntimeError"] == 1 for found in ends)
