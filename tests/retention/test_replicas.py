"""Several processes sweep one database at once, with calls going on, and one is killed: each row goes once, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import psycopg
import pytest

from storage_service.retention import Sweep, before_days
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.conformance.checkpoints import Thread, channels_of, document, value, write
from tests.faults.servers import until
from tests.postgres_server import MakeDatabase
from tests.retention.conftest import expire
from tests.retention.histories import id_at
from tests.service import CallFailed, DirectApi

EXPIRED, STAY = 2000, 100
_FILL = """
INSERT INTO langgraph_server.threads (id, metadata, ttl, status)
    SELECT kind || '-' || n, jsonb_build_object('owner', 'owner-' || n % 7),
        CASE WHEN kind <> 'good' THEN ROW(60, CASE kind WHEN 'keep' THEN 'keep_latest' ELSE 'delete' END)::langgraph_server.thread_ttl END,
        CASE kind WHEN 'busy' THEN 'busy' ELSE 'idle' END
    FROM (VALUES ('over', 2000), ('keep', 100), ('busy', 100), ('runs', 100), ('later', 100), ('good', 100)) AS k (kind, most),
        generate_series(1, most) AS n;
INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id)
    SELECT id, 's' || n FROM langgraph_server.threads, generate_series(1, 2) AS n;
INSERT INTO langgraph_server.runs (id, thread_id, status, metadata)
    SELECT 'run-' || id, id, CASE WHEN id LIKE 'runs-%' THEN 'running' ELSE 'success' END, metadata FROM langgraph_server.threads;
INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint, metadata)
    SELECT id, n::text, jsonb_build_object('channel_versions', jsonb_build_object('c', n)), '{}'
    FROM langgraph_server.threads, generate_series(1, 2) AS n;
INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type)
    SELECT id, 'c', n, 'empty' FROM langgraph_server.threads, generate_series(1, 2) AS n;
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
    SELECT id, n::text, 't', 0, 'c', '' FROM langgraph_server.threads, generate_series(1, 2) AS n;
UPDATE langgraph_server.threads SET expires_at = now() - interval '1 hour' WHERE ttl IS NOT NULL AND id NOT LIKE 'later-%';
INSERT INTO langgraph_server.store_items (namespace, key, owner_id, value, version, expires_at, ttl_minutes)
    SELECT 'a', 'k' || n, 'owner-' || n % 7, '{}', 1, CASE WHEN n % 2 = 0 THEN now() - interval '1 hour' END, 60
    FROM generate_series(1, 2000) AS n;
