"""Checkpoints, on every backend: copied, deleted and pruned, with what hangs on them and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentstorage.v1 import checkpoints_pb2 as pb
from tests.conformance.checkpoints import Thread, channels_of, document, value, write, writes_of
from tests.conformance.expect import invalid, not_found
from tests.conformance.rows import ASSISTANTS, THREADS
from tests.service import Api

Rows = dict[str, list[tuple[Any, ...]]]
NONE: Rows = {"checkpoints": [], "blobs": [], "writes": []}


@pytest.fixture
def thread(api: Api, owner: str) -> Thread:
    return Thread(api, owner, f"{owner}-t")


async def rows_of(thread: Thread) -> Rows:
    """What the three tables hold of a thread, without the thread's id."""
    found: Rows = {"checkpoints": [], "blobs": [], "writes": []}
    for part in await thread.api.stream("ExportOwner", owner_id=thread.owner):
        for row in part.checkpoints:
            if row.thread_id == thread.id:
                found["checkpoints"].append(
                    (row.checkpoint_ns, row.checkpoint_id, row.parent_checkpoint_id, row.checkpoint, row.metadata)
                )
        for row in part.checkpoint_blobs:
            if row.thread_id == thread.id:
                found["blobs"].append((row.checkpoint_ns, row.channel, row.version, row.type, row.blob))
        for row in part.checkpoint_writes:
            if row.thread_id == thread.id:
                found["writes"].append((row.checkpoint_ns, row.checkpoint_id, row.task_id, row.idx, row.blob))
    return {kind: sorted(rows) for kind, rows in found.items()}


async def fill(thread: Thread, *, run: str = "r") -> Rows:
    """A thread with three checkpoints and one of a subgraph, and channels that change now and then."""
    parent = ""
    for id, versions in (("1", {"a": "1", "b": "1"}), ("2", {"a": "2", "b": "1"}), ("3", {"a": "2", "b": "2"})):
        channels = [value(name, version, f"{name}{version}".encode()) for name, version in versions.items()]
        await thread.put(
            id, parent, checkpoint=document(versions), metadata=json.dumps({"run_id": f"{run}{id}"}), channels=channels
        )
        await thread.put_writes(id, write("t", 0, data=id.encode()), write("t", -1))
        parent = id
    await thread.put("1", ns="sub", checkpoint=document({"a": "1"}), channels=[value("a", "1", b"sub")])
    await thread.put_writes("4", write("t", 0, data=b"ahead"))
    return await rows_of(thread)


async def test_an_export_has_all_of_it(thread: Thread, api: Api) -> None:
    rows = await fill(thread)
    assert {kind: len(found) for kind, found in rows.items()} == {"checkpoints": 4, "blobs": 5, "writes": 7}
    assert rows["blobs"][0] == ("", "a", "1", "msgpack", b"a1")
    usage = (await api.call("GetOwnerUsage", owner_id=thread.owner)).usage
    assert [item.rows for item in usage if item.resource == 2] == [1 + 4 + 5 + 7]


@pytest.mark.parametrize(
    "way",
    ["DeleteThread", "PruneThreads", "DeleteAssistant", "EraseOwner", "DeleteThreadCheckpoints", "PruneCheckpoints"],
)
async def test_deleted_as_a_whole(thread: Thread, api: Api, other: str, way: str) -> None:
    kept = Thread(api, other, f"{other}-t")
    await ASSISTANTS.create(api, thread.owner, f"{thread.owner}-a")
    await THREADS.create(api, thread.owner, thread.id, metadata=f'{{"assistant_id": "{thread.owner}-a"}}')
    await fill(thread)
    before = await fill(kept)
    requests: dict[str, dict[str, Any]] = {
        "DeleteThread": {"thread_id": thread.id},
        "PruneThreads": {"thread_ids": [thread.id, kept.id], "strategy": "PRUNE_STRATEGY_DELETE"},
        "DeleteAssistant": {"assistant_id": f"{thread.owner}-a", "delete_threads": True},
        "EraseOwner": {},
        "DeleteThreadCheckpoints": {"thread_id": thread.id},
        "PruneCheckpoints": {"thread_ids": [thread.id, kept.id], "strategy": "PRUNE_STRATEGY_DELETE"},
    }
    answer = await api.call(way, owner_id=thread.owner, **requests[way])
    assert await rows_of(kept) == before
    if way.endswith("Checkpoints"):
        # The thread itself stays.
        assert answer.deleted == 4
        await THREADS.get(api, thread.owner, thread.id)
    assert await rows_of(thread) == NONE
    # Nothing of it is there for a thread that is made anew.
    await thread.put("1", checkpoint=document({"a": "1", "b": "2"}))
    found = await thread.get()
    assert not found.channels
    assert not found.writes


