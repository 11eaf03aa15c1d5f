"""Servers that start: many at once, on an empty database and on one that the runtimes left, after a killed one, and without any."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import grpc
import psycopg
import pytest

from storage_service.store.postgres.migrate import LATEST
from tests.adoption import runtimes
from tests.faults.servers import Serve, end, health, run, troubles, until, until_healthy
from tests.postgres_server import MakeDatabase, PostgresServer
from tests.service import GrpcApi, ServerProcess


@pytest.fixture(params=["empty", "legacy"])
def database(request: pytest.FixtureRequest, postgres_server: PostgresServer, make_database: MakeDatabase) -> str:
    """A database that nobody has used, then one that both runtimes have."""
    if request.param == "empty":
        return make_database()
    return make_database(postgres_server.template("legacy", runtimes.both))


async def serves(server: ServerProcess) -> None:
    """Asserts that a server is healthy and right about its schema, and has found nothing wrong."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 30)
        api = GrpcApi(channel, "postgres")
        assert (await api.call("GetServerInfo")).schema_revision == LATEST
        await api.call("CreateThread", owner_id=f"starter-{server.port}")
    assert troubles(server.log) == []


async def test_eight_at_once(serve: Serve, database: str) -> None:
    pool = {"DATABASE_POOL_MAX_SIZE": "3"}
    servers = await asyncio.gather(*(serve(database, environment=pool) for _ in range(8)))
    await asyncio.gather(*(serves(server) for server in servers))
    assert all(server.process.poll() is None for server in servers)


@pytest.mark.parametrize("step", [1, 3])
async def test_killed_in_the_middle_of_a_migration(serve: Serve, database: str, step: int) -> None:
    # Killed after some steps of it; the next one does the rest.
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA IF NOT EXISTS langgraph_server")
        conn.execute(
            "CREATE TABLE langgraph_server.storage_service_migrations"
            " (revision INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        # Holds the migration up at that step, while the transaction of the step is open.
        conn.execute(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.revision = {step} AND NOT EXISTS (SELECT FROM pg_tables WHERE tablename = 'released')"
            " THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$"
        )
        conn.execute(
            "CREATE TRIGGER hold BEFORE INSERT ON langgraph_server.storage_service_migrations"
            " FOR EACH ROW EXECUTE FUNCTION hold()"
        )
        killed = await serve(database, environment={"DATABASE_PROBE_SECONDS": "0.2"})

        async def held() -> bool:
            query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
            return conn.execute(query).fetchone() is not None

        await until(held, 20)
        async with grpc.aio.insecure_channel(killed.target) as channel:
            assert await health(channel) == "NOT_SERVING"
        assert troubles(killed.log) == []
        end(killed)
        conn.execute("CREATE TABLE released ()")
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
    await serves(await serve(database))
    assert run("doctor", DATABASE_URL=database).stderr == ""


async def test_killed_while_starting_again_and_again(serve: Serve, database: str) -> None:
    # At whatever it is after so many milliseconds.
    for milliseconds in (350, 500, 650, 800):
        starting = ServerProcess("postgres", database, environment={"DATABASE_PROBE_SECONDS": "0"})
        started = asyncio.create_task(asyncio.to_thread(starting.start))

        async def is_there(server: ServerProcess = starting) -> bool:
            return hasattr(server, "process")

        await until(is_there, 10)
        await asyncio.sleep(milliseconds / 1000)
        os.kill(starting.process.pid, signal.SIGKILL)
        await asyncio.wait({started})
        assert started.exception() is None or isinstance(started.exception(), RuntimeError)
        end(starting)
    await serves(await serve(database))


async def test_without_migrating(serve: Serve, make_database: MakeDatabase) -> None:
    url = make_database()
    server = await serve(url, "--no-migrate")
    async with grpc.aio.insecure_channel(server.target) as channel:
        assert await health(channel) == "NOT_SERVING"
        # The remedy is in the log, and works while the server runs.
        assert "run storage-service migrate" in server.log.read_text()
        assert run("migrate", DATABASE_URL=url).returncode == 0
        await until_healthy(channel, 3)
    await serves(server)


async def test_a_newer_schema(serve: Serve, make_database: MakeDatabase) -> None:
    url = make_database()
    assert run("migrate", DATABASE_URL=url).returncode == 0
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("INSERT INTO langgraph_server.storage_service_migrations VALUES (%s, 'later')", (LATEST + 1,))
    server = await serve(url)
    async with grpc.aio.insecure_channel(server.target) as channel:
        assert await health(channel) == "NOT_SERVING"
    assert "upgrade the s" in server.log.read_text()
    assert troubles(server.log) == []


async def test_memory_says_so_loudly(serve: Serve) -> None:
    started = time.monotonic()
    server = await serve()
    assert time.monotonic() - started < 5
    (warning,) = server.log.read_text().splitlines()
    assert '"level": "warning"' in warning
    assert "all data ends with this process" in warning
    async with grpc.aio.insecure_channel(server.target) as channel:
        assert await health(channel) == "SERVING"
        assert (await GrpcApi(channel, "memory").call("GetServerInfo")).backend == "memory"


async def test_the_url_from_a_file(serve: Serve, make_database: MakeDatabase, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(make_database() + "\n")
    server = await serve(environment={"DATABASE_URL_FILE": str(file)})
    await serves(server)
