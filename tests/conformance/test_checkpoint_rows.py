"""LangGraph's own rows on Postgres: its saver reads what the service writes, and the service what the saver and older ones wrote."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg.types.json import Jsonb

from tests.conformance.checkpoints import Thread, channels_of, document, value, write, writes_of
from tests.conformance.expect import not_found
from tests.conformance.rows import THREADS
from tests.service import Api

pytestmark = pytest.mark.parametrize("api", ["postgres-direct", "postgres-grpc", "unprepared-grpc"], indirect=True)
SERDE = JsonPlusSerializer()


@pytest.fixture
def thread(api: Api, owner: str) -> Thread:
    return Thread(api, owner, f"{owner}-t")


@pytest.fixture
async def saver(database_url: str) -> AsyncIterator[AsyncPostgresSaver]:
    async with AsyncPostgresSaver.from_conn_string(database_url) as saver:
        yield saver


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


def config(thread: Thread, id: str | None = None, ns: str = "") -> RunnableConfig:
    configurable = {"thread_id": thread.id, "checkpoint_ns": ns}
    return {"configurable": configurable | ({"checkpoint_id": id} if id else {})}


def dumped(content: Any) -> dict[str, str]:
    """A value as LangGraph's serializer makes it."""
    kind, data = SERDE.dumps_typed(content)
    return {"type": kind, "value": base64.b64encode(data).decode()}


def loaded(item: Any) -> Any:
    return SERDE.loads_typed((item.type, item.value))


def checkpoint(id: str, values: dict[str, Any], versions: dict[str, Any], form: int = 4) -> Checkpoint:
    return Checkpoint(
        v=form,
        id=id,
        ts="2026-01-01T00:00:00+00:00",
        channel_values=values,
        channel_versions=versions,
        versions_seen={"node": {"messages": "1"}},
        updated_channels=None,
    )


async def test_the_saver_reads_what_the_service_writes(thread: Thread, saver: AsyncPostgresSaver) -> None:
    messages = ["hello", {"a": [1, 2]}, b"\x00\xff"]
    put = checkpoint("2", {"n": 1.5, "none": None}, {"messages": "1", "n": "1", "gone": "3"})
    await thread.put(
        "2",
        "1",
        checkpoint=json.dumps(put),
        metadata='{"source": "loop", "step": 3, "parents": {"": "1"}}',
        channels=[value("messages", "1") | dumped(messages), value("gone", "3", type_="empty")],
    )
    await thread.put_writes("2", write("b", 1, "messages") | dumped("second"), write("b", 0, "x") | dumped(None))
    await thread.put_writes("2", write("a", -1, "__error__", task_path="~z") | dumped("failed"))
    found = await saver.aget_tuple(config(thread))
    assert found is not None
    assert found.config == config(thread, "2")
    assert found.parent_config == config(thread, "1")
    assert found.checkpoint == put | {"channel_values": {"n": 1.5, "none": None, "messages": messages}}
    assert found.metadata == {"source": "loop", "step": 3, "parents": {"": "1"}}
    assert found.pending_writes == [("b", "x", None), ("b", "messages", "second"), ("a", "__error__", "failed")]


async def test_the_service_reads_what_the_saver_writes(thread: Thread, saver: AsyncPostgresSaver) -> None:
    await THREADS.create(thread.api, thread.owner, thread.id)
    put = checkpoint("2", {"messages": ["hi"], "n": 1, "flag": True}, {"messages": "7.5", "n": 1, "flag": "1"})
    await saver.aput(config(thread, "1", "sub|x"), put, {"step": 1, "x": "a\0b"}, put["channel_versions"])  # type: ignore[typeddict-unknown-key]
    await saver.aput_writes(config(thread, "2", "sub|x"), [("a", 1), ("__interrupt__", 2)], "task", "~p")
    await saver.aput_writes(config(thread, "2", "sub|x"), [("__resume__", 3)], "task")
    found = await thread.get(ns="sub|x")
    assert (found.checkpoint_id, found.parent_checkpoint_id) == ("2", "1")
    assert json.loads(found.checkpoint) == put | {"channel_values": {"n": 1, "flag": True}}
    assert json.loads(found.metadata)["step"] == 1
    (channel,) = found.channels
    assert (channel.channel, channel.version, loaded(channel)) == ("messages", "7.5", ["hi"])
    assert [(item.task_path, item.index, item.channel, loaded(item)) for item in found.writes] == [
        ("", -4, "__resume__", 3),
        ("~p", -3, "__interrupt__", 2),
        ("~p", 0, "a", 1),
    ]
    assert await thread.listed() == [found]


