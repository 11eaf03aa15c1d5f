"""Many replicas start at once, beside runtimes that create the same tables, and one of them is killed at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, errors

from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.migrate import LATEST, MIGRATIONS, MigrationError, migrate
from tests.adoption import runtimes
from tests.adoption.runtimes import rows, statements
from tests.postgres_server import MakeDatabase, PostgresServer

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from storage_service.store.postgres.migrate import migrate
print(len(asyncio.run(migrate(sys.argv[1]))))
"""


async def start(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        url,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def whole(url: str) -> None:
    """Asserts that nothing is left to do and nothing is half done."""
    assert await migrate(url) == []
    report = await examine(url)
    assert report.revision == LATEST
    assert not [
        finding for finding in report.findings if finding.code.startswith(("index", "table", "schema", "items_not"))
    ]


async def test_eight_processes_at_once(either: str) -> None:
    processes = [await start(either) for _ in range(8)]
    outputs = [await process.communicate() for process in processes]
    assert [(process.returncode, error) for process, (_, error) in zip(processes, outputs, strict=True)] == [
        (0, b"")
    ] * 8
    # One worked, the others found the work done.
    assert sorted(int(output) for output, _ in outputs) == [0] * 7 + [len(MIGRATIONS) + 1]
    await whole(either)


async def test_eight_at_once_beside_starting_runtimes(empty: str) -> None:
    async def runtime() -> None:
        async with await AsyncConnection.connect(empty, autocommit=True) as conn:
            for statement in runtimes.DDL:
                try:
                    await conn.execute(statement)
                except (errors.UniqueViolation, errors.DuplicateObject, errors.DuplicateTable, errors.DuplicateSchema):
                    continue  # The runtime loses a race of its own; the service must not.

    results = await asyncio.gather(*(migrate(empty) for _ in range(8)), *(runtime() for _ in range(4)))
    assert len([applied for applied in results if applied]) == 1
    await whole(empty)


async def test_waiting_ends_with_a_clear_error(empty: str) -> None:
    async with await AsyncConnection.connect(empty, autocommit=True) as conn:
        await conn.execute("SELECT pg_advisory_lock(%s)", (0x61676E7473746F72,))
        with pytest.raises(MigrationError, match="another process is still migrating"):
            await migrate(empty, timeout=0.2)
    await migrate(empty)


async def test_a_table_that_stays_locked_is_a_clear_error(legacy: str) -> None:
    async with await AsyncConnection.connect(legacy) as conn:
        await conn.execute("LOCK TABLE langgraph_server.threads IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError, match="stayed locked"):
            await migrate(legacy, timeout=0)
    await migrate(legacy)
    await whole(legacy)


# Ends the session that runs the k-th statement on objects: what happens when the server, the network or the process goes away there.
KILL_AT = """
CREATE SCHEMA IF NOT EXISTS killing;
CREATE SEQUENCE killing.statements;
CREATE FUNCTION killing.kill() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('killing.statements') = {k} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
END $$;
CREATE EVENT TRIGGER killing ON {event} EXECUTE FUNCTION killing.kill()
"""


@pytest.fixture(scope="module")
def statement_count(postgres_server: PostgresServer) -> int:
    """How many statements on objects a migration runs."""
    url = postgres_server.url(postgres_server.create_database(postgres_server.template("legacy", runtimes.both)))
    statements(url, KILL_AT.format(k=0, event="ddl_command_end"))
    asyncio.run(migrate(url))
    (found,) = rows(url, "SELECT last_value FROM killing.statements")
    count: int = found["last_value"]
    return count


@pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end"])
@pytest.mark.parametrize("part", range(12))
async def test_killed_at_a_statement(statement_count: int, legacy: str, event: str, part: int) -> None:
    before = runtimes.contents(legacy)
    k = 1 + part * (statement_count - 1) // 11
    statements(legacy, KILL_AT.format(k=k, event=event))
    with pytest.raises((psycopg.OperationalError, MigrationError)):
        await migrate(legacy)
    statements(legacy, "DROP EVENT TRIGGER killing", "DROP SCHEMA killing CASCADE")
    await migrate(legacy)
    await whole(legacy)
    after = runtimes.contents(legacy)
    assert [table for table in before if table != "store_items" and before[table].keys() != after[table].keys()] == []
    (displaced,) = rows(legacy, "SELECT count(*) FROM langgraph_server.store_items_displaced")
    assert len(after["store_items"]) + displaced["count"] == len(before["store_items"])


@pytest.mark.parametrize("table", list(runtimes.KEYS))
async def test_killed_while_rows_are_adopted(legacy: str, table: str) -> None:
    before = runtimes.contents(legacy)
    statements(
        legacy,
        "CREATE SCHEMA killing",
        "CREATE FUNCTION killing.kill() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        f"CREATE TRIGGER killing AFTER UPDATE OR DELETE ON langgraph_server.{table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION killing.kill()",
    )
    with pytest.raises(psycopg.OperationalError):
        await migrate(legacy)
    statements(legacy, "DROP SCHEMA killing CASCADE")
    await migrate(legacy)
    await whole(legacy)
    after = runtimes.contents(legacy)
    (displaced,) = rows(legacy, "SELECT count(*) FROM langgraph_server.store_items_displaced")
    assert len(after["store_items"]) + displaced["count"] == len(before["store_items"])
    assert {key: len(found) for key, found in after.items() if key != "store_items"} == {
        key: len(found) for key, found in before.items() if key != "store_items"
    }


async def wait_for(conn: AsyncConnection[Any], query: str) -> int:
    """Waits until a query finds something: the pid of a session."""
    async with asyncio.timeout(30):
        while True:
            cursor = await conn.execute(query)
            row = await cursor.fetchone()
            if row:
                return int(row[0])
            await asyncio.sleep(0.02)


WAITING = "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%'"
WAITING_FOR_LOCK = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE 'DROP INDEX%'"
)
ENDED = "SELECT 0 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND datname = current_database())"


async def test_kill_9_while_an_index_is_built(legacy: str) -> None:
    # A transaction with a snapshot keeps CREATE INDEX CONCURRENTLY waiting, with an index that is not valid yet.
    async with (
        await AsyncConnection.connect(legacy) as reader,
        await AsyncConnection.connect(legacy, autocommit=True) as observer,
    ):
        await migrate_up_to(legacy, 4)
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM langgraph_server.crons")
        process = await start(legacy)
        builder = await wait_for(observer, WAITING)
        os.kill(process.pid, signal.SIGKILL)
        await process.communicate()
        await observer.execute("SELECT pg_terminate_backend(%s)", (builder,))
        await wait_for(observer, ENDED.format(builder))
    finding = (await examine(legacy)).find("index_invalid")
    assert finding
    assert await migrate(legacy)
    await whole(legacy)


async def test_a_process_that_is_gone_while_its_session_lives_on(legacy: str) -> None:
    async with await AsyncConnection.connect(legacy, autocommit=True) as observer:
        async with await AsyncConnection.connect(legacy) as reader:
            await migrate_up_to(legacy, 4)
            await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await reader.execute("SELECT count(*) FROM langgraph_server.crons")
            process = await start(legacy)
            await wait_for(observer, WAITING)
            os.kill(process.pid, signal.SIGKILL)
            await process.communicate()
            with pytest.raises(MigrationError, match="stayed locked"):
                await migrate(legacy, timeout=0)
            # The session of the dead process goes on building beside this one.
            task = asyncio.create_task(migrate(legacy, timeout=60))
            await wait_for(observer, WAITING_FOR_LOCK)
        await task
    await whole(legacy)


async def migrate_up_to(url: str, revision: int) -> None:
    """Leaves a database as a process left it that was killed after a migration."""
    await migrate(url)
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        cursor = await conn.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid::regclass::text LIKE 'langgraph_server.%'"
            " AND NOT indisprimary AND indexrelid::regclass::text LIKE 'langgraph_server.ix_%'"
        )
        for (name,) in await cursor.fetchall():
            await conn.execute(f"DROP INDEX {name}")
        await conn.execute("DELETE FROM langgraph_server.storage_service_migrations WHERE revision > %s", (revision,))


async def test_kill_9_while_langgraph_sets_up(make_database: MakeDatabase) -> None:
    url = make_database()
    async with (
        await AsyncConnection.connect(url) as reader,
        await AsyncConnection.connect(url, autocommit=True) as observer,
    ):
        # As a runtime's own setup leaves it that was killed while it built an index.
        runtimes.langgraph_rows(url)
        await observer.execute("DROP INDEX checkpoint_blobs_thread_id_idx")
        await observer.execute("DELETE FROM checkpoint_migrations WHERE v >= 7")
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM checkpoint_blobs")
        process = await start(url)
        builder = await wait_for(observer, WAITING)
        os.kill(process.pid, signal.SIGKILL)
        await process.communicate()
        await observer.execute("SELECT pg_terminate_backend(%s)", (builder,))
        await wait_for(observer, ENDED.format(builder))
    finding = (await examine(url)).find("index_invalid")
    assert finding
    assert finding.ids == ("checkpoint_blobs_thread_id_idx",)
    await migrate(url)
    await whole(url)
    assert rows(
        url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'checkpoint_blobs_thread_id_idx'::regclass"
    ) == [{"indisvalid": True}]
