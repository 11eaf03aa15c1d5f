"""Workers and a real server: how runs end, are cancelled, are lost and taken over, and whose they are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentstorage import Connection, errors
from agentstorage.queue import ClaimedRun, Interrupted, Result, StopReason, Worker, wait_run
from agentstorage.v1 import assistants_pb2, assistants_pb2_grpc, runs_pb2, runs_pb2_grpc
from tests.clients.fake_exchange import until
from tests.clients.queueing import Led, Queue, queue_at
from tests.service import ServerProcess


@pytest.fixture
async def queue(server: ServerProcess) -> AsyncIterator[Queue]:
    async with queue_at(server.target) as queue:
        yield queue


@pytest.mark.usefixtures("way")
async def test_a_run_is_executed(server: ServerProcess, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[ClaimedRun] = []

    async def handler(run: ClaimedRun) -> dict[str, Any]:
        seen.append(run)
        for number in range(100):
            await run.emit("number", number)
            await asyncio.sleep(0.005)
        return {"answer": 2**70}

    async with queue_at(server.target) as queue:
        submitted = await queue.submit(queue.thread, {"input": {"question": 1}}, metadata={"label": "x"})
        assert (submitted.status, submitted.attempt, submitted.worker_id) == ("pending", 0, None)
        async with Worker(queue.storage, handler, worker_id="w1"):
            run = await queue.storage.runs.wait(submitted.run_id, timeout=10)
        assert run is not None
        assert (run.status, run.attempt, run.error, run.worker_id, run.last_sequence) == ("success", 1, None, None, 101)
        assert run.finished_at is not None
        thread = await queue.storage.threads.get(queue.thread)
        assert thread is not None
        assert (thread.status, thread.values, thread.interrupts) == ("idle", {"answer": 2**70}, {})
        events = await queue.events(run.run_id)
        (claimed,) = seen
    assert [event.sequence for event in events] == list(range(1, 102))
    assert [event.json() for event in events[:-1]] == list(range(100))
    assert {(event.run_id, event.attempt, event.end) for event in events[:-1]} == {(run.run_id, 1, None)}
    assert events[-1].end == "success"
    assert (claimed.run_id, claimed.thread_id, claimed.assistant_id) == (run.run_id, queue.thread, queue.assistant)
    assert (claimed.owner_id, claimed.attempt, claimed.run.worker_id) == (queue.owner, 1, "w1")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (claimed.kwargs, claimed.metadata) == ({"input": {"question": 1}}, {"label": "x", "owner": queue.owner})


async def test_a_run_that_emits_nothing_has_an_end(queue: Queue) -> None:
    async def handler(_: ClaimedRun) -> None:
        return None

    submitted = await queue.submit()
    async with Worker(queue.storage, handler):
        (event,) = await queue.events(submitted.run_id)
    assert (event.sequence, event.end) == (1, "success")


ENDS: dict[str, tuple[Any, str, str]] = {
    "success": (Result({"a": 1}, None), "success", "idle"),
    "interrupts": (Result({"a": 1}, {"i": [{"value": "?"}]}), "interrupted", "interrupted"),
    "interrupted": (Interrupted({"i": [{"value": "?"}]}, {"a": 1}), "interrupted", "interrupted"),
    "an error": (ValueError("no tea"), "error", "error"),
    "too slow": (None, "timeout", "error"),
}


@pytest.mark.parametrize(("end", "status", "thread_status"), ENDS.values(), ids=ENDS.keys())
async def test_how_runs_end(queue: Queue, end: Any, status: str, thread_status: str) -> None:
    async def handler(run: ClaimedRun) -> Any:
        await run.emit("begun")
        if end is None:
            await asyncio.sleep(60)
        if isinstance(end, Exception):
            raise end
        return end

    submitted = await queue.submit(queue.thread)
    async with Worker(queue.storage, handler, run_timeout=0.3):
        run = await wait_run(queue.connection, submitted.run_id, timeout=10)
    thread = await queue.storage.threads.get(queue.thread)
    assert thread is not None
    assert (run.status, thread.status) == (status, thread_status)
    assert (await queue.events(run.run_id))[0].type == "begun"
    if status in ("success", "interrupted"):
        assert thread.values == {"a": 1}
        assert thread.interrupts == ({} if status == "success" else {"i": [{"value": "?"}]})
    else:
        assert run.error["error"] == ("ValueError" if status == "error" else "TimeoutError")


async def test_a_cancel_comes_at_once(queue: Queue) -> None:
    led = Led()
    submitted = await queue.submit()
    async with Worker(queue.storage, led, lease_seconds=60):
        await until(lambda: led.runs)
        began = time.monotonic()
        cancelled = await queue.storage.runs.cancel(submitted.run_id)
        assert (cancelled.stopped, cancelled.asked) == ([], [submitted.run_id])
        run = await wait_run(queue.connection, submitted.run_id, timeout=10)
    assert time.monotonic() - began < 2
    assert (run.status, led.reasons) == ("interrupted", [StopReason.INTERRUPT])


async def test_a_heartbeat_tells_of_a_cancel(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unwatched(_: object) -> None:
        return None

    monkeypatch.setattr("agentstorage.queue.execution.Execution._watch", unwatched)
    led = Led()
    submitted = await queue.submit()
    async with Worker(queue.storage, led, lease_seconds=1.5):
        await until(lambda: led.runs)
        await queue.storage.runs.cancel(thread_id=submitted.thread_id)
        run = await wait_run(queue.connection, submitted.run_id, timeout=10)
    assert (run.status, led.reasons) == ("interrupted", [StopReason.INTERRUPT])


async def test_a_run_that_is_rolled_back_is_gone(queue: Queue) -> None:
    led = Led()
    submitted = await queue.submit()
    async with Worker(queue.storage, led) as worker:
        await until(lambda: led.runs)
        await led.runs[0].emit("in vain")
        await queue.storage.runs.cancel(submitted.run_id, action="rollback")
        assert await queue.storage.runs.wait(submitted.run_id, timeout=10) is None
        await until(lambda: not worker.runs)
    assert led.reasons == [StopReason.ROLLBACK]
    with pytest.raises(errors.NotFound):
        await queue.events(submitted.run_id)


async def test_a_run_that_is_deleted_is_lost(queue: Queue) -> None:
    led = Led()
    submitted = await queue.submit()
    async with Worker(queue.storage, led, lease_seconds=60) as worker:
        await until(lambda: led.runs)
        assert await queue.storage.runs.delete(submitted.run_id)
        await until(lambda: not worker.runs)
    assert led.reasons == [StopReason.LEASE_LOST]


async def test_a_run_that_somebody_else_ends_is_lost(queue: Queue) -> None:
    led = Led()
    submitted = await queue.submit()
    async with Worker(queue.storage, led, lease_seconds=60) as worker:
        await until(lambda: led.runs)
        # Not before it is watched.
        await asyncio.sleep(0.5)
        await queue.storage.runs.update_status(submitted.run_id, "error")
        await until(lambda: not worker.runs)
    assert led.reasons == [StopReason.LEASE_LOST]
    assert (await wait_run(queue.connection, submitted.run_id, timeout=1)).status == "error"


async def test_a_handler_that_blocks_the_loop_loses_its_lease(queue: Queue) -> None:
    reasons: list[StopReason | None] = []

    async def handler(run: ClaimedRun) -> dict[str, Any]:
        await run.emit("attempt", run.attempt)
        await run.flush()
        if run.attempt == 1:
            # This is the mistake.
            time.sleep(1)  # noqa: ASYNC251 - as said
        try:
            await asyncio.sleep(0.1)
        finally:
            reasons.append(run.stop_reason)
        return {"attempt": run.attempt}

    submitted = await queue.submit(queue.thread)
    async with Worker(queue.storage, handler, lease_seconds=0.8):
        await until(lambda: reasons)
        await queue.sweep()
        run = await wait_run(queue.connection, submitted.run_id, timeout=10)
        thread = await queue.storage.threads.get(queue.thread)
    assert thread is not None
    assert (run.status, thread.values, reasons) == ("success", {"attempt": 2}, [StopReason.LEASE_LOST, None])
    told = [(event.attempt, event.json()) for event in await queue.events(run.run_id) if not event.end]
    assert told == [(1, 1), (2, 2)]


async def test_a_lease_that_another_worker_got(queue: Queue) -> None:
    led, second = Led(), Led()
    submitted = await queue.submit(queue.thread)
    async with Worker(queue.storage, led, lease_seconds=2) as worker:
        await until(lambda: led.runs)
        await led.runs[0].emit("first")
        await led.runs[0].flush()
        # Somebody takes it back by hand: its runtime believes that the worker is dead.
        stub = queue.connection.stub(runs_pb2_grpc.RunServiceStub)
        await stub.UpdateRun(
            runs_pb2.UpdateRunRequest(owner_id=queue.owner, run_id=submitted.run_id, status=runs_pb2.RUN_STATUS_PENDING)
        )
        async with Worker(queue.connection, second):
            await until(lambda: second.runs or len(led.runs) == 2)
            await until(lambda: led.reasons)
            with pytest.raises(errors.LeaseLost):
                await led.runs[0].emit("late")
            led.go.set()
            second.go.set()
            run = await wait_run(queue.connection, submitted.run_id, timeout=10)
        await until(lambda: not worker.runs)
    assert (run.status, run.attempt, led.reasons) == ("success", 2, [StopReason.LEASE_LOST])
    events = await queue.events(run.run_id)
    assert [(event.type, event.attempt) for event in events if not event.end] == [("first", 1)]


async def test_a_worker_that_stops_gives_its_runs_back(queue: Queue) -> None:
    first, second = Led(), Led()
    submitted = await queue.submit()
    worker = Worker(queue.storage, first, grace=0.1)
    worker.start()
    await until(lambda: first.runs)
    await first.runs[0].emit("one")
    began = time.monotonic()
    await worker.stop()
    assert time.monotonic() - began < 3
    assert first.reasons == [StopReason.SHUTDOWN]
    second.go.set()
    async with Worker(queue.storage, second):
        run = await wait_run(queue.connection, submitted.run_id, timeout=10)
    assert (run.status, run.attempt) == ("success", 2)
    assert [event.type for event in await queue.events(run.run_id) if not event.end] == ["one"]


async def test_each_run_is_executed_once_and_those_of_a_thread_in_turn(queue: Queue) -> None:
    executed: Counter[str] = Counter()
    order: list[Any] = []
    at_work: Counter[str] = Counter()

    async def handler(run: ClaimedRun) -> None:
        assert not at_work[run.thread_id]
        at_work[run.thread_id] += 1
        executed[run.run_id] += 1
        if run.thread_id == queue.thread:
            order.append(run.kwargs["number"])
        await asyncio.sleep(0.01)
        at_work[run.thread_id] -= 1

    alone = await asyncio.gather(*(queue.submit() for _ in range(30)))
    in_turn = [await queue.submit(queue.thread, {"number": number}) for number in range(8)]
    runs = [*alone, *in_turn]
    async with (
        Worker(queue.storage, handler, concurrency=4),
        Worker(queue.storage, handler, concurrency=4),
        Worker(queue.storage, handler),
    ):
        ended = await asyncio.gather(*(wait_run(queue.connection, run.run_id, timeout=20) for run in runs))
    assert {run.status for run in ended} == {"success"}
    assert executed == {run.run_id: 1 for run in runs}
    assert order == list(range(8))


async def test_a_worker_takes_the_runs_of_its_owner(server: ServerProcess) -> None:
    owners: list[str | None] = []

    async def handler(run: ClaimedRun) -> None:
        owners.append(run.owner_id)
        await run.emit("x")

    async with queue_at(server.target) as alice, queue_at(server.target) as bob:
        runs = [await alice.submit(), await bob.submit()]
        async with Worker(alice.connection, handler, wait_seconds=0.2):
            await wait_run(alice.connection, runs[0].run_id, timeout=10)
            await asyncio.sleep(0.5)
        assert owners == [alice.owner]
        with pytest.raises(errors.NotFound):
            await wait_run(alice.connection, runs[1].run_id, timeout=1)
        # The argument counts, not the connection.
        async with Worker(alice.connection, handler, owner_id=bob.owner):
            run = await wait_run(bob.connection, runs[1].run_id, timeout=10)
        assert owners == [alice.owner, bob.owner]
        assert [event.type for event in await bob.events(run.run_id) if not event.end] == ["x"]


async def test_a_worker_without_an_owner_takes_the_runs_of_all(make_database: Any, backend: str) -> None:
    owners: list[str | None] = []

    async def handler(run: ClaimedRun) -> None:
        owners.append(run.owner_id)
        await run.emit("x")
        await run.flush()

    server = ServerProcess(backend, make_database() if backend == "postgres" else "").start()
    try:
        async with (
            queue_at(server.target) as alice,
            queue_at(server.target) as bob,
            Connection(server.target) as everybody,
        ):
            runs = [await alice.submit(), await bob.submit()]
            stub = everybody.stub(runs_pb2_grpc.RunServiceStub)
            unowned = runs_pb2.CreateRunRequest(
                thread_id="nobody's",
                assistant_id=await _unowned_assistant(everybody),
                if_not_exists=runs_pb2.IF_NOT_EXISTS_CREATE,
            )
            created = (await stub.CreateRun(unowned)).run
            async with Worker(everybody, handler, concurrency=2, lease_seconds=1):
                for connection, id in (
                    (alice.connection, runs[0].run_id),
                    (bob.connection, runs[1].run_id),
                    (everybody, created.run_id),
                ):
                    assert (await wait_run(connection, id, timeout=10)).status == "success"
            assert Counter(owners) == {alice.owner: 1, bob.owner: 1, None: 1}
    finally:
        server.kill()


async def _unowned_assistant(connection: Connection) -> str:
    stub = connection.stub(assistants_pb2_grpc.AssistantServiceStub)
    made = await stub.CreateAssistant(assistants_pb2.CreateAssistantRequest(graph_id="agent"))
    id: str = made.assistant.assistant_id
    return id


@pytest.fixture(params=("memory", "postgres"))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_connection_that_is_closed_ends_its_workers(queue: Queue, server: ServerProcess) -> None:
    led = Led()
    await queue.submit()
    connection = Connection(server.target, owner_id=queue.owner)
    idle, busy = Worker(connection, led, lease_seconds=1), Worker(connection, led, lease_seconds=1)
    idle.start()
    busy.start()
    await until(lambda: led.runs)
    await connection.close()
    for worker in (idle, busy):
        with pytest.raises(RuntimeError, match="closed"):
            await worker.wait()
        await worker.stop(0)
        assert worker.runs == ()


async def test_a_worker_without_the_right_to_all_says_so() -> None:
    server = ServerProcess("memory", environment={"STORAGE_ANONYMOUS_RIGHTS": ""}).start()
    try:
        async with Connection(server.target) as connection:
            with pytest.raises(errors.OwnerRequired):
                async with asyncio.timeout(5):
                    await Worker(connection, Led()).run()
    finally:
        server.kill()
