"""Old checkpoints, and values that no checkpoint uses, on both backends: what is deleted, and that the rest reads as before."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from agentstorage.v1 import checkpoints_pb2 as pb
from storage_service.retention import before_days
from storage_service.store.retention import Swept
from tests.conformance.checkpoints import Thread, channels_of, document, value, write
from tests.conformance.expect import not_found
from tests.conformance.rows import ASSISTANTS, RUNS, THREADS
from tests.retention.conftest import Place
from tests.retention.histories import DAY, id_at, ids, put, rows
from tests.service import CallFailed


async def prune(place: Place, days: float | None = 30, thread_id: str = "") -> Swept:
    """Delete the owner's checkpoints that are older; with None, none for their age."""
    return await place.sweep(thread_id).checkpoints("" if days is None else before_days(days))


async def chain(thread: Thread, *days: float, ns: str = "") -> list[str]:
    """A checkpoint after the other, made so many days ago, each with a value of its own and one that stays."""
    made = [""]
    for number, ago in enumerate(days):
        made.append(id_at(ago, number))
        await put(thread, made[-1], made[-2], ns=ns, a=str(number), b="0")
    return made[1:]


async def test_what_is_older_and_not_needed_goes(place: Place, other: str) -> None:
    thread, theirs = place.thread(), place.thread(owner=other)
    made = await chain(thread, 50, 40, 29, 10, 1)
    await chain(thread, 60, 45, ns="sub")
    await chain(theirs, 60, 45)
    before = await rows(theirs)
    newest = [await thread.get(made[number]) for number in (3, 4)]
    assert await prune(place) == Counter(checkpoints=3)
    left = await rows(thread)
    assert await ids(thread) == made[2:]
    assert len(await ids(thread, "sub")) == 1
    # What went is no longer named as a parent; the others' parents stay.
    assert [row[2] for row in left["checkpoints"]] == ["", made[2], made[3], ""]
    assert left["blobs"] == [
        *[("", "a", str(number)) for number in (2, 3, 4)],
        ("", "b", "0"),
        ("sub", "a", "1"),
        ("sub", "b", "0"),
    ]
    assert [row[:2] for row in left["writes"]] == [row[:2] for row in left["checkpoints"]]
    assert [await thread.get(made[number]) for number in (3, 4)] == newest
    assert await rows(theirs) == before
    assert await prune(place) == Counter()
    assert await prune(place, None) == Counter()


async def test_at_any_age(place: Place) -> None:
    one, two = place.thread("one"), place.thread("two")
    for thread in (one, two):
        await chain(thread, 3, 2, 1, 0.001)
    assert await prune(place, 0, one.id) == Counter(checkpoints=3)
    assert (len(await ids(one)), len(await ids(two))) == (1, 4)


async def test_more_checkpoints_than_a_part(place: Place) -> None:
    thread = place.thread()
    made = [id_at(100 - number / 1000, number) for number in range(1105)]
    for number, id in enumerate(made):
        # Without its parent's id each is a root.
        await thread.put(id, made[number - 1] if number else "", checkpoint=document({"a": f"{number // 100}"}))
    assert await prune(place) == Counter(checkpoints=1104)
    assert (await rows(thread))["checkpoints"] == [("", made[-1], "")]


async def test_ids_that_are_not_langgraphs_stay(place: Place) -> None:
    thread = place.thread()
    for id in ("0", "1", "1f0", id_at(50), "zz"):
        await put(thread, id, a=id)
    assert await prune(place) == Counter(checkpoints=1)
    assert await ids(thread) == ["0", "1", "1f0", "zz"]


async def test_a_thread_at_work_is_left_alone(place: Place) -> None:
    thread = place.thread()
    await chain(thread, 50, 40, 1)
    assistant = await ASSISTANTS.create(place.api, place.owner)
    names: dict[str, Any] = {"thread_id": thread.id, "assistant_id": assistant.assistant_id}
    run = await RUNS.create(place.api, place.owner, **names, record_only=False)
    assert await prune(place) == Counter()
    await RUNS.call(place.api, "Update", place.owner, run_id=run.run_id, status="RUN_STATUS_SUCCESS")
    assert await prune(place) == Counter(), "the thread is still BUSY"
    await thread.call("SetThreadStatus")
    assert await prune(place) == Counter(checkpoints=2)


