"""A claim looks at the runs that are due and at nothing else, however many have ended and whatever the planner knows of the table."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import AsyncRawCursor, sql

from storage_service.caller import AllOwners, Owner, Scope
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.postgres.database import Database
from tests.postgres_server import MakeDatabase, PostgresServer

ENDED, OWNERS = 100_000, 200
OWNER = "owner-7"
_RUN = f"jsonb_build_object('owner', 'owner-' || n % {OWNERS})"
#: So many runs that have ended, of many owners and threads, and one that is due of each of 100 owners.
_FILL = (
    "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, run_after, attempt)"
    f" SELECT 'ended-' || n, 'thread-' || n % 20000, 'a', 'success', {_RUN}, now() - n * interval '1 second', 1"
    f" FROM generate_series(1, {ENDED}) AS n",
    "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, run_after)"
    f" SELECT 'due-' || n, 'thread-' || n, 'a', 'pending', {_RUN}, now() - interval '1 hour' FROM generate_series(1, 100) AS n",
)
#: Threads of which each has a leased run, with 2,000 runs behind them that have waited for longest.
_BLOCK = (
    "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, run_after, attempt, worker_id, lease_token,"
    " lease_expires_at) SELECT 'leased-' || n, 'blocked-' || n, 'a', 'running', '{\"owner\": \"owner-7\"}',"
    " now() - interval '3 hours', 1, 'w', n, now() + interval '1 day' FROM generate_series(1, 40) AS n",
    "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, run_after)"
    " SELECT 'blocked-' || n, 'blocked-' || n % 40 + 1, 'a', 'pending', '{\"owner\": \"owner-7\"}',"
    " now() - interval '2 hours' + n * interval '1 second' FROM generate_series(1, 2000) AS n",
)
_SCOPES: tuple[Scope, ...] = (Owner(OWNER), AllOwners())


def _fill(url: str) -> None:
    settings = DatabaseSettings(url)

    async def migrate() -> None:
        store = PostgresStore(settings)
        await store.start(30)
        assert not store.trouble()
        await store.close()

    # The loop of the tests is at work.
    thread = threading.Thread(target=asyncio.run, args=[migrate()])
    thread.start()
    thread.join()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _FILL:
            connection.execute(statement.encode())


@pytest.fixture
def url(postgres_server: PostgresServer, make_database: MakeDatabase) -> str:
    """The filled tables, of which nothing has been analysed yet."""
    return make_database(postgres_server.template("queue-plans", _fill))


@pytest.fixture
async def connection(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection to them."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncRawCursor) as found:
        yield found


@pytest.fixture
async def store(url: str, connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[PostgresStore]:
    """The service's store over them."""
    store = PostgresStore(DatabaseSettings(url))
    await store.start(30)
    yield store
    await store.close()


async def statements(
    store: PostgresStore, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, Sequence[Any]]]:
    """What claiming and taking back leases sends."""
    sent: list[tuple[str, Sequence[Any]]] = []
    run = Database.run

    async def run_and_keep(
        self: Database, statement: str, values: Sequence[Any], owner: str | None = None, **how: Any
    ) -> Any:
        if "runs" in statement:
            sent.append((statement, list(values)))
        return await run(self, statement, values, owner, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "run", run_and_keep)
        assert len(await store.seen_by(scope).claim_runs("w", 1, 0.001)) == 1
        await asyncio.sleep(0.01)
        assert len((await store.seen_by(scope).sweep_runs(100, 5)).requeued) == 1
    assert sent
    return sent


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def explained(
    connection: psycopg.AsyncConnection[Any], statement: str, values: Sequence[Any], generic: bool
) -> dict[str, Any]:
    """The plan with which a statement runs, and what it read. What it changes is undone."""
    how = "force_generic_plan" if generic else "force_custom_plan"
    given = sql.SQL(", ").join(sql.Literal(value) for value in values)
    async with connection.transaction(force_rollback=True):
        await connection.execute(f"SET LOCAL plan_cache_mode = {how}".encode())
        await connection.execute(f"PREPARE asked AS {statement}".encode())
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked ({})").format(given)
        cursor = await connection.execute(explain)
        [(found,)] = await cursor.fetchall()
        await connection.execute(b"DEALLOCATE asked")
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize("analysed", [False, True], ids=["new", "analysed"])
@pytest.mark.parametrize("scope", _SCOPES, ids=["owner", "all owners"])
async def test_a_claim_reads_what_is_due(
    scope: Scope,
    analysed: bool,
    generic: bool,
    connection: psycopg.AsyncConnection[Any],
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if analysed:
        await connection.execute(b"ANALYZE")
    claim, *sweeps = await statements(store, scope, monkeypatch)
    plan = await explained(connection, *claim, generic)
    found = list(nodes(plan))
    names = {node.get("Index Name", "") for node in found}
    assert not [node for node in found if node["Node Type"] == "Seq Scan"], names
    assert any(name.startswith("ix_runs_due") for name in names), names
    # A run that is due, with a look for others of its thread: some pages each, of the 100 that are.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1500, names
    assert len(sweeps) == 2
    for sweep in sweeps:
        plan = await explained(connection, *sweep, generic)
        assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"], plan
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200


@pytest.mark.parametrize("scope", _SCOPES, ids=["owner", "all owners"])
async def test_what_is_blocked_keeps_nobody_waiting(
    scope: Scope, connection: psycopg.AsyncConnection[Any], store: PostgresStore
) -> None:
    for statement in _BLOCK:
        await connection.execute(statement.encode())
    await connection.execute(b"DELETE FROM langgraph_server.runs WHERE id LIKE 'due-%'")
    rows = store.seen_by(scope)
    assert await rows.claim_runs("w", 100, 60) == []
    await connection.execute(
        b"INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, run_after)"
        b" VALUES ('free', 'free', 'a', 'pending', '{\"owner\": \"owner-7\"}', now())"
    )
    began = time.monotonic()
    assert [claimed.run.run_id for claimed in await rows.claim_runs("w", 100, 60)] == ["free"]
    # Some 10 ms on an idle machine.
    assert time.monotonic() - began < 1
