"""What a new run does to the others of its thread, and how runs are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.queue import INTERRUPTED, STATUS, SUCCESS, Queue, held, reason
from tests.service import CallFailed


async def checkpoint(queue: Queue, thread: str, id: str, run_id: str) -> None:
    """A checkpoint that a run left."""
    await queue.call(
        "PutCheckpoint", thread_id=thread, checkpoint_id=id, checkpoint='{"v": 4}', metadata=f'{{"run_id": "{run_id}"}}'
    )


async def checkpoints(queue: Queue, thread: str) -> list[str]:
    """The ids of a thread's checkpoints."""
    parts = await queue.api.stream("ListCheckpoints", owner_id=queue.owner, thread_id=thread)
    return [part.checkpoint.checkpoint_id for part in parts]


async def test_interrupt(queue: Queue) -> None:
    thread = await queue.thread()
    running, waiting = await queue.admit(thread), await queue.admit(thread)
    (claimed,) = await queue.claim()
    new = await queue.admit(thread, "INTERRUPT")
    assert [await queue.status(run_id) for run_id in (running, waiting, new)] == ["running", "interrupted", "pending"]
    assert (await queue.run(waiting)).HasField("finished_at")
    assert (await queue.call("HeartbeatRun", **held(claimed))).cancel == 1
    assert await queue.claim() == []
    await queue.finish(claimed, INTERRUPTED)
    assert await queue.thread_status(thread) == "busy"
    assert [found.run.run_id for found in await queue.claim()] == [new]


async def test_rollback(queue: Queue) -> None:
    thread = await queue.thread()
    done = await queue.admit(thread)
    (claimed,) = await queue.claim()
    await checkpoint(queue, thread, "1", done)
    await queue.finish(claimed, values='{"kept": 1}')
    running, waiting = await queue.admit(thread), await queue.admit(thread)
    (claimed,) = await queue.claim()
    await checkpoint(queue, thread, "2", running)
    await queue.call("AppendRunEvents", **held(claimed), first_sequence=1, events=[{"type": "t"}])
    new = await queue.admit(thread, "ROLLBACK")
    assert await reason(queue.run(waiting)) == "NOT_FOUND"
    # Its worker still writes: it is undone when it lets go.
    assert (await queue.call("HeartbeatRun", **held(claimed))).cancel == 2
    await checkpoint(queue, thread, "3", running)
    assert await queue.claim() == []
    finished = await queue.finish(claimed, SUCCESS, values='{"undone": 1}')
    assert not finished.HasField("run")
    assert await reason(queue.run(running)) == "NOT_FOUND"
    assert await checkpoints(queue, thread) == ["1"]
    assert (await queue.call("GetThread", thread_id=thread)).thread.values == '{"kept": 1}'
    assert [found.run.run_id for found in await queue.claim()] == [new]


async def test_a_worker_that_was_to_stop_and_died(queue: Queue) -> None:
    for action, left in (("INTERRUPT", "interrupted"), ("ROLLBACK", "")):
        thread = await queue.thread()
        run_id = await queue.admit(thread)
        await queue.claim(lease_seconds=0.05)
        await queue.call("CancelRuns", run_ids=[run_id], action=f"CANCEL_ACTION_{action}")
        await asyncio.sleep(0.1)
        swept = await queue.call("SweepRuns")
        assert (swept.requeued, swept.failed, swept.stopped) == (0, 0, 1)
        if left:
            assert await queue.status(run_id) == left
        else:
            assert await reason(queue.run(run_id)) == "NOT_FOUND"
        assert await queue.thread_status(thread) == "idle"


async def test_given_back_when_it_was_to_stop(queue: Queue) -> None:
    thread = await queue.thread()
    run_id = await queue.admit(thread)
    (claimed,) = await queue.claim()
    await queue.call("CancelRuns", thread_id=thread)
    await queue.call("ReleaseRun", **held(claimed))
    assert (await queue.status(run_id), await queue.thread_status(thread)) == ("interrupted", "idle")


async def test_cancel(queue: Queue) -> None:
    thread = await queue.thread()
    runs = [await queue.admit(thread) for _ in range(3)]
    elsewhere = await queue.admit()
    (claimed,) = await queue.claim()
    assert claimed.run.run_id == runs[0]
    answer = await queue.call("CancelRuns", run_ids=[runs[1], "absent"])
    assert (list(answer.stopped_run_ids), list(answer.asked_run_ids)) == ([runs[1]], [])
    answer = await queue.call("CancelRuns", thread_id=thread)
    assert (list(answer.stopped_run_ids), list(answer.asked_run_ids)) == ([runs[2]], [runs[0]])
    # Asking for more than was asked counts, for less does not.
    await queue.call("CancelRuns", thread_id=thread, action="CANCEL_ACTION_ROLLBACK")
    await queue.call("CancelRuns", thread_id=thread, action="CANCEL_ACTION_INTERRUPT")
    assert (await queue.call("HeartbeatRun", **held(claimed))).cancel == 2
    assert (await queue.run(runs[0])).cancel == 2
    assert [STATUS[(await queue.run(run_id)).status] for run_id in (*runs[1:], elsewhere)] == [
        "interrupted",
        "interrupted",
        "pending",
    ]
    assert await reason(queue.call("CancelRuns")) == "INVALID_REQUEST"
    assert await reason(queue.call("CancelRuns", thread_id="absent")) == "NOT_FOUND"


