"""The time to live of a thread: how it is given, what begins it anew, and when it is over. What happens then is in tests/retention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from agentstorage.v1 import threads_pb2 as pb
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from storage_service.store.memory import MemoryStore
from storage_service.store.postgres import PostgresStore
from tests.conformance.checkpoints import Thread
from tests.conformance.expect import invalid
from tests.conformance.rows import ASSISTANTS, RUNS, THREADS
from tests.service import Api, DirectApi

DELETE, KEEP = pb.THREAD_TTL_STRATEGY_DELETE, pb.THREAD_TTL_STRATEGY_KEEP_LATEST
HOUR: dict[str, Any] = {"minutes": 60}


def lives(row: Any) -> tuple[float, int, float]:
    """The minutes and the strategy of a thread, and the seconds from its last change to its end."""
    assert row.HasField("ttl")
    return row.ttl.minutes, row.ttl.strategy, (row.expires_at.ToMicroseconds() - row.updated_at.ToMicroseconds()) / 1e6


def is_for_good(row: Any) -> bool:
    return not (row.HasField("ttl") or row.HasField("expires_at"))


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (HOUR, (60, DELETE, 3600)),
        ({"minutes": 0.5, "strategy": "THREAD_TTL_STRATEGY_DELETE"}, (0.5, DELETE, 30)),
        ({"minutes": 1e-5, "strategy": "THREAD_TTL_STRATEGY_KEEP_LATEST"}, (1e-5, KEEP, 0.0006)),
        ({"minutes": 52596000}, (52596000, DELETE, 52596000 * 60)),
    ],
)
async def test_given_at_the_start(api: Api, owner: str, ttl: dict[str, Any], expected: Any) -> None:
    row = await THREADS.create(api, owner, ttl=ttl)
    assert lives(row) == expected
    assert await THREADS.get(api, owner, row.thread_id) == row
    assert list((await api.call("SearchThreads", owner_id=owner)).threads) == [row]


@pytest.mark.parametrize("ttl", [{}, {"ttl": {}}, {"ttl": {"strategy": "THREAD_TTL_STRATEGY_KEEP_LATEST"}}])
async def test_for_good(api: Api, owner: str, ttl: dict[str, Any]) -> None:
    row = await THREADS.create(api, owner, **ttl)
    assert is_for_good(row)
    assert is_for_good(await THREADS.get(api, owner, row.thread_id))


@pytest.mark.parametrize(
    ("ttl", "field"),
    [
        ({"minutes": -1}, "ttl.minutes"),
        ({"minutes": 52596001}, "ttl.minutes"),
        ({"minutes": "NaN"}, "ttl.minutes"),
        ({"minutes": "Infinity"}, "ttl.minutes"),
        ({"minutes": 1, "strategy": 3}, "ttl.strategy"),
    ],
)
async def test_refused(api: Api, owner: str, ttl: dict[str, Any], field: str) -> None:
    with invalid(field):
        await THREADS.create(api, owner, ttl=ttl)
    row = await THREADS.create(api, owner)
    with invalid(field):
        await THREADS.call(api, "Update", owner, thread_id=row.thread_id, ttl=ttl)


async def test_an_update_changes_it(api: Api, owner: str) -> None:
    row = await THREADS.create(api, owner, metadata='{"a": 1}')

    async def update(**fields: Any) -> Any:
        changed = await THREADS.call(api, "Update", owner, thread_id=row.thread_id, **fields)
        assert await THREADS.get(api, owner, row.thread_id) == changed
        return changed

    assert lives(await update(ttl=HOUR)) == (60, DELETE, 3600)
    assert lives(await update(ttl={"minutes": 5, "strategy": "THREAD_TTL_STRATEGY_KEEP_LATEST"})) == (5, KEEP, 300)
    assert lives(await update(metadata='{"a": 2}')) == (5, KEEP, 300)
    gone = await update(ttl={"minutes": 0})
    assert is_for_good(gone)
    assert not gone.HasField("state_updated_at")
    assert is_for_good(await update(metadata='{"a": 3}'))


async def test_changes_begin_it_anew_and_reads_do_not(api: Api, owner: str) -> None:
    row = await THREADS.create(api, owner, ttl=HOUR)
    thread = {"thread_id": row.thread_id}
    for method in ("GetThread", "GetThreadState", "ListThreadStates"):
        await api.call(method, owner_id=owner, **thread)
    assert await THREADS.get(api, owner, row.thread_id) == row
    assistant = await ASSISTANTS.create(api, owner)
    for method, fields in (
        ("UpdateThread", {"metadata": "{}"}),
        ("AddThreadState", {"checkpoint_id": "1"}),
        ("CommitSuperstep", {"checkpoint_id": "1", "checkpoint": "{}", "status": "THREAD_STATUS_IDLE"}),
        ("CreateRun", {"assistant_id": assistant.assistant_id}),
        ("SetThreadStatus", {}),
    ):
        await api.call(method, owner_id=owner, **thread, **fields)
        after = await THREADS.get(api, owner, row.thread_id)
        assert lives(after) == (60, DELETE, 3600)
        assert after.expires_at.ToMicroseconds() > row.expires_at.ToMicroseconds(), method
        row = after


async def test_fields_and_copies(api: Api, owner: str, other: str) -> None:
    row = await THREADS.create(api, owner, ttl=HOUR, visibility=2)
    only = (await api.call("GetThread", owner_id=owner, thread_id=row.thread_id, fields="ttl")).thread
    assert only == pb.Thread(thread_id=row.thread_id, ttl=row.ttl)
    only = (await api.call("GetThread", owner_id=owner, thread_id=row.thread_id, fields="expiresAt,status")).thread
    assert only == pb.Thread(thread_id=row.thread_id, status=row.status, expires_at=row.expires_at)
    # A copy is a new thread.
    for who in (owner, other):
        assert is_for_good((await api.call("CopyThread", owner_id=who, thread_id=row.thread_id)).thread)


async def test_a_create_that_is_sent_again(api: Api, owner: str) -> None:
    row = await THREADS.create(api, owner, "sent-" + owner, ttl=HOUR)
    assert await THREADS.create(api, owner, row.thread_id, ttl=HOUR) == row
    assert await THREADS.create(api, owner, row.thread_id, if_exists="IF_EXISTS_DO_NOTHING") == row


@pytest.fixture(params=("memory", "postgres"))
async def default_api(request: pytest.FixtureRequest, stores: dict[str, Store]) -> Any:
    """A service whose threads live for 90 minutes unless they say otherwise, beside one whose threads stay."""
    ttl = pb.ThreadTtl(minutes=90, strategy=KEEP)
    if request.param == "memory":
        yield DirectApi(build_pipeline(Settings(), MemoryStore(thread_ttl=ttl)), "memory")
        return
    beside = stores["postgres"]
    assert isinstance(beside, PostgresStore)
    store = PostgresStore(replace(beside.database.settings, thread_ttl=ttl))
    await store.start(30)
    yield DirectApi(build_pipeline(Settings(), store), "postgres")
    await store.close()


async def test_the_default_of_a_server(default_api: Api, owner: str) -> None:
    api = default_api
    default: Any = (90, KEEP, 5400)
    row = await THREADS.create(api, owner)
    assert lives(row) == default
    assert lives(await THREADS.create(api, owner, ttl=HOUR)) == (60, DELETE, 3600)
    stays = await THREADS.create(api, owner, ttl={"minutes": 0})
    assert is_for_good(stays)
    assert lives((await api.call("CopyThread", owner_id=owner, thread_id=stays.thread_id)).thread) == default
    # Also threads that a checkpoint makes, by each way to write one.
    made = [Thread(api, owner, f"{owner}-{number}") for number in range(5)]
    await made[0].put("1")
    await made[1].put_writes("1")
    await made[2].put("1", expected_parent_id="")
    await made[3].call("CommitSuperstep", checkpoint_id="1", checkpoint="{}", status="THREAD_STATUS_IDLE")
    await made[0].call("CopyThreadCheckpoints", new_thread_id=made[4].id)
    for thread in made:
        assert lives(await THREADS.get(api, owner, thread.id)) == default, thread.id
    # What is there already stays as it is.
    await Thread(api, owner, stays.thread_id).put("1")
    assert is_for_good(await THREADS.get(api, owner, stays.thread_id))


async def test_a_run_keeps_its_threads_default(default_api: Api, owner: str) -> None:
    assistant = await ASSISTANTS.create(default_api, owner)
    thread = await THREADS.create(default_api, owner)
    names = {"thread_id": thread.thread_id, "assistant_id": assistant.assistant_id}
    await RUNS.create(default_api, owner, **names, record_only=False)
    assert lives(await THREADS.get(default_api, owner, thread.thread_id)) == (90, KEEP, 5400)


def test_a_runtimes_writes_begin_it_anew(stores: dict[str, Store], owner: str) -> None:
    """It does not know the columns."""
    store = stores["postgres"]
    assert isinstance(store, PostgresStore)
    with psycopg.connect(store.database.settings.url, autocommit=True) as conn:
        conn.execute("INSERT INTO langgraph_server.threads (id) VALUES (%s)", (owner,))
        ends = "SELECT expires_at, expires_at - now() FROM langgraph_server.threads WHERE id = %s"
        assert conn.execute(ends, (owner,)).fetchone() == (None, None)
        conn.execute("UPDATE langgraph_server.threads SET ttl = '(60,delete)' WHERE id = %s", (owner,))
        conn.execute("UPDATE langgraph_server.threads SET expires_at = now() WHERE id = %s", (owner,))
        conn.execute("UPDATE langgraph_server.threads SET status = 'idle', updated_at = now() WHERE id = %s", (owner,))
        row = conn.execute(ends, (owner,)).fetchone()
        assert row is not None
        assert 3590 < row[1].total_seconds() <= 3600
