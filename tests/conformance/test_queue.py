"""Handing out runs: claims, leases, ends, and what becomes of those that nobody ends."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import pytest

from tests.conformance.queue import ERROR, INTERRUPTED, PENDING, RUNNING, STATUS, SUCCESS, THREAD, Queue, held, reason


async def test_from_the_queue_to_the_end(queue: Queue) -> None:
    thread = await queue.thread()
    run_id = await queue.admit(thread, kwargs='{"input": 1}')
    admitted = await queue.run(run_id)
    assert (STATUS[admitted.status], admitted.attempt, admitted.HasField("lease")) == ("pending", 0, False)
    assert admitted.HasField("run_after")
    (claimed,) = await queue.claim()
    assert claimed.run.run_id == run_id
    assert claimed.owner_id == queue.owner
    assert (STATUS[claimed.run.status], claimed.run.attempt) == ("running", 1)
    assert claimed.run.lease.worker_id == queue.worker
    assert claimed.run.kwargs == '{"input": 1}'
    assert 29 < claimed.run.lease.expires_at.ToSeconds() - claimed.run.updated_at.ToSeconds() < 32
    assert await queue.claim() == []
    beat = await queue.call("HeartbeatRun", **held(claimed), lease_seconds=100)
    assert (await queue.run(run_id)).lease.expires_at == beat.expires_at
    assert beat.expires_at.ToMicroseconds() > claimed.run.lease.expires_at.ToMicroseconds()
    assert beat.cancel == 0
    assert await queue.thread_status(thread) == "busy"
    finished = await queue.finish(claimed, values='{"out": 2}', interrupts='{"i": []}')
    assert STATUS[finished.run.status] == "success"
    assert finished.run.HasField("finished_at")
    assert not finished.run.HasField("lease")
    left = (await queue.call("GetThread", thread_id=thread)).thread
    assert (THREAD[left.status], left.values, json.loads(left.interrupts)) == ("idle", '{"out": 2}', {"i": []})
    # Sent again it finds what it did; another end is refused.
    assert (await queue.finish(claimed)).run == finished.run
    assert await reason(queue.finish(claimed, ERROR)) == "LEASE_LOST"


@pytest.mark.parametrize(
    ("status", "left"),
    [("SUCCESS", "idle"), ("ERROR", "error"), ("TIMEOUT", "error"), ("INTERRUPTED", "interrupted")],
)
async def test_what_an_end_leaves(queue: Queue, status: str, left: str) -> None:
    thread = await queue.thread()
    await queue.admit(thread)
    (claimed,) = await queue.claim()
    finished = await queue.finish(claimed, f"RUN_STATUS_{status}", error='{"message": "no"}')
    assert STATUS[finished.run.status] == status.lower()
    assert finished.run.error == '{"message": "no"}'
    found = (await queue.call("GetThread", thread_id=thread)).thread
    assert (THREAD[found.status], found.error) == (left, '{"message": "no"}')


@pytest.mark.parametrize("status", ["RUN_STATUS_PENDING", "RUN_STATUS_RUNNING"])
async def test_an_end_is_final(queue: Queue, status: str) -> None:
    await queue.admit()
    (claimed,) = await queue.claim()
    assert await reason(queue.finish(claimed, status)) == "INVALID_REQUEST"


async def test_one_of_a_thread_and_the_oldest_first(queue: Queue) -> None:
    one, other = await queue.thread(), await queue.thread()
    runs = [await queue.admit(thread) for thread in (one, one, other)]
    claimed = await queue.claim(10)
    assert [found.run.run_id for found in claimed] == [runs[0], runs[2]]
    assert await queue.claim(10) == []
    await queue.finish(claimed[0], ERROR)
    assert await queue.thread_status(one) == "busy"
    (second,) = await queue.claim(10)
    assert second.run.run_id == runs[1]
    await queue.finish(second)
    assert await queue.thread_status(one) == "idle"


async def test_a_thread_with_a_run_of_a_runtime_is_not_free(queue: Queue) -> None:
    thread = await queue.thread()
    record = {"thread_id": thread, "assistant_id": "any", "record_only": True}
    made = (await queue.call("CreateRun", **record, status=RUNNING)).run.run_id
    # Nobody is to claim what a runtime runs by itself.
    await queue.call("CreateRun", **record)
    run_id = await queue.admit(thread)
    assert await queue.claim(10) == []
    await queue.call("UpdateRun", run_id=made, status=SUCCESS)
    assert [found.run.run_id for found in await queue.claim(10)] == [run_id]


async def test_a_run_that_is_to_wait(queue: Queue) -> None:
    thread = await queue.thread()
    later = await queue.admit(thread, run_after="2100-01-01T00:00:00Z")
    first = await queue.admit(thread)
    assert [found.run.run_id for found in await queue.claim(10)] == [first]
    assert (await queue.run(later)).run_after.ToJsonString() == "2100-01-01T00:00:00Z"


async def test_a_lease_that_lapses(queue: Queue) -> None:
    await queue.admit()
    tokens = []
    for attempt in range(1, 6):
        (claimed,) = await queue.claim(lease_seconds=0.05)
        tokens.append(claimed.lease_token)
        assert claimed.run.attempt == attempt
        await asyncio.sleep(0.1)
        for method in ("HeartbeatRun", "ReleaseRun"):
            assert await reason(queue.call(method, **held(claimed))) == "LEASE_LOST"
        assert await reason(queue.finish(claimed)) == "LEASE_LOST"
        assert await queue.claim() == []
        swept = await queue.call("SweepRuns")
        assert (swept.requeued, swept.failed, swept.stopped) == ((1, 0, 0) if attempt < 5 else (0, 1, 0))
        # What was taken back stays so.
        assert await reason(queue.call("ReleaseRun", **held(claimed))) == "LEASE_LOST"
    assert tokens == sorted(set(tokens))
    ended = await queue.run(claimed.run.run_id)
    assert STATUS[ended.status] == "error"
    assert json.loads(ended.error)["error"] == "LeaseLapsed"
    thread = (await queue.call("GetThread", thread_id=ended.thread_id)).thread
    assert await queue.thread_status(ended.thread_id) == "error"
    assert json.loads(thread.error) == json.loads(ended.error)


async def test_a_run_that_lapses_at_last_is_not_what_a_former_worker_said(queue: Queue) -> None:
    run_id = await queue.admit()
    (former,) = await queue.claim()
    await queue.call("ReleaseRun", **held(former))
    for _ in range(5):
        await queue.claim(lease_seconds=0.05)
        await asyncio.sleep(0.1)
        await queue.call("SweepRuns")
    assert await queue.status(run_id) == "error"
    assert await reason(queue.finish(former, ERROR)) == "LEASE_LOST"


async def test_a_run_that_is_to_stop_is_given_back_twice(queue: Queue) -> None:
    run_id = await queue.admit()
    (claimed,) = await queue.claim()
    await queue.call("CancelRuns", run_ids=[run_id])
    for _ in range(2):
        await queue.call("ReleaseRun", **held(claimed))
        assert await queue.status(run_id) == "interrupted"


async def test_a_sweep_of_so_many(queue: Queue) -> None:
    asked, *others = [await queue.admit() for _ in range(3)]
    await queue.claim(3, lease_seconds=0.05)
    await queue.call("CancelRuns", run_ids=[asked])
    await asyncio.sleep(0.1)
    # Those that go on come before those that end.
    swept = [await queue.call("SweepRuns", limit=limit) for limit in (1, 2, 1)]
    assert [(one.requeued, one.failed, one.stopped) for one in swept] == [(1, 0, 0), (1, 0, 1), (0, 0, 0)]
    assert [await queue.status(run) for run in (asked, *others)] == ["interrupted", "pending", "pending"]


async def test_a_zombie_changes_nothing(queue: Queue) -> None:
    run_id = await queue.admit()
    (zombie,) = await queue.claim(lease_seconds=0.05)
    await asyncio.sleep(0.1)
    await queue.call("SweepRuns")
    (claimed,) = await queue.claim()
    assert claimed.lease_token > zombie.lease_token
    before = await queue.run(run_id)
    event = {"first_sequence": 1, "events": [{"type": "t"}]}
    for call in (
        queue.call("HeartbeatRun", **held(zombie)),
        queue.finish(zombie, ERROR, values='{"zombie": 1}'),
        queue.call("ReleaseRun", **held(zombie)),
        queue.call("AppendRunEvents", **held(zombie), **event),
    ):
        assert await reason(call) == "LEASE_LOST"
    assert await queue.run(run_id) == before
    assert STATUS[(await queue.finish(claimed)).run.status] == "success"


async def test_given_back(queue: Queue) -> None:
    run_id = await queue.admit()
    (claimed,) = await queue.claim()
    await queue.call("ReleaseRun", **held(claimed))
    await queue.call("ReleaseRun", **held(claimed))
    found = await queue.run(run_id)
    assert (STATUS[found.status], found.attempt, found.HasField("lease")) == ("pending", 1, False)
    (again,) = await queue.claim()
    assert (again.run.run_id, again.run.attempt) == (run_id, 2)
    await queue.call("ReleaseRun", **held(again), delay_seconds=100)
    assert await queue.claim() == []


async def test_a_claim_waits(queue: Queue) -> None:
    started = time.monotonic()
    waiting = asyncio.create_task(queue.claim(wait_seconds=10))
    await asyncio.sleep(0.3)
    run_id = await queue.admit()
    (claimed,) = await waiting
    assert claimed.run.run_id == run_id
    assert time.monotonic() - started < 3
    started = time.monotonic()
    assert await queue.claim(wait_seconds=0.4) == []
    assert 0.4 <= time.monotonic() - started < 2


async def test_an_owner_claims_its_own(queue: Queue, other: str) -> None:
    run_id = await queue.admit()
    stranger = Queue(queue.api, other)
    assert await stranger.claim(10) == []
    (claimed,) = await queue.claim()
    for method in ("HeartbeatRun", "ReleaseRun"):
        assert await reason(stranger.call(method, **held(claimed))) == "NOT_FOUND"
    assert await reason(stranger.finish(claimed)) == "NOT_FOUND"
    assert (await stranger.call("CancelRuns", run_ids=[run_id])).asked_run_ids == []
    assert await reason(stranger.call("CancelRuns", thread_id=claimed.run.thread_id)) == "NOT_FOUND"
    assert (await stranger.call("GetRunStats")).leased == 0
    assert await queue.status(run_id) == "running"


async def test_a_worker_of_all_owners(queue: Queue) -> None:
    run_id = await queue.admit()
    worker = f"worker-{uuid.uuid4().hex}"
    found = None
    while found is None:
        answer = await queue.api.call("ClaimRuns", worker_id=worker, limit=100, lease_seconds=1)
        assert answer.runs
        found = next((one for one in answer.runs if one.run.run_id == run_id), None)
    assert found.owner_id == queue.owner
    assert json.loads(found.run.metadata)["owner"] == queue.owner
    assert STATUS[(await queue.finish(found)).run.status] == "success"


async def test_how_the_queue_stands(queue: Queue) -> None:
    before = await queue.call("GetRunStats")
    assert (before.due, before.delayed, before.leased, before.oldest_wait_seconds, list(before.runs)) == (
        0,
        0,
        0,
        0,
        [],
    )
    thread = await queue.thread()
    for _ in range(3):
        await queue.admit(thread)
    await queue.admit(run_after="2100-01-01T00:00:00Z")
    (claimed,) = await queue.claim()
    await asyncio.sleep(0.01)
    stats = await queue.call("GetRunStats")
    assert (stats.due, stats.delayed, stats.leased) == (2, 1, 1)
    assert 0.005 < stats.oldest_wait_seconds < 20
    assert {STATUS[one.status]: one.count for one in stats.runs} == {"pending": 3, "running": 1}
    assert stats.claims > before.claims
    assert claimed.run.attempt == 1


async def test_a_status_that_a_runtime_sets_ends_the_lease(queue: Queue) -> None:
    thread = await queue.thread()
    run_id = await queue.admit(thread)
    (claimed,) = await queue.claim()
    await queue.call("UpdateRun", run_id=run_id, status=INTERRUPTED)
    found = await queue.run(run_id)
    assert not found.HasField("lease")
    assert found.HasField("finished_at")
    assert await reason(queue.call("HeartbeatRun", **held(claimed))) == "LEASE_LOST"
    # It may be claimed again when it is made pending again.
    await queue.call("UpdateRun", run_id=run_id, status=PENDING, force=True)
    (again,) = await queue.claim()
    assert (again.run.run_id, again.run.attempt) == (run_id, 2)


async def test_what_is_gone_is_not_found(queue: Queue) -> None:
    await queue.admit()
    (claimed,) = await queue.claim()
    await queue.call("DeleteThread", thread_id=claimed.run.thread_id)
    for method in ("HeartbeatRun", "ReleaseRun"):
        assert await reason(queue.call(method, **held(claimed))) == "NOT_FOUND"
    assert await reason(queue.finish(claimed)) == "NOT_FOUND"
