"""The service over tables of 20,000 rows, and the plans of the statements that it sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import AsyncRawCursor

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.postgres.database import Database, Transaction
from tests.postgres_server import PostgresServer
from tests.service import METHODS, Api, CallFailed, DirectApi

ROWS, OWNERS = 20_000, 200
OWNER = "owner-7"
#: How long a stream is read that does not end.
FOLLOWED_SECONDS = 1.5
#: The tables of which nothing may read the whole.
BIG = frozenset(
    {
        *("assistants", "assistant_versions", "threads", "thread_states", "runs", "store_items", "crons"),
        *("checkpoints", "checkpoint_blobs", "checkpoint_writes", "run_events"),
    }
)
_METADATA = f"jsonb_build_object('owner', 'owner-' || n % {OWNERS}, 'n', n, 'assistant_id', 'assistant-' || n)"
_TIME = "timestamptz '2026-01-01' + n * interval '1 second'"
#: Row n of each table belongs to owner n % {OWNERS}, and hangs on row n of the others. Of an owner's 100 runs two are queued (kind 5), two
#: leased (6) and six have a lease that has lapsed (7), four of which also are to stop (8, 9).
_FILL = f"""
INSERT INTO langgraph_server.assistants (id, graph_id, name, metadata, created_at, updated_at)
    SELECT 'assistant-' || n, 'graph-' || n % 50, 'name ' || n, {_METADATA}, {_TIME}, {_TIME} FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.assistant_versions (assistant_id, version, graph_id)
    SELECT 'assistant-' || n, 0, 'graph' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.threads (id, metadata, status, created_at, updated_at, state_updated_at)
    SELECT 'thread-' || n, {_METADATA}, CASE n % 50 WHEN 0 THEN 'busy' ELSE 'idle' END, {_TIME}, {_TIME}, {_TIME}
    FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id, by_service)
    SELECT 'thread-' || n, 'state-1', true FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, created_at, updated_at, last_sequence,
        run_after, attempt, worker_id, lease_token, lease_expires_at, cancel)
    SELECT 'run-' || n, 'thread-' || n, 'assistant-' || n,
        CASE WHEN kind BETWEEN 6 AND 9 THEN 'running' WHEN kind = 5 OR n % 50 = 0 THEN 'pending' ELSE 'success' END,
        {_METADATA}, {_TIME}, {_TIME}, 1, CASE WHEN kind BETWEEN 5 AND 9 THEN {_TIME} END,
        CASE WHEN kind BETWEEN 6 AND 9 THEN 1 ELSE 0 END, CASE WHEN kind BETWEEN 6 AND 9 THEN 'w' END, n,
        CASE kind WHEN 6 THEN timestamptz '2099-01-01' WHEN 7 THEN {_TIME} WHEN 8 THEN {_TIME} WHEN 9 THEN {_TIME} END,
        CASE kind WHEN 8 THEN 'interrupt' WHEN 9 THEN 'rollback' END
    FROM (SELECT n, n / {OWNERS} % 50 AS kind FROM generate_series(1, {ROWS}) AS n) AS numbers;
INSERT INTO langgraph_server.run_events (run_id, sequence, thread_id, type, data, attempt, created_at, end_status)
    SELECT id, 1, thread_id, 't', '', 1, created_at, CASE status WHEN 'success' THEN 'success' END FROM langgraph_server.runs;
INSERT INTO langgraph_server.store_items (namespace, key, owner_id, value, updated_at, expires_at, ttl_minutes)
    SELECT 'space.' || n % 100, 'key-' || n, 'owner-' || n % {OWNERS}, jsonb_build_object('n', n), {_TIME},
        CASE n % 10 WHEN 0 THEN timestamptz '2099-01-01' END, CASE n % 10 WHEN 0 THEN 60 END
    FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.crons (id, assistant_id, thread_id, schedule, metadata, next_run_date, end_time, created_at, updated_at)
    SELECT 'cron-' || n, 'assistant-' || n, 'thread-' || n, '0 0 1 1 *', {_METADATA}, {_TIME}, {_TIME}, {_TIME}, {_TIME}
    FROM generate_series(1, {ROWS}) AS n;
INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint, metadata)
    SELECT 'thread-' || n, '1', '{{"v": 4, "channel_versions": {{"c": "1"}}}}', jsonb_build_object('run_id', 'run-' || n, 'step', n)
    FROM generate_series(1, {ROWS}) AS n;
INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type)
    SELECT 'thread-' || n, 'c', '1', 'empty' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
    SELECT 'thread-' || n, '1', 't', 0, 'c', '' FROM generate_series(1, {ROWS}) AS n;
ANALYZE;
"""


@dataclass
class Sent:
    """The statements of one call."""

    statements: list[tuple[str, list[Any]]] = field(default_factory=list)


@dataclass
class Bench:
    """The service over the filled tables, and a connection to explain its statements on."""

    api: Api
    store: PostgresStore
    connection: psycopg.AsyncConnection[Any]
    sent: Sent

    async def plans(self, method: str, fields: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
        """The statements of a call with the nodes of their plans. What the call changes stays."""

        async def call() -> None:
            try:
                # A stream that follows goes on: what it asks again and again it has asked by then.
                async with asyncio.timeout(FOLLOWED_SECONDS if method == "StreamRunEvents" else None):
                    await (self.api.stream if METHODS[method].server_streaming else self.api.call)(method, **fields)
            except CallFailed as failure:
                if failure.code.name not in ("NOT_FOUND", "ABORTED", "FAILED_PRECONDITION", "ALREADY_EXISTS"):
                    raise

        found = await self.plans_of(call)
        assert found or method in ("GetServerInfo",)
        return found

    async def plans_of(self, work: Callable[[], Awaitable[Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
        """The statements that some work sends, with the nodes of their plans."""
        self.sent.statements.clear()
        with contextlib.suppress(TimeoutError):
            await work()
        found = []
        for statement, values in list(self.sent.statements):
            if statement.startswith("SET "):
                continue
            explained = await self.connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), values)
            [(plan,)] = await explained.fetchall()
            found.append((statement, list(_nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))))
        return found

    async def whole(self, work: Callable[[], Awaitable[Any]]) -> list[tuple[list[str], str]]:
        """The tables that some work reads as a whole, with the statement that does."""
        return whole(await self.plans_of(work))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def whole(plans: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[tuple[list[str], str]]:
    """The tables that statements read as a whole, with the statement that does."""
    found = []
    for statement, nodes in plans:
        read = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} & BIG
        if read:
            found.append((sorted(read), statement[:2000]))
    return found


@pytest.fixture(scope="module")
async def bench(postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    """Filled tables, once for the module."""
    url = postgres_server.url(postgres_server.create_database())
    store = PostgresStore(DatabaseSettings(url))
    await store.start(30)
    sent = Sent()
    patch = pytest.MonkeyPatch()
    run, run_in, run_all = Database.run, Transaction.run, Transaction.run_all

    async def run_and_keep(
        self: Database, statement: str, values: Sequence[Any], owner: str | None = None, **how: Any
    ) -> Any:
        sent.statements.append((statement, list(values)))
        return await run(self, statement, values, owner, **how)

    async def run_in_and_keep(self: Transaction, statement: str, values: Sequence[Any], *rest: Any) -> Any:
        sent.statements.append((statement, list(values)))
        return await run_in(self, statement, values, *rest)

    async def run_all_and_keep(self: Transaction, statements: Sequence[tuple[str, Sequence[Any]]]) -> Any:
        sent.statements.extend((statement, list(values)) for statement, values in statements)
        return await run_all(self, statements)

    patch.setattr(Database, "run", run_and_keep)
    patch.setattr(Transaction, "run", run_in_and_keep)
    patch.setattr(Transaction, "run_all", run_all_and_keep)
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncRawCursor)
    for statement in filter(str.strip, _FILL.split(";")):
        await connection.execute(statement.encode())
    settings = Settings(anonymous_rights="unscoped,admin", allow_truncate=True)
    yield Bench(DirectApi(build_pipeline(settings, store), "postgres"), store, connection, sent)
    patch.undo()
    await connection.close()
    await store.close()
