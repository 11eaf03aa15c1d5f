"""Many callers at once on the checkpoints of one thread: none is lost, none is left behind, and a thread has one owner."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest

from tests.concurrency.test_concurrency import WAYS, outcomes, reasons
from tests.conformance.checkpoints import Thread, channels_of, document, value, write
from tests.service import Api, GrpcApi, ServerProcess

CALLERS = 24


@pytest.fixture(params=WAYS)
def server(request: pytest.FixtureRequest, servers: dict[str, ServerProcess]) -> ServerProcess:
    """Each backend, Postgres also without prepared statements."""
    return servers[request.param]


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield GrpcApi(channel, "memory" if server.backend == "memory" else "postgres")


@pytest.fixture
def thread(api: Api, owner: str) -> Thread:
    return Thread(api, owner, f"{owner}-t")


async def test_first_puts_of_one_owner_all_succeed(thread: Thread) -> None:
    puts = [
        thread.put(f"{place:02}", checkpoint=document({"a": str(place)}), channels=[value("a", str(place), b"x")])
        for place in range(CALLERS)
    ]
    writes = [thread.put_writes(f"{place:02}", write("t", 0)) for place in range(CALLERS)]
    _, failures = await outcomes([*puts, *writes])
    assert not failures
    listed = await thread.listed()
    assert [item.checkpoint_id for item in listed] == [f"{place:02}" for place in reversed(range(CALLERS))]
    assert all(channels_of(item) == {"a": b"x"} and len(item.writes) == 1 for item in listed)


async def test_first_puts_of_two_owners_have_one_winner(api: Api, owner: str, other: str) -> None:
    for round in range(10):
        mine = Thread(api, owner, f"{owner}-{round}")
        theirs = mine.of(other)
        puts = [thread.put(f"{place:02}") for place in range(4) for thread in (mine, theirs)]
        answers, failures = await outcomes(puts)
        assert len(answers) == len(failures) == 4
        assert reasons(failures) == {"NOT_FOUND"}
        assert sorted([len(await mine.ids()), len(await theirs.ids())]) == [0, 4]


async def test_one_of_those_that_expect_the_same_parent_writes(thread: Thread) -> None:
    newest = ""
    for round in range(4):
        puts = [thread.put(f"{round}-{place:02}", newest, expected_parent_id=newest) for place in range(CALLERS)]
        answers, failures = await outcomes(puts)
        assert len(answers) == 1, "the first of all make the thread"
        assert reasons(failures) == {"PARENT_MISMATCH"}
        newest = (await thread.get()).checkpoint_id
        assert len(await thread.ids()) == round + 1


async def test_one_checkpoint_may_be_put_many_times_at_once(thread: Thread) -> None:
    channels = [value(f"c{place}", "1", bytes([place])) for place in range(20)]
    text = document({f"c{place}": "1" for place in range(20)})
    # In the one order and in the other.
    puts = [thread.put("1", checkpoint=text, channels=channels[:: (1, -1)[place % 2]]) for place in range(CALLERS)]
    _, failures = await outcomes(puts)
    assert not failures
    assert channels_of(await thread.get()) == {f"c{place}": bytes([place]) for place in range(20)}


async def test_writes_of_one_place_keep_one_of_them(thread: Thread) -> None:
    await thread.put("1")
    writes = [
        thread.put_writes("1", write("t", 0, data=str(place).encode()), write("t", -1, data=str(place).encode()))
        for place in range(CALLERS)
    ]
    _, failures = await outcomes(writes)
    assert not failures
    special, ordinary = (await thread.get()).writes
    assert {special.value, ordinary.value} <= {str(place).encode() for place in range(CALLERS)}
    await thread.put_writes("1", write("t", 0, data=b"late"), write("t", -1, data=b"late"))
    assert [item.value for item in (await thread.get()).writes] == [b"late", ordinary.value]


async def left_behind(server: ServerProcess, prefix: str) -> int:
    """The rows of LangGraph's tables whose threads, of ids that begin so, are gone."""
    if server.backend == "memory":
        return 0
    async with await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as connection:
        found = 0
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            cursor = await connection.execute(
                f"SELECT count(*) FROM public.{table} AS c WHERE starts_with(thread_id, %s)"
                " AND NOT EXISTS (SELECT FROM langgraph_server.threads AS t WHERE t.id = c.thread_id)",
                [prefix],
            )
            found += (await cursor.fetchone() or (0,))[0]
        return found