async def test_both_write_the_same_rows(
    api: Api, owner: str, saver: AsyncPostgresSaver, connection: psycopg.AsyncConnection[Any]
) -> None:
    by_service, by_saver = Thread(api, owner, f"{owner}-1"), Thread(api, owner, f"{owner}-2")
    put = checkpoint("2", {"m": [1], "n": None}, {"m": "1", "n": "1"})
    kept = put | {"channel_values": {"n": None}}
    await by_service.put(
        "2", checkpoint=json.dumps(kept), metadata='{"step": 1}', channels=[value("m", "1") | dumped([1])]
    )
    await by_service.put_writes(
        "2", write("t", 0, "m", task_path="~p") | dumped(1), write("t", -1, "__error__") | dumped(2)
    )
    await saver.aput(config(by_saver), put, {"step": 1}, put["channel_versions"])
    await saver.aput_writes(config(by_saver, "2"), [("m", 1)], "t", "~p")
    await saver.aput_writes(config(by_saver, "2"), [("__error__", 2)], "t")
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        rows = []
        for thread in (by_service, by_saver):
            cursor = await connection.execute(
                f"SELECT to_jsonb(x) - 'thread_id' FROM public.{table} x WHERE thread_id = %s ORDER BY 1", [thread.id]
            )
            rows.append(await cursor.fetchall())
        assert rows[0] == rows[1] != []


async def test_rows_of_older_savers_are_read(thread: Thread, connection: psycopg.AsyncConnection[Any]) -> None:
    """Without channel_values or task paths, with channels without a value, a type that nobody noted, and sends kept with the parent."""
    await THREADS.create(thread.api, thread.owner, thread.id)
    versions = {"a": "1", "b": "2", "none": None}
    for id, parent in (("1", None), ("2", "1")):
        text = {"v": 1, "id": id, "channel_versions": versions}
        await connection.execute(
            "INSERT INTO public.checkpoints (thread_id, checkpoint_id, parent_checkpoint_id, checkpoint) VALUES (%s, %s, %s, %s)",
            [thread.id, id, parent, Jsonb(text)],
        )
    for channel, version, kind, blob in (("a", "1", "empty", None), ("b", "2", "json", b"7"), ("b", "1", "json", b"6")):
        await connection.execute(
            "INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type, blob) VALUES (%s, %s, %s, %s, %s)",
            [thread.id, channel, version, kind, blob],
        )
    for id, task, index, channel in (
        ("1", "t", 1, "__pregel_tasks"),
        ("1", "t", 0, "__pregel_tasks"),
        ("2", "t", 0, "c"),
    ):
        await connection.execute(
            "INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [thread.id, id, task, index, channel, str(index).encode()],
        )
    found = await thread.get()
    assert [(item.channel, item.type, item.value) for item in found.channels] == [
        ("a", "empty", b""),
        ("b", "json", b"7"),
    ]
    assert writes_of(found.writes) == [("", "t", 0, "c", b"0")]
    assert [item.value for item in found.parent_sends] == [b"0", b"1"]
    assert {item.type for item in (*found.writes, *found.parent_sends)} == {""}
    assert (await thread.listed())[0] == found
    (history,) = await thread.history("b")
    assert history.value.value == b"7"
    deleted = await thread.api.call(
        "PruneCheckpoints", owner_id=thread.owner, thread_ids=[thread.id], strategy="PRUNE_STRATEGY_KEEP_LATEST"
    )
    assert deleted.deleted == 0, "the parent has what the newest needs"
    assert (await thread.call("DeleteThreadCheckpoints")).deleted == 2


