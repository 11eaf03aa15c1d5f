"""One database, some runtimes on the service and some on AsyncPostgresSaver: each reads what the other wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

from agentstorage import GrpcStorage
from agentstorage.langgraph import AsyncGrpcSaver
from tests.langgraph.checkpoints import checkpoint, config, id_of, metadata, put
from tests.langgraph.ciphers import Mask
from tests.service import ServerProcess

VALUES: dict[str, Any] = {
    "none": None,
    "text": "é \\ \" '",
    "empty": "",
    "number": 2**80,
    "float": -0.25,
    "bool": False,
    "list": ["é", {"a": (1,)}],
    "data": b"\0\xff",
    "snapshot": _DeltaSnapshot([1]),
}


@pytest.fixture
def database(servers: dict[str, ServerProcess]) -> ServerProcess:
    """The server on Postgres."""
    return servers["postgres"]


@pytest.fixture
async def direct(database: ServerProcess) -> AsyncIterator[AsyncPostgresSaver]:
    async with AsyncPostgresSaver.from_conn_string(database.database_url) as made:
        yield made


@pytest.fixture
async def remote(database: ServerProcess, owner: str, thread: str) -> AsyncIterator[AsyncGrpcSaver]:
    """The service, with a thread of the owner: checkpoints without one are nobody's."""
    async with GrpcStorage(database.target) as storage:
        await storage.threads.create({"thread_id": thread}, owner)
        async with AsyncGrpcSaver(storage.connection, owner_id=owner) as made:
            yield made


async def fill(saver: BaseCheckpointSaver[Any], thread: str) -> None:
    """A thread with everything in it."""
    where = config(thread)
    where["metadata"] = {"user": "u"}
    first = checkpoint(VALUES)
    where = await saver.aput(where, first, metadata(run_id="r1"), first["channel_versions"])
    await saver.aput_writes(where, [("a", ["é", 1]), ("b", None)], "t2", "~b")
    await saver.aput_writes(where, [("a", Send("node", {"x": 1})), ("__interrupt__", ("why",))], "t1", "~b")
    await saver.aput_writes(where, [(TASKS, Send("node", 1))], "t3", "~a")
    second = checkpoint(
        {**VALUES, "list": ["new"]},
        {**first["channel_versions"], "list": saver.get_next_version(None, None), "gone": "3"},
    )
    where = await saver.aput(
        where, second, metadata(1, run_id="r1"), {"list": second["channel_versions"]["list"], "gone": "3"}
    )
    await put(saver, thread, {"n": [1]}, ns="child:1")


async def everything(saver: BaseCheckpointSaver[Any], thread: str) -> list[CheckpointTuple]:
    listed = [item async for item in saver.alist({"configurable": {"thread_id": thread}})]
    for item in listed:
        assert await saver.aget_tuple(item.config) == item
    newest = await saver.aget_tuple(config(thread))
    assert newest in listed
    return listed


@pytest.mark.parametrize("way", ["service first", "direct first"])
async def test_each_reads_what_the_other_wrote(
    way: str, direct: AsyncPostgresSaver, remote: AsyncGrpcSaver, thread: str
) -> None:
    await fill(direct if way == "direct first" else remote, thread)
    found = await everything(remote, thread)
    assert found == await everything(direct, thread)
    assert len(found) == 3
    channels = ["a", "list", "snapshot", "float", "missing"]
    assert dict(await remote.aget_delta_channel_history(config=config(thread), channels=channels)) == dict(
        await direct.aget_delta_channel_history(config=config(thread), channels=channels)
    )


@pytest.mark.parametrize("way", ["service first", "direct first"])
async def test_each_goes_on_where_the_other_stopped(
    way: str, direct: AsyncPostgresSaver, remote: AsyncGrpcSaver, thread: str
) -> None:
    savers: list[BaseCheckpointSaver[Any]] = [direct, remote] if way == "direct first" else [remote, direct]
    where = config(thread)
    for step in range(6):
        saver = savers[step % 2]
        found = await saver.aget_tuple(where)
        values = {**(found.checkpoint["channel_values"] if found else VALUES), "list": [step], "text": f"t{step}"}
        versions = {**(found.checkpoint["channel_versions"] if found else checkpoint(VALUES)["channel_versions"])}
        changed = ["list", "text"] if found else [*values]
        new: ChannelVersions = {name: saver.get_next_version(versions.get(name), None) for name in changed}
        where = await saver.aput(where, checkpoint(values, {**versions, **new}), metadata(step), new)
        await saver.aput_writes(where, [("w", step)], "t")
    found = await remote.aget_tuple(where)
    assert found
    assert found.checkpoint["channel_values"] == {**VALUES, "list": [5], "text": "t5"}
    assert await everything(remote, thread) == await everything(direct, thread)


