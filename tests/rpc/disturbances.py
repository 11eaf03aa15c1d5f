"""What others do to a caller of the exchange: the p99 of one call at a time on a stream, alone and next to a disturbance.

Each party is a process of its own, and so that what is measured is the server, it and its caller have one processor for themselves; the
disturbing caller, another server and Postgres have the others::

    .venv/bin/python -m tests.rpc.disturbances --seconds 10

prints a table for both backends: the p99 alone, next to a disturbance of another server, and next to one of the same server, the last
two in multiples of the first, with the longest call. What the other server's disturbance costs is the machine's; it needs two free cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg

from tests.postgres_server import end, start
from tests.rpc.raw_stream import OPTIONS, RawStream, call, code_of
from tests.service import GrpcApi, ServerProcess

#: A value of 60 MiB needs room.
ENVIRONMENT = {"STORAGE_JSON_BYTES": str(63 << 20), "DATABASE_LOCK_TIMEOUT": "30", "STORAGE_CALL_SECONDS": "60"}
_LARGE = 60 << 20
_PLACE: dict[str, Any] = {"namespace": ["p"], "key": "k"}


async def prepare(target: str) -> None:
    """Make the rows that the parties call for."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        api = GrpcApi(channel, "")
        await api.call("PutItem", owner_id="quiet", **_PLACE, value='"' + "x" * 200 + '"')
        for key in range(64):
            await api.call("PutItem", owner_id="page", namespace=["p"], key=f"{key}", value='"' + "x" * 65536 + '"')


async def latencies(target: str, seconds: float) -> list[float]:
    """How long each call took, one at a time for so long, in seconds, shortest first."""
    found = []
    one = call(0, "GetItem", owner_id="quiet", **_PLACE)
    async with grpc.aio.insecure_channel(target) as channel:
        stream = RawStream(channel)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            started = time.perf_counter()
            one.id += 1
            assert code_of(await stream.ask(one)) == "OK"
            found.append(time.perf_counter() - started)
            stream.messages.clear()
        await stream.close()
    return sorted(found)


@contextlib.contextmanager
def processors(which: Set[int]) -> Iterator[None]:
    """Let what is started in the block have only these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, which)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def p99(found: list[float]) -> float:
    """The 99th percentile in seconds."""
    return found[int(len(found) * 0.99)]


# The disturbances. Each says "ready" and goes on until it is ended.


async def crowd(target: str) -> None:
    """1,000 calls in flight on one stream all the time."""
    async with grpc.aio.insecure_channel(target) as channel:
        stream = RawStream(channel)
        one = call(0, "GetItem", owner_id="quiet", **_PLACE)

        async def more(count: int) -> None:
            calls = []
            for _ in range(count):
                one.id += 1
                copy = type(one)()
                copy.CopyFrom(one)
                calls.append(copy)
            await stream.send(*calls)

        await more(1000)
        print("ready", flush=True)
        while await stream.read():
            assert {code_of(outcome) for outcome in stream.outcomes.values()} <= {"OK"}
            await more(len(stream.outcomes))
            stream.outcomes.clear()
            stream.messages.clear()


async def large(target: str, every: float) -> None:
    """A value of 60 MiB put and got again every so many seconds, through plain RPCs in and the exchange out."""
    request = call(0, "PutItem", owner_id="large", **_PLACE, value='"' + "x" * _LARGE + '"')
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        stream = RawStream(channel, seconds=60)
        put: Any = channel.unary_unary(request.method, None, None)
        number = 0
        while True:
            due = time.monotonic() + every
            number += 1
            await put(request.request, timeout=60)
            assert code_of(await stream.ask(call(number, "GetItem", owner_id="large", **_PLACE))) == "OK"
            stream.outcomes.clear()
            stream.messages.clear()
            if number == 1:
                print("ready", flush=True)
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def silent(target: str) -> None:
    """A caller that sends searches of 4 MiB and never reads, on a new stream whenever the server ends one."""
    async with grpc.aio.insecure_channel(target) as channel:
        while True:
            stream = RawStream(channel, seconds=1)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                for number in range(1, 1_000_000):
                    await stream.send(call(number, "SearchItems", owner_id="page", limit=64))
                    if number == 100:
                        print("ready", flush=True)
                    await asyncio.sleep(0.005)


async def blocked(target: str, database: str) -> None:
    """Calls that wait for the lock of a row for seconds, three of the pool's ten connections."""
    async with grpc.aio.insecure_channel(target) as channel, await psycopg.AsyncConnection.connect(database) as holder:
        await GrpcApi(channel, "").call(
            "CreateThread", owner_id="locked", thread_id="locked", if_exists="IF_EXISTS_DO_NOTHING"
        )
        await holder.execute("SELECT FROM langgraph_server.threads WHERE id = 'locked' FOR UPDATE")
        stream = RawStream(channel)
        for number in range(1, 4):
            await stream.send(call(number, "UpdateThread", owner_id="locked", thread_id="locked", metadata='{"a": 1}'))
        print("ready", flush=True)
        await asyncio.sleep(600)