async def test_delta_histories_are_those_of_the_saver(thread: Thread, saver: AsyncPostgresSaver) -> None:
    await THREADS.create(thread.api, thread.owner, thread.id)
    kept: dict[str, dict[str, Any]] = {
        "2": {"m": _DeltaSnapshot(["s2"]), "inline": "text", "f": _DeltaSnapshot(["f2"])},
        "4": {"m": _DeltaSnapshot(["s4"]), "blob": {"plain": 1}},
    }
    parent = None
    for id in "123456":
        versions: ChannelVersions = {channel: id for channel in ("m", "f", "inline", "blob", "never")}
        put = checkpoint(id, kept.get(id, {}), versions)
        await saver.aput(config(thread, parent), put, {}, versions)
        for task, path in (("b", "~1"), ("a", "~2")):
            await saver.aput_writes(config(thread, id), [("m", f"{id}{task}"), ("f", id), ("other", 1)], task, path)
        parent = id
    await saver.aput(config(thread, "3"), checkpoint("7", {}, {"m": "7"}), {}, {"m": "7"})
    channels = ("m", "f", "inline", "blob", "never")
    for id in ("7", "6", "5", "3", "1"):
        theirs = await saver.aget_delta_channel_history(config=config(thread, id), channels=channels)
        for history in await thread.history(*channels, id=id):
            ours: dict[str, Any] = {"writes": [(item.task_id, item.channel, loaded(item)) for item in history.writes]}
            if history.WhichOneof("seed") == "value":
                ours["seed"] = loaded(history.value)
            elif history.WhichOneof("seed") == "json":
                ours["seed"] = json.loads(history.json)
            assert ours == theirs[history.channel], (id, history.channel)


async def test_an_owner_does_not_get_the_checkpoints_of_a_thread_without_a_row(
    thread: Thread, saver: AsyncPostgresSaver
) -> None:
    put = checkpoint("1", {"m": ["secret"]}, {"m": "1"})
    await saver.aput(config(thread), put, {}, {"m": "1"})
    # Written through the service they would be the owner's.
    for refused in (
        thread.put("2"),
        thread.put("2", expected_parent_id="1"),
        thread.put_writes("1", write("t", 0)),
        Thread(thread.api, thread.owner, "nothing").call("CopyThreadCheckpoints", new_thread_id=thread.id),
    ):
        with not_found("thread", thread.id):
            await refused
    with not_found("checkpoint", thread.id):
        await thread.get()
    assert await thread.listed() == []
    with not_found("thread", thread.id):
        await THREADS.get(thread.api, thread.owner, thread.id)
    # Who acts for all may, and makes a thread without an owner.
    anybody = thread.of(None)
    await anybody.put("2", "1")
    assert loaded((await anybody.get("1")).channels[0]) == ["secret"]
    with not_found("thread", thread.id):
        await thread.put("3")


async def test_a_saver_and_the_service_go_on_with_each_others_chain(thread: Thread, saver: AsyncPostgresSaver) -> None:
    await thread.put(
        "1", checkpoint=document({"m": "1", "n": "1"}), channels=[value("m", "1", b"one"), value("n", "1", b"n")]
    )
    put = checkpoint("2", {}, {"m": "1", "n": "2"})
    await saver.aput(config(thread, "1"), put, {}, {})
    await thread.put("3", "2", checkpoint=document({"m": "1", "n": "3"}), channels=[value("n", "3", b"three")])
    assert channels_of(await thread.get()) == {"m": b"one", "n": b"three"}
    assert await thread.ids() == ["3", "2", "1"]
    await saver.adelete_thread(thread.id)
    assert await thread.ids() == []
    # The thread is its owner's still.
    await thread.put("4")