ANALYZE;
"""
_TABLES = {
    "langgraph_server.threads": "id",
    "langgraph_server.thread_states": "thread_id",
    "langgraph_server.runs": "thread_id",
    "public.checkpoints": "thread_id",
    "public.checkpoint_blobs": "thread_id",
    "public.checkpoint_writes": "thread_id",
}
# Rows of a thread in each of the tables, as they were and with the newest alone.
WHOLE, NEWEST = (1, 2, 1, 2, 2, 2), (1, 1, 1, 1, 1, 1)


async def open_stores(url: str, count: int) -> list[PostgresStore]:
    stores = [PostgresStore(DatabaseSettings(url, pool_max_size=4)) for _ in range(count)]
    for store in stores:
        await store.start(30)
        assert not store.trouble()
    return stores


@pytest.fixture
async def filled(make_database: MakeDatabase) -> str:
    """A database with 2,000 threads and 1,000 items whose time is over, and others."""
    url = make_database()
    for store in await open_stores(url, 1):
        await store.close()
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in filter(str.strip, _FILL.split(";\n")):
            conn.execute(statement.encode())
    return url


def left(url: str) -> dict[str, Counter[tuple[int, ...]]]:
    """By the kind of a thread, how many have so many rows in the tables."""
    found: dict[str, list[int]] = {}
    with psycopg.connect(url) as conn:
        for place, (table, column) in enumerate(_TABLES.items()):
            for id, count in conn.execute(f"SELECT {column}, count(*) FROM {table} GROUP BY 1".encode()):
                found.setdefault(id, [0] * len(_TABLES))[place] = count
    kinds: dict[str, Counter[tuple[int, ...]]] = {}
    for id, counts in found.items():
        kinds.setdefault(id.partition("-")[0], Counter())[tuple(counts)] += 1
    return kinds


AS_IT_SHOULD_BE = {
    "keep": Counter({NEWEST: STAY}),
    **{kind: Counter({WHOLE: STAY}) for kind in ("busy", "runs", "later", "good")},
}


async def test_four_at_once(filled: str) -> None:
    before = left(filled)
    assert before["over"] == Counter({WHOLE: EXPIRED})
    stores = await open_stores(filled, 4)
    swept = await asyncio.gather(*(expire(Sweep(store)) for store in stores))
    for store in stores:
        await store.close()
    # Each once, and by whom it was matters not.
    assert sum(swept, Counter()) == Counter(threads=EXPIRED, pruned=STAY, items=1000)
    assert left(filled) == AS_IT_SHOULD_BE
    with psycopg.connect(filled) as conn:
        assert conn.execute("SELECT count(*) FROM langgraph_server.store_items").fetchone() == (1000,)


def sweeping(url: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "storage_service", "sweep"],
        env=dict(os.environ) | {"DATABASE_URL": url} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_one_is_killed_in_the_middle(filled: str) -> None:
    """A row that the fourth batch would delete is locked, so that it is certain where it is killed: in the middle."""
    async with await psycopg.AsyncConnection.connect(filled, autocommit=True) as conn:

        async def threads() -> int:
            rows = await conn.execute("SELECT count(*) FROM langgraph_server.threads WHERE id LIKE 'over-%'")
            return int((await rows.fetchall())[0][0])

        with psycopg.connect(filled) as holder:
            # A run of each of many threads: who deletes one waits.
            holder.execute("SELECT FROM langgraph_server.runs WHERE id LIKE 'run-over-%7' FOR UPDATE")
            process = sweeping(filled)
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )

            async def is_waiting() -> bool:
                assert process.poll() is None
                return bool((await (await conn.execute(waiting)).fetchall())[0][0])

            await until(is_waiting, 20)
            process.send_signal(signal.SIGKILL)
            process.wait()
        between = left(filled)
        # What was begun has not been: a thread is there as a whole, or not at all.
        assert set(between["over"]) == {WHOLE}
        assert await threads() == between["over"].total()
        assert await asyncio.to_thread(sweeping(filled).wait) == 0
    assert left(filled) == AS_IT_SHOULD_BE


async def test_no_acknowledged_checkpoint_is_lost(make_database: MakeDatabase) -> None:
    """Threads that live for moments are written to, deleted, and written to again, while everything is swept without a pause."""
    url = make_database()
    stores = await open_stores(url, 3)
    api = DirectApi(build_pipeline(Settings(), stores[0]), "postgres")
    swept: Counter[str] = Counter()

    def goes_on() -> bool:
        return swept["threads"] < 60 or swept["checkpoints"] < 300

    async def sweep(store: PostgresStore) -> None:
        nonlocal swept
        while goes_on():
            swept += await expire(Sweep(store))
            swept += await Sweep(store).checkpoints(before_days(0))

    async def go_on(number: int) -> Thread:
        """A conversation: each checkpoint follows the one before, with a channel that changes and one that never does."""
        thread = Thread(api, f"owner-{number % 3}", f"long-{number}")
        parent = ""
        step = 0
        while goes_on():
            step += 1
            id = id_at(0, step)
            versions = {"a": f"{step}", "b": "1"}
            channels = [value("a", f"{step}", id.encode())] + ([] if parent else [value("b", "1", b"first")])
            await thread.put(
                id, parent, checkpoint=document(versions), channels=channels, metadata=json.dumps({"n": step})
            )
            await thread.put_writes(id, write("t", 0, data=id.encode()))
            newest = await thread.get()
            assert newest.checkpoint_id == id, "an acknowledged checkpoint is gone"
            assert channels_of(newest) == {"a": id.encode(), "b": b"first"}
            assert [item.value for item in newest.writes] == [id.encode()]
            parent = id
        return thread

    async def come_and_go(number: int) -> None:
        """A thread whose time is over at once: each put makes it anew, or finds it whole."""
        thread = Thread(api, f"owner-{number % 3}", f"short-{number}")
        while goes_on():
            await thread.put("1", checkpoint=document({"a": "1"}), channels=[value("a", "1", b"x")])
            try:
                assert channels_of(await thread.get("1")) == {"a": b"x"}, "a thread was deleted in part"
                await thread.call("UpdateThread", ttl={"minutes": 1e-6})
                assert channels_of(await thread.get("1")) == {"a": b"x"}, "a thread was deleted in part"
            except CallFailed as failure:
                assert failure.reason == "NOT_FOUND"  # noqa: PT017 - not whether it fails, but that it does with nothing else

    results: list[Any] = await asyncio.gather(
        *(sweep(store) for store in stores),
        *(go_on(number) for number in range(6)),
        *(come_and_go(number) for number in range(6)),
    )
    for thread in (result for result in results if isinstance(result, Thread)):
        newest = await thread.get()
        assert channels_of(newest)["b"] == b"first"
    for store in stores:
        await store.close()


async def test_one_of_all_does_what_is_done_once(make_database: MakeDatabase) -> None:
    stores = await open_stores(make_database(), 4)
    claims = await asyncio.gather(*(store.claim("x", 3600) for store in stores for _ in range(5)))
    assert sum(claims) == 1
    assert await stores[0].claim("y", 3600)
    assert not await stores[1].claim("y", 3600)
    assert await stores[1].claim("y", 0)
    for store in stores:
        await store.close()