@contextlib.contextmanager
def disturbance(name: str, target: str, database: str, every: float) -> Iterator[None]:
    """Let a disturbance go on in a process of its own while the block runs."""
    command = [
        sys.executable,
        "-m",
        "tests.rpc.disturbances",
        "--disturb",
        name,
        target,
        database,
        "--every",
        f"{every}",
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", f"{name} did not begin"
        try:
            yield
            assert process.poll() is None, f"{name} ended by itself"
        finally:
            process.kill()


#: By backend.
DISTURBANCES = {"memory": ("crowd", "large", "silent"), "postgres": ("crowd", "blocked", "large", "silent")}


@dataclass(frozen=True)
class Measured:
    """The calls, in seconds and shortest first: alone, next to a disturbance of another server, and to one of the same."""

    name: str
    quiet: list[float]
    elsewhere: list[float]
    disturbed: list[float]


async def measure(
    server: ServerProcess,
    seconds: float,
    other: ServerProcess | None = None,
    others: Set[int] = frozenset(),
    every: float = 1,
) -> AsyncIterator[Measured]:
    """Measure each disturbance of a server, and of the other one if there is one; it has the processors ``others``, if they are named."""
    await prepare(server.target)
    await latencies(server.target, 1)
    if other is not None:
        await prepare(other.target)

    async def beside(name: str, disturbed: ServerProcess) -> list[float]:
        with contextlib.ExitStack() as running:
            with processors(others or os.sched_getaffinity(0)):
                running.enter_context(disturbance(name, disturbed.target, disturbed.database_url, every))
            await asyncio.sleep(0.5)
            return await latencies(server.target, seconds)

    for name in DISTURBANCES[server.backend]:
        quiet = await latencies(server.target, seconds)
        elsewhere = await beside(name, other) if other is not None else quiet
        yield Measured(name, quiet, elsewhere, await beside(name, server))


async def _report(seconds: float, every: float) -> None:
    own, *others = sorted(os.sched_getaffinity(0))
    with processors(set(others)):
        postgres = start()
    try:
        for backend in DISTURBANCES:
            with contextlib.ExitStack() as running:
                servers = []
                for which in ({own}, set(others)):
                    url = postgres.url(postgres.create_database()) if backend == "postgres" else ""
                    with processors(which):
                        servers.append(ServerProcess(backend, url, environment=ENVIRONMENT).start())
                    running.callback(servers[-1].stop)
                running.enter_context(processors({own}))
                async for one in measure(servers[0], seconds, servers[1], set(others), every):
                    print(
                        f"{backend:9} {one.name:8} {p99(one.quiet) * 1000:6.2f} ms"
                        f"   other server {p99(one.elsewhere) * 1000:6.2f} ms {p99(one.elsewhere) / p99(one.quiet):5.1f}x"
                        f"   same server {p99(one.disturbed) * 1000:6.2f} ms {p99(one.disturbed) / p99(one.quiet):5.1f}x"
                        f"   longest {one.quiet[-1] * 1000:6.1f}, {one.elsewhere[-1] * 1000:6.1f}, {one.disturbed[-1] * 1000:6.1f} ms",
                        flush=True,
                    )
    finally:
        end(postgres)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="time of each measurement")
    parser.add_argument("--every", type=float, default=10, help="seconds from one large value to the next")
    parser.add_argument("--disturb", nargs=3, metavar=("NAME", "TARGET", "DATABASE"), help="be a disturbance")
    arguments = parser.parse_args()
    if arguments.disturb:
        kind, where, database_url = arguments.disturb
        match kind:
            case "blocked":
                asyncio.run(blocked(where, database_url))
            case "large":
                asyncio.run(large(where, arguments.every))
            case _:
                asyncio.run(globals()[kind](where))
    else:
        if len(os.sched_getaffinity(0)) < 2:
            parser.error("needs two processors")
        asyncio.run(_report(arguments.seconds, arguments.every))
