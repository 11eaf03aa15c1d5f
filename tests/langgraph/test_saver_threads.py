"""Callers that wait: in threads, several at once, beside event loops, and when the process ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentstorage import Connection
from agentstorage.langgraph import AsyncGrpcSaver, GrpcSaver
from tests.langgraph.checkpoints import checkpoint, config, metadata
from tests.service import ServerProcess


def live(saver: Any, thread: str) -> None:
    """Every call of a saver for those who wait."""
    first = checkpoint({"a": 1, "l": [1]})
    where = saver.put(config(thread), first, metadata(run_id=f"r-{thread}"), first["channel_versions"])
    saver.put_writes(where, [("w", [1])], "t1", "path")
    found = saver.get_tuple(config(thread))
    assert found.checkpoint == first
    assert found.pending_writes == [("t1", "w", [1])]
    assert saver.get(config(thread)) == first
    second = checkpoint({"a": 2})
    saver.put(where, second, metadata(1), second["channel_versions"])
    assert [item.checkpoint["id"] for item in saver.list(config(thread))] == [second["id"], first["id"]]
    history = saver.get_delta_channel_history(config=config(thread), channels=["w", "l"])
    assert history == {"w": {"writes": [("t1", "w", [1])]}, "l": {"writes": [], "seed": [1]}}
    saver.copy_thread(thread, f"{thread}-copy")
    assert [item.checkpoint["id"] for item in saver.list(config(f"{thread}-copy"))] == [second["id"], first["id"]]
    saver.delete_for_runs([f"r-{thread}"])
    assert [item.checkpoint["id"] for item in saver.list(config(thread))] == [second["id"]]
    saver.prune([f"{thread}-copy"], strategy="delete")
    assert saver.get_tuple(config(f"{thread}-copy")) is None
    saver.delete_thread(thread)
    assert saver.get_tuple(config(thread)) is None


async def in_thread(call: Any, *args: Any) -> Any:
    return await asyncio.to_thread(call, *args)


async def test_every_call_from_threads(waiting_saver: GrpcSaver, thread: str) -> None:
    await asyncio.gather(*(in_thread(live, waiting_saver, f"{thread}-{number}") for number in range(12)))


async def test_every_call_of_the_async_saver_from_threads(saver: AsyncGrpcSaver, thread: str) -> None:
    await asyncio.gather(*(in_thread(live, saver, f"{thread}-{number}") for number in range(4)))


async def test_the_async_saver_refuses_to_block_its_loop(saver: AsyncGrpcSaver, thread: str) -> None:
    made = checkpoint({})
    calls: list[Any] = [
        lambda: saver.get_tuple(config(thread)),
        lambda: saver.put(config(thread), made, metadata(), {}),
        lambda: saver.put_writes(config(thread, "c"), [("a", 1)], "t"),
        lambda: next(saver.list(config(thread))),
        lambda: saver.delete_thread(thread),
        lambda: saver.delete_for_runs(["r"]),
        lambda: saver.copy_thread(thread, "other"),
        lambda: saver.prune([thread]),
        lambda: saver.get_delta_channel_history(config=config(thread), channels=["a"]),
    ]
    for call in calls:
        with pytest.raises(asyncio.InvalidStateError, match="would block the event loop"):
            call()
    assert await saver.aget_tuple(config(thread)) is None


async def test_the_waiting_saver_blocks_a_loop_but_works(waiting_saver: GrpcSaver, thread: str) -> None:
    live(waiting_saver, thread)
    # And the other way round.
    made = checkpoint({"a": [1]})
    where = await waiting_saver.aput(config(thread), made, metadata(), made["channel_versions"])
    assert waiting_saver.get(where) == await waiting_saver.aget(where) == made


async def test_a_saver_made_without_a_loop(server: ServerProcess, owner: str, thread: str) -> None:
    saver = await in_thread(lambda: AsyncGrpcSaver(server.target, owner_id=owner))
    await in_thread(live, saver, thread)
    with pytest.raises(asyncio.InvalidStateError):
        saver.get_tuple(config(thread))
    assert await saver.aget_tuple(config(thread)) is None
    await saver.close()


def test_one_saver_in_several_loops(server: ServerProcess, owner: str, thread: str) -> None:
    saver = AsyncGrpcSaver(server.target, owner_id=owner)

    async def one(number: int) -> None:
        made = checkpoint({"n": [number]})
        where = await saver.aput(config(f"{thread}-{number}"), made, metadata(), made["channel_versions"])
        found = await saver.aget_tuple(where)
        assert found
        assert found.checkpoint == made

    with ThreadPoolExecutor() as pool:
        assert [*pool.map(lambda number: asyncio.run(one(number)), range(6))]
    asyncio.run(saver.close())


async def test_all_wait_for_one_thread(server: ServerProcess, owner: str, thread: str) -> None:
    def use() -> None:
        with GrpcSaver(server.target, owner_id=owner) as saver:
            assert saver.get_tuple(config(thread)) is None

    await asyncio.gather(*(in_thread(use) for _ in range(8)))
    (found,) = [item for item in threading.enumerate() if item.name == "agentstorage"]
    assert found.daemon


async def test_a_given_connection_stays_open(server: ServerProcess, owner: str, thread: str) -> None:
    async with Connection(server.target) as connection:
        async with AsyncGrpcSaver(connection, owner_id=owner) as saver:
            assert saver.connection is connection
            await saver.aget_tuple(config(thread))

        def use() -> None:
            with GrpcSaver(connection, owner_id=owner) as waiting:
                waiting.get_tuple(config(thread))

        await in_thread(use)
        await in_thread(use)
        assert await AsyncGrpcSaver(connection, owner_id=owner).aget_tuple(config(thread)) is None
    with pytest.raises(TypeError, match="token belong"):
        AsyncGrpcSaver(connection, owner_id=owner, token="secret")


async def test_a_closed_saver_is_closed(server: ServerProcess, owner: str, thread: str) -> None:
    async with AsyncGrpcSaver(server.target, owner_id=owner) as saver:
        await saver.aget_tuple(config(thread))
    with pytest.raises(RuntimeError, match="closed"):
        await saver.aget_tuple(config(thread))


_WAITING = """
import sys, threading
from agentstorage.langgraph import GrpcSaver
saver = GrpcSaver(sys.argv[1], owner_id=sys.argv[2])
where = {"configurable": {"thread_id": sys.argv[3], "checkpoint_ns": ""}}
assert saver.get_tuple(where) is None
listed = saver.list(where)
next(listed, None)
"""
_ASYNC = """
import asyncio, sys
from agentstorage.langgraph import AsyncGrpcSaver