async def test_the_rows_are_those_that_the_other_writes(
    database: ServerProcess, direct: AsyncPostgresSaver, remote: AsyncGrpcSaver, thread: str
) -> None:
    made = checkpoint(VALUES, {**dict.fromkeys(VALUES, "1"), "gone": "1"})
    told = metadata(note="x\0y", deep={"k": [1, None]})
    found = []
    for saver in (remote, direct):
        where = await saver.aput(config(thread), made, told, made["channel_versions"])
        await saver.aput_writes(where, [("a", 1), ("__error__", "e")], "t1", "~a")
        await saver.aput_writes(where, [("__resume__", "r")], "t1", "~a")
        async with await psycopg.AsyncConnection.connect(database.database_url) as conn:
            rows = []
            for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
                cursor = await conn.execute(
                    f"SELECT * FROM public.{table} WHERE thread_id = %s ORDER BY 1, 2, 3, 4, 5", [thread]
                )
                rows.append(await cursor.fetchall())
        found.append(rows)
        await saver.adelete_thread(thread)
    assert found[0] == found[1]
    assert [len(rows) for rows in found[0]] == [1, 3, 3]


async def test_rows_of_old_formats(
    database: ServerProcess, direct: AsyncPostgresSaver, remote: AsyncGrpcSaver, thread: str
) -> None:
    """Up to format 3, what a step sent was kept with the writes of the checkpoint before."""
    where = config(thread)
    for step in range(3):
        made = checkpoint({"a": [step]}, {"a": f"{step + 1:032}.1", "b": f"{step:032}.5"} if step else {})
        made["v"] = step + 1
        where = await direct.aput(where, made, metadata(step), made["channel_versions"])
        for task in ("t2", "t1"):
            await direct.aput_writes(
                where, [("x", 0), (TASKS, Send("node", [step, task])), (TASKS, 2)], task, f"~{task}"
            )
    current = checkpoint({"a": [9]})
    await direct.aput(where, current, metadata(3), current["channel_versions"])
    found = await everything(remote, thread)
    assert found == await everything(direct, thread)
    assert [item.checkpoint["channel_values"].get(TASKS) for item in found] == [
        None,
        [Send("node", [1, "t1"]), 2, Send("node", [1, "t2"]), 2],
        [Send("node", [0, "t1"]), 2, Send("node", [0, "t2"]), 2],
        None,
    ]
    assert found[1].checkpoint["channel_versions"][TASKS] == f"{3:032}.1"


async def test_rows_of_channels_without_a_value(
    database: ServerProcess, direct: AsyncPostgresSaver, remote: AsyncGrpcSaver, thread: str
) -> None:
    """Earlier savers kept a row for a channel that had lost its value."""
    where = await put(remote, thread, {"gone": [1]})
    await remote.aput_writes(where, [("gone", 2)], "t")
    made = checkpoint({}, {"gone": "7"})
    where = await remote.aput(where, made, metadata(1), {"gone": "7"})
    last = await put(remote, thread, {}, where)
    async with await psycopg.AsyncConnection.connect(database.database_url, autocommit=True) as conn:
        await conn.execute(
            "INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type) VALUES (%s, 'gone', '7', 'empty')",
            [thread],
        )
    assert await everything(remote, thread) == await everything(direct, thread)
    found = await remote.aget_tuple(where)
    assert found
    assert found.checkpoint["channel_values"] == {}
    history: Any = await remote.aget_delta_channel_history(config=last, channels=["gone"])
    assert history == await direct.aget_delta_channel_history(config=last, channels=["gone"])
    assert history == {"gone": {"writes": [("t", "gone", 2)], "seed": [1]}}


async def test_rows_hold_no_plain_text(database: ServerProcess, owner: str, thread: str) -> None:
    secret = "Rumpelstilzchen"
    values = {"text": secret, "list": [secret], "number": 424242, "snapshot": _DeltaSnapshot([secret])}
    serde = EncryptedSerializer(Mask())
    async with (
        AsyncGrpcSaver(database.target, owner_id=owner, serde=serde) as saver,
        AsyncPostgresSaver.from_conn_string(database.database_url, serde=serde) as direct,
        await psycopg.AsyncConnection.connect(database.database_url) as conn,
    ):
        where = await put(saver, thread, values)
        await saver.aput_writes(where, [("a", secret), ("__error__", secret), ("__resume__", 424242)], "t1")
        for table, expected in (("checkpoints", 1), ("checkpoint_blobs", 4), ("checkpoint_writes", 3)):
            cursor = await conn.execute(f"SELECT t::text FROM public.{table} t WHERE thread_id = %s", [thread])
            rows = [row[0] for row in await cursor.fetchall()]
            assert len(rows) == expected
            for hidden in (secret, "424242", secret.encode().hex(), (424242).to_bytes(4).hex()):
                assert not [row for row in rows if hidden in row]
        found = await saver.aget_tuple(where)
        assert found
        assert found.checkpoint["channel_values"] == values
        assert found == await direct.aget_tuple(where)
        assert id_of(found.config) == id_of(where)


class _Numbered(AsyncGrpcSaver):
    """As LangGraph.js has it: its versions are numbers."""

    def get_next_version(self, current: Any, channel: None) -> Any:
        return (current or 0) + 1


async def test_a_thread_whose_versions_are_numbers_goes_on(remote: AsyncGrpcSaver, owner: str, thread: str) -> None:
    builder = StateGraph(MessagesState).add_node("agent", lambda state: {"messages": [("ai", "yes")]})
    builder.add_edge(START, "agent")
    numbered = _Numbered(remote.connection, owner_id=owner)
    for saver in (numbered, remote, numbered, remote):
        graph: Any = builder.compile(checkpointer=saver)
        state = await graph.ainvoke({"messages": [("human", "there?")]}, config(thread))
    assert [message.type for message in state["messages"]] == ["human", "ai"] * 4
