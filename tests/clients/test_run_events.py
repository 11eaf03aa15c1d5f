"""Following the events of runs and threads, and waiting for the end of runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from agentstorage import errors
from agentstorage.queue import ClaimedRun, Worker, follow_run, follow_thread, wait_run
from agentstorage.v1 import runs_pb2, runs_pb2_grpc
from storage_service.caller import AllOwners
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from tests.clients.fake_exchange import until
from tests.clients.queueing import Led, Queue, queue_at, some
from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess


@pytest.fixture
async def queue(server: ServerProcess) -> AsyncIterator[Queue]:
    async with queue_at(server.target) as queue:
        yield queue


async def count(run: ClaimedRun) -> None:
    """Emit the numbers that were submitted."""
    for number in run.kwargs["numbers"]:
        await run.emit("number", number)
        await run.flush()


async def test_following_a_run(queue: Queue) -> None:
    led = Led()
    submitted = await queue.submit()
    from_the_start, from_here = (follow_run(queue.storage, submitted.run_id, after=after) for after in (0, -1))
    async with Worker(queue.storage, led):
        await until(lambda: led.runs)
        (run,) = led.runs
        for number in range(3):
            await run.emit("n", number)
        assert [event.json() for event in await some(from_the_start, 3)] == [0, 1, 2]
        later = asyncio.create_task(some(from_here, 1))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await run.emit("n", 3)
        assert [event.json() for event in await some(from_the_start, 1)] == [3]
        assert [event.json() for event in await later] == [3]
        assert time.monotonic() - began < 1
        led.go.set()
        for events in (from_the_start, from_here):
            assert [event.end async for event in events] == ["success"]
    # Again, now that it is over.
    assert [event.sequence for event in await queue.events(submitted.run_id)] == [1, 2, 3, 4, 5]
    assert [event.sequence for event in await queue.events(submitted.run_id, 2)] == [3, 4, 5]
    assert await queue.events(submitted.run_id, 5) == []
    assert await queue.events(submitted.run_id, -1) == []


async def test_following_a_run_that_has_not_begun(queue: Queue) -> None:
    submitted = await queue.submit(kwargs={"numbers": [1]})
    following = [asyncio.create_task(queue.events(submitted.run_id, after)) for after in (0, -1)]
    await asyncio.sleep(0.2)
    async with Worker(queue.storage, count):
        for events in await asyncio.gather(*following):
            assert [event.data for event in events] == [b"1", b""]


async def test_a_run_that_was_ended_and_started_again_goes_on_after_its_end_marker(queue: Queue) -> None:
    submitted = await queue.submit(kwargs={"numbers": [1]})
    await queue.storage.runs.update_status(submitted.run_id, "error")
    assert [event.end for event in await queue.events(submitted.run_id)] == ["error"]
    stub = queue.connection.stub(runs_pb2_grpc.RunServiceStub)
    await stub.UpdateRun(
        runs_pb2.UpdateRunRequest(
            owner_id=queue.owner, run_id=submitted.run_id, status=runs_pb2.RUN_STATUS_PENDING, force=True
        )
    )
    following = asyncio.create_task(queue.events(submitted.run_id))
    await asyncio.sleep(0.3)
    assert not following.done()
    async with Worker(queue.storage, count):
        events = await following
    assert [event.end or event.json() for event in events] == ["error", 1, "success"]
    # Again, now that it is over.
    assert await queue.events(submitted.run_id) == events


async def test_following_a_thread(queue: Queue) -> None:
    runs = [await queue.submit(queue.thread, {"numbers": [number, number]}) for number in range(3)]
    events = follow_thread(queue.connection, queue.thread)
    async with Worker(queue.storage, count, concurrency=2):
        found = await some(events, 9)
        rest = asyncio.create_task(some(events, 1))
        await asyncio.sleep(0.3)
        # There is no end.
        assert not rest.done()
        one_more = await queue.submit(queue.thread, {"numbers": [3]})
        assert (await rest)[0].run_id == one_more.run_id
        await events.aclose()
    assert [event.run_id for event in found] == [run.run_id for run in runs for _ in range(3)]
    assert [event.text() for event in found if not event.end] == ["0", "0", "1", "1", "2", "2"]
    positions = [event.position for event in found]
    assert positions == sorted(set(positions))
    later = follow_thread(queue.connection, queue.thread, after=positions[3])
    assert await some(later, 5) == found[4:]
    await later.aclose()


async def test_following_what_comes_to_a_thread(queue: Queue) -> None:
    async with Worker(queue.storage, count):
        first = await queue.submit(queue.thread, {"numbers": [1]})
        await wait_run(queue.connection, first.run_id, timeout=10)
        events = follow_thread(queue.connection, queue.thread, after=-1)
        coming = asyncio.create_task(some(events, 2))
        await asyncio.sleep(0.3)
        second = await queue.submit(queue.thread, {"numbers": [2]})
        assert [event.run_id for event in await coming] == [second.run_id] * 2
        await events.aclose()


@pytest.mark.parametrize("after", [0, -1])
async def test_what_is_absent_can_not_be_followed(queue: Queue, server: ServerProcess, after: int) -> None:
    submitted = await queue.submit(queue.thread)
    async with queue_at(server.target) as other:
        for events in (
            follow_run(queue.connection, "absent", after=after),
            follow_thread(queue.connection, "absent", after=after),
            follow_run(other.connection, submitted.run_id, after=after),
            follow_thread(other.connection, queue.thread, after=after),
            follow_run(queue.connection, submitted.run_id, other.owner, after=after),
        ):
            with pytest.raises(errors.NotFound):
                await anext(events)
        with pytest.raises(errors.NotFound):
            await wait_run(other.connection, submitted.run_id, timeout=1)
        assert await other.storage.runs.wait(submitted.run_id) is None


async def test_a_run_that_is_deleted_while_it_is_followed(queue: Queue) -> None:
    submitted = await queue.submit()
    following = asyncio.create_task(queue.events(submitted.run_id))
    waiting = asyncio.create_task(queue.storage.runs.wait(submitted.run_id, timeout=10))
    await asyncio.sleep(0.2)
    await queue.storage.runs.delete(submitted.run_id)
    with pytest.raises(errors.NotFound):
        await following
    assert await waiting is None


async def test_a_stream_that_the_server_ends_goes_on(make_database: MakeDatabase) -> None:
    environment = {"STORAGE_STREAM_SECONDS": "0.7"}
    server = ServerProcess("postgres", make_database(), environment=environment).start()

    async def handler(run: ClaimedRun) -> None:
        for number in range(100):
            await run.emit("n", number)
            await asyncio.sleep(0.02)

    try:
        async with queue_at(server.target) as queue, Worker(queue.storage, handler):
            submitted = await queue.submit()
            waiting = asyncio.create_task(wait_run(queue.connection, submitted.run_id, timeout=10))
            events = await queue.events(submitted.run_id)
            assert (await waiting).status == "success"
    finally:
        server.kill()
    assert [event.json() for event in events[:-1]] == list(range(100))


async def test_events_that_are_deleted(make_database: MakeDatabase) -> None:
    database = make_database()
    server = ServerProcess("postgres", database).start()
    try:
        async with queue_at(server.target) as queue, Worker(queue.storage, count):
            run = await queue.submit(queue.thread, {"numbers": [1, 2, 3]})
            await wait_run(queue.connection, run.run_id, timeout=10)
            store = PostgresStore(DatabaseSettings(database))
            await store.start(30)
            try:
                assert await store.seen_by(AllOwners()).sweep_events(10, 0.0) == 4
            finally:
                await store.close()
            with pytest.raises(errors.EventsDeleted) as raised:
                await queue.events(run.run_id)
            place = int(raised.value.metadata["first"])
            assert await queue.events(run.run_id, place) == []
            with pytest.raises(errors.EventsDeleted):
                await anext(follow_thread(queue.connection, queue.thread))
    finally:
        server.kill()


async def test_waiting(queue: Queue) -> None:
    led = Led()
    submitted = await queue.submit()
    for timeout in (0, 0.3):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"seconds$"):
            await wait_run(queue.connection, submitted.run_id, timeout=timeout)
        assert timeout <= time.monotonic() - began < timeout + 0.5
    async with Worker(queue.storage, led):
        waiting = [asyncio.create_task(wait_run(queue.connection, submitted.run_id)) for _ in range(100)]
        await until(lambda: led.runs)
        led.go.set()
        began = time.monotonic()
        runs = await asyncio.gather(*waiting)
        assert time.monotonic() - began < 3
    assert {run.status for run in runs} == {"success"}
    assert (await wait_run(queue.connection, submitted.run_id, timeout=0)).status == "success"
    recorded = await queue.storage.runs.create({"thread_id": queue.thread, "assistant_id": queue.assistant})
    with pytest.raises(TimeoutError, match="was recorded and not queued"):
        await wait_run(queue.connection, recorded.run_id, timeout=0)


async def test_submitting(queue: Queue) -> None:
    with pytest.raises(errors.NotFound):
        await queue.submit("absent", if_not_exists="reject")
    first = await queue.submit(queue.thread, {"a": 1}, run_id="r-" + queue.owner, metadata={"m": 1})
    assert (first.thread_id, first.kwargs, first.metadata["m"], first.multitask_strategy) == (
        queue.thread,
        {"a": 1},
        1,
        "enqueue",
    )
    with pytest.raises(errors.ThreadBusy):
        await queue.submit(queue.thread, multitask_strategy="reject")
    with pytest.raises(errors.AlreadyExists):
        await queue.submit(queue.thread, run_id=first.run_id)
    again = await queue.submit(queue.thread, run_id=first.run_id, if_exists="do_nothing")
    assert again.run_id == first.run_id
    keyed = [await queue.submit(f"u-{queue.owner}", request_id=f"k-{queue.owner}") for _ in range(2)]
    assert keyed[0].run_id == keyed[1].run_id
    thread = await queue.storage.threads.get(queue.thread)
    assert thread is not None
    assert thread.status == "busy"
    with pytest.raises(ValueError, match="multitask_strategy must be one of"):
        await queue.submit(queue.thread, multitask_strategy="queue")


async def test_a_run_for_later(queue: Queue) -> None:
    now = datetime.now(UTC)
    late = await queue.submit(kwargs={"numbers": []}, run_after=now + timedelta(seconds=1))
    with pytest.raises(ValueError, match="time zone"):
        await queue.submit(kwargs={"numbers": []}, run_after=now.replace(tzinfo=None))
    never = await queue.submit(kwargs={"numbers": []}, run_after=(now + timedelta(days=1)).isoformat())
    assert late.run_after == now + timedelta(seconds=1)
    async with Worker(queue.storage, count):
        run = await wait_run(queue.connection, late.run_id, timeout=10)
        assert run.finished_at is not None
        assert run.finished_at >= now + timedelta(seconds=1)
    found = await queue.storage.runs.get(never.run_id)
    assert found is not None
    assert found.status == "pending"


async def test_cancelling_what_waits(queue: Queue) -> None:
    runs = [await queue.submit(queue.thread) for _ in range(3)]
    cancelled = await queue.storage.runs.cancel(runs[0].run_id, "absent")
    assert (cancelled.stopped, cancelled.asked) == ([runs[0].run_id], [])
    assert (await wait_run(queue.connection, runs[0].run_id, timeout=1)).status == "interrupted"
    cancelled = await queue.storage.runs.cancel(thread_id=queue.thread, action="rollback")
    assert sorted(cancelled.stopped) == sorted(run.run_id for run in runs[1:])
    assert await queue.storage.runs.wait(runs[1].run_id, timeout=1) is None
    waits = await queue.submit(queue.thread)
    for nothing in (
        await queue.storage.runs.cancel(thread_id="absent"),
        await queue.storage.runs.cancel(waits.run_id, owner_id="somebody-else"),
        await queue.storage.runs.cancel(runs[0].run_id),
    ):
        assert (nothing.stopped, nothing.asked) == ([], [])
    with pytest.raises(errors.InvalidRequest):
        await queue.storage.runs.cancel()