async def main():
    saver = AsyncGrpcSaver(sys.argv[1], owner_id=sys.argv[2])
    where = {"configurable": {"thread_id": sys.argv[3], "checkpoint_ns": ""}}
    assert await saver.aget_tuple(where) is None
    await asyncio.to_thread(saver.get_tuple, where)

asyncio.run(main())
"""
_ENDS = {
    "left open": _WAITING,
    "closed": f"{_WAITING}saver.close()\n",
    "in a call": f"{_WAITING}threading.Thread(target=saver.get_tuple, args=(where,), daemon=True).start()\n",
    "async and left open": _ASYNC,
}


@pytest.mark.parametrize("way", _ENDS)
async def test_no_process_is_kept_alive(server: ServerProcess, owner: str, thread: str, way: str) -> None:
    code = f"{_ENDS[way]}print('end')"
    arguments = [sys.executable, "-W", "error", "-c", code, server.target, owner, thread]
    done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_an_interrupted_caller_ends_its_call(waiting_saver: GrpcSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def forever(_: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupt(self: Any, timeout: Any = None) -> Any:
        assert begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting_saver, "aget_tuple", forever)
    monkeypatch.setattr("concurrent.futures.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        waiting_saver.get_tuple(config("t"))
    assert cancelled.wait(10)
