"""What LangGraph's own suite leaves out: several calls at once, order, the same id twice, cancellation, long lists."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from typing import Any

import grpc
import pytest
from langgraph.checkpoint.base import ChannelVersions, get_checkpoint_id
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

from agentstorage.errors import InvalidRequest, Unreachable
from agentstorage.langgraph import AsyncGrpcSaver
from tests.langgraph.checkpoints import checkpoint, config, id_of, metadata, put
from tests.service import ServerProcess


async def test_many_puts_and_gets_at_once(saver: AsyncGrpcSaver, thread: str) -> None:
    async def life(number: int) -> None:
        own, where = f"{thread}-{number}", None
        for step in range(10):
            where = await put(saver, own, {"n": number, "l": [number, step]}, where, step=step)
            await asyncio.gather(*(saver.aput_writes(where, [("w", [number, step])], f"t{task}") for task in range(3)))
            found = await saver.aget_tuple(config(own))
            assert found
            assert found.checkpoint["channel_values"] == {"n": number, "l": [number, step]}
            assert found.pending_writes == [(f"t{task}", "w", [number, step]) for task in range(3)]
        assert len([item async for item in saver.alist(config(own))]) == 10

    await asyncio.gather(*(life(number) for number in range(40)))


async def test_many_puts_to_one_thread_at_once(saver: AsyncGrpcSaver, thread: str) -> None:
    made = await asyncio.gather(*(put(saver, thread, {"l": [number]}, step=number) for number in range(100)))
    listed = [item.checkpoint["id"] async for item in saver.alist(config(thread))]
    assert listed == sorted(map(id_of, made), reverse=True)
    newest = await saver.aget_tuple(config(thread))
    assert newest
    assert newest.checkpoint["id"] == listed[0]


async def test_calls_do_not_wait_for_one_another(saver: AsyncGrpcSaver, thread: str) -> None:
    where = await put(saver, thread, {"a": 1})
    async for item in saver.alist(config(thread)):
        # Inside of a list that is not over.
        await put(saver, thread, {"a": 2}, where)
        assert item.checkpoint["channel_values"] == {"a": 1}
    assert len([item async for item in saver.alist(config(thread))]) == 2


async def test_pending_writes_are_ordered_by_path_task_and_index(saver: AsyncGrpcSaver, thread: str) -> None:
    where = await put(saver, thread, {})
    tasks = [
        (path, task) for path in ("", "~__pregel_pull, a", "~__pregel_pull, b", "é") for task in ("1", "2", "Z", "a")
    ]
    expected = [(path, task, index) for path, task in sorted(tasks) for index in range(12)]
    random.Random(4).shuffle(tasks)
    await asyncio.gather(
        *(
            saver.aput_writes(where, [("c", [path, task, index]) for index in range(12)], task + path, path)
            for path, task in tasks
        )
    )
    found = await saver.aget_tuple(where)
    assert found
    assert [tuple(value) for _, _, value in found.pending_writes or ()] == expected
    (listed,) = [item async for item in saver.alist(where)]
    assert listed.pending_writes == found.pending_writes


async def test_the_same_checkpoint_twice(saver: AsyncGrpcSaver, thread: str) -> None:
    parent = await put(saver, thread, {})
    made = checkpoint({"a": [1], "b": "x"}, {"a": "1", "b": "1"})
    where = await saver.aput(parent, made, metadata(1), made["channel_versions"])
    # A repetition changes nothing, new content replaces the old one, and what a version holds stays.
    contents: list[tuple[dict[str, Any], ChannelVersions]] = [
        (made["channel_values"], {"a": "1", "b": "1"}),
        ({"a": [2], "b": "y"}, {"a": "2", "b": "2"}),
    ]
    for values, versions in contents:
        again = checkpoint(values, versions, made["id"])
        assert await saver.aput(parent, again, metadata(2), versions) == where
        found = await saver.aget_tuple(where)
        assert found
        assert found.checkpoint == again
        assert found.metadata["step"] == 2
        assert found.parent_config == parent
    await saver.aput(parent, checkpoint({"a": [3]}, {"a": "2"}, made["id"]), metadata(), {"a": "2"})
    found = await saver.aget_tuple(where)
    assert found
    assert found.checkpoint["channel_values"] == {"a": [2]}


async def test_the_same_write_twice(saver: AsyncGrpcSaver, thread: str) -> None:
    where = await put(saver, thread, {})
    for value in ("first", "second"):
        await saver.aput_writes(where, [("a", value), (ERROR, value), ("b", value)], "t")
        await saver.aput_writes(where, [(RESUME, [value])], "t")
    await saver.aput_writes(where, [(INTERRUPT, "i")], "t")
    found = await saver.aget_tuple(where)
    assert found
    assert found.pending_writes == [
        ("t", RESUME, ["second"]),
        ("t", INTERRUPT, "i"),
        ("t", ERROR, "second"),
        ("t", "a", "first"),
        ("t", "b", "first"),
    ]


async def test_writes_may_come_before_their_checkpoint(saver: AsyncGrpcSaver, thread: str) -> None:
    made = checkpoint({})
    await saver.aput_writes(config(thread, made["id"]), [("a", 1)], "t")
    assert await saver.aget_tuple(config(thread)) is None
    where = await saver.aput(config(thread), made, metadata(), {})
    found = await saver.aget_tuple(where)
    assert found
    assert found.pending_writes == [("t", "a", 1)]


async def test_no_writes_are_no_call(thread: str) -> None:
    async with AsyncGrpcSaver("127.0.0.1:9", owner_id="alice") as saver:
        await saver.aput_writes(config(thread, "c"), [], "t")
        await saver.adelete_for_runs([])
        await saver.aprune([])
        assert await saver.aget_delta_channel_history(config=config(thread), channels=[]) == {}
        assert [item async for item in saver.alist(config(thread), limit=0)] == []
        assert [item async for item in saver.alist(config(""))] == []
        with pytest.raises(TypeError, match="run_ids"):
            await saver.adelete_for_runs("r1")
        with pytest.raises(TypeError, match="thread_ids"):
            await saver.aprune("t1")
        with pytest.raises(ValueError, match="keep_latest"):
            await saver.aprune([thread], strategy="all")


async def test_a_cancelled_put_is_whole_or_nothing(saver: AsyncGrpcSaver, thread: str) -> None:
    values = {"a": 1, "l": ["x" * 1000] * 100, "d": bytes(200_000)}
    tasks = [asyncio.create_task(put(saver, thread, values, step=step)) for step in range(60)]
    for number, task in enumerate(tasks):
        if number % 2:
            asyncio.get_running_loop().call_later(number / 2000, task.cancel)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [item for item in ended if isinstance(item, Exception)]
    kept = [item async for item in saver.alist(config(thread))]
    assert {id_of(where) for where in ended if not isinstance(where, BaseException)} <= {
        item.checkpoint["id"] for item in kept
    }
    assert all(item.checkpoint["channel_values"] == values for item in kept)


async def test_a_list_that_is_left_ends_its_call(saver: AsyncGrpcSaver, thread: str, monkeypatch: Any) -> None:
    values = {"d": bytes(1_000_000)}
    for _ in range(20):
        await put(saver, thread, values)
    calls: list[Any] = []
    start = saver._listed

    def started(request: Any) -> Any:
        calls.append(start(request))
        return calls[-1]

    monkeypatch.setattr(saver, "_listed", started)
    # By its user,
    found: Any = saver.alist(config(thread))
    async for item in found:
        assert item.checkpoint["channel_values"] == values
        break
    await found.aclose()
    assert calls[0].cancelled()
    # by cancellation,
    waiting = asyncio.ensure_future(anext(saver.alist(config(thread))))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    # and by a user that waits, in whose loop the call is.
    ended = threading.Event()

    def leave() -> Any:
        for item in saver.list(config(thread)):
            calls[-1].add_done_callback(lambda _: ended.set())
            return item.checkpoint["channel_values"]

    assert await asyncio.to_thread(leave) == values
    assert await asyncio.to_thread(ended.wait, 10)
    assert len(calls) == 3
    for call in calls[:2]:
        assert await call.code() is grpc.StatusCode.CANCELLED


async def test_filters_of_a_list(saver: AsyncGrpcSaver, thread: str) -> None:
    made = [await put(saver, thread, {"n": [step]}, step=step, even=not step % 2) for step in range(6)]
    await put(saver, thread, {}, ns="child:1", step=0)

    async def steps(where: Any, **options: Any) -> list[int]:
        return [item.metadata["step"] async for item in saver.alist(where, **options)]

    assert await steps(config(thread)) == [5, 4, 3, 2, 1, 0]
    assert sorted(await steps({"configurable": {"thread_id": thread}})) == [0, 0, 1, 2, 3, 4, 5]
    assert sorted(await steps(None)) == [0, 0, 1, 2, 3, 4, 5]
    assert await steps(config(thread), filter={"even": True}) == [4, 2, 0]
    assert await steps(config(thread), filter={"even": True}, limit=1, before=made[4]) == [2]
    assert await steps(made[3]) == [3]
    assert await steps(config(thread), before=config(thread)) == [5, 4, 3, 2, 1, 0]
    assert await steps(config(thread, ns="none")) == []
    with pytest.raises(InvalidRequest):
        await steps(config(thread), limit=-1)


_BOUNDED = """
import asyncio, resource, sys
from agentstorage.langgraph import AsyncGrpcSaver

