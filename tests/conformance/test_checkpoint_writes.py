"""Checkpoints, on every backend: what is written, what a second writing changes, and what is refused."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store import Store
from tests.conformance.checkpoints import Thread, channels_of, document, value, write, writes_of
from tests.conformance.expect import fails, invalid, not_found
from tests.conformance.rows import THREADS, assert_same, metadata_of
from tests.service import Api, DirectApi

DOCUMENT = document({"messages": "2.0", "n": "1"}, channel_values={"n": 1.50}, id="1")


@pytest.fixture
def thread(api: Api, owner: str) -> Thread:
    return Thread(api, owner, f"{owner}-t")


async def test_a_checkpoint_comes_back_as_it_was_put(thread: Thread) -> None:
    metadata = '{"source": "loop", "step": -1, "parents": {}, "x": 9007199254740993}'
    channels = [value("messages", "2.0", b"\x00\xff" * 50), value("left", "1", b"old"), value("é|x", "3", b"")]
    await thread.put("2", "1", ns="sub|a:1", checkpoint=DOCUMENT, metadata=metadata, channels=channels)
    found = await thread.get("2", "sub|a:1")
    assert (found.thread_id, found.checkpoint_ns, found.checkpoint_id) == (thread.id, "sub|a:1", "2")
    assert found.parent_checkpoint_id == "1"
    assert_same(found.checkpoint, json.loads(DOCUMENT))
    assert '"n": 1.5' in found.checkpoint
    assert_same(found.metadata, json.loads(metadata))
    # Of the channels only those in the versions of the checkpoint.
    assert [(item.channel, item.version, item.type) for item in found.channels] == [("messages", "2.0", "msgpack")]
    assert channels_of(found) == {"messages": b"\x00\xff" * 50}
    assert not found.writes
    assert not found.parent_sends


async def test_metadata_and_parent_may_be_absent(thread: Thread) -> None:
    await thread.put("1")
    found = await thread.get()
    assert (found.metadata, found.parent_checkpoint_id, found.checkpoint_ns) == ("{}", "", "")


async def test_the_thread_is_made(thread: Thread, api: Api) -> None:
    await thread.put("1")
    row = await THREADS.get(api, thread.owner, thread.id)
    assert metadata_of(row) == {"owner": thread.owner}
    assert (row.status, row.visibility, row.config, row.values) == (1, 1, "{}", "{}")
    assert row.created_at == row.updated_at
    assert not row.HasField("state_updated_at")
    await thread.put("2", "1")
    assert await THREADS.get(api, thread.owner, thread.id) == row


async def test_the_thread_is_made_by_writes_that_come_first(thread: Thread, api: Api) -> None:
    await thread.put_writes("1", write("t", 0, data=b"early"))
    await THREADS.get(api, thread.owner, thread.id)
    with not_found("checkpoint", thread.id):
        await thread.get()
    await thread.put("1")
    assert writes_of((await thread.get()).writes) == [("", "t", 0, "c", b"early")]


async def test_a_thread_without_an_owner_is_made_by_a_call_without_one(api: Api, owner: str) -> None:
    thread = Thread(api, None, f"{owner}-t")
    await thread.put("1")
    assert metadata_of(await THREADS.get(api, None, thread.id)) == {}
    assert (await thread.get()).checkpoint_id == "1"
    with not_found("thread", thread.id):
        await thread.of(owner).put("2")
    await api.call("DeleteThread", thread_id=thread.id)


async def test_a_second_put_gives_the_same_id_new_content(thread: Thread) -> None:
    await thread.put("1", "0", checkpoint=document({"a": "1"}), metadata='{"a": 1}', channels=[value("a", "1", b"old")])
    await thread.put_writes("1", write("t", 0))
    await thread.put(
        "1", "9", checkpoint=document({"a": "1", "b": "1"}), channels=[value("a", "1", b"new"), value("b", "1")]
    )
    found = await thread.get()
    # The parent stays, and so does the value of a version.
    assert (found.parent_checkpoint_id, found.metadata) == ("0", "{}")
    assert channels_of(found) == {"a": b"old", "b": b""}
    assert len(found.writes) == 1
    assert await thread.ids() == ["1"]


async def test_channels_may_come_ahead_of_their_checkpoint(thread: Thread) -> None:
    await thread.put("1", checkpoint="", channels=[value("a", "1", b"a")])
    assert await thread.ids() == []
    with not_found("checkpoint", "1"):
        await thread.get("1")
    await thread.put("1", checkpoint=document({"a": "1", "b": "1"}), channels=[value("b", "1", b"b")])
    assert channels_of(await thread.get()) == {"a": b"a", "b": b"b"}


async def test_unchanged_channels_stay_readable_and_removed_ones_are_gone(thread: Thread) -> None:
    await thread.put(
        "1", checkpoint=document({"a": "1", "b": "1"}), channels=[value("a", "1", b"a"), value("b", "1", b"b")]
    )
    await thread.put("2", "1", checkpoint=document({"a": "1", "b": "2"}), channels=[value("b", "2", b"b2")])
    await thread.put("3", "2", checkpoint=document({"a": "1"}))
    assert channels_of(await thread.get("1")) == {"a": b"a", "b": b"b"}
    assert channels_of(await thread.get("2")) == {"a": b"a", "b": b"b2"}
    assert channels_of(await thread.get("3")) == {"a": b"a"}


async def test_versions_of_any_kind_are_compared_as_text(thread: Thread) -> None:
    versions = {"int": 7, "float": 1.5, "text": "7", "null": None, "list": [1]}
    channels = [
        value("int", "7", b"i"),
        value("float", "1.5", b"f"),
        value("text", "7", b"t"),
        value("null", "null", b"n"),
    ]
    await thread.put("1", checkpoint=document(versions), channels=channels)
    assert channels_of(await thread.get()) == {"int": b"i", "float": b"f", "text": b"t"}


@pytest.mark.parametrize("versions", ["null", "7", '"x"', '["a"]'])
async def test_versions_that_are_no_object_name_no_channels(thread: Thread, versions: str) -> None:
    await thread.put("1", checkpoint=f'{{"v": 4, "channel_versions": {versions}}}', channels=[value("a", "1")])
    assert not (await thread.get()).channels
    assert await thread.ids() == ["1"]


async def test_a_channel_without_a_value_keeps_none(thread: Thread) -> None:
    await thread.put("1", checkpoint=document({"a": "1"}), channels=[value("a", "1", b"ignored", "empty")])
    (found,) = (await thread.get()).channels
    assert (found.type, found.value) == ("empty", b"")


async def test_writes_are_ordered_by_path_task_and_index(thread: Thread) -> None:
    await thread.put("1")
    await thread.put_writes("1", write("b", 1), write("b", 0), write("b", -1, "__error__"))
    await thread.put_writes(
        "1", write("a", 10, task_path="~b"), write("a", 9, task_path="~b"), write("z", 0, task_path="~a")
    )
    await thread.put_writes("1", write("é", 2**31 - 1), write("B", -(2**31)), write("b~", 0))
    assert [item[:3] for item in writes_of((await thread.get()).writes)] == [
        ("", "B", -(2**31)),
        ("", "b", -1),
        ("", "b", 0),
        ("", "b", 1),
        ("", "b~", 0),
        ("", "é", 2**31 - 1),
        ("~a", "z", 0),
        ("~b", "a", 9),
        ("~b", "a", 10),
    ]


async def test_ordinary_writes_stay_as_they_first_came_and_special_ones_are_replaced(thread: Thread) -> None:
    await thread.put("1")
    await thread.put_writes("1", write("t", 0, "a", b"first"), write("t", -3, "__interrupt__", b"first"))
    await thread.put_writes(
        "1", write("t", 0, "b", b"second"), write("t", -3, "__interrupt__", b"second", task_path="p")
    )
    await thread.put_writes("1", write("t", 1, "b", b"new"))
    assert writes_of((await thread.get()).writes) == [
        ("", "t", 0, "a", b"first"),
        ("", "t", 1, "b", b"new"),
        ("p", "t", -3, "__interrupt__", b"second"),
    ]


async def test_writes_are_of_one_checkpoint_and_namespace(thread: Thread) -> None:
    for ns, id in (("", "1"), ("", "2"), ("sub", "1")):
        await thread.put(id, ns=ns)
    await thread.put_writes("1", write("t", 0, data=b"root"))
    await thread.put_writes("1", write("t", 0, data=b"sub"), ns="sub")
    assert [item.value for item in (await thread.get("1")).writes] == [b"root"]
    assert [item.value for item in (await thread.get("1", "sub")).writes] == [b"sub"]
    assert not (await thread.get("2")).writes


async def test_no_writes_are_no_error(thread: Thread) -> None:
    await thread.put_writes("1")
    await thread.put("1")
    assert not (await thread.get()).writes


async def test_two_writes_with_one_place_are_refused(thread: Thread) -> None:
    twice = [write("t", -1, "a"), write("t", -1, "b")]
    with invalid("writes"):
        await thread.put_writes("1", *twice)
    for groups in ([twice], [twice[:1], twice[1:]]):
        with invalid("writes"):
            await commit(thread, "1", writes=[{"checkpoint_id": "1", "writes": group} for group in groups])


async def test_what_is_refused(thread: Thread) -> None:
    bad: dict[str, dict[str, Any]] = {
        "checkpoint": {"checkpoint": "[]"},
        "metadata": {"metadata": '{"a": "\\u0000"}'},
        "checkpoint_id": {"checkpoint_id": ""},
        "checkpoint_ns": {"checkpoint_ns": "x" * 1537},
        "parent_checkpoint_id": {"parent_checkpoint_id": "x" * 256},
        "channels[1].version": {"channels": [value("a", "1"), value("a", "\n")]},
        "channels[0].channel": {"channels": [value("", "1")]},
        "channels[0].type": {"channels": [value("a", "1", type_="x\0")]},
    }
    for field, fields in bad.items():
        with invalid(field):
            await thread.call("PutCheckpoint", **{"checkpoint_id": "1", "checkpoint": "{}", **fields})
    with invalid("writes[0].task_id"):
        await thread.put_writes("1", write("", 0))
    with invalid("checkpoint"):
        await commit(thread, "1", checkpoint="")
    with not_found("checkpoint", thread.id):
        await thread.get()


async def test_names_may_be_as_long_as_the_limits(api: Api, owner: str) -> None:
    thread = Thread(api, owner, random_text(255))
    # Random, since Postgres packs what comes again in its indexes.
    namespace, channel, version, id, task = (random_text(size) for size in (1536, 512, 255, 255, 255))
    fields: dict[str, Any] = {"checkpoint_ns": namespace, "checkpoint_id": id}
    await thread.call(
        "PutCheckpoint", **fields, checkpoint=document({channel: version}), channels=[value(channel, version)]
    )
    await thread.call("PutWrites", **fields, writes=[{**write(task, 0), "task_path": random_text(65536)}])
    found = await thread.get(ns=namespace)
    assert (found.channels[0].channel, found.writes[0].task_id, len(found.writes[0].task_path)) == (
        channel,
        task,
        65536,
    )


def random_text(size: int) -> str:
    """A text of hexadecimal digits."""
    return random.randbytes(size // 2 + 1).hex()[:size]


async def test_values_are_limited(stores: dict[str, Store], owner: str) -> None:
    settings = Settings(limits=Limits(blob_bytes=10))
    for backend, store in stores.items():
        thread = Thread(DirectApi(build_pipeline(settings, store), backend), owner, f"{owner}-{backend}")
        await thread.put("1", checkpoint=document({"a": "1"}), channels=[value("a", "1", b"x" * 10)])
        await thread.put_writes("1", write("t", 0, data=b"x" * 10))
        with invalid("channels[1].value"):
            await thread.put("1", channels=[value("a", "1", b""), value("a", "2", b"x" * 11)])
        with invalid("writes[0].value"):
            await thread.put_writes("1", write("t", 1, data=b"x" * 11))
        with invalid("writes[0].writes[0].value"):
            await commit(thread, "1", writes=[{"checkpoint_id": "1", "writes": [write("t", 1, data=b"x" * 11)]}])
        assert len((await thread.get()).writes) == 1


async def test_the_expected_parent(thread: Thread, api: Api) -> None:
    with fails("ABORTED", "PARENT_MISMATCH", current=""):
        await thread.put("1", "0", expected_parent_id="0")
    # What was refused has left nothing, the thread neither.
    with not_found("thread", thread.id):
        await THREADS.get(api, thread.owner, thread.id)
    await thread.put("1", expected_parent_id="")
    await thread.put("2", "1", expected_parent_id="1", channels=[value("a", "1")])
    await thread.put("9", ns="sub")
    for expected in ("", "1", "9"):
        with fails("ABORTED", "PARENT_MISMATCH", current="2"):
            await thread.put("3", "1", expected_parent_id=expected, channels=[value("b", "1")])
    # A put that is sent again finds its own checkpoint.
    await thread.put("2", "1", expected_parent_id="1", metadata='{"again": true}')
    await thread.put("3", "2", expected_parent_id="2", checkpoint=document({"b": "1"}))
    assert not (await thread.get()).channels, "a value of a refused put was kept"
    assert (await thread.get("2")).metadata == '{"again": true}'


async def commit(thread: Thread, id: str, **fields: Any) -> None:
    await thread.call("CommitSuperstep", **{"checkpoint_id": id, "checkpoint": document(), **fields})


async def test_a_superstep_is_written_as_a_whole(thread: Thread, api: Api) -> None:
    await thread.put("1")
    groups = [
        {"checkpoint_id": "1", "writes": [write("t", 0, data=b"1"), write("u", 0, data=b"2")]},
        {"checkpoint_id": "2", "writes": [write("t", -3, "__interrupt__", b"3")]},
        {"checkpoint_id": "1", "checkpoint_ns": "sub", "writes": [write("t", 0, data=b"4")]},
    ]
    await commit(
        thread,
        "2",
        parent_checkpoint_id="1",
        checkpoint=document({"a": "1"}),
        metadata='{"step": 1}',
        channels=[value("a", "1", b"a")],
        expected_parent_id="1",
        writes=groups,
        status="THREAD_STATUS_INTERRUPTED",
        values='{"a": 1}',
        interrupts='{"t": []}',
    )
    newest = await thread.get()
    assert (newest.checkpoint_id, newest.parent_checkpoint_id, newest.metadata) == ("2", "1", '{"step": 1}')
    assert channels_of(newest) == {"a": b"a"}
    assert [item.value for item in newest.writes] == [b"3"]
    assert [item.value for item in (await thread.get("1")).writes] == [b"1", b"2"]
    row = await THREADS.get(api, thread.owner, thread.id)
    assert (row.status, row.values, row.interrupts) == (3, '{"a": 1}', '{"t": []}')
    assert row.updated_at == row.state_updated_at
    # A subgraph's writes are there before its checkpoint.
    await thread.put("1", ns="sub")
    assert [item.value for item in (await thread.get("1", "sub")).writes] == [b"4"]


async def test_a_superstep_that_is_refused_leaves_nothing(thread: Thread, api: Api) -> None:
    await thread.put("1")
    before = await THREADS.get(api, thread.owner, thread.id)
    with fails("ABORTED", "PARENT_MISMATCH", current="1"):
        await commit(
            thread,
            "2",
            expected_parent_id="0",
            writes=[{"checkpoint_id": "1", "writes": [write("t", 0)]}],
            status="THREAD_STATUS_ERROR",
            values="{}",
        )
    assert await THREADS.get(api, thread.owner, thread.id) == before
    assert await thread.ids() == ["1"]
    assert not (await thread.get()).writes


async def test_a_superstep_without_a_status_leaves_the_thread(thread: Thread, api: Api) -> None:
    await commit(thread, "1")
    before = await THREADS.get(api, thread.owner, thread.id)
    await commit(thread, "2", parent_checkpoint_id="1")
    assert await THREADS.get(api, thread.owner, thread.id) == before
    await commit(thread, "3", interrupts="[1]")
    row = await THREADS.get(api, thread.owner, thread.id)
    assert (row.status, row.interrupts, row.HasField("state_updated_at")) == (1, "[1]", False)
    await commit(thread, "4", values='"{}"')
    row = await THREADS.get(api, thread.owner, thread.id)
    assert (row.status, row.values, row.HasField("state_updated_at")) == (1, '"{}"', True)


async def test_a_superstep_makes_its_thread_with_the_status(thread: Thread, api: Api) -> None:
    await commit(thread, "1", status="THREAD_STATUS_ERROR", values="{}")
    assert (await THREADS.get(api, thread.owner, thread.id)).status == 4


async def test_a_thread_with_a_run_in_flight_stays_busy(thread: Thread, api: Api) -> None:
    await thread.put("1")
    assistant = await api.call("CreateAssistant", owner_id=thread.owner, graph_id="g")
    await thread.call("CreateRun", assistant_id=assistant.assistant.assistant_id)
    await commit(thread, "2", status="THREAD_STATUS_IDLE")
    assert (await THREADS.get(api, thread.owner, thread.id)).status == 2


async def test_other_owners_write_nothing(thread: Thread, api: Api, other: str) -> None:
    await thread.put("1", channels=[value("a", "1")])
    await THREADS.call(api, "Update", thread.owner, thread_id=thread.id, visibility="THREAD_VISIBILITY_READ_BY_ID")
    theirs = thread.of(other)
    before = await thread.listed()
    for refused in (
        theirs.put("1", metadata='{"stolen": true}'),
        theirs.put("2", expected_parent_id="1"),
        theirs.put("2", checkpoint="", channels=[value("a", "2")]),
        theirs.put_writes("1", write("t", 0)),
        commit(theirs, "2"),
        commit(theirs, "2", status="THREAD_STATUS_ERROR"),
        theirs.put("2", checkpoint=document()),
    ):
        with not_found("thread", thread.id):
            await refused
    with not_found("checkpoint", "1"):
        await theirs.get("1")
    assert await theirs.listed() == []
    assert await thread.listed() == before
    assert (await THREADS.get(api, thread.owner, thread.id)).status == 1