async def test_a_run_that_a_runtime_has_is_stopped_at_once(queue: Queue) -> None:
    for strategy, left in (("INTERRUPT", "interrupted"), ("ROLLBACK", "")):
        thread = await queue.thread()
        record: dict[str, Any] = {"thread_id": thread, "assistant_id": "any", "record_only": True}
        made = (await queue.call("CreateRun", **record, status="RUN_STATUS_RUNNING")).run.run_id
        new = await queue.admit(thread, strategy)
        if left:
            assert await queue.status(made) == left
        else:
            assert await reason(queue.run(made)) == "NOT_FOUND"
        assert [found.run.run_id for found in await queue.claim()] == [new]


async def test_reject(queue: Queue) -> None:
    thread = await queue.thread()
    first = await queue.admit(thread, "REJECT")
    with pytest.raises(CallFailed) as failure:
        await queue.admit(thread, "REJECT")
    assert (failure.value.reason, failure.value.metadata["run_ids"]) == ("THREAD_BUSY", first)
    (claimed,) = await queue.claim()
    await queue.finish(claimed)
    await queue.admit(thread, "REJECT")


async def test_a_thread_that_is_not_there(queue: Queue, other: str) -> None:
    thread = f"made-{queue.owner}"
    assert await reason(queue.admit(thread)) == "NOT_FOUND"
    run_id = await queue.admit(thread, if_not_exists="IF_NOT_EXISTS_CREATE")
    assert await queue.thread_status(thread) == "busy"
    again = await queue.admit(thread, if_not_exists="IF_NOT_EXISTS_CREATE")
    assert (await queue.run(again)).thread_id == (await queue.run(run_id)).thread_id
    # Another owner's stays another's.
    stranger = Queue(queue.api, other)
    assert await reason(stranger.admit(thread, if_not_exists="IF_NOT_EXISTS_CREATE")) == "NOT_FOUND"
    # Nothing is made where the run is not.
    absent = {"thread_id": f"other-{queue.owner}", "assistant_id": "absent", "if_not_exists": "IF_NOT_EXISTS_CREATE"}
    assert await reason(queue.call("CreateRun", **absent)) == "NOT_FOUND"
    assert await reason(queue.call("GetThread", thread_id=f"other-{queue.owner}")) == "NOT_FOUND"
    # Nor where a run that was recorded before is in flight on the thread as soon as there is one.
    place: dict[str, Any] = {"thread_id": f"other-{queue.owner}", "assistant_id": "any", "record_only": True}
    await queue.call("CreateRun", **place, status="RUN_STATUS_RUNNING")
    refused = queue.admit(place["thread_id"], "REJECT", if_not_exists="IF_NOT_EXISTS_CREATE")
    assert await reason(refused) == "THREAD_BUSY"
    assert await reason(queue.call("GetThread", thread_id=place["thread_id"])) == "NOT_FOUND"


@pytest.mark.parametrize("field", [{"run_after": "2100-01-01T00:00:00Z"}, {"if_not_exists": "IF_NOT_EXISTS_CREATE"}])
async def test_what_a_recorded_run_does_not_take(queue: Queue, field: dict[str, str]) -> None:
    record: dict[str, Any] = {"thread_id": "any", "assistant_id": "any", "record_only": True}
    with pytest.raises(CallFailed) as failure:
        await queue.call("CreateRun", **record, **field)
    assert list(failure.value.fields) == list(field)


async def test_a_repeated_request_makes_one_run(queue: Queue) -> None:
    thread = await queue.thread()
    await queue.assistant()
    made = await asyncio.gather(*(queue.admit(thread, "ROLLBACK", request_id="once") for _ in range(8)))
    assert len(set(made)) == 1
    assert await queue.status(made[0]) == "pending"
    assert (await queue.call("CountRuns", thread_id=thread)).count == 1
    assert await reason(queue.admit(thread, "ROLLBACK", request_id="once", kwargs='{"other": 1}')) == "INVALID_REQUEST"


async def test_deleting_an_assistant_ends_the_lease(queue: Queue) -> None:
    await queue.admit()
    (claimed,) = await queue.claim()
    await queue.call("DeleteAssistant", assistant_id=claimed.run.assistant_id)
    assert await reason(queue.call("HeartbeatRun", **held(claimed))) == "LEASE_LOST"
    assert await queue.status(claimed.run.run_id) == "interrupted"