async def test_deleting_nothing_is_no_error(thread: Thread, api: Api, other: str) -> None:
    before = await fill(thread)
    theirs = thread.of(other)
    assert (await theirs.call("DeleteThreadCheckpoints")).deleted == 0
    own: dict[str, Any] = {"owner_id": other}
    for strategy in ("PRUNE_STRATEGY_DELETE", "PRUNE_STRATEGY_KEEP_LATEST"):
        for ids in ([], [thread.id], ["nowhere"]):
            pruned = await api.call("PruneCheckpoints", **own, thread_ids=ids, strategy=strategy)
            assert pruned.deleted == 0
    for runs in ([], ["r1"], ["nowhere"]):
        assert (await api.call("DeleteRunCheckpoints", **own, run_ids=runs)).deleted == 0
    assert await rows_of(thread) == before
    with invalid("strategy"):
        await api.call("PruneCheckpoints", **own, thread_ids=[thread.id])


async def test_checkpoints_of_runs_are_deleted(thread: Thread, api: Api, other: str) -> None:
    second, theirs = Thread(api, thread.owner, f"{thread.id}-2"), Thread(api, other, f"{other}-t")
    for filled in (thread, second, theirs):
        await fill(filled)
    await thread.put("5", ns="sub", metadata='{"run_id": "r2"}', checkpoint=document({"a": "1"}))
    before = await rows_of(theirs)
    deleted = await api.call("DeleteRunCheckpoints", owner_id=thread.owner, run_ids=["r2", "r1", "r2", "nowhere"])
    # In every thread and namespace of the owner.
    assert deleted.deleted == 5
    assert await rows_of(theirs) == before
    rows = await rows_of(thread)
    assert [row[:3] for row in rows["checkpoints"]] == [("", "3", "2"), ("sub", "1", "")]
    # Values that another checkpoint uses stay.
    assert [row[:3] for row in rows["blobs"]] == [("", "a", "2"), ("", "b", "2"), ("sub", "a", "1")]
    assert [row[1:4] for row in rows["writes"]] == [("3", "t", -1), ("3", "t", 0), ("4", "t", 0)]
    assert channels_of(await thread.get()) == {"a": b"a2", "b": b"b2"}
    assert (await api.call("DeleteRunCheckpoints", owner_id=thread.owner, run_ids=["r2"])).deleted == 0


async def test_long_ids_of_runs_are_told_apart(thread: Thread, api: Api) -> None:
    longest = "x" * 255
    for id, run in (("1", longest), ("2", longest + "y"), ("3", "7"), ("4", 7), ("5", None), ("6", ["7"])):
        await thread.put(id, metadata=json.dumps({"run_id": run}))
    assert (await api.call("DeleteRunCheckpoints", owner_id=thread.owner, run_ids=[longest])).deleted == 1
    assert await thread.ids() == ["6", "5", "4", "3", "2"]
    assert (await api.call("DeleteRunCheckpoints", owner_id=thread.owner, run_ids=["7"])).deleted == 2
    assert await thread.ids() == ["6", "5", "2"]


async def test_a_copy_has_everything_under_the_same_ids(thread: Thread, api: Api) -> None:
    rows = await fill(thread)
    copy = Thread(api, thread.owner, f"{thread.id}-copy")

    async def copied() -> int:
        answer = await thread.call("CopyThreadCheckpoints", new_thread_id=copy.id)
        return int(answer.copied)

    assert await copied() == 4
    assert await rows_of(copy) == rows
    assert await rows_of(thread) == rows
    assert [item.thread_id for item in await copy.listed()] == [copy.id] * 4
    await copy.put("3", metadata='{"own": true}', checkpoint=document({"a": "2", "b": "2"}))
    await copy.put("9", "3")
    assert await copied() == 0
    # What is there already stays.
    assert (await copy.get("3")).metadata == '{"own": true}'
    await thread.put("5", "3", checkpoint=document({"a": "5"}), channels=[value("a", "5", b"new")])
    assert await copied() == 1
    assert channels_of(await copy.get("5")) == {"a": b"new"}
    assert await copy.ids(checkpoint_ns="") == ["9", "5", "3", "2", "1"]
    assert (await thread.call("CopyThreadCheckpoints", new_thread_id=thread.id)).copied == 0