async def test_a_subgraphs_call_goes_with_the_checkpoint_that_it_began_from(place: Place) -> None:
    thread = place.thread()
    roots = await chain(thread, 50, 40, 31, 1)
    for task, (root, days) in enumerate(((0, 49.9), (1, 39.9), (2, 29.9))):
        await thread.put(
            id_at(days),
            ns=f"child:{task}",
            checkpoint=document({"a": "1"}),
            metadata=json.dumps({"parents": {"": roots[root]}}),
            channels=[value("a", "1", b"x")],
        )
        await thread.put_writes(id_at(days), write("t", 0), ns=f"child:{task}")
    # The third call went on for longer: it stays, and what it began from with it.
    assert await prune(place) == Counter(checkpoints=4)
    left = await rows(thread)
    assert await ids(thread) == roots[2:]
    for those in left.values():
        assert {row[0] for row in those} == {"", "child:2"}
    assert await prune(place, 29) == Counter(checkpoints=2)
    for those in (await rows(thread)).values():
        assert {row[0] for row in those} == {""}


# Whatever the history, what is kept reads as before.


def history(seed: int) -> list[dict[str, Any]]:
    """The puts of a random history: namespaces, branches, delta channels with snapshots now and then, old formats."""
    dice = random.Random(seed)
    puts: list[dict[str, Any]] = []
    for ns in ("", "sub", "child:1")[: dice.randint(1, 3)]:
        own: list[tuple[str, dict[str, str]]] = []
        begun = dice.choice(puts)["id"] if ns == "child:1" else ""
        pace = dice.choice((2, 4))
        for step in range(dice.randint(2, 14)):
            parent, known = dice.choice(own[-3:]) if own else ("", {})
            id, versions = id_at(60 - step * pace, step), dict(known)
            inline: dict[str, bool] = {}
            counters: dict[str, list[int]] = {}
            channels: list[dict[str, Any]] = []
            for name in ("p", "m", "n"):
                is_delta, is_snapshot, is_changed = name != "p", dice.random() < 0.25, dice.random() < 0.7
                if is_changed:
                    versions[name] = f"{step + 1:032}.{dice.random()}"
                    if is_snapshot or not is_delta:
                        channels.append(value(name, versions[name], f"{name}{id}".encode()))
                        inline |= {name: True} if is_delta else {}
                if is_delta and not is_snapshot:
                    counters[name] = [1, 1]
            metadata = {"counters_since_delta_snapshot": counters, "parents": {"": begun} if begun else {}}
            checkpoint = document(versions, channel_values=inline, v=dice.choice((4, 4, 4, 2)))
            channel = dice.choice(("m", "n", "p", "__pregel_tasks"))
            puts.append(
                {
                    "id": id,
                    "parent": parent,
                    "ns": ns,
                    "checkpoint": checkpoint,
                    "channels": channels,
                    "channel": channel,
                }
                | {"metadata": json.dumps(metadata)}
            )
            own.append((id, versions))
    return puts


async def write_history(thread: Thread, puts: list[dict[str, Any]]) -> None:
    for one in puts:
        fields = {name: one[name] for name in one if name != "channel"}
        await thread.put(**fields)
        await thread.put_writes(one["id"], write("t", 0, one["channel"], one["id"].encode()), ns=one["ns"])


async def reads(thread: Thread, ns: str, id: str) -> tuple[pb.Checkpoint, Any] | None:
    """All that is read of a checkpoint, but its parent's id, and what its delta channels are built from; None when it is gone."""
    try:
        checkpoint = await thread.get(id, ns)
    except CallFailed:
        return None
    checkpoint.parent_checkpoint_id = ""
    # Of a channel with a snapshot there nobody asks what was before.
    built = [
        name for name in json.loads(checkpoint.checkpoint)["channel_versions"] if name not in channels_of(checkpoint)
    ]
    return checkpoint, list(await thread.history(*built, id=id, ns=ns)) if built else []


