"""What a handler emits comes to the log once and in order, though answers are lost, and soon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.queue import ClaimedRun, Worker
from agentstorage.v1 import runs_pb2 as pb
from tests.clients.fake_exchange import until
from tests.clients.fake_runs import FakeRuns, serving_runs, statuses

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
async def connection(runs: FakeRuns) -> AsyncIterator[Connection]:
    async with serving_runs(runs) as target, Connection(target) as connection:
        yield connection


async def test_events_are_gathered_and_each_is_appended_once(runs: FakeRuns, connection: Connection) -> None:
    async def handler(run: ClaimedRun) -> None:
        for number in range(100):
            await run.emit("n", {"number": number})
            await asyncio.sleep(0.002)

    # More than grpc itself sends again.
    runs.faults["AppendRunEvents"].extend(["lost"] * 6 + [UNAVAILABLE] * 6)
    runs.add("r1", last_sequence=0)
    async with Worker(connection, handler):
        await runs.finished()
    assert [json.loads(event.data)["number"] for event in runs.events["r1"]] == list(range(100))
    batches = {call.first_sequence: len(call.events) for call in runs.calls["AppendRunEvents"]}
    assert 2 <= len(batches) < 30
    # What is sent again is the same.
    for first in batches:
        same = [call for call in runs.calls["AppendRunEvents"] if call.first_sequence == first]
        assert all(call == same[0] for call in same)


async def test_events_are_not_appended_one_by_one(runs: FakeRuns, connection: Connection) -> None:
    async def handler(run: ClaimedRun) -> None:
        for number in range(50):
            await run.emit(str(number))
            await asyncio.sleep(0.005)

    runs.add("r1")
    async with Worker(connection, handler):
        await runs.finished()
    assert [event.type for event in runs.events["r1"]] == [str(number) for number in range(50)]
    assert 2 <= len(runs.calls["AppendRunEvents"]) < 15


async def test_an_event_that_is_emitted_is_there_soon(runs: FakeRuns, connection: Connection) -> None:
    async def handler(run: ClaimedRun) -> None:
        await run.emit("text", "tea \N{TEACUP WITHOUT HANDLE}")
        await run.emit("bytes", b"\xff")
        await run.emit("nothing")
        await run.emit("json", [1, None, 2**70])
        await asyncio.sleep(60)

    runs.add("r1")
    async with Worker(connection, handler, grace=0):
        await until(lambda: runs.events["r1"])
    assert [(event.type, event.data) for event in runs.events["r1"]] == [
        ("text", "tea \N{TEACUP WITHOUT HANDLE}".encode()),
        ("bytes", b"\xff"),
        ("nothing", b""),
        ("json", f"[1,null,{2**70}]".encode()),
    ]
    assert runs.calls["ReleaseRun"]


async def test_a_second_attempt_goes_on_behind_the_events_of_the_first(runs: FakeRuns, connection: Connection) -> None:
    async def handler(run: ClaimedRun) -> None:
        await run.emit("again")

    runs.events["r1"].extend([pb.NewRunEvent(type="old")] * 3)
    runs.add("r1", last_sequence=3)
    async with Worker(connection, handler):
        await runs.finished()
    assert [event.type for event in runs.events["r1"]] == ["old", "old", "old", "again"]


async def test_too_many_events_wait(runs: FakeRuns, connection: Connection) -> None:
    emitted = 0

    async def handler(run: ClaimedRun) -> None:
        nonlocal emitted
        for number in range(5000):
            await run.emit(str(number))
            emitted += 1

    runs.held.add("AppendRunEvents")
    runs.add("r1")
    async with Worker(connection, handler):
        await until(lambda: emitted)
        await asyncio.sleep(0.2)
        assert 1000 <= emitted <= 2000
        runs.held.clear()
        await runs.finished()
    assert [event.type for event in runs.events["r1"]] == [str(number) for number in range(5000)]


async def test_large_events_go_in_calls_of_their_own(runs: FakeRuns, connection: Connection) -> None:
    sizes = [10, 3_000_000, 10, 150_000, 150_000]

    async def handler(run: ClaimedRun) -> None:
        for size in sizes:
            await run.emit("x", bytes(size))
        await run.flush()
        assert len(runs.events["r1"]) == len(sizes)

    runs.add("r1")
    async with Worker(connection, handler):
        assert statuses(await runs.finished()) == ["success"]
    assert [len(event.data) for event in runs.events["r1"]] == sizes
    assert all(len(call.events) == 1 or call.ByteSize() < 262144 for call in runs.calls["AppendRunEvents"])


REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    # As grpc says it of a message that is too large, and would the next time.
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitReached,
}


@pytest.mark.parametrize(("code", "kind"), REFUSALS.items())
async def test_an_event_that_is_refused_ends_the_run_as_error(
    runs: FakeRuns, connection: Connection, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    raised: list[Exception] = []

    async def handler(run: ClaimedRun) -> dict[str, Any]:
        await run.emit("one")
        for call in (run.flush, lambda: run.emit("two")):
            try:
                await call()
            except kind as error:
                raised.append(error)
        return {"a": 1}

    runs.faults["AppendRunEvents"].append(code)
    runs.add("r1")
    async with Worker(connection, handler):
        (end,) = await runs.finished()
    assert len(raised) == 2
    assert (statuses([end]), json.loads(end.error)["error"]) == (["error"], kind.__name__)


@pytest.mark.parametrize(
    ("type", "data", "error"), [(3, b"", TypeError), ("x" * 256, b"", ValueError), ("x", object(), TypeError)]
)
async def test_what_is_no_event_is_not_emitted(
    runs: FakeRuns, connection: Connection, type: Any, data: Any, error: type[Exception]
) -> None:
    async def handler(run: ClaimedRun) -> None:
        with pytest.raises(error):
            await run.emit(type, data)

    runs.add("r1")
    async with Worker(connection, handler):
        assert statuses(await runs.finished()) == ["success"]