async def test_only_own_checkpoints_are_copied_and_only_to_own_threads(thread: Thread, api: Api, other: str) -> None:
    await fill(thread)
    await THREADS.call(api, "Update", thread.owner, thread_id=thread.id, visibility="THREAD_VISIBILITY_READ_BY_ID")
    theirs = Thread(api, other, f"{other}-t")
    assert (await thread.of(other).call("CopyThreadCheckpoints", new_thread_id=theirs.id)).copied == 0
    assert (await theirs.of(other).call("CopyThreadCheckpoints", new_thread_id=f"{other}-2")).copied == 0
    assert await rows_of(theirs) == NONE
    with not_found("thread", thread.id):
        await theirs.call("CopyThreadCheckpoints", new_thread_id=thread.id)
    # A reader of a shared thread may copy it, without its checkpoints.
    await api.call("CopyThread", owner_id=other, thread_id=thread.id, new_thread_id=f"{other}-3")
    assert await rows_of(Thread(api, other, f"{other}-3")) == NONE
    own = Thread(api, thread.owner, f"{thread.id}-copy")
    await api.call("CopyThread", owner_id=thread.owner, thread_id=thread.id, new_thread_id=own.id)
    assert await rows_of(own) == await rows_of(thread) != NONE


async def prune(*threads: Thread) -> int:
    api, owner = threads[0].api, threads[0].owner
    ids = [thread.id for thread in threads]
    answer = await api.call("PruneCheckpoints", owner_id=owner, thread_ids=ids, strategy="PRUNE_STRATEGY_KEEP_LATEST")
    return int(answer.deleted)


def kept(rows: Rows) -> list[tuple[str, str, str]]:
    """Namespace, id and parent of checkpoints."""
    return [row[:3] for row in rows["checkpoints"]]


async def test_pruning_keeps_the_newest_of_each_namespace(thread: Thread, api: Api) -> None:
    second, third = (Thread(api, thread.owner, f"{thread.id}-{name}") for name in ("2", "3"))
    for filled in (thread, second, third):
        await fill(filled)
    before = [await filled.get() for filled in (thread, second)]
    untouched = await rows_of(third)
    assert await prune(thread, second, thread) == 4
    for pruned, found in zip((thread, second), before, strict=True):
        rows = await rows_of(pruned)
        assert kept(rows) == [("", "3", ""), ("sub", "1", "")]
        assert [row[:3] for row in rows["blobs"]] == [("", "a", "2"), ("", "b", "2"), ("sub", "a", "1")]
        # Writes that came before their checkpoint are of no checkpoint that was deleted.
        assert [row[1:4] for row in rows["writes"]] == [("3", "t", -1), ("3", "t", 0), ("4", "t", 0)]
        found.parent_checkpoint_id = ""
        assert await pruned.get() == found
    assert await rows_of(third) == untouched
    assert await prune(thread, second) == 0


async def test_pruning_keeps_values_that_came_ahead_of_their_checkpoint(thread: Thread) -> None:
    await fill(thread)
    await thread.put("4", checkpoint="", channels=[value("a", "9", b"ahead")])
    assert await prune(thread) == 2
    await thread.put("4", "3", checkpoint=document({"a": "9", "b": "2"}))
    assert channels_of(await thread.get()) == {"a": b"ahead", "b": b"b2"}


async def test_pruning_keeps_what_the_parent_of_an_old_format_sent(thread: Thread) -> None:
    for id, parent in (("1", ""), ("2", "1"), ("3", "2")):
        await thread.put(id, parent, checkpoint=document(v=3))
        await thread.put_writes(id, write("t", 0, "__pregel_tasks", id.encode()))
    before = await thread.get()
    assert await prune(thread) == 1
    assert kept(await rows_of(thread)) == [("", "2", ""), ("", "3", "2")]
    assert await thread.get() == before
    await thread.put("4", "3")
    # The newest has all it needs itself now.
    assert await prune(thread) == 2


async def test_pruning_drops_the_namespaces_of_calls_with_their_root(thread: Thread) -> None:
    for id in ("1", "2"):
        await thread.put(id)
    begun = {"child:1": "1", "child:2": "2", "child:3": "3", "child": "1", "a|child:4": "1"}
    for ns, root in begun.items():
        await thread.put(
            "5",
            ns=ns,
            metadata=json.dumps({"parents": {"": root}}),
            checkpoint=document({"a": "1"}),
            channels=[value("a", "1")],
        )
        await thread.put_writes("5", write("t", 0), ns=ns)
        await thread.put_writes("6", write("t", 0), ns=ns)
    assert await prune(thread) == 3
    rows = await rows_of(thread)
    # child:2 began from what is kept, child:3 from what is not there yet, and child is no call's.
    assert kept(rows) == [("", "2", ""), ("child", "5", ""), ("child:2", "5", ""), ("child:3", "5", "")]
    for kind in ("blobs", "writes"):
        assert {row[0] for row in rows[kind]} == {"child", "child:2", "child:3"}


# Delta channels.


