"""The log of a run: appending, following from any place, and its end."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from tests.conformance.queue import ERROR, INTERRUPTED, STATUS, Queue, held, reason
from tests.service import CallFailed


def events(*texts: str) -> list[dict[str, str]]:
    """Events as JSON has them."""
    return [{"type": "text", "data": base64.b64encode(text.encode()).decode()} for text in texts]


async def append(queue: Queue, claimed: Any, first: int, *texts: str) -> int:
    """Append events; gives the last sequence."""
    answer = await queue.call("AppendRunEvents", **held(claimed), first_sequence=first, events=events(*texts))
    return int(answer.last_sequence)


async def follow(queue: Queue, owner: str = "", **place: Any) -> list[Any]:
    """All messages of a stream that ends."""
    return await queue.api.stream("StreamRunEvents", owner_id=owner or queue.owner, **place)


def texts(messages: list[Any]) -> list[tuple[int, str]]:
    """Sequence and data of the events, without the end marker."""
    return [(event.sequence, event.data.decode()) for part in messages for event in part.events if not event.end]


async def claimed_run(queue: Queue, thread: str = "") -> Any:
    """A run that is claimed."""
    await queue.admit(thread)
    (claimed,) = await queue.claim()
    return claimed


async def test_a_log_from_its_beginning_to_its_end(queue: Queue) -> None:
    claimed = await claimed_run(queue)
    assert await append(queue, claimed, 1, "a", "b") == 2
    following = asyncio.create_task(follow(queue, run_id=claimed.run.run_id))
    await asyncio.sleep(0.1)
    assert await append(queue, claimed, 3, "c") == 3
    assert (await queue.run(claimed.run.run_id)).last_sequence == 3
    await asyncio.sleep(0.05)
    await queue.finish(claimed)
    live = await asyncio.wait_for(following, 5)
    assert texts(live) == [(1, "a"), (2, "b"), (3, "c")]
    late = await follow(queue, run_id=claimed.run.run_id)
    assert texts(late) == texts(live)
    for messages in (live, late):
        assert STATUS[messages[-1].run.status] == "success"
        last = messages[-1].events[-1]
        assert (last.sequence, last.type, STATUS[last.end]) == (4, "end", "success")
    after = await follow(queue, run_id=claimed.run.run_id, after=2)
    assert texts(after) == [(3, "c")]
    for place in (4, 1000):
        (only,) = await follow(queue, run_id=claimed.run.run_id, after=place)
        assert (len(only.events), STATUS[only.run.status]) == (0, "success")


async def test_what_is_appended_twice_is_there_once(queue: Queue) -> None:
    claimed = await claimed_run(queue)
    await append(queue, claimed, 1, "a")
    assert await append(queue, claimed, 2, "b", "c") == 3
    assert await append(queue, claimed, 2, "b", "c") == 3
    for first, data in ((2, ("b", "x")), (1, ("a",)), (5, ("e",)), (3, ("b",))):
        with pytest.raises(CallFailed) as failure:
            await append(queue, claimed, first, *data)
        assert (failure.value.reason, failure.value.metadata["current"]) == ("SEQUENCE_MISMATCH", "3")
    await queue.finish(claimed)
    assert texts(await follow(queue, run_id=claimed.run.run_id)) == [(1, "a"), (2, "b"), (3, "c")]


async def test_attempts_share_a_log(queue: Queue) -> None:
    first = await claimed_run(queue)
    await append(queue, first, 1, "a")
    await queue.call("ReleaseRun", **held(first))
    (second,) = await queue.claim()
    assert second.run.last_sequence == 1
    assert await reason(append(queue, first, 2, "zombie")) == "LEASE_LOST"
    await append(queue, second, 2, "b")
    await queue.finish(second, ERROR)
    found = await follow(queue, run_id=first.run.run_id)
    assert [(event.sequence, event.attempt) for part in found for event in part.events] == [(1, 1), (2, 2), (3, 2)]


async def test_a_thread_with_all_its_runs(queue: Queue) -> None:
    thread = await queue.thread()
    seen: list[Any] = []

    async def watch() -> None:
        # This stream ends with its call alone.
        seen.extend(await follow(queue, thread_id=thread))

    for data in ("a", "b"):
        claimed = await claimed_run(queue, thread)
        await append(queue, claimed, 1, data)
        await queue.finish(claimed)
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.5):
            await watch()
    log = await queue.call("SearchRuns", thread_id=thread, sort_order="SORT_ORDER_ASC")
    positions = []
    for run in log.runs:
        found = [event for part in await follow(queue, run_id=run.run_id) for event in part.events]
        assert [event.sequence for event in found] == [1, 2]
        positions += [event.position for event in found]
    assert positions == sorted(set(positions))


async def test_a_cancel_is_told_at_once(queue: Queue) -> None:
    claimed = await claimed_run(queue)
    following = asyncio.create_task(follow(queue, run_id=claimed.run.run_id, after=-1))
    await asyncio.sleep(0.1)
    await queue.call("CancelRuns", run_ids=[claimed.run.run_id])
    await asyncio.sleep(0.1)
    await queue.finish(claimed, INTERRUPTED)
    messages = await asyncio.wait_for(following, 5)
    assert messages[0].cancel == 1
    assert STATUS[messages[-1].run.status] == "interrupted"


@pytest.mark.parametrize("how", ["cancelled", "updated", "recorded"])
async def test_a_run_that_no_worker_ended(queue: Queue, how: str) -> None:
    thread = await queue.thread()
    if how == "recorded":
        record = {"thread_id": thread, "assistant_id": "any", "record_only": True}
        run_id = (await queue.call("CreateRun", **record, status="RUN_STATUS_RUNNING")).run.run_id
    else:
        run_id = await queue.admit(thread)
    following = asyncio.create_task(follow(queue, run_id=run_id))
    waiting = asyncio.create_task(queue.call("WaitRun", run_id=run_id, wait_seconds=10))
    await asyncio.sleep(0.1)
    if how == "cancelled":
        await queue.call("CancelRuns", run_ids=[run_id])
    else:
        await queue.call("UpdateRun", run_id=run_id, status=INTERRUPTED)
    messages = await asyncio.wait_for(following, 5)
    assert STATUS[messages[-1].run.status] == "interrupted"
    marks = [STATUS[event.end] for part in messages for event in part.events]
    # What was never queued has no log.
    assert marks == ([] if how == "recorded" else ["interrupted"])
    assert STATUS[(await asyncio.wait_for(waiting, 5)).run.status] == "interrupted"


async def test_waiting_for_the_end(queue: Queue) -> None:
    claimed = await claimed_run(queue)
    waited = await queue.call("WaitRun", run_id=claimed.run.run_id, wait_seconds=0.2)
    assert STATUS[waited.run.status] == "running"
    waiting = asyncio.create_task(queue.call("WaitRun", run_id=claimed.run.run_id, wait_seconds=10))
    await asyncio.sleep(0.1)
    finished = await queue.finish(claimed)
    assert (await asyncio.wait_for(waiting, 5)).run == finished.run
    assert await reason(queue.call("WaitRun", run_id="absent")) == "NOT_FOUND"


async def test_who_may_read_a_log(queue: Queue, other: str) -> None:
    thread = await queue.thread()
    claimed = await claimed_run(queue, thread)
    await append(queue, claimed, 1, "a")
    await queue.finish(claimed)
    for place in ({"run_id": claimed.run.run_id}, {"thread_id": thread}, {"run_id": "absent"}, {"thread_id": "absent"}):
        assert await reason(follow(queue, other, **place)) == "NOT_FOUND"
    await queue.call("UpdateThread", thread_id=thread, visibility="THREAD_VISIBILITY_READ_BY_ID")
    assert texts(await follow(queue, other, run_id=claimed.run.run_id)) == [(1, "a")]


@pytest.mark.parametrize("place", [{}, {"run_id": "a", "thread_id": "b"}, {"run_id": "a", "after": -2}])
async def test_a_place_that_is_none(queue: Queue, place: dict[str, Any]) -> None:
    assert await reason(follow(queue, **place)) == "INVALID_REQUEST"


async def test_many_and_large_events_come_in_order(queue: Queue) -> None:
    claimed = await claimed_run(queue)
    large = "x" * 700_000
    await append(queue, claimed, 1, *(str(number) for number in range(999)), large)
    await append(queue, claimed, 1001, large, large, "last")
    await queue.finish(claimed)
    messages = await follow(queue, run_id=claimed.run.run_id)
    found = texts(messages)
    assert [sequence for sequence, _ in found] == list(range(1, 1004))
    assert [data for _, data in found[:999]] == [str(number) for number in range(999)]
    assert [len(data) for _, data in found[999:]] == [700_000] * 3 + [4]
    assert max(message.ByteSize() for message in messages) < 2_000_000


async def test_an_owner_s_export_has_the_logs(queue: Queue) -> None:
    claimed = await claimed_run(queue)
    await append(queue, claimed, 1, "a", "b")
    await queue.finish(claimed)
    parts = await queue.api.stream("ExportOwner", owner_id=queue.owner)
    assert [event.sequence for part in parts for event in part.run_events] == [1, 2, 3]
    usage = (await queue.call("GetOwnerUsage")).usage
    assert {one.resource: one.rows for one in usage}[3] == 4
    await queue.call("DeleteRun", run_id=claimed.run.run_id)
    parts = await queue.api.stream("ExportOwner", owner_id=queue.owner)
    assert not any(part.run_events for part in parts)
