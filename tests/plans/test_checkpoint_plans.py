"""A thread with thousands of checkpoints is read as quickly as one with a few, whatever the planner knows of it and of its values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import AsyncRawCursor, sql

from storage_service.caller import Owner
from storage_service.store.checkpoints import START, Place
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.postgres.checkpoints import deleting_runs
from storage_service.store.postgres.database import Database
from storage_service.store.where import Equals
from tests.postgres_server import PostgresServer

_LARGE, _SMALL = "large", "thread-7"
_DOCUMENT = (
    "jsonb_build_object('v', 4, 'channel_versions', (SELECT jsonb_object_agg('c' || c, CASE c WHEN 1 THEN '000000' ELSE {id} END)"
    " FROM generate_series(1, 5) AS c))"
)
#: Threads with few checkpoints each, and one with 5,000: every checkpoint changes four of five channels, and has three writes.
_FILL = (
    'INSERT INTO langgraph_server.threads (id, metadata) SELECT id, \'{"owner": "o"}\''
    " FROM (SELECT 'thread-' || n AS id FROM generate_series(1, 2000) AS n UNION ALL SELECT 'large') AS t",
    "CREATE TEMP TABLE made AS SELECT t.id AS thread_id, to_char(n, 'FM000000') AS id, to_char(n - 1, 'FM000000') AS parent"
    " FROM langgraph_server.threads AS t CROSS JOIN LATERAL generate_series(1, CASE t.id WHEN 'large' THEN 5000 ELSE 5 END) AS n",
    "INSERT INTO public.checkpoints (thread_id, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)"
    f" SELECT thread_id, id, parent, {_DOCUMENT.format(id='id')}, '{{}}' FROM made",
    "INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type, blob)"
    " SELECT thread_id, 'c' || c, id, 'msgpack', repeat('x', 100)::bytea FROM made, generate_series(2, 5) AS c",
    "INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, type, blob)"
    " SELECT thread_id, id, 't', w, 'c' || w, 'msgpack', repeat('x', 100)::bytea FROM made, generate_series(1, 3) AS w",
)
#: What the planner has seen when it plans: the threads without the large one, or all.
STATISTICS = {"before": "DELETE FROM {} WHERE thread_id = 'large'", "after": ""}


class Bench:
    """A filled database, and the statements that were sent to it."""

    def __init__(self, store: PostgresStore, connection: psycopg.AsyncConnection[Any]) -> None:
        self.rows = store.seen_by(Owner("o"))
        self.connection = connection
        self.sent: list[tuple[str, Sequence[Any]]] = []

    async def blocks(self, *, generic: bool) -> int:
        """The blocks that the last statement reads, planned for its values or for any."""
        statement, values = self.sent[-1]
        mode = "force_generic_plan" if generic else "force_custom_plan"
        await self.connection.execute(f"SET plan_cache_mode = {mode}".encode())
        await self.connection.execute(f"PREPARE asked AS {statement}".encode())
        given = sql.SQL(", ").join(sql.Literal(list(value) if isinstance(value, list) else value) for value in values)
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked ({})").format(given)
        cursor = await self.connection.execute(explain)
        [(plan,)] = await cursor.fetchall()
        await self.connection.execute(b"DEALLOCATE asked")
        top = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


@pytest.fixture(scope="module", params=STATISTICS)
async def bench(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    url = postgres_server.url(postgres_server.create_database())
    store = PostgresStore(DatabaseSettings(url))
    await store.start(30)
    patch = pytest.MonkeyPatch()
    run = Database.run
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncRawCursor) as connection:
        for statement in _FILL:
            await connection.execute(statement.encode())
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "threads"):
            name = f"langgraph_server.{table}" if table == "threads" else f"public.{table}"
            async with connection.transaction(force_rollback=False):
                if STATISTICS[request.param] and table != "threads":
                    # Statistics of a table as it was before the large thread came.
                    await connection.execute(
                        f"CREATE TEMP TABLE aside ON COMMIT DROP AS SELECT * FROM {name} WHERE thread_id = 'large'".encode()
                    )
                    await connection.execute(STATISTICS[request.param].format(name).encode())
                    await connection.execute(f"ANALYZE {name}".encode())
                    await connection.execute(f"INSERT INTO {name} SELECT * FROM aside".encode())
                else:
                    await connection.execute(f"ANALYZE {name}".encode())
        made = Bench(store, connection)

        async def run_and_keep(self: Database, statement: str, values: Sequence[Any], *rest: Any, **how: Any) -> Any:
            made.sent.append((statement, list(values)))
            return await run(self, statement, values, *rest, **how)

        patch.setattr(Database, "run", run_and_keep)
        yield made
        patch.undo()
    await store.close()


async def read(rows: Any, kind: str, thread: str, newest: str) -> Any:
    """One of the reads."""
    before = f"{int(newest) - 1:06}"
    place = Place(newest, thread, "")
    reads: dict[str, Any] = {
        "newest": lambda: rows.get_checkpoint(thread, "", "", 2**26),
        "named": lambda: rows.get_checkpoint(thread, "", before, 2**26),
        "listing": lambda: rows.list_checkpoints(thread, [Equals("checkpoint_ns", "")], None, 3, 2**21, summary=False),
        "next": lambda: rows.list_checkpoints(thread, [Equals("checkpoint_ns", "")], place, 3, 2**21, summary=False),
        "values": lambda: rows.checkpoint_values(place, START, 2**21),
        "history": lambda: rows.delta_history(thread, "", "", ["c2", "c3"], 2**26),
    }
    return await reads[kind]()


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize("kind", ["newest", "named", "listing", "next", "values", "history"])
async def test_a_large_thread_is_read_as_a_small_one(bench: Bench, kind: str, generic: bool) -> None:
    found = await read(bench.rows, kind, _SMALL, "000005")
    small = await bench.blocks(generic=generic)
    assert found
    assert await read(bench.rows, kind, _LARGE, "005000")
    large = await bench.blocks(generic=generic)
    # Trees are a level deeper, and no more.
    assert 0 < large <= 2 * small + 20, f"{large} blocks instead of {small}"


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
async def test_a_deletion_by_run_reads_what_it_deletes(bench: Bench, generic: bool) -> None:
    statement, values = bench.rows.write(deleting_runs, {"run_ids": ["nothing"]})
    bench.sent.append((statement, values))
    assert await bench.blocks(generic=generic) < 20


#: Threads of 3,000 checkpoints, each hard in another way, with how many of them pruning deletes.
HARD = {
    # Every checkpoint has values that might mark a snapshot.
    "flags": ("''", """jsonb_build_object('a', true, 'b', true)""", "'{}'", 2999),
    # All of them make up the value of one channel.
    "delta": (
        "''",
        "'{}'",
        """jsonb_build_object('counters_since_delta_snapshot', jsonb_build_object('c2', '[1, 1]'::jsonb))""",
        0,
    ),
    # Every one is a subgraph's call, begun from a checkpoint that goes.
    "calls": ("'call:' || n", "'{}'", """jsonb_build_object('parents', jsonb_build_object('', '000001'))""", 3001),
}


@pytest.mark.parametrize("hard", HARD)
async def test_hard_threads_are_pruned_in_moments(bench: Bench, hard: str) -> None:
    namespace, inline, metadata, deleted = HARD[hard]
    thread = f"{hard}-{len(bench.sent)}"
    connection, document = bench.connection, _DOCUMENT.format(id="to_char(n, 'FM000000')")
    await connection.execute(
        b'INSERT INTO langgraph_server.threads (id, metadata) VALUES ($1, \'{"owner": "o"}\')', [thread]
    )
    insert = (
        "INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)"
        f" SELECT $1, {namespace}, to_char(n, 'FM000000'), to_char(n - 1, 'FM000000'), {document} || jsonb_build_object("
        f"'channel_values', {inline}::jsonb), {metadata}::jsonb FROM generate_series(1, 3000) AS n"
    )
    await connection.execute(insert.encode(), [thread])
    if hard == "calls":
        for id in ("000001", "000002"):
            await connection.execute(
                b"INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ($1, $2, '{}')",
                [thread, id],
            )
    async with asyncio.timeout(5):
        assert await bench.rows.prune_checkpoints([thread]) == deleted
        assert await bench.rows.prune_checkpoints([thread]) == 0
        assert await bench.rows.delete_checkpoints([thread]) == (3002 if hard == "calls" else 3000) - deleted


async def test_a_large_thread_is_pruned_in_moments(bench: Bench) -> None:
    async with asyncio.timeout(5):
        copied = await bench.rows.copy_checkpoints(_LARGE, "copy")
        assert await bench.rows.prune_checkpoints(["copy"]) == copied - 1 == 4999
    cursor = await bench.connection.execute(b"SELECT count(*) FROM public.checkpoint_blobs WHERE thread_id = 'copy'")
    assert await cursor.fetchall() == [(4,)]