async def delta_chain(thread: Thread, kept: dict[str, bytes], *, ns: str = "", steps: int = 6) -> None:
    """A chain of checkpoints 1, 2, ... with a delta channel "m" that keeps snapshots at some, and a plain channel "p"."""
    parent, version = "", "0"
    since = 0
    for step in range(1, steps + 1):
        id = str(step)
        since += 1
        channels = [value("p", id, f"p{id}".encode())]
        inline: dict[str, Any] = {}
        metadata: dict[str, Any] = {"counters_since_delta_snapshot": {"m": [since, since]}}
        version = id
        if id in kept:
            since, metadata, inline = 0, {}, {"m": True}
            channels.append(value("m", version, kept[id]))
        await thread.put(
            id,
            parent,
            ns=ns,
            checkpoint=document({"m": version, "p": id}, channel_values=inline),
            metadata=json.dumps(metadata),
            channels=channels,
        )
        await thread.put_writes(id, write("t", 0, "m", f"w{id}".encode()), ns=ns)
        parent = id


async def read(thread: Thread, ns: str = "") -> tuple[pb.Checkpoint, Any]:
    """The newest checkpoint, without its parent's id, and the history of its delta channel."""
    newest = await thread.get(ns=ns)
    newest.parent_checkpoint_id = ""
    return newest, list(await thread.history("m", ns=ns))


async def test_pruning_keeps_what_a_delta_channel_is_built_from(thread: Thread) -> None:
    await delta_chain(thread, {"2": b"s2", "4": b"s4"})
    before = await read(thread)
    assert [item.value for item in before[1][0].writes] == [b"w4", b"w5"]
    assert await prune(thread) == 3
    rows = await rows_of(thread)
    assert kept(rows) == [("", "4", ""), ("", "5", "4"), ("", "6", "5")]
    assert [row[1:3] for row in rows["blobs"]] == [("m", "4"), ("p", "4"), ("p", "5"), ("p", "6")]
    assert await read(thread) == before
    assert await prune(thread) == 0


async def test_pruning_keeps_a_delta_chain_to_its_root(thread: Thread) -> None:
    await delta_chain(thread, {})
    before = await read(thread)
    assert await prune(thread) == 0
    assert await read(thread) == before


async def test_pruning_at_a_snapshot_keeps_it_alone(thread: Thread) -> None:
    await delta_chain(thread, {"2": b"s2", "6": b"s6"})
    assert await prune(thread) == 5
    assert kept(await rows_of(thread)) == [("", "6", "")]
    assert channels_of(await thread.get()) == {"m": b"s6", "p": b"p6"}


async def test_pruning_knows_a_delta_channel_by_an_older_snapshot_alone(thread: Thread) -> None:
    """The graph has changed, and no longer counts the steps of a channel whose value nothing has written since."""
    await delta_chain(thread, {"2": b"s2"}, steps=3)
    for id, parent in (("2", "1"), ("3", "2"), ("4", "3")):
        inline = {"m": True} if id == "2" else {}
        await thread.put(id, parent, checkpoint=document({"m": id, "p": id}, channel_values=inline))
    before = await read(thread)
    assert await prune(thread) == 1
    assert await read(thread) == before


async def test_a_plain_true_makes_no_delta_channel(thread: Thread) -> None:
    for id, parent in (("1", ""), ("2", "1"), ("3", "2")):
        inline = {"flag": True} if id == "1" else {}
        await thread.put(id, parent, checkpoint=document({"flag": id}, channel_values=inline))
    assert await prune(thread) == 2


async def test_pruning_a_thread_of_langgraph_js_keeps_every_chain(thread: Thread) -> None:
    await thread.put(
        "1", metadata='{"delta_writes_versioned": true}', checkpoint=document({"p": "1"}), channels=[value("p", "1")]
    )
    await thread.put("2", "1", checkpoint=document({"m": "1", "p": "1"}))
    await thread.put_writes("2", write("t", 0, "m"))
    await thread.put("3", "2", checkpoint=document({"m": "1", "p": "1"}))
    before = await read(thread)
    assert await prune(thread) == 0
    assert await read(thread) == before
    await thread.put("4", "3", checkpoint=document({"m": "2", "p": "1"}), channels=[value("m", "2", b"full")])
    assert await prune(thread) == 3


async def test_every_namespace_has_its_own_delta_channels(thread: Thread) -> None:
    await delta_chain(thread, {"4": b"s4"}, ns="sub")
    await thread.put("1", checkpoint=document({"m": "1"}), channels=[value("m", "1", b"x")])
    await thread.put("2", "1", checkpoint=document({"m": "2"}))
    before = await read(thread, "sub")
    assert await prune(thread) == 1 + 3
    assert await read(thread, "sub") == before
    assert kept(await rows_of(thread))[0] == ("", "2", "")


async def test_copies_and_runs_keep_delta_chains(thread: Thread, api: Api) -> None:
    await delta_chain(thread, {"2": b"s2"})
    copy = Thread(api, thread.owner, f"{thread.id}-copy")
    await thread.call("CopyThreadCheckpoints", new_thread_id=copy.id)
    assert list(await copy.history("m")) == list(await thread.history("m"))
    assert writes_of((await copy.history("m"))[0].writes)[0][-1] == b"w2"
