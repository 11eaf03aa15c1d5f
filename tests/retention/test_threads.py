"""Threads whose time is over, on both backends: what is deleted, what stays, and what is left alone."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conformance.checkpoints import Thread, document
from tests.conformance.expect import not_found
from tests.conformance.rows import ASSISTANTS, CRONS, RUNS, THREADS
from tests.retention.conftest import Place, expire
from tests.retention.histories import id_at, ids, put, rows

HOUR: dict[str, Any] = {"minutes": 60}
KEEP: dict[str, Any] = {"minutes": 60, "strategy": "THREAD_TTL_STRATEGY_KEEP_LATEST"}


async def create(
    place: Place, name: str = "t", ttl: dict[str, Any] | None = None, *, owner: str = "", **more: Any
) -> Thread:
    """A thread that was last used two hours ago."""
    thread = place.thread(name, owner)
    await THREADS.create(place.api, thread.owner, thread.id, ttl=ttl or HOUR, **more)
    await place.age(thread, 7200)
    return thread


async def fill(place: Place, thread: Thread) -> None:
    """States, a run, a cron and checkpoints, and the thread two hours old all the same."""
    for number in range(3):
        await thread.call("AddThreadState", checkpoint_id=f"s{number}", values=f"[{number}]")
    assistant = await ASSISTANTS.create(place.api, thread.owner)
    names = {"thread_id": thread.id, "assistant_id": assistant.assistant_id}
    await RUNS.create(place.api, thread.owner, status="RUN_STATUS_SUCCESS", **names)
    await CRONS.create(place.api, thread.owner, **names)
    first, second = id_at(2), id_at(1)
    await put(thread, first, a="1", b="1")
    await put(thread, second, first, a="2", b="1")
    await put(thread, second, ns="sub", a="1")
    await place.age(thread, 7200)


async def is_there(thread: Thread) -> bool:
    return await THREADS.count(thread.api, thread.owner, thread_ids=[thread.id]) == 1


async def test_an_expired_thread_goes_with_all_that_hangs_on_it(place: Place, other: str) -> None:
    thread, stays = await create(place), await create(place, "stays", {"minutes": 1e6})
    kept = await create(place, owner=other)
    for filled in (thread, stays, kept):
        await fill(place, filled)
    before = [await rows(stays), await rows(kept)]
    assert all(before[1].values())
    # It is there like any other until it is swept.
    assert (await THREADS.get(place.api, thread.owner, thread.id)).expires_at.ToSeconds() < time.time()
    assert await thread.ids()
    assert await place.expire() == Counter(threads=1)
    with not_found("thread", thread.id):
        await THREADS.get(place.api, thread.owner, thread.id)
    assert await rows(thread) == {"checkpoints": [], "blobs": [], "writes": []}
    for kind in (RUNS, CRONS):
        assert await kind.count(place.api, thread.owner, thread_id=thread.id) == 0
        assert await kind.count(place.api, thread.owner, thread_id=stays.id) == 1
        assert await kind.count(place.api, other, thread_id=kept.id) == 1
    assert [await rows(stays), await rows(kept)] == before
    assert await is_there(kept)
    # The id is free again, and nothing of before comes with it.
    await THREADS.create(place.api, thread.owner, thread.id)
    assert not (await thread.call("ListThreadStates")).states
    assert await place.expire() == Counter()


async def test_one_thread_alone(place: Place) -> None:
    one, two = await create(place, "one"), await create(place, "two")
    await place.api.call("PutItem", owner_id=place.owner, namespace=["a"], key="k", value="1", ttl_minutes=1e-7)
    assert await expire(place.sweep(one.id)) == Counter(threads=1)
    assert not await is_there(one)
    assert await is_there(two)
    assert await place.expire() == Counter(threads=1, items=1)


async def test_the_newest_of_all_is_kept(place: Place) -> None:
    thread = await create(place, ttl=KEEP)
    await fill(place, thread)
    newest, row = await thread.get(), await THREADS.get(place.api, thread.owner, thread.id)
    assert await place.expire() == Counter(pruned=1)
    assert [state.checkpoint_id for state in (await thread.call("ListThreadStates")).states] == ["s2"]
    newest.parent_checkpoint_id = ""
    assert await thread.get() == newest
    left = await rows(thread)
    assert left["checkpoints"] == [(ns, newest.checkpoint_id, "") for ns in ("", "sub")]
    assert left["blobs"] == [("", "a", "2"), ("", "b", "1"), ("sub", "a", "1")]
    assert await RUNS.count(place.api, thread.owner, thread_id=thread.id) == 1
    # Nothing else of the thread has changed, and it is not swept again at once: at the earliest after a day.
    after = await THREADS.get(place.api, thread.owner, thread.id)
    assert 86390 < after.expires_at.ToSeconds() - time.time() < 86410
    after.expires_at.CopyFrom(row.expires_at)
    assert after == row
    assert await place.expire() == Counter()
    # Whoever uses it begins its time anew.
    await thread.call("AddThreadState", checkpoint_id="s3")
    await place.age(thread, 7200)
    assert await place.expire() == Counter(pruned=1)
    assert [state.checkpoint_id for state in (await thread.call("ListThreadStates")).states] == ["s3"]
    await place.age(thread, 86401)
    assert await place.expire() == Counter(pruned=1)


async def test_long_times_are_not_cut_to_a_day(place: Place) -> None:
    thread = await create(place, ttl=KEEP | {"minutes": 5 * 1440})
    await place.age(thread, 5 * 86400)
    assert await place.expire() == Counter(pruned=1)
    row = await THREADS.get(place.api, thread.owner, thread.id)
    assert 5 * 86400 - 10 < row.expires_at.ToSeconds() - time.time() < 5 * 86400 + 10


@pytest.mark.parametrize("ttl", [HOUR, KEEP], ids=["delete", "keep"])
async def test_a_thread_that_is_at_work_stays(place: Place, ttl: dict[str, Any]) -> None:
    busy = await create(place, "busy", ttl, status="THREAD_STATUS_BUSY")
    running = await create(place, "running", ttl)
    assistant = await ASSISTANTS.create(place.api, place.owner)
    run: dict[str, Any] = {"thread_id": running.id, "assistant_id": assistant.assistant_id, "record_only": True}
    runs = [
        await RUNS.create(place.api, place.owner, status=status, **run)
        for status in ("RUN_STATUS_PENDING", "RUN_STATUS_RUNNING")
    ]
    for thread in (busy, running):
        await put(thread, id_at(2), a="1")
        await put(thread, id_at(1), a="2")
        assert len(await ids(thread)) == 2
    assert await place.expire() == Counter()
    for one in runs:
        assert await is_there(running)
        await RUNS.call(place.api, "Update", place.owner, run_id=one.run_id, status="RUN_STATUS_SUCCESS")
        await place.expire()
    # What is not at work any more is swept.
    assert len(await ids(running)) == (0 if ttl is HOUR else 1)
    assert len(await ids(busy)) == 2
    await THREADS.call(place.api, "Update", place.owner, thread_id=busy.id, status="THREAD_STATUS_INTERRUPTED")
    assert await place.expire() == Counter()
    await place.age(busy, 7200)
    assert (await place.expire()).total() == 1


async def test_anothers_run_does_not_hold_a_thread(place: Place, other: str) -> None:
    thread = await create(place)
    run: dict[str, Any] = {"thread_id": thread.id, "status": "RUN_STATUS_RUNNING", "record_only": True}
    with not_found("thread", thread.id):
        await RUNS.create(place.api, other, **run)
    assert await place.expire() == Counter(threads=1)


async def test_a_checkpoint_is_a_use(place: Place) -> None:
    """A saver writes no thread row; nor does one that opens the database by itself."""
    thread = await create(place)
    made = time.time() - 1800
    await put(thread, id_at(1800 / 86400), a="1")
    await put(thread, id_at(3), ns="sub", a="1")
    row = await THREADS.get(place.api, thread.owner, thread.id)
    assert row.expires_at.ToSeconds() < time.time(), "the put has renewed it"
    assert await place.expire() == Counter(renewed=1)
    after = await THREADS.get(place.api, thread.owner, thread.id)
    assert abs(after.expires_at.ToSeconds() - (made + 3600)) < 5
    assert after.updated_at == row.updated_at
    assert await place.expire() == Counter()
    assert await thread.ids()
    await place.age(thread, 3600)
    # Nor is a checkpoint of a subgraph overlooked.
    await put(thread, id_at(0), ns="sub", a="2")
    assert await place.expire() == Counter(renewed=1)


async def test_a_checkpoint_that_says_its_time_by_itself(place: Place) -> None:
    thread = await create(place)
    await thread.put("custom-1", checkpoint=document(ts=datetime.now(UTC).isoformat()))
    assert await place.expire() == Counter(renewed=1)
    await place.age(thread, 7200)
    await thread.put("custom-1", checkpoint=document(ts="2025-01-01T00:00:00.000Z"))
    assert await place.expire() == Counter(threads=1)


@pytest.mark.parametrize("ts", ["yesterday", "9999-99-99T00:00:00Z", None, 7, {"a": 1}])
async def test_a_checkpoint_that_says_nothing_of_its_time(place: Place, ts: Any) -> None:
    thread = await create(place)
    await thread.put("custom-1", checkpoint=document(ts=ts))
    assert await place.expire() == Counter(threads=1)


async def test_a_checkpoint_of_the_future_counts_as_of_now(place: Place) -> None:
    thread = await create(place)
    await put(thread, id_at(-1000), a="1")
    assert await place.expire() == Counter(renewed=1)
    row = await THREADS.get(place.api, thread.owner, thread.id)
    assert 3590 < row.expires_at.ToSeconds() - time.time() < 3610


async def test_more_threads_than_a_batch(place: Place, other: str) -> None:
    kept = await create(place, owner=other)
    for number in range(70):
        await create(place, f"t{number}", KEEP if number % 7 == 0 else HOUR)
    assert await place.expire() == Counter(threads=60, pruned=10)
    assert await THREADS.count(place.api, place.owner) == 10
    assert await is_there(kept)


async def test_items_whose_time_is_over_are_deleted(place: Place, other: str) -> None:
    def put(key: str, owner: str = "", **more: Any) -> dict[str, Any]:
        return {"owner_id": owner or place.owner, "namespace": ["a"], "key": key, "value": "1", **more}

    for number in range(70):
        await place.api.call("PutItem", **put(f"{number}", ttl_minutes=1e-7))
    await place.api.call("PutItem", **put("later", ttl_minutes=60))
    await place.api.call("PutItem", **put("for good"))
    await place.api.call("PutItem", **put("theirs", other, ttl_minutes=1e-7))
    assert await place.expire() == Counter(items=70)
    assert await place.expire() == Counter()
    items = (await place.api.call("SearchItems", owner_id=place.owner, limit=100)).items
    assert {item.key for item in items} == {"later", "for good"}
    # The row is gone: the version begins again, which it does not where an item is only over.
    assert (await place.api.call("PutItem", **put("1"))).item.version == 1
    assert (await place.api.call("PutItem", **put("theirs", other))).item.version == 2
