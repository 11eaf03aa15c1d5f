"""What a worker says to a service that loses answers, refuses calls or takes its time."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.queue import ClaimedRun, Interrupted, Result, Worker
from tests.clients.fake_exchange import until
from tests.clients.fake_runs import FakeRuns, nothing, serving_runs, statuses

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
async def connection(runs: FakeRuns) -> AsyncIterator[Connection]:
    async with serving_runs(runs) as target, Connection(target) as connection:
        yield connection


RETURNS: dict[str, tuple[Any, str, str, str]] = {
    "nothing": (None, "success", "", ""),
    "values": ({"a": 1}, "success", '{"a":1}', ""),
    "a result": (Result({"a": 1}), "success", '{"a":1}', ""),
    "no values": (Result({}), "success", "{}", ""),
    "interrupts": (Result({"a": 1}, {"i": [2]}), "interrupted", '{"a":1}', '{"i":[2]}'),
    "raised": (Interrupted({"i": 2}), "interrupted", "", '{"i":2}'),
    "raised with values": (Interrupted(values={"a": 1}), "interrupted", '{"a":1}', ""),
}


@pytest.mark.parametrize(("returned", "status", "values", "interrupts"), RETURNS.values(), ids=RETURNS.keys())
async def test_what_a_handler_returns(
    runs: FakeRuns, connection: Connection, returned: Any, status: str, values: str, interrupts: str
) -> None:
    async def handler(_: ClaimedRun) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    runs.add("r1", "alice")
    async with Worker(connection, handler):
        (end,) = await runs.finished()
    assert (end.run_id, end.owner_id, end.lease_token, end.error) == ("r1", "alice", 1, "")
    assert (statuses([end]), end.values, end.interrupts) == ([status], values, interrupts)


FAILURES: dict[str, tuple[Any, dict[str, str]]] = {
    "an exception": (KeyError("k"), {"error": "KeyError", "message": "'k'"}),
    "a timeout of its own": (TimeoutError("its own"), {"error": "TimeoutError", "message": "its own"}),
    "no Exception": (GeneratorExit("at once"), {"error": "GeneratorExit", "message": "at once"}),
    "a cancel of its own": (asyncio.CancelledError(), {"error": "CancelledError", "message": ""}),
    "what JSON has not": (ValueError("a\0b\ud800"), {"error": "ValueError", "message": "a\ufffdb?"}),
    "a number": (7, {"error": "TypeError", "message": "a handler returns a mapping, a Result or None, not int"}),
    "values that are none": ({"a": object()}, {"error": "TypeError"}),
    "values without a number": ({"a": float("nan")}, {"error": "ValueError"}),
}


@pytest.mark.parametrize(("returned", "error"), FAILURES.values(), ids=FAILURES.keys())
async def test_how_a_handler_fails(
    runs: FakeRuns, connection: Connection, returned: Any, error: dict[str, str]
) -> None:
    async def handler(_: ClaimedRun) -> Any:
        if isinstance(returned, BaseException):
            raise returned
        return returned

    runs.add("r1")
    async with Worker(connection, handler):
        (end,) = await runs.finished()
    assert statuses([end]) == ["error"]
    assert json.loads(end.error).items() >= error.items()
    assert (end.values, end.HasField("owner_id")) == ("", False)


async def test_a_worker_goes_on_while_the_service_is_away(
    runs: FakeRuns, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    runs.faults["ClaimRuns"].extend([UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, UNAVAILABLE])
    runs.add("r1")
    async with Worker(connection, nothing):
        await runs.finished()
    # Each claim was sent once: grpc itself repeats none.
    assert len(runs.calls["ClaimRuns"]) in (4, 5)
    assert (
        sum("can not claim" in record.getMessage() for record in caplog.records if record.levelname == "WARNING") == 1
    )


async def test_a_claim_whose_answer_is_lost_is_not_sent_again_by_itself(runs: FakeRuns, connection: Connection) -> None:
    runs.add("r1")
    runs.add("r2")
    runs.faults["ClaimRuns"].append("lost")
    async with Worker(connection, nothing):
        (end,) = await runs.finished()
        assert end.run_id == "r2"
        assert len(runs.calls["ClaimRuns"]) <= 3
    # r1 is left to its lease.
    assert [end.run_id for end in runs.calls["FinishRun"]] == ["r2"]


async def test_an_end_is_told_until_it_is_taken(runs: FakeRuns, connection: Connection) -> None:
    runs.faults["FinishRun"].extend([UNAVAILABLE] * 6 + ["lost"])
    runs.add("r1")
    async with Worker(connection, nothing) as worker:
        await runs.finished(8)
        await until(lambda: not worker.runs)
    assert len({end.SerializeToString(deterministic=True) for end in runs.calls["FinishRun"]}) == 1


async def test_an_end_is_told_only_while_the_lease_lasts(runs: FakeRuns, connection: Connection) -> None:
    runs.faults["FinishRun"].extend([UNAVAILABLE] * 1000)
    runs.add("r1")
    began = time.monotonic()
    async with Worker(connection, nothing, lease_seconds=1) as worker:
        await runs.finished()
        await until(lambda: not worker.runs)
    assert 0.9 < time.monotonic() - began < 2.5


async def test_an_end_that_hangs_is_told_again(runs: FakeRuns, connection: Connection) -> None:
    runs.held.add("FinishRun")
    runs.add("r1")
    async with Worker(connection, nothing, lease_seconds=3) as worker:
        await runs.finished(2)
        runs.held.clear()
        await until(lambda: not worker.runs)


async def test_a_result_that_is_refused_ends_the_run_as_error(runs: FakeRuns, connection: Connection) -> None:
    runs.faults["FinishRun"].append(grpc.StatusCode.INVALID_ARGUMENT)
    runs.add("r1")
    async with Worker(connection, nothing):
        ends = await runs.finished(2)
    assert statuses(ends) == ["success", "error"]
    assert json.loads(ends[1].error)["error"] == "InvalidRequest"


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED]
)
async def test_a_worker_that_may_not_claim_says_so(
    runs: FakeRuns, connection: Connection, code: grpc.StatusCode
) -> None:
    runs.faults["ClaimRuns"].append(code)
    with pytest.raises(errors.StorageError) as raised:
        await Worker(connection, nothing).run()
    assert raised.value.code is code
    runs.faults["ClaimRuns"].append(code)
    # Who does not wait for its end is told when leaving.
    worker = Worker(connection, nothing)
    await worker.__aenter__()
    await until(lambda: not runs.faults["ClaimRuns"])
    await asyncio.sleep(0.05)
    with pytest.raises(errors.StorageError):
        await worker.__aexit__(None, None, None)


async def test_concurrency(runs: FakeRuns, connection: Connection) -> None:
    at_work = most = 0

    async def handler(_: ClaimedRun) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.02)
        at_work -= 1

    for number in range(40):
        runs.add(f"r{number}")
    async with Worker(connection, handler, concurrency=7):
        await runs.finished(40)
    assert most == 7
    assert all(1 <= call.limit <= 7 for call in runs.calls["ClaimRuns"])
    assert len({call.worker_id for call in runs.calls["ClaimRuns"]}) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"concurrency": 0}, ValueError),
        ({"lease_seconds": 0}, ValueError),
        ({"lease_seconds": float("nan")}, ValueError),
        ({"wait_seconds": -1}, ValueError),
        ({"run_timeout": 0}, ValueError),
        ({"grace": -1}, ValueError),
        ({"worker_id": ""}, ValueError),
        ({"owner_id": ""}, ValueError),
        ({"owner_id": 3}, TypeError),
        ({"handler": None}, TypeError),
        ({"connection": "localhost:50051"}, TypeError),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception]) -> None:
    given = {"connection": Connection("localhost:1"), "handler": nothing, **arguments}
    with pytest.raises(error):
        Worker(given.pop("connection"), given.pop("handler"), **given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concurrency": 2.0}, "concurrency must be an int, not float"),
        ({"concurrency": True}, "concurrency must be an int, not bool"),
        ({"lease_seconds": "30"}, "lease_seconds must be a number, not str"),
        ({"lease_seconds": None}, "lease_seconds must be a number, not NoneType"),
        ({"run_timeout": "60"}, "run_timeout must be a number, not str"),
        ({"wait_seconds": False}, "wait_seconds must be a number, not bool"),
        ({"grace": [1]}, "grace must be a number, not list"),
    ],
)
def test_what_is_no_number_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Worker(Connection("localhost:1"), nothing, **arguments)


def plain(_: ClaimedRun) -> Any:
    return {}


def generator(_: ClaimedRun) -> Iterator[int]:
    yield 1


async def async_generator(_: ClaimedRun) -> AsyncIterator[int]:
    yield 1


@functools.wraps(nothing)
def wrapping(run: ClaimedRun) -> Awaitable[None]:
    return nothing(run)


class Handlers:
    """Handlers that are methods."""

    def plain(self, _: ClaimedRun) -> Any:
        return {}

    async def handle(self, _: ClaimedRun) -> None:
        return None


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (plain, "a plain function"),
        (functools.partial(functools.partial(plain), 1), "a plain function"),
        (Handlers().plain, "a plain function"),
        (generator, "a generator function"),
        (async_generator, "an async generator function"),
        (functools.partial(async_generator), "an async generator function"),
        ({}, "dict"),
    ],
)
def test_what_is_no_async_function_is_refused(handler: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^handler must be an async function, not {kind}$"):
        Worker(Connection("localhost:1"), handler)


async def test_what_gives_a_coroutine_is_a_handler(runs: FakeRuns, connection: Connection) -> None:
    handlers: list[Any] = [
        functools.partial(nothing),
        Handlers().handle,
        wrapping,
        lambda run: nothing(run),
        functools.partial(lambda _, run: nothing(run), 1),
    ]
    for number, handler in enumerate(handlers, 1):
        runs.add(f"r{number}")
        async with Worker(connection, handler):
            ends = await runs.finished(number)
    assert statuses(ends) == ["success"] * len(handlers)
