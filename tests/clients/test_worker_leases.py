"""Leases that are lost, runs that are cancelled, and workers that stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.queue import ClaimedRun, StopReason, Worker
from agentstorage.v1 import runs_pb2 as pb
from tests.clients.fake_exchange import until
from tests.clients.fake_runs import FakeRuns, Handling, nothing, serving_runs, statuses

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
async def connection(runs: FakeRuns) -> AsyncIterator[Connection]:
    async with serving_runs(runs) as target, Connection(target) as connection:
        yield connection


@pytest.mark.parametrize("by", ["heartbeat", "append", "deadline"])
async def test_a_lease_that_is_lost(
    runs: FakeRuns, connection: Connection, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    handling = Handling()
    began = time.monotonic()

    async def handler(run: ClaimedRun) -> None:
        if by == "append":
            await run.emit("x")
        await handling(run)

    async def late(run: ClaimedRun) -> None:
        if run.run_id == "r1":
            with pytest.raises(errors.LeaseLost):
                await run.emit("late")
        raise asyncio.CancelledError

    handling.after = late
    runs.add("r1")
    if by == "deadline":
        runs.faults["HeartbeatRun"].extend([UNAVAILABLE] * 1000)
    else:
        runs.lost.add("r1")
    async with Worker(connection, handler, lease_seconds=1.2 if by != "append" else 30) as worker:
        await until(lambda: handling.reasons)
        await until(lambda: not worker.runs)
        # Its place is free for another.
        runs.add("r2")
        await handling.begun.wait()
        await until(lambda: [run.run_id for run in worker.runs] == ["r2"])
        await worker.stop(0)
    assert handling.reasons[0] is StopReason.LEASE_LOST
    lasted = handling.ended[0] - began
    assert {"heartbeat": 0.3 < lasted < 0.9, "append": lasted < 1, "deadline": 1.1 < lasted < 2}[by]
    told = [*runs.calls["FinishRun"], *runs.calls["ReleaseRun"]]
    assert [call.run_id for call in told] == ["r2"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("r1" in warning for warning in warnings)
    assert not any("block" in warning for warning in warnings)


# The lease ends in the middle of it, and just before its end.
@pytest.mark.parametrize(("before", "blocked"), [(0.1, 1.2), (0.1, 0.82), (0, 1.5)])
async def test_a_lease_that_is_lost_since_a_handler_blocks_the_loop(
    runs: FakeRuns, connection: Connection, caplog: pytest.LogCaptureFixture, before: float, blocked: float
) -> None:
    async def handler(_: ClaimedRun) -> None:
        await asyncio.sleep(before)
        time.sleep(blocked)  # noqa: ASYNC251 - this is the mistake
        await asyncio.sleep(60)

    runs.add("r1")
    async with Worker(connection, handler, lease_seconds=0.9) as worker:
        await until(lambda: worker.runs)
        await until(lambda: not worker.runs)
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.endswith("could not be renewed in time; did a handler block the event loop?")


async def test_heartbeats_that_fail_now_and_then_keep_the_lease(runs: FakeRuns, connection: Connection) -> None:
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED):
        runs.faults["HeartbeatRun"].extend([code, code, None])

    async def handler(_: ClaimedRun) -> None:
        await asyncio.sleep(2)

    runs.add("r1")
    async with Worker(connection, handler, lease_seconds=1.2):
        assert statuses(await runs.finished()) == ["success"]
    beats = runs.calls["HeartbeatRun"]
    assert all((beat.run_id, beat.lease_token, beat.lease_seconds) == ("r1", 1, 1.2) for beat in beats)
    assert 5 <= len(beats) <= 9


async def test_a_heartbeat_that_hangs_does_not_keep_the_next_from_coming(
    runs: FakeRuns, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstorage.queue.execution._LEAST", 0.1)
    handling = Handling()
    runs.add("r1")
    async with Worker(connection, handling, lease_seconds=1.5) as worker:
        await until(lambda: runs.calls["HeartbeatRun"])
        runs.held.add("HeartbeatRun")
        await until(lambda: len(runs.calls["HeartbeatRun"]) >= 3)
        runs.held.clear()
        await asyncio.sleep(1)
        assert [run.run_id for run in worker.runs] == ["r1"]
        await worker.stop(0)
    assert handling.reasons == [StopReason.SHUTDOWN]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (pb.CANCEL_ACTION_INTERRUPT, StopReason.INTERRUPT),
        (pb.CANCEL_ACTION_ROLLBACK, StopReason.ROLLBACK),
    ],
)
async def test_a_cancel_that_a_heartbeat_tells(
    runs: FakeRuns, connection: Connection, action: pb.CancelAction, reason: StopReason
) -> None:
    handling = Handling()

    async def after(run: ClaimedRun) -> dict[str, Any]:
        await run.emit("last words")
        return {"kept": True}

    handling.after = after
    # The stream that would tell it at once is not to be had.
    runs.faults["StreamRunEvents"].append(grpc.StatusCode.UNIMPLEMENTED)
    runs.add("r1")
    async with Worker(connection, handling, lease_seconds=1):
        await handling.begun.wait()
        runs.cancels["r1"] = action
        (end,) = await runs.finished()
    assert handling.reasons == [reason]
    assert (statuses([end]), end.values, end.error) == (["interrupted"], '{"kept":true}', "")
    assert [event.type for event in runs.events["r1"]] == ["last words"]


async def test_a_handler_that_fails_when_it_is_cancelled_was_cancelled_still(
    runs: FakeRuns, connection: Connection
) -> None:
    handling = Handling()

    async def after(_: ClaimedRun) -> None:
        raise ValueError("in the middle of its cleaning")

    handling.after = after
    runs.add("r1")
    async with Worker(connection, handling, lease_seconds=1):
        await handling.begun.wait()
        runs.cancels["r1"] = pb.CANCEL_ACTION_INTERRUPT
        (end,) = await runs.finished()
    assert (statuses([end]), end.error) == (["interrupted"], "")


async def test_a_run_that_takes_too_long(runs: FakeRuns, connection: Connection) -> None:
    handling = Handling()
    runs.add("r1")
    async with Worker(connection, handling, run_timeout=0.2):
        (end,) = await runs.finished()
    assert handling.reasons == [StopReason.TIMEOUT]
    assert statuses([end]) == ["timeout"]
    assert json.loads(end.error) == {"error": "TimeoutError", "message": "the run took longer than 0.2 seconds"}


async def test_runs_at_work_may_end_when_the_worker_stops(runs: FakeRuns, connection: Connection) -> None:
    begun = asyncio.Event()

    async def handler(run: ClaimedRun) -> None:
        begun.set()
        await asyncio.sleep(0.3)
        await run.emit("the end")

    runs.add("r1")
    runs.add("r2")
    async with Worker(connection, handler):
        await begun.wait()
    assert statuses(runs.calls["FinishRun"]) == ["success"]
    assert [event.type for event in runs.events["r1"]] == ["the end"]
    assert len(runs.calls["ClaimRuns"]) == 1
    await until(lambda: not runs.streams)
    # It is told of a cancel, and not of the events that it has just sent.
    assert [stream.after > 2**32 for stream in runs.calls["StreamRunEvents"]] == [True]


async def test_runs_that_do_not_end_in_time_are_given_back(runs: FakeRuns, connection: Connection) -> None:
    handling = Handling()

    async def after(run: ClaimedRun) -> None:
        await run.emit("left here")
        raise ValueError("in the middle of its cleaning")

    handling.after = after
    runs.add("r1", "alice")
    worker = Worker(connection, handling, grace=0.1)
    worker.start()
    await handling.begun.wait()
    began = time.monotonic()
    await worker.stop()
    assert time.monotonic() - began < 1
    assert handling.reasons == [StopReason.SHUTDOWN]
    (back,) = runs.calls["ReleaseRun"]
    assert (back.run_id, back.owner_id, back.lease_token) == ("r1", "alice", 1)
    assert [event.type for event in runs.events["r1"]] == ["left here"]
    assert not runs.calls["FinishRun"]


async def test_a_second_signal_ends_the_grace(
    runs: FakeRuns, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    handling = Handling()
    runs.add("r1")
    worker = Worker(connection, handling, worker_id="w1", grace=60)
    working = asyncio.create_task(worker.run([signal.SIGUSR1, signal.SIGUSR2]))
    await handling.begun.wait()
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.2)
    assert not handling.reasons
    os.kill(os.getpid(), signal.SIGUSR2)
    await working
    assert time.monotonic() - began < 2
    assert handling.reasons == [StopReason.SHUTDOWN]
    assert [back.run_id for back in runs.calls["ReleaseRun"]] == ["r1"]
    (stops,) = (record for record in caplog.records if "another signal" in record.getMessage())
    assert stops.levelno == logging.WARNING
    assert stops.getMessage() == "worker w1 stops: 1 runs at work, up to 60 s; another signal ends them now"


async def test_a_signal_to_an_idle_worker_is_no_warning(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentstorage.queue")
    working = asyncio.create_task(Worker(connection, nothing).run([signal.SIGUSR1]))
    await asyncio.sleep(0.2)
    os.kill(os.getpid(), signal.SIGUSR1)
    await working
    (stops,) = (record for record in caplog.records if "another signal" in record.getMessage())
    assert (stops.levelno, "stops: 0 runs at work" in stops.getMessage()) == (logging.INFO, True)


async def test_a_worker_that_is_cancelled_leaves_its_runs_and_tells_their_handlers(
    runs: FakeRuns, connection: Connection
) -> None:
    handling = Handling()
    runs.add("r1")
    worker = Worker(connection, handling, grace=60)
    working = asyncio.create_task(worker.run())
    await handling.begun.wait()
    # The first one begins the stop, and the second one, as of a second Ctrl-C, ends it.
    for _ in range(2):
        working.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await working
    await until(lambda: handling.reasons == [StopReason.SHUTDOWN])
    assert not runs.calls["ReleaseRun"] + runs.calls["FinishRun"]


async def test_a_handler_that_returns_no_coroutine(runs: FakeRuns, connection: Connection) -> None:
    # Only a call tells what it gives.
    handler: Any = lambda _: {"a": 1}  # noqa: E731 - the point of it
    runs.add("r1")
    async with Worker(connection, handler):
        (end,) = await runs.finished()
    assert json.loads(end.error) == {
        "error": "TypeError",
        "message": "the handler must be an async function: it returned dict",
    }


async def test_a_stop_ends_a_claim_that_waits(runs: FakeRuns, connection: Connection) -> None:
    worker = Worker(connection, nothing)
    worker.start()
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await asyncio.gather(worker.stop(), worker.stop(), worker.wait())
    assert time.monotonic() - began < 0.5
    with pytest.raises(RuntimeError):
        worker.start()


async def test_a_handler_may_be_the_last(runs: FakeRuns, connection: Connection) -> None:
    async def handler(run: ClaimedRun) -> None:
        worker.stop_claiming()
        await asyncio.sleep(0.1)

    runs.add("r1")
    runs.add("r2")
    worker = Worker(connection, handler)
    async with asyncio.timeout(5):
        await worker.run()
    assert [(end.run_id, end.status) for end in runs.calls["FinishRun"]] == [("r1", pb.RUN_STATUS_SUCCESS)]


async def test_a_claim_that_does_not_wait_is_not_made_all_the_time(runs: FakeRuns, connection: Connection) -> None:
    async with Worker(connection, nothing, wait_seconds=0):
        await asyncio.sleep(0.5)
    assert len(runs.calls["ClaimRuns"]) == 1


async def test_what_is_claimed_while_the_worker_stops_is_given_back(
    runs: FakeRuns, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    handling = Handling()
    worker = Worker(connection, handling)
    claim = worker._claimed

    async def claimed(request: pb.ClaimRunsRequest) -> list[pb.ClaimedRun]:
        found = await claim(request)
        worker.stop_claiming()
        return found

    monkeypatch.setattr(worker, "_claimed", claimed)
    runs.add("r1", "alice")
    await worker.run()
    assert [(back.run_id, back.owner_id, back.lease_token) for back in runs.calls["ReleaseRun"]] == [("r1", "alice", 1)]
    assert not handling.begun.is_set()


async def test_a_handler_that_does_not_end_is_left_behind(
    runs: FakeRuns, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentstorage.queue.worker._LAST", 0.2)
    handling, go = Handling(), asyncio.Event()

    async def after(_: ClaimedRun) -> None:
        await go.wait()

    handling.after = after
    runs.add("r1")
    async with Worker(connection, handling, grace=0):
        await handling.begun.wait()
    assert not runs.calls["FinishRun"] + runs.calls["ReleaseRun"]
    assert any("did not end in time" in record.getMessage() for record in caplog.records)