@pytest.mark.parametrize("way", ["DeleteThread", "EraseOwner", "PruneThreads", "DeleteAssistant"])
async def test_a_deletion_leaves_no_checkpoint_behind(server: ServerProcess, api: Api, owner: str, way: str) -> None:
    """Those that come after it make the thread anew; those before it go with it."""
    assistant = f"{owner}-a"
    metadata = f'{{"assistant_id": "{assistant}"}}'
    for round in range(15):
        thread = Thread(api, owner, f"{owner}-{round}")
        await api.call(
            "CreateAssistant", owner_id=owner, assistant_id=assistant, graph_id="g", if_exists="IF_EXISTS_DO_NOTHING"
        )
        await api.call("CreateThread", owner_id=owner, thread_id=thread.id, metadata=metadata)
        await thread.put("0", channels=[value("a", "0", b"x")])
        deletions: dict[str, dict[str, Any]] = {
            "DeleteThread": {"thread_id": thread.id, "allow_missing": True},
            "EraseOwner": {},
            "PruneThreads": {"thread_ids": [thread.id], "strategy": "PRUNE_STRATEGY_DELETE"},
            "DeleteAssistant": {"assistant_id": assistant, "delete_threads": True, "allow_missing": True},
        }
        calls = []
        for place in range(1, 9):
            calls.append(thread.put(str(place), channels=[value("a", str(place), b"x")]))
            calls.append(thread.put_writes(str(place), write("t", 0)))
            if place == 4:
                calls.append(api.call(way, owner_id=owner, **deletions[way]))
        _, failures = await outcomes(calls)
        assert reasons(failures) <= {"CONFLICT"}
        assert await left_behind(server, thread.id) == 0
        # Whatever came last, the thread is there with what is in it, or nothing is.
        await api.call("DeleteThread", owner_id=owner, **deletions["DeleteThread"])
        assert await left_behind(server, owner) == 0
        other = Thread(api, f"other-{uuid.uuid4().hex}", thread.id)
        await other.put("1")
        assert len(await other.listed()) == 1
        await api.call("EraseOwner", owner_id=other.owner)


@pytest.mark.parametrize("server", ["postgres", "unprepared"], indirect=True)
@pytest.mark.parametrize("way", ["DeleteThread", "EraseOwner", "PruneThreads", "DeleteAssistant"])
async def test_a_deletion_that_waits_for_a_write_takes_it_with_it(
    server: ServerProcess, api: Api, owner: str, way: str
) -> None:
    thread, assistant = Thread(api, owner, f"{owner}-t"), f"{owner}-a"
    await api.call("CreateAssistant", owner_id=owner, assistant_id=assistant, graph_id="g")
    await api.call("CreateThread", owner_id=owner, thread_id=thread.id, metadata=f'{{"assistant_id": "{assistant}"}}')
    deletions: dict[str, dict[str, Any]] = {
        "DeleteThread": {"thread_id": thread.id},
        "EraseOwner": {},
        "PruneThreads": {"thread_ids": [thread.id], "strategy": "PRUNE_STRATEGY_DELETE"},
        "DeleteAssistant": {"assistant_id": assistant, "delete_threads": True},
    }
    async with (
        await psycopg.AsyncConnection.connect(server.database_url) as writer,
        await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as watcher,
    ):
        # As the service writes, but slowly.
        await writer.execute("SELECT FROM langgraph_server.threads WHERE id = %s FOR KEY SHARE", [thread.id])
        await writer.execute(
            "INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint) VALUES (%s, '1', '{}')", [thread.id]
        )
        deleting = asyncio.create_task(api.call(way, owner_id=owner, **deletions[way]))
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not (await watcher.execute(waiting)).rowcount:
            assert not deleting.done()
            await asyncio.sleep(0.01)
        await writer.commit()
        await deleting
    assert await left_behind(server, owner) == 0


async def test_pruning_and_writing_at_once_leave_whole_checkpoints(thread: Thread) -> None:
    async def run() -> None:
        parent = ""
        for step in range(40):
            id = f"{step:03}"
            versions = {"a": id, "b": f"{step // 10 * 10:03}"}
            channels = [value("a", id, id.encode())]
            if step % 10 == 0:
                channels.append(value("b", id, b"b" + id.encode()))
            await thread.put(id, parent, checkpoint=document(versions), channels=channels)
            await thread.put_writes(id, write("t", 0))
            parent = id

    async def prune() -> None:
        while not running.done():
            await thread.api.call(
                "PruneCheckpoints", owner_id=thread.owner, thread_ids=[thread.id], strategy="PRUNE_STRATEGY_KEEP_LATEST"
            )
            for item in await thread.listed():
                assert channels_of(item).keys() == {"a", "b"}, item.checkpoint_id

    running = asyncio.create_task(run())
    await asyncio.gather(running, prune())
    newest = await thread.get()
    assert (newest.checkpoint_id, channels_of(newest)) == ("039", {"a": b"039", "b": b"b030"})
    assert len(newest.writes) == 1


async def test_a_run_that_is_admitted_keeps_its_thread_busy(api: Api, owner: str) -> None:
    assistant = (await api.call("CreateAssistant", owner_id=owner, graph_id="g")).assistant.assistant_id
    for round in range(10):
        thread = Thread(api, owner, f"{owner}-{round}")
        await thread.put("0")
        commits = [
            thread.call("CommitSuperstep", checkpoint_id=str(place), checkpoint="{}", status="THREAD_STATUS_IDLE")
            for place in range(1, 6)
        ]
        admitted = thread.call("CreateRun", assistant_id=assistant)
        _, failures = await outcomes([*commits[:2], admitted, *commits[2:]])
        assert not failures
        assert (await thread.call("GetThread")).thread.status == 2
        assert len(await thread.ids()) == 6
