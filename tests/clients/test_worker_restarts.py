"""Workers and followers while the server is killed, stopped and started again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agentstorage import errors
from agentstorage.queue import ClaimedRun, StopReason, Worker, follow_run, follow_thread, wait_run
from tests.clients.fake_exchange import until
from tests.clients.queueing import Led, queue_at
from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess

NUMBERS = 100


@pytest.fixture
def durable(make_database: MakeDatabase) -> Iterator[ServerProcess]:
    """A server whose rows outlive it."""
    server = ServerProcess("postgres", make_database()).start()
    yield server
    server.kill()


class Counting:
    """A handler that emits numbers, tens of them a second."""

    def __init__(self) -> None:
        self.emitted = 0
        self.stopped: list[StopReason | None] = []

    async def __call__(self, run: ClaimedRun) -> dict[str, Any]:
        try:
            for number in range(NUMBERS):
                await run.emit("number", [run.attempt, number])
                self.emitted += 1
                await asyncio.sleep(0.015)
        except asyncio.CancelledError:
            self.stopped.append(run.stop_reason)
            raise
        return {"attempt": run.attempt}


async def restart(server: ServerProcess, how: str, pause: float) -> None:
    """End a server and start it again on its port after a pause."""
    end: Any = server.kill if how == "kill" else server.stop
    await asyncio.to_thread(end)
    await asyncio.sleep(pause)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_run_goes_on_over_a_restart(durable: ServerProcess, how: str) -> None:
    counting = Counting()
    async with queue_at(durable.target) as queue:
        submitted = await queue.submit(queue.thread)

        async def by_thread() -> list[Any]:
            events = follow_thread(queue.connection, queue.thread)
            return [await anext(events) for _ in range(NUMBERS + 1)]

        async with asyncio.timeout(30), Worker(queue.storage, counting, lease_seconds=20):
            following = asyncio.create_task(queue.events(submitted.run_id))
            by = asyncio.create_task(by_thread())
            waiting = asyncio.create_task(wait_run(queue.connection, submitted.run_id))
            await until(lambda: counting.emitted > 20)
            await restart(durable, how, 0.3)
            run, events = await waiting, await following
            assert await by == events
    assert (run.status, run.attempt, counting.stopped) == ("success", 1, [])
    assert [event.json() for event in events[:-1]] == [[1, number] for number in range(NUMBERS)]
    assert [event.sequence for event in events] == list(range(1, NUMBERS + 2))


async def test_a_run_is_claimed_again_after_a_long_absence(durable: ServerProcess) -> None:
    counting = Counting()
    async with queue_at(durable.target) as queue:
        submitted = await queue.submit()
        async with asyncio.timeout(30), Worker(queue.storage, counting, lease_seconds=1):
            following = asyncio.create_task(queue.events(submitted.run_id))
            await until(lambda: counting.emitted > 20)
            await restart(durable, "kill", 1.5)
            assert counting.stopped == [StopReason.LEASE_LOST]
            await queue.sweep()
            run, events = await wait_run(queue.connection, submitted.run_id), await following
    assert (run.status, run.attempt) == ("success", 2)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    told = [event.json() for event in events[:-1]]
    first = [number for attempt, number in told if attempt == 1]
    assert first == list(range(len(first)))
    assert 15 < len(first) < NUMBERS
    assert told[len(first) :] == [[2, number] for number in range(NUMBERS)]


async def test_a_worker_outlives_a_server_that_forgets() -> None:
    led = Led()
    server = ServerProcess("memory").start()
    try:
        async with queue_at(server.target) as queue, asyncio.timeout(30):
            submitted = await queue.submit()
            async with Worker(queue.storage, led):
                await until(lambda: led.runs)
                await led.runs[0].emit("x")
                events = follow_run(queue.connection, submitted.run_id)
                await anext(events)
                waiting = asyncio.create_task(wait_run(queue.connection, submitted.run_id))
                await restart(server, "kill", 0)
                with pytest.raises(errors.NotFound):
                    await anext(events)
                with pytest.raises(errors.NotFound):
                    await waiting
                await until(lambda: led.reasons)
                assert led.reasons == [StopReason.LEASE_LOST]
                led.go.set()
                async with queue_at(server.target, queue.owner) as anew:
                    run = await anew.submit()
                    assert (await wait_run(anew.connection, run.run_id)).status == "success"
    finally:
        server.kill()
