"""Expired threads with many checkpoints end in short transactions, beside their users' calls, other sweeps and kills."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from storage_service.caller import Owner
from storage_service.retention import Sweep
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.retention import MOST_ROWS
from tests.conformance.checkpoints import Thread, channels_of, document, value
from tests.faults.servers import until
from tests.postgres_server import MakeDatabase
from tests.retention.conftest import Place
from tests.retention.histories import id_at, ids, rows
from tests.retention.test_checkpoints import history, reads, write_history
from tests.retention.test_replicas import open_stores, sweeping
from tests.service import DirectApi

# Threads of which each checkpoint has its own value and a write; ids as LangGraph makes them, and others.
_FILL = """
CREATE FUNCTION public.checkpoint_id(n int, timed bool) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN timed THEN '1ef00000-' || lpad(to_hex(n), 4, '0') || '-6000-8000-000000000000' ELSE lpad(n::text, 8, '0') END $$;
INSERT INTO langgraph_server.threads (id, metadata, ttl)
    SELECT f.kind || '-' || t, '{"owner": "o"}', ROW(60, f.strategy)::langgraph_server.thread_ttl
    FROM (VALUES FILLED) AS f (kind, strategy, threads, checkpoints), generate_series(1, f.threads) AS t;
INSERT INTO public.checkpoints (thread_id, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    SELECT f.kind || '-' || t, checkpoint_id(n, t % 2 = 0), CASE WHEN n > 1 THEN checkpoint_id(n - 1, t % 2 = 0) END,
        jsonb_build_object('v', 4, 'channel_versions', jsonb_build_object('a', n)), '{}'
    FROM (VALUES FILLED) AS f (kind, strategy, threads, checkpoints), generate_series(1, f.threads) AS t,
        generate_series(1, f.checkpoints) AS n;
INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type, blob)
    SELECT thread_id, 'a', checkpoint -> 'channel_versions' ->> 'a', 'msgpack', 'x' FROM public.checkpoints;
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
    SELECT thread_id, checkpoint_id, 't', 0, 'a', 'x' FROM public.checkpoints;
INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id)
    SELECT id, 's' || n FROM langgraph_server.threads, generate_series(1, 2) AS n WHERE (ttl).strategy = 'keep_latest';
INSERT INTO langgraph_server.runs (id, thread_id, status, metadata)
    SELECT 'run-' || id, id, 'success', metadata FROM langgraph_server.threads;
