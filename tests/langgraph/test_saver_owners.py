"""Whose checkpoints a call is about: never guessed, and never another's."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple

from agentstorage import Connection
from agentstorage.errors import NotFound
from agentstorage.langgraph import AsyncGrpcSaver
from tests.langgraph.checkpoints import checkpoint, config, id_of, metadata, put
from tests.service import ServerProcess


async def everything(saver: AsyncGrpcSaver, thread: str) -> list[CheckpointTuple]:
    return [item async for item in saver.alist({"configurable": {"thread_id": thread}})]


async def test_nothing_crosses(server: ServerProcess, owner: str, other: str, thread: str) -> None:
    """A thread belongs to who wrote it first; to all others it is as absent as one that does not exist."""
    async with (
        AsyncGrpcSaver(server.target, owner_id=owner) as mine,
        AsyncGrpcSaver(server.target, owner_id=other) as theirs,
    ):
        where = await put(mine, thread, {"a": "mine", "l": ["mine"]}, run_id="r1")
        await mine.aput_writes(where, [("w", "mine")], "t1")
        await put(mine, thread, {}, where)
        before = await everything(mine, thread)
        assert len(before) == 2
        made = checkpoint({"a": "theirs"}, checkpoint_id=id_of(where))

        with pytest.raises(NotFound) as refused:
            await theirs.aput(config(thread), made, metadata(), made["channel_versions"])
        assert refused.value.__notes__ == [
            f"the thread id {thread!r} is not this owner's to write, or was deleted just now: use another thread_id"
        ]
        with pytest.raises(NotFound):
            await theirs.aput_writes(where, [("w", "theirs")], "t2")
        assert await theirs.aget_tuple(where) is None
        assert await theirs.aget_tuple(config(thread)) is None
        assert await everything(theirs, thread) == []
        assert [item async for item in theirs.alist(None)] == []
        history = await theirs.aget_delta_channel_history(config=config(thread), channels=["w", "l"])
        assert history == {"w": {"writes": []}, "l": {"writes": []}}
        await theirs.adelete_thread(thread)
        await theirs.adelete_for_runs(["r1"])
        await theirs.aprune([thread], strategy="delete")
        await theirs.aprune([thread])
        await theirs.acopy_thread(thread, f"{thread}-copy")
        assert await everything(theirs, f"{thread}-copy") == []
        await put(theirs, f"{thread}-own", {"a": "theirs"})
        with pytest.raises(NotFound):
            await theirs.acopy_thread(f"{thread}-own", thread)

        assert await everything(mine, thread) == before
        assert len([item async for item in mine.alist(None)]) == 2
        # What was never written is nobody's.
        await theirs.adelete_thread(f"{thread}-own")
        await mine.adelete_thread(thread)
        assert await everything(mine, thread) == []


async def test_the_owner_may_come_from_the_config(server: ServerProcess, owner: str, other: str, thread: str) -> None:
    async with AsyncGrpcSaver(server.target) as saver:
        where = await put(saver, thread, {"a": [1]}, config(thread, owner_id=owner))
        # What LangGraph makes of this config must find the owner again.
        assert where == config(thread, id_of(where), owner_id=owner)
        second = await put(saver, thread, {"a": [2]}, where)
        await saver.aput_writes(second, [("a", 1)], "t")
        found = await saver.aget_tuple(config(thread, owner_id=owner))
        assert found
        assert (found.config, found.parent_config) == (second, where)
        assert [item.config async for item in saver.alist(config(thread, owner_id=owner))] == [second, where]
        assert [item.config async for item in saver.alist({"configurable": {"owner_id": owner}})] == [second, where]
        assert await saver.aget_tuple(config(thread, owner_id=other)) is None
        history: Any = await saver.aget_delta_channel_history(config=second, channels=["a"])
        assert history == {"a": {"writes": [], "seed": [1]}}


async def test_no_owner_is_no_guess(server: ServerProcess, thread: str) -> None:
    async with AsyncGrpcSaver(server.target) as saver:
        calls: list[Any] = [
            saver.aget_tuple(config(thread)),
            put(saver, thread, {}),
            saver.aput_writes(config(thread, "c"), [("a", 1)], "t"),
            anext(saver.alist(config(thread))),
            anext(saver.alist(None)),
            saver.adelete_thread(thread),
            saver.adelete_for_runs(["r"]),
            saver.acopy_thread(thread, "other"),
            saver.aprune([thread]),
            saver.aget_delta_channel_history(config=config(thread), channels=["a"]),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="no owner_id"):
                await call
    with pytest.raises(ValueError, match="empty"):
        AsyncGrpcSaver(server.target, owner_id="")


async def test_a_config_does_not_change_the_savers_owner(
    saver: AsyncGrpcSaver, owner: str, other: str, thread: str
) -> None:
    where = await put(saver, thread, {})
    with pytest.raises(ValueError, match="not the owner_id"):
        await saver.aget_tuple(config(thread, owner_id=other))
    found = await saver.aget_tuple(config(thread, owner_id=owner))
    assert found
    assert id_of(found.config) == id_of(where)


async def test_a_connections_owner_is_the_last_choice(
    server: ServerProcess, owner: str, other: str, thread: str
) -> None:
    async with Connection(server.target, owner_id=owner) as connection:
        saver = AsyncGrpcSaver(connection)
        where = await put(saver, thread, {})
        assert where == config(thread, id_of(where))
        assert await saver.aget_tuple(where)
        assert await saver.aget_tuple(config(thread, owner_id=other)) is None
        assert await AsyncGrpcSaver(connection, owner_id=other).aget_tuple(where) is None