async def main():
    target, owner, thread = sys.argv[1:]
    async with AsyncGrpcSaver(target, owner_id=owner) as saver:
        before, count, last = 0, 0, "~"
        async for item in saver.alist({"configurable": {"thread_id": thread, "checkpoint_ns": ""}}):
            assert item.checkpoint["id"] < last
            last = item.checkpoint["id"]
            assert len(item.checkpoint["channel_values"]["d"]) == 20_000
            count += 1
            if count == 500:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)

asyncio.run(main())
"""


async def test_ten_thousand_checkpoints_are_listed_in_bounded_memory(
    server: ServerProcess, saver: AsyncGrpcSaver, thread: str
) -> None:
    value = os.urandom(20_000)

    async def fill(part: int) -> None:
        for step in range(part, 10_000, 20):
            await put(saver, thread, {"d": value}, step=step)

    await asyncio.gather(*(fill(part) for part in range(20)))
    arguments = [sys.executable, "-c", _BOUNDED, server.target, saver._owner(), thread]
    done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    count, megabytes = map(int, done.stdout.split())
    assert count == 10_000
    # All of them are 200 MB.
    assert megabytes < 40


async def test_nobody_there(thread: str) -> None:
    async with AsyncGrpcSaver("127.0.0.1:9", owner_id="alice") as saver:
        with pytest.raises(Unreachable):
            await saver.aget_tuple(config(thread))
        with pytest.raises(Unreachable):
            await put(saver, thread, {})
        with pytest.raises(Unreachable):
            await anext(saver.alist(config(thread)))


async def test_ids_need_not_be_text(saver: AsyncGrpcSaver) -> None:
    import uuid

    number = uuid.uuid4()
    where = await put(saver, number, {})  # type: ignore[arg-type]  # some hand on a UUID
    assert where["configurable"]["thread_id"] == str(number)
    assert get_checkpoint_id(where)
    await saver.adelete_thread(number)  # type: ignore[arg-type]  # some hand on a UUID
    assert await saver.aget_tuple(where) is None