@pytest.mark.parametrize("seed", range(24))
async def test_what_is_kept_reads_as_before(places: list[Place], seed: int) -> None:
    puts = history(seed)
    made = [(one["ns"], one["id"]) for one in puts]
    newest = {ns: max(id for other, id in made if other == ns) for ns, _ in made}
    bound = before_days(30)
    left = []
    for place in places:
        thread = place.thread()
        await write_history(thread, puts)
        before = {key: await reads(thread, *key) for key in made}
        assert None not in before.values()
        swept = await place.sweep().checkpoints(bound)
        after = {key: await reads(thread, *key) for key in made}
        for (ns, id), read in after.items():
            # What a call of a subgraph left behind may go as a whole, with what it began from.
            if id >= bound or (id == newest[ns] and ns != "child:1"):
                assert read == before[ns, id], (ns, id)
        assert swept == +Counter(checkpoints=list(after.values()).count(None))
        left.append(await rows(thread))
        assert await place.sweep().checkpoints(bound) == Counter()
    assert left[0] == left[1]


# Values that no checkpoint uses.


async def unused(thread: Thread) -> None:
    """A thread with two checkpoints, and values that both used before they were written again."""
    first, second = id_at(2), id_at(1)
    await put(thread, first, a="1", b="1")
    await put(thread, second, first, a="2", b="1")
    await put(thread, second, first, a="3", b="1")
    await put(thread, second, ns="sub", a="9")
    await put(thread, second, ns="sub", b="9")


USED = [("", "a", "1"), ("", "a", "3"), ("", "b", "1"), ("sub", "b", "9")]


@pytest.mark.parametrize("days", [None, 30])
async def test_values_that_no_checkpoint_uses_go(place: Place, other: str, days: float | None) -> None:
    thread, theirs = place.thread(), place.thread(owner=other)
    for one in (thread, theirs):
        await unused(one)
    assert len((await rows(thread))["blobs"]) == 6
    # Not as long as the thread may be at work.
    assert await prune(place, days) == Counter()
    for one in (thread, theirs):
        await place.age(one, 3601)
    before = [await thread.get(), await thread.get(id_at(2)[:0], "sub")]
    assert await prune(place, days) == Counter(blobs=2)
    assert (await rows(thread))["blobs"] == USED
    assert [await thread.get(), await thread.get("", "sub")] == before
    assert len((await rows(theirs))["blobs"]) == 6
    assert await prune(place, days) == Counter()


async def test_values_of_a_thread_with_a_young_checkpoint_stay(place: Place) -> None:
    thread = place.thread()
    await unused(thread)
    await put(thread, id_at(0.5 / 24), ns="sub", b="9")
    await place.age(thread, 3601)
    assert await prune(place) == Counter()


async def test_values_that_came_ahead_of_their_checkpoint_stay(place: Place) -> None:
    """A checkpoint that is larger than a message comes in several; a sweep in between must not take what came first."""
    thread = place.thread()
    await unused(thread)
    await place.age(thread, 10 * DAY)
    await thread.put(id_at(0), id_at(1), checkpoint="", channels=[value("large", "5", b"large")])
    assert await prune(place) == Counter()
    id = id_at(0)
    await thread.put(id, id_at(1), checkpoint=document({"large": "5", "b": "1"}))
    assert channels_of(await thread.get(id)) == {"large": b"large", "b": b"b1"}
    # One whose checkpoint never comes is forgotten some day.
    await thread.put(id_at(0), id, checkpoint="", channels=[value("large", "6", b"large")])
    assert ("", "large", "6") in (await rows(thread))["blobs"]


async def test_values_of_no_checkpoint_at_all_go_after_a_while(place: Place) -> None:
    thread = place.thread()
    await thread.put(id_at(0), checkpoint="", channels=[value("large", "6", b"large")])
    assert await prune(place) == Counter()
    await place.age(thread, 3601)
    assert await prune(place) == Counter(blobs=1)
    assert await THREADS.count(place.api, place.owner) == 1
    with not_found("checkpoint", thread.id):
        await thread.get()
