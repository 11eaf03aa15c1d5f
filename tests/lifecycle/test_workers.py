"""``serve --workers``: processes on one port that one supervisor starts, replaces and stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import grpc
import psutil
import psycopg
import pytest

from tests.faults.servers import Record, Serve, run, troubles, until, until_healthy
from tests.lifecycle.workers import (
    Callers,
    Held,
    events,
    has_gone,
    health_of_all,
    instances,
    own_channel,
    until_replaced,
    workers,
)
from tests.postgres_server import MakeDatabase
from tests.service import GrpcApi, ServerProcess

TWO = ("--workers", "2")
#: Of a server whose calls wait for locks, as many as a test has of them.
PATIENT = {"DATABASE_LOCK_TIMEOUT": "20", "DATABASE_POOL_MAX_SIZE": "30"}


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """An empty database."""
    return make_database()


async def test_they_share_the_calls(serve: Serve, database: str, owner: str) -> None:
    server = await serve(database, *TWO, environment={"STORAGE_LOG_LEVEL": "INFO", "DATABASE_POOL_MAX_SIZE": "3"})
    assert sorted(workers(server)) == [1, 2]
    assert len(await instances(server.target)) == 2
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 15)
        await GrpcApi(channel, "postgres").call("CreateThread", owner_id=owner, thread_id="shared")
    for _ in range(8):
        async with own_channel(server.target) as channel:
            await GrpcApi(channel, "postgres").call("GetThread", owner_id=owner, thread_id="shared")
    with psycopg.connect(database) as conn:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'storage-service' AND datname = current_database()"
        )
        row = conn.execute(query).fetchone()
    # Of each, a pool and one that watches.
    assert row
    assert 4 <= row[0] <= 2 * 4
    assert (await asyncio.to_thread(run, "health", "--target", server.target)).returncode == 0
    started = server.process.stdout
    assert started
    server.process.terminate()
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    rest = started.read().splitlines()
    # The line that says that it serves was read before: it and what follows come once.
    assert [line.split(":")[0].strip() for line in rest] == ["look at it", "use it", "stop it"]
    assert {line.get("worker") for line in map(json.loads, server.log.read_text().splitlines())} == {None, 1, 2}
    assert all("worker" not in line for line in events(server) if str(line["event"]).startswith("worker "))
    assert troubles(server.log) == []


async def test_one_is_as_ever(serve: Serve, database: str) -> None:
    server = await serve(database, "--workers", "1", environment={"STORAGE_LOG_LEVEL": "INFO"})
    assert workers(server) == {}
    assert all("worker" not in line for line in events(server))
    assert len(await instances(server.target, 8)) == 1


async def test_the_setting(serve: Serve, database: str) -> None:
    server = await serve(database, environment={"STORAGE_WORKERS": "3"})
    assert sorted(workers(server)) == [1, 2, 3]


async def test_a_killed_worker(serve: Serve, database: str, owner: str, record_property: Record) -> None:
    started = time.monotonic()
    server = await serve(database, *TWO, environment={"STORAGE_LOG_LEVEL": "INFO"})
    start = time.monotonic() - started
    async with Callers(server.target, owner) as callers:
        await callers.more()
        for number, process in workers(server).items():
            process.kill()
            killed = time.monotonic()
            await until_replaced(server, number)
            took = time.monotonic() - killed
            record_property(f"replaced_seconds_{number}", took)
            # On a machine that does much else, a start takes its time.
            assert took < max(2, 2 * start)
            await callers.more()
    assert callers.failures == []
    assert len(await instances(server.target)) == 2
    with psycopg.connect(database) as conn:
        found = {str(key) for (key,) in conn.execute("SELECT key FROM langgraph_server.store_items")}
    assert callers.acked <= found
    ended = [line["event"] for line in events(server) if line["level"] == "warning"]
    assert ended == [f"worker {number} ended (SIGKILL); starting another in its place" for number in (1, 2)]


async def test_all_replaced_in_turn(serve: Serve, database: str, owner: str) -> None:
    # As an operator does it: a worker that is told to stop drains, and another one takes its place.
    environment = {"STORAGE_LOG_LEVEL": "INFO", "STORAGE_DRAIN_SECONDS": "0.3"}
    server = await serve(database, *TWO, environment=environment)
    before = await instances(server.target)
    async with Callers(server.target, owner) as callers:
        await callers.more()
        for number, process in workers(server).items():
            process.terminate()
            await until_replaced(server, number)
            await callers.more()
    assert callers.failures == []
    after = await instances(server.target)
    assert len(before) == len(after) == 2
    assert not set(before) & set(after)
    assert troubles(server.log) == []


async def test_a_stop_lets_calls_end(serve: Serve, database: str, owner: str) -> None:
    server = await serve(database, *TWO, environment=PATIENT)
    there = workers(server).values()
    async with Held.open(server, owner, database) as held:
        server.process.terminate()
        await held.until_refused()
        assert not any(call.done() for call in held.calls)
        await held.let_go()
        await asyncio.gather(*held.calls)
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    assert all(map(has_gone, there))
    assert troubles(server.log) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(serve: Serve, database: str, owner: str, number: signal.Signals) -> None:
    server = await serve(database, *TWO, environment=PATIENT)
    there = workers(server).values()
    async with Held.open(server, owner, database) as held:
        server.process.send_signal(number)
        await held.until_refused()
        assert server.process.poll() is None
        server.process.send_signal(number)
        assert await asyncio.to_thread(server.process.wait, 3) == 128 + number
    assert all(map(has_gone, there))


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_no_worker_outlives_the_supervisor(serve: Serve, database: str, is_frozen: bool) -> None:
    server = await serve(database, *TWO)
    there = workers(server).values()
    if is_frozen:
        for process in there:
            process.suspend()
    server.process.kill()

    async def all_gone() -> bool:
        return all(map(has_gone, there))

    await until(all_gone, 3)
    # The port is free, for one process and for several.
    for arguments in ((), TWO):
        again = await serve(database, *arguments, port=server.port)
        assert await asyncio.to_thread(again.stop) == 0


async def test_a_frozen_worker_does_not_hold_up_the_stop(serve: Serve, database: str) -> None:
    environment = {"STORAGE_GRACE_SECONDS": "0"}
    server = await serve(database, *TWO, environment=environment)
    workers(server)[1].suspend()
    server.process.terminate()
    assert await asyncio.to_thread(server.process.wait, 20) == 1
    (line,) = troubles(server.log)
    assert "not all workers ended within 10 s" in line


async def test_a_port_is_one_service_s(serve: Serve, database: str, make_database: MakeDatabase) -> None:
    one = await serve(database)
    two = await serve(database, *TWO)
    others = make_database()
    for server in (one, two):
        for arguments in ((), TWO):
            result = await asyncio.to_thread(
                run, "serve", "--port", str(server.port), *arguments, DATABASE_URL=others, STORAGE_LOG_LEVEL="WARNING"
            )
            assert (result.returncode, result.stdout) == (1, "")
            assert result.stderr == (
                f"Error: can't listen on {server.target}: another process does, or the address is not of this machine"
                "; --port names another port\n"
            )
    # Also while none of its workers is there.
    for process in workers(two).values():
        process.kill()
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            taker.bind(("127.0.0.1", two.port))


async def test_one_of_many_gets_the_port(serve: Serve, database: str) -> None:
    first = await serve(database)
    port = first.port
    assert await asyncio.to_thread(first.stop) == 0
    arguments: list[tuple[str, ...]] = [TWO, (), TWO, ()]
    started = await asyncio.gather(*(serve(database, *given, port=port) for given in arguments), return_exceptions=True)
    assert Counter(isinstance(result, RuntimeError) for result in started) == {True: 3, False: 1}


async def test_one_that_cannot_start_again(serve: Serve, database: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    text = '[[token]]\ntoken = "a-token-of-some-length"\nowners = "all"\n'
    tokens.write_text(text)
    server = await serve(database, *TWO, environment={"STORAGE_TOKEN_FILE": str(tokens), "STORAGE_LOG_LEVEL": "INFO"})
    tokens.unlink()
    workers(server)[1].kill()

    async def has_said() -> bool:
        words = f"worker 1 ended (the token file {tokens} can't be read"
        return any(str(line["event"]).startswith(words) for line in events(server))

    # The other one serves meanwhile, and the first does again once it can.
    await until(has_said, 10)
    tokens.write_text(text)
    await until_replaced(server, 1)
    assert len(await health_of_all(server)) == 1


@pytest.mark.parametrize("wrong", ["STORAGE_TOKEN_FILE", "DATABASE_URL", "STORAGE_TLS_CERT_FILE"])
def test_what_is_wrong_is_told_once(wrong: str, database: str) -> None:
    environment = {"DATABASE_URL": database, "STORAGE_TLS_KEY_FILE": "/no/file" if "TLS" in wrong else ""}
    environment[wrong] = "/no/file"
    result = run("serve", "--port", "0", *TWO, **environment, STORAGE_LOG_LEVEL="WARNING")
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert wrong in line or "/no/file" in line


def test_memory_is_one_s_own() -> None:
    result = run("serve", "--port", "0", *TWO)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: 2 workers need a database, since each has a memory of its own: set DATABASE_URL, use --embedded DIR,"
        " or serve with --workers 1\n"
    )


async def test_a_database_that_is_away(serve: Serve) -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/x"
    server = await serve(nowhere, *TWO, environment={"DATABASE_PROBE_SECONDS": "0.2"})
    assert await health_of_all(server) == {"NOT_SERVING"}
    assert await asyncio.to_thread(server.stop) == 0


async def test_told_to_end_while_starting(database: str) -> None:
    starting = ServerProcess("postgres", database, TWO)
    started = asyncio.create_task(asyncio.to_thread(starting.start))
    there: list[psutil.Process] = []

    async def has_workers() -> bool:
        there[:] = workers(starting).values() if hasattr(starting, "process") else []
        return len(there) == 2

    await until(has_workers, 10)
    starting.process.terminate()
    assert await asyncio.to_thread(starting.process.wait, 10) == 0
    assert all(map(has_gone, there))
    await asyncio.wait({started})
    assert troubles(starting.log) == []
    starting.kill()
