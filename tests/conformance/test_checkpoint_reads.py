"""Checkpoints, on every backend: the newest, listings in order and in parts, old formats, and what delta channels are built from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store import Store
from tests.conformance.checkpoints import Thread, channels_of, document, joined, value, write, writes_of
from tests.conformance.expect import fails, invalid, not_found
from tests.conformance.rows import THREADS
from tests.service import Api, CallFailed, DirectApi


@pytest.fixture
def thread(api: Api, owner: str) -> Thread:
    return Thread(api, owner, f"{owner}-t")


async def test_the_newest_has_the_greatest_id(thread: Thread) -> None:
    for id in ("1", "3", "2"):
        await thread.put(id)
    await thread.put("9", ns="sub")
    assert (await thread.get()).checkpoint_id == "3"
    assert (await thread.get(ns="sub")).checkpoint_id == "9"
    assert (await thread.get("2")).checkpoint_id == "2"


async def test_what_is_absent(thread: Thread, other: str) -> None:
    for absent in (thread, thread.of(other)):
        with not_found("checkpoint", thread.id):
            await absent.get()
        with not_found("checkpoint", "1"):
            await absent.history("a", id="1")
        assert await absent.listed() == []
    await thread.put("1")
    with not_found("checkpoint", "2"):
        await thread.get("2")
    with not_found("checkpoint", "1"):
        await thread.get("1", "sub")
    with not_found("checkpoint", thread.id):
        await thread.get(ns="sub")


@pytest.mark.parametrize(
    ("form", "sends"),
    [(1, True), (3, True), (3.9, True), (4, False), (5, False), ("3", False), (None, False), (-1, False)],
)
async def test_what_the_parent_sent_comes_with_a_checkpoint_of_an_old_format(
    thread: Thread, form: Any, sends: bool
) -> None:
    await thread.put("1", checkpoint=document(v=form))
    await thread.put("2", "1", checkpoint=document(v=form))
    await thread.put_writes("1", write("b", 0, "__pregel_tasks", b"3"), write("b", 1, "other", b"x"))
    await thread.put_writes("1", write("a", 1, "__pregel_tasks", b"2"), write("a", 0, "__pregel_tasks", b"1"))
    await thread.put_writes("1", write("c", 0, "__pregel_tasks", b"0"), ns="sub")
    found = await thread.get()
    expected = [
        ("", "a", 0, "__pregel_tasks", b"1"),
        ("", "a", 1, "__pregel_tasks", b"2"),
        ("", "b", 0, "__pregel_tasks", b"3"),
    ]
    assert writes_of(found.parent_sends) == (expected if sends else [])
    assert not found.writes
    assert not (await thread.get("1")).parent_sends
    assert [writes_of(item.parent_sends) for item in await thread.listed()] == [expected if sends else [], []]


async def test_a_checkpoint_larger_than_a_message_comes_in_parts_only(stores: dict[str, Store], owner: str) -> None:
    settings = Settings(limits=Limits(message_bytes=100_000))
    for backend, store in stores.items():
        whole = Thread(DirectApi(build_pipeline(Settings(), store), backend), owner, f"{owner}-{backend}")
        thread = Thread(DirectApi(build_pipeline(settings, store), backend), owner, whole.id)
        channels = [value(f"c{place}", "1", bytes([place]) * 50_000) for place in range(3)]
        await whole.put("1", checkpoint=document({f"c{place}": "1" for place in range(3)}), channels=channels)
        message = "the checkpoint is larger than a message; ListCheckpoints gives it in parts"
        for id in ("", "1"):
            with pytest.raises(CallFailed) as caught:
                await thread.get(id)
            assert (caught.value.code.name, caught.value.reason) == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
            assert caught.value.message == message
        assert await thread.listed() == await whole.listed() == [await whole.get()]


async def test_what_surrounds_values_counts_as_well(stores: dict[str, Store], owner: str) -> None:
    settings = Settings(limits=Limits(message_bytes=100_000))
    for backend, store in stores.items():
        whole = Thread(DirectApi(build_pipeline(Settings(), store), backend), owner, f"{owner}-{backend}")
        thread = Thread(DirectApi(build_pipeline(settings, store), backend), owner, whole.id)
        await whole.put("1")
        await whole.put_writes("1", *(write("t", place, "c" * 500) for place in range(300)))
        await whole.put_writes("1", *(write("u", place) for place in range(3000)))
        assert await thread.listed() == await whole.listed() == [await whole.get()]


async def test_a_listing_is_in_order_of_ids_threads_and_namespaces(api: Api, owner: str, other: str) -> None:
    places = [(id, f"{owner}-{t}", ns) for id in ("1", "2", "3") for t in ("a", "b") for ns in ("", "sub")]
    for id, thread_id, ns in places[::2] + places[1::2]:
        await Thread(api, owner, thread_id).put(id, ns=ns)
    await Thread(api, other, f"{other}-t").put("2")
    everything = Thread(api, owner, "")
    found = await everything.listed()
    assert [(item.checkpoint_id, item.thread_id, item.checkpoint_ns) for item in found] == sorted(places, reverse=True)
    assert await Thread(api, owner, f"{other}-t").listed() == []
    assert await everything.ids(limit=5) == ["3"] * 4 + ["2"]
    thread = Thread(api, owner, f"{owner}-a")
    assert await thread.ids() == ["3", "3", "2", "2", "1", "1"]
    assert [item.checkpoint_ns for item in await thread.listed()] == ["sub", ""] * 3
    assert await thread.ids(checkpoint_ns="") == ["3", "2", "1"]
    assert await thread.ids(checkpoint_id="2") == ["2", "2"]
    assert await thread.ids(checkpoint_ns="sub", checkpoint_id="2") == ["2"]
    assert await thread.ids(before="3") == ["2", "2", "1", "1"]
    assert await thread.ids(before="2", checkpoint_ns="sub", limit=7) == ["1"]
    assert (
        await thread.ids(before="0") == await thread.ids(checkpoint_ns="x") == await thread.ids(checkpoint_id="4") == []
    )


async def test_a_listing_is_filtered_by_metadata(thread: Thread) -> None:
    for id, metadata in (("1", '{"a": 1}'), ("2", '{"a": 1, "b": {"c": [1, 2]}}'), ("3", '{"a": "1"}')):
        await thread.put(id, metadata=metadata)
    assert await thread.ids(metadata='{"a": 1.0}') == ["2", "1"]
    assert await thread.ids(metadata='{"b": {"c": [2]}}') == ["2"]
    assert await thread.ids(metadata="{}") == ["3", "2", "1"]
    assert await thread.ids(metadata='{"a": 1}', limit=1) == ["2"]
    assert await thread.ids(metadata='{"a": null}') == []
    for bad in ("[]", "{", json.dumps({str(number): number for number in range(101)})):
        with invalid("metadata"):
            await thread.listed(metadata=bad)
    with invalid("limit"):
        await thread.listed(limit=-1)


async def test_a_listing_gives_what_a_get_gives(thread: Thread) -> None:
    for id, parent in (("1", ""), ("2", "1")):
        text = document({"a": id}, channel_values={"n": int(id)})
        await thread.put(id, parent, checkpoint=text, metadata=f'{{"step": {id}}}', channels=[value("a", id, b"x")])
        await thread.put_writes(id, write("b", 0), write("a", 1, data=b"1"), write("a", 0, data=b"0"))
    listed = await thread.listed()
    assert listed == [await thread.get("2"), await thread.get("1")]
    for found, whole in zip(await thread.listed(summary=True), listed, strict=True):
        del whole.channels[:], whole.writes[:]
        parsed = json.loads(whole.checkpoint)
        del parsed["channel_values"]
        assert json.loads(found.checkpoint) == parsed
        whole.checkpoint = found.checkpoint
        assert found == whole


async def test_a_large_checkpoint_is_listed_in_parts(thread: Thread, api: Api) -> None:
    mebibyte = 1024 * 1024
    sizes = {"a": mebibyte * 5 // 2, "b": mebibyte // 2, "c": mebibyte // 4, "d": 10}
    for id in ("1", "2", "3"):
        channels = [value(name, id, id.encode() * size) for name, size in sizes.items()] if id == "2" else []
        await thread.put(id, checkpoint=document(dict.fromkeys(sizes, id)), channels=channels[:2])
        if channels:
            await thread.put(id, checkpoint=document(dict.fromkeys(sizes, id)), channels=channels[2:])
            for task in ("y", "x"):
                await thread.put_writes(id, *(write(task, place, data=b"w" * (mebibyte // 8)) for place in (1, 0)))
    messages = await api.stream("ListCheckpoints", owner_id=thread.owner, thread_id=thread.id)
    assert [message.checkpoint.checkpoint_id for message in messages if message.checkpoint.checkpoint_id] == [
        "3",
        "2",
        "1",
    ]
    assert [message.more for message in messages] == [False, *[True] * (len(messages) - 3), False, False]
    parts = [sum(len(item.value) for item in message.checkpoint.channels) for message in messages[2:-1]]
    parts = [
        size + sum(len(item.value) for item in message.checkpoint.writes)
        for size, message in zip(parts, messages[2:-1], strict=True)
    ]
    assert max(parts) == sizes["a"], "a value that is larger than a part comes alone"
    assert 0 < sorted(parts)[-2] <= 2 * mebibyte
    whole = joined(messages)[1]
    assert {item.channel: (item.version, item.value) for item in whole.channels} == {
        name: ("2", b"2" * size) for name, size in sizes.items()
    }
    assert [(task, index) for _, task, index, _, _ in writes_of(whole.writes)] == [
        ("x", 0),
        ("x", 1),
        ("y", 0),
        ("y", 1),
    ]
    assert whole == await thread.get("2")
    summary = await api.stream("ListCheckpoints", owner_id=thread.owner, thread_id=thread.id, summary=True)
    assert [(message.checkpoint.checkpoint_id, message.more) for message in summary] == [
        ("3", False),
        ("2", False),
        ("1", False),
    ]


async def test_many_checkpoints_are_listed_in_batches(thread: Thread) -> None:
    """More than one batch by number and by bytes, with what another thread has in between."""
    data = b"x" * 30_000
    for number in range(150):
        id = f"{number:03}"
        await thread.put(id, checkpoint=document({"a": id}), channels=[value("a", id, data + id.encode())])
        if number % 10 == 0:
            await Thread(thread.api, thread.owner, f"{thread.id}-2").put(id)
    ids = [f"{number:03}" for number in reversed(range(150))]
    listed = await thread.listed()
    assert [item.checkpoint_id for item in listed] == ids
    assert [channels_of(item)["a"][-3:].decode() for item in listed] == ids
    assert await thread.ids(limit=123) == ids[:123]
    assert await thread.ids(limit=60, before="100") == ids[50:110]
    everything = await Thread(thread.api, thread.owner, "").listed(summary=True)
    assert len(everything) == 165
    assert [item.checkpoint_id for item in everything] == sorted(
        (item.checkpoint_id for item in everything), reverse=True
    )


# Delta channels: their values are written for their checkpoints, and only now and then kept with one.


async def chain(thread: Thread, *ids: str, ns: str = "", **versions: str) -> None:
    """Checkpoints, each the parent of the next, with these versions of channels and a write of each to "m" and to "f"."""
    parent = ""
    for id in ids:
        await thread.put(id, parent, ns=ns, checkpoint=document(versions))
        await thread.put_writes(
            id,
            write("t2", 0, "m", f"{id}b".encode()),
            write("t1", 0, "m", f"{id}a".encode()),
            write("t1", 1, "f", b"f" + id.encode()),
            ns=ns,
        )
        parent = id


def values_of(history: Any) -> list[bytes]:
    return [item.value for item in history.writes]


async def test_delta_writes_come_from_the_root_when_no_ancestor_keeps_a_value(thread: Thread) -> None:
    await chain(thread, "1", "2", "3", m="1", f="1")
    found_m, found_f = await thread.history("m", "f")
    assert (found_m.channel, found_f.channel) == ("m", "f")
    # Oldest first, and not those of the checkpoint itself.
    assert values_of(found_m) == [b"1a", b"1b", b"2a", b"2b"]
    assert values_of(found_f) == [b"f1", b"f2"]
    assert found_m.WhichOneof("seed") is found_f.WhichOneof("seed") is None
    assert [values_of(item) for item in await thread.history("m", id="2")] == [[b"1a", b"1b"]]
    assert [values_of(item) for item in await thread.history("m", id="1")] == [[]]
    assert [values_of(item) for item in await thread.history("x")] == [[]]
    assert list(await thread.history()) == []
    assert [item.channel for item in await thread.history("m", "f", "m")] == ["m", "f", "m"]


async def test_delta_history_ends_at_the_nearest_kept_value(thread: Thread) -> None:
    await chain(thread, "1", "2", "3", "4", "5", m="1", f="1")
    for id, kept in (("1", b"one"), ("3", b"three")):
        text = document({"m": f"m{id}", "f": "1"}, channel_values={"m": True})
        await thread.put(id, checkpoint=text, channels=[value("m", f"m{id}", kept)])
    await thread.put("2", checkpoint=document({"m": "1", "f": "f2"}), channels=[value("f", "f2", b"plain")])
    found_m, found_f = await thread.history("m", "f")
    # The kept value itself, and the writes of the one that keeps it.
    assert (found_m.value.channel, found_m.value.version, found_m.value.type) == ("m", "m3", "msgpack")
    assert found_m.value.value == b"three"
    assert values_of(found_m) == [b"3a", b"3b", b"4a", b"4b"]
    assert (found_f.value.value, values_of(found_f)) == (b"plain", [b"f2", b"f3", b"f4"])
    (older,) = await thread.history("m", id="3")
    assert (older.value.value, values_of(older)) == (b"one", [b"1a", b"1b", b"2a", b"2b"])


@pytest.mark.parametrize("kept", ["7", '"text"', "false", "true", "1.50", "null"])
async def test_a_delta_seed_may_be_json(thread: Thread, kept: str) -> None:
    await chain(thread, "1", "2", "3", m="1")
    await thread.put("2", checkpoint=f'{{"v": 4, "channel_versions": {{"m": "1"}}, "channel_values": {{"m": {kept}}}}}')
    (found,) = await thread.history("m")
    if kept == "null":
        assert (found.WhichOneof("seed"), values_of(found)) == (None, [b"1a", b"1b", b"2a", b"2b"])
    else:
        assert (found.WhichOneof("seed"), found.json, values_of(found)) == ("json", kept, [b"2a", b"2b"])


async def test_a_channel_kept_as_empty_is_no_seed(thread: Thread) -> None:
    await chain(thread, "1", "2", "3", m="1")
    await thread.put("2", checkpoint=document({"m": "e"}), channels=[value("m", "e", type_="empty")])
    (found,) = await thread.history("m")
    assert (found.WhichOneof("seed"), len(found.writes)) == (None, 4)


async def test_delta_history_follows_parents_not_ids(thread: Thread) -> None:
    await chain(thread, "1", "2", "3", m="1")
    await thread.put("4", "1", checkpoint=document({"m": "1"}))
    await chain(thread, "5", "6", ns="sub", m="1")
    assert [values_of(item) for item in await thread.history("m")] == [[b"1a", b"1b"]]
    assert [values_of(item) for item in await thread.history("m", ns="sub")] == [[b"5a", b"5b"]]


async def test_delta_history_never_walks_in_a_circle(thread: Thread) -> None:
    await chain(thread, "1", "2", "3", m="1")
    await thread.put("0", "3")
    await thread.put("9", "9")
    assert [values_of(item) for item in await thread.history("m", id="9")] == [[]]
    await thread.put("7", "8")
    await thread.put("8", "7")
    assert [values_of(item) for item in await thread.history("m", id="8")] == [[]]
    assert [values_of(item) for item in await thread.history("m", id="0")] == [[]]


async def test_a_history_larger_than_a_message_is_refused(stores: dict[str, Store], owner: str) -> None:
    settings = Settings(limits=Limits(message_bytes=10_000))
    for backend, store in stores.items():
        thread = Thread(DirectApi(build_pipeline(settings, store), backend), owner, f"{owner}-{backend}")
        await chain(thread, "1", "2", "3", m="1")
        for place in range(2):
            await thread.put_writes("1", write("u", place, "m", b"x" * 6_000))
        with fails("RESOURCE_EXHAUSTED", "LIMIT_REACHED"):
            await thread.history("m")
        assert len((await thread.history("f"))[0].writes) == 2


async def test_histories_and_listings_are_the_owners_own(thread: Thread, api: Api, other: str) -> None:
    await chain(thread, "1", "2", m="1")
    await THREADS.call(api, "Update", thread.owner, thread_id=thread.id, visibility="THREAD_VISIBILITY_READ_BY_ID")
    theirs = thread.of(other)
    await Thread(api, other, f"{other}-t").put("1")
    with not_found("checkpoint", thread.id):
        await theirs.history("m")
    with not_found("checkpoint", thread.id):
        await theirs.get()
    assert await theirs.ids() == []
    assert [item.thread_id for item in await Thread(api, other, "").listed()] == [f"{other}-t"]
    unscoped = thread.of(None)
    assert await unscoped.listed() == await thread.listed()
    assert await unscoped.history("m") == await thread.history("m")