UPDATE langgraph_server.threads SET expires_at = now() - interval '1 hour';
ANALYZE
"""
Kind = tuple[str, str, int, int]
# What each transaction deleted of each thread.
_RECORD = """
CREATE TABLE public.deleted (transaction xid8, thread_id text, checkpoints int);
CREATE FUNCTION public.record() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO deleted SELECT pg_current_xact_id(), thread_id, count(*) FROM gone GROUP BY 2; RETURN NULL; END $$;
CREATE TRIGGER record AFTER DELETE ON public.checkpoints REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.record()
"""
Fill = Callable[..., Awaitable[str]]


@pytest.fixture
def fill(make_database: MakeDatabase) -> Fill:
    """Makes a database with expired threads, each kind as its name, its strategy, how many threads, and how many checkpoints each."""

    async def filled(*kinds: Kind) -> str:
        url = make_database()
        for store in await open_stores(url, 1):
            await store.close()
        with psycopg.connect(url, autocommit=True) as conn:
            for statement in (*_FILL.split(";\n"), *_RECORD.split(";\n")):
                conn.execute(statement.replace("FILLED", ", ".join(map(str, kinds))).encode())
        return url

    return filled


def counts(url: str, table: str = "public.checkpoints") -> dict[str, int]:
    """How many rows of a table each thread has."""
    with psycopg.connect(url) as conn:
        found = conn.execute(f"SELECT thread_id, count(*) FROM {table} GROUP BY 1".encode())
        return dict(found.fetchall())


def deleted(url: str) -> list[dict[str, int]]:
    """What each transaction deleted: checkpoints by their threads."""
    found: dict[int, dict[str, int]] = {}
    with psycopg.connect(url) as conn:
        for transaction, thread_id, checkpoints in conn.execute(b"SELECT * FROM public.deleted"):
            found.setdefault(transaction, {})[thread_id] = checkpoints
    return list(found.values())


async def test_who_writes_meanwhile_does_not_wait(fill: Fill) -> None:
    url = await fill(("keep", "keep_latest", 12, 3000))
    # Whoever waits for a transaction that prunes several of these threads gives up.
    store = PostgresStore(DatabaseSettings(url, lock_timeout=0.2))
    await store.start(30)
    api = DirectApi(build_pipeline(Settings(), store), "postgres")
    slowest = 0.0
    is_over = False

    async def write(number: int, id_of: Callable[[int], str]) -> str:
        """Puts checkpoints to a thread until the sweep is over; gives the last id."""
        nonlocal slowest
        thread, written = Thread(api, "o", f"keep-{number}"), 0
        while not is_over:
            written += 1
            id = id_of(written)
            began = time.monotonic()
            await thread.put(id, checkpoint=document({"a": id}), channels=[value("a", id, b"y")])
            slowest = max(slowest, time.monotonic() - began)
            assert channels_of(await thread.get()) == {"a": b"y"}
            await asyncio.sleep(0.005)
        return id

    async def sweep() -> Counter[str]:
        nonlocal is_over
        try:
            return await Sweep(store).threads()
        finally:
            is_over = True

    # What is as old as these ids say does not begin the time of their threads anew; the last one is of a user who is back.
    swept, *last = await asyncio.gather(
        sweep(),
        write(1, lambda number: f"9{number:07}"),
        write(12, lambda number: id_at(1, number)),
        write(11, lambda number: id_at(0, number)),
    )
    # A thread that somebody wrote to just then is left to the next time.
    swept += await Sweep(store).threads()
    assert swept == Counter(pruned=11, renewed=1)
    assert slowest < 1
    for number, id in zip((1, 12, 11), last, strict=True):
        assert (await Thread(api, "o", f"keep-{number}").get()).checkpoint_id == id
    await store.close()
    left = counts(url)
    # He may have come while the first part was deleted.
    assert left["keep-11"] > 3000 - MOST_ROWS
    assert {left[f"keep-{number}"] for number in range(2, 11)} == {1}


async def test_a_transaction_deletes_so_much(fill: Fill) -> None:
    url = await fill(
        ("keep", "keep_latest", 3, 1600),
        ("large", "delete", 2, 1600),
        ("small", "delete", 60, 20),
        ("one", "delete", 40, 1),
    )
    [store] = await open_stores(url, 1)
    assert await Sweep(store).threads() == Counter(threads=102, pruned=3)
    await store.close()
    for table in (
        "public.checkpoints",
        "public.checkpoint_blobs",
        "public.checkpoint_writes",
        "langgraph_server.thread_states",
    ):
        assert counts(url, table) == dict.fromkeys(("keep-1", "keep-2", "keep-3"), 1), table
    transactions = deleted(url)
    whole = Counter[str]()
    for of in transactions:
        whole.update(of)
        if len(of) > 1:
            # Three rows for each checkpoint and two for each thread.
            assert sum(3 * number + 2 for number in of.values()) <= MOST_ROWS
        [thread_id, *_] = of
        assert of[thread_id] <= (1600 if thread_id.startswith("large") else MOST_ROWS)
    assert len(transactions) < 3 * 4 + 2 + 60
    assert whole == Counter(
        {f"keep-{n}": 1599 for n in range(1, 4)}
        | {f"large-{n}": 1600 for n in range(1, 3)}
        | {f"small-{n}": 20 for n in range(1, 61)}
        | {f"one-{n}": 1 for n in range(1, 41)}
    )


@pytest.mark.parametrize("strategy", ["delete", "keep_latest"])
async def test_a_large_thread_is_locked_alone(fill: Fill, strategy: str) -> None:
    """What goes with one is held, so that it is certain where the sweep is: in the middle of it."""
    url = await fill(("t", strategy, 10, 1100))
    [store] = await open_stores(url, 1)
    async with (
        await psycopg.AsyncConnection.connect(url) as holder,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
    ):
        held = {"delete": "langgraph_server.runs", "keep_latest": "public.checkpoints"}[strategy]
        await holder.execute(f"SELECT FROM {held} WHERE thread_id = 't-5' FOR UPDATE".encode())
        sweep = asyncio.create_task(Sweep(store).threads())

        async def are_waiting() -> bool:
            rows = await conn.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(await rows.fetchall())

        await until(are_waiting, 20)
        # It waits for a moment first, and then, in a transaction of its own, for long.
        await asyncio.sleep(0.3)
        await until(are_waiting, 20)
        locked = (
            "WITH free AS (SELECT id FROM langgraph_server.threads FOR UPDATE SKIP LOCKED)"
            " SELECT id FROM langgraph_server.threads WHERE id NOT IN (SELECT id FROM free)"
        )
        assert [id for (id,) in await (await conn.execute(locked)).fetchall()] == ["t-5"]
        await holder.rollback()
    assert await sweep == Counter({"threads" if strategy == "delete" else "pruned": 10})
    await store.close()


async def test_one_is_killed_and_two_go_on(fill: Fill) -> None:
    url = await fill(("keep", "keep_latest", 4, 1700), ("large", "delete", 3, 600), ("small", "delete", 40, 10))
    everything = counts(url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        with psycopg.connect(url) as holder:
            # The third part of each would delete it.
            holder.execute(
                "SELECT FROM public.checkpoints WHERE thread_id LIKE 'keep-%' AND checkpoint ->> 'v' = '4'"
                " AND (checkpoint -> 'channel_versions' ->> 'a')::int = 500 FOR UPDATE"
            )
            process = sweeping(url)

            async def is_waiting() -> bool:
                assert process.poll() is None
                rows = await conn.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                return bool(await rows.fetchall())

            await until(is_waiting, 20)
            process.send_signal(signal.SIGKILL)
            process.wait()
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

        async def are_gone() -> bool:
            return not (await (await conn.execute(others)).fetchall())[0][0]

        await until(are_gone, 10)
    between = counts(url)
    # Whole parts are gone; but no part of a thread that is to be deleted.
    kept = {number for id, number in between.items() if id.startswith("keep")}
    assert 700 in kept <= {700, 1200, 1700}
    assert all(between[id] == everything[id] for id in between if not id.startswith("keep"))
    newest = [id for id in between if id.startswith("keep")]
    stores = await open_stores(url, 2)
    swept = await asyncio.gather(*(Sweep(store).threads() for store in stores))
    for store in stores:
        await store.close()
    assert sum(swept, Counter()) == Counter(pruned=4, threads=len(between) - 4)
    for table in (
        "public.checkpoints",
        "public.checkpoint_blobs",
        "public.checkpoint_writes",
        "langgraph_server.thread_states",
    ):
        assert counts(url, table) == dict.fromkeys(newest, 1), table


@pytest.mark.parametrize("number", [1, 2], ids=["other", "timed"])
async def test_who_comes_back_in_between_keeps_the_rest(fill: Fill, number: int) -> None:
    url = await fill(("keep", "keep_latest", 2, 1300))
    [store] = await open_stores(url, 1)
    thread = Thread(DirectApi(build_pipeline(Settings(), store), "postgres"), "o", f"keep-{number}")
    handle = store.seen_by(Owner("o"))
    before = await ids(thread)
    swept = await handle.sweep_threads(1, thread.id)
    assert (bool(swept), swept) == (True, Counter()), "something, but none is done with"
    # Oldest first, with nothing missing in between: the newest, and all that is older than what went.
    left = await ids(thread)
    assert left == before[: 1299 - MOST_ROWS] + before[-1:]
    known = {id for _, id, _ in (await rows(thread))["checkpoints"]} | {""}
    assert {parent for _, _, parent in (await rows(thread))["checkpoints"]} <= known
    if number == 1:
        await thread.call("UpdateThread", metadata="{}")
        assert await handle.sweep_threads(1, thread.id) == Counter()
    else:
        left.append(id_at(0))
        await thread.put(left[-1], before[-1], checkpoint=document({"a": "1300"}))
        assert await handle.sweep_threads(1, thread.id) == Counter(renewed=1)
        assert channels_of(await thread.get()) == {"a": b"x"}
    assert not await handle.sweep_threads(1, thread.id)
    assert await ids(thread) == left
    await store.close()


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_left_between_parts_reads_as_before(
    places: list[Place], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the history, its end is that of the other backend, which prunes at once."""
    monkeypatch.setattr("storage_service.store.postgres.retention.MOST_ROWS", 2)
    puts = history(seed)
    at_once, in_parts = places
    for place in places:
        thread = place.thread()
        await write_history(thread, puts)
        await thread.call("UpdateThread", ttl={"minutes": 60, "strategy": "THREAD_TTL_STRATEGY_KEEP_LATEST"})
        await place.age(thread, 7200)
    assert await at_once.expire() == Counter(pruned=1)
    end = await rows(at_once.thread())
    thread = in_parts.thread()
    before = {(one["ns"], one["id"]): await reads(thread, one["ns"], one["id"]) for one in puts}
    # Of what stays in the end, only the newest reads as before; the rest is what it is read from.
    needed = {(ns, id) for ns, id, _ in end["checkpoints"]} - {
        (ns, max(id for of, id in before if of == ns)) for ns, _ in before
    }
    parts = pruned = 0
    while swept := await in_parts.store.seen_by(Owner(in_parts.owner)).sweep_threads(1):
        parts += 1
        pruned += swept["pruned"]
        left = {(ns, id): parent for ns, id, parent in (await rows(thread))["checkpoints"]}
        for (ns, id), parent in left.items():
            assert not parent or (ns, parent) in left
            assert (ns, id) in needed or await reads(thread, ns, id) == before[ns, id]
    assert await rows(thread) == end
    assert (pruned, parts) == (1, (len(before) - len(left)) // 2 + 1)
