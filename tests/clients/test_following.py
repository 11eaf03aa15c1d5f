"""Followers of a service whose streams break, end, repeat themselves and fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.queue import follow_run, follow_thread, wait_run
from agentstorage.v1 import runs_pb2 as pb
from agentstorage.v1 import runs_pb2_grpc
from storage_service.errors import Failure, ServerFault
from storage_service.rpc import abort
from tests.clients.fake_exchange import until

# Any, since the stubs want a servicer to have every method; those that are not here are unimplemented.
_Base: Any = runs_pb2_grpc.RunServiceServicer
Step = pb.StreamRunEventsResponse | grpc.StatusCode | Failure


class Streams(_Base):  # type: ignore[misc]  # as said above
    """A service whose streams are told what to say. ``after`` holds the place that each was asked for."""

    def __init__(self, *streams: Sequence[Step]) -> None:
        self.streams = list(streams)
        self.after: list[int] = []
        self.waits: list[float] = []
        self.open = 0

    async def StreamRunEvents(  # noqa: N802 - gRPC's name for it
        self, request: pb.StreamRunEventsRequest, context: Any
    ) -> AsyncIterator[pb.StreamRunEventsResponse]:
        """Say what is next; when all is said, nothing."""
        self.after.append(request.after)
        self.open += 1
        try:
            for step in self.streams.pop(0) if self.streams else ():
                if isinstance(step, grpc.StatusCode):
                    await context.abort(step, "as told")
                elif isinstance(step, Failure):
                    await abort(context, step)
                else:
                    yield step
            if not self.streams:
                await asyncio.Event().wait()
        finally:
            self.open -= 1

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:  # noqa: N802 - as above
        """Say that there are three events."""
        return pb.GetRunResponse(run=pb.Run(run_id=request.run_id, last_sequence=3))

    async def WaitRun(self, request: pb.WaitRunRequest, context: Any) -> pb.WaitRunResponse:  # noqa: N802 - as above
        """Fail with what is next, else say that the run has ended."""
        self.waits.append(request.wait_seconds)
        for step in self.streams.pop(0) if self.streams else ():
            if isinstance(step, grpc.StatusCode):
                await context.abort(step, "as told")
        return pb.WaitRunResponse(run=pb.Run(run_id=request.run_id, status=pb.RUN_STATUS_SUCCESS))


@contextlib.asynccontextmanager
async def serving(*streams: Sequence[Step]) -> AsyncIterator[tuple[Streams, Connection]]:
    service = Streams(*streams)
    server = grpc.aio.server()
    runs_pb2_grpc.add_RunServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Connection(f"127.0.0.1:{port}") as connection, asyncio.timeout(10):
            yield service, connection
    finally:
        await server.stop(None)


def said(*places: int, end: bool = False) -> pb.StreamRunEventsResponse:
    """A message with events at these places, the last of which may be the end."""
    message = pb.StreamRunEventsResponse()
    for place in places:
        message.events.add(run_id="r", sequence=place, position=place)
    if end:
        message.events[-1].end = pb.RUN_STATUS_SUCCESS
        message.run.CopyFrom(pb.Run(run_id="r", status=pb.RUN_STATUS_SUCCESS))
    return message


BREAKS: dict[str, Sequence[Step]] = {
    "unavailable": [grpc.StatusCode.UNAVAILABLE],
    "too long": [grpc.StatusCode.DEADLINE_EXCEEDED],
    "an end of the server's": [],
    "reset by a proxy": [grpc.StatusCode.INTERNAL],
    "in the middle": [said(3, 4), grpc.StatusCode.UNAVAILABLE],
}


@pytest.mark.parametrize("breaks", BREAKS.values(), ids=BREAKS.keys())
async def test_a_stream_that_breaks_is_followed_by_another(breaks: Sequence[Step]) -> None:
    async with serving([said(1, 2), *breaks], breaks, [said(2, 3), said(4, 5, end=True)]) as (service, connection):
        found = [event.sequence async for event in follow_run(connection, "r")]
    assert found == [1, 2, 3, 4, 5]
    # grpc itself sends again what failed at once, with the same place.
    assert [*dict.fromkeys(service.after)] == ([0, 2] if breaks is not BREAKS["in the middle"] else [0, 4])


async def test_what_came_already_is_passed_over() -> None:
    async with serving([said(1, 2), said(1, 2, 3)], [said(3, 4, 5)]) as (_, connection):
        events = follow_thread(connection, "t")
        assert [(await anext(events)).position for _ in range(5)] == [1, 2, 3, 4, 5]
        await events.aclose()


async def test_a_place_to_come_back_to() -> None:
    async with serving([grpc.StatusCode.DEADLINE_EXCEEDED], [said(4, end=True)]) as (service, connection):
        assert [event.sequence async for event in follow_run(connection, "r", after=-1)] == [4]
    assert set(service.after) == {3}


async def test_a_run_that_ended_before_the_place() -> None:
    ended = pb.StreamRunEventsResponse(run=pb.Run(run_id="r", status=pb.RUN_STATUS_ERROR))
    async with serving([ended]) as (_, connection):
        assert [event async for event in follow_run(connection, "r", after=7)] == []


async def test_an_end_that_is_not_the_last_one() -> None:
    again = said(1, 2)
    again.events[1].end = pb.RUN_STATUS_ERROR
    # Read just when somebody started it again.
    begun = pb.StreamRunEventsResponse(run=pb.Run(run_id="r", status=pb.RUN_STATUS_RUNNING))
    async with serving([again, begun, said(3)], [said(4, end=True)]) as (_, connection):
        found = [(event.sequence, event.end) async for event in follow_run(connection, "r")]
    assert found == [(1, None), (2, "error"), (3, None), (4, "success")]


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def test_an_absence_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentstorage.queue")
    broken = [grpc.StatusCode.INTERNAL]
    async with serving(broken, broken, [said(1), *broken], broken, [said(2, end=True)]) as (_, connection):
        assert [event.sequence async for event in follow_run(connection, "r")] == [1, 2]
    warnings = told(caplog, logging.WARNING)
    assert len(warnings) == 2
    assert warnings[0].startswith("following run r waits for the service: ")
    assert told(caplog, logging.INFO).count("following run r goes on: the service is there again") == 2


async def test_a_stream_whose_longest_time_is_over_is_no_absence(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstorage.queue.following._LIVED", 0.0)
    async with serving([grpc.StatusCode.DEADLINE_EXCEEDED], [said(1, end=True)]) as (_, connection):
        assert [event.sequence async for event in follow_run(connection, "r")] == [1]
    assert told(caplog, logging.WARNING) == []


async def test_without_a_server_all_wait_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    async with Connection("127.0.0.1:1", owner_id="alice") as connection:
        for wait in (
            anext(follow_run(connection, "r", after=-1)),
            anext(follow_run(connection, "r")),
            anext(follow_thread(connection, "t")),
            wait_run(connection, "r"),
        ):
            caplog.clear()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait, 0.7)
            (warning,) = told(caplog, logging.WARNING)
            assert " waits for the service: cannot reach 127.0.0.1:1 " in warning
        with pytest.raises(
            TimeoutError, match=r"not ended after 0\.5 seconds, .*the last look failed: cannot"
        ) as raised:
            await wait_run(connection, "r", timeout=0.5)
    assert isinstance(raised.value.__cause__, errors.Unreachable)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unimplemented),
        # The server has logged it, and would again.
        (ServerFault("e1"), errors.ServerFault),
    ],
)
async def test_what_will_not_pass_is_raised(failure: Step, kind: type[Exception]) -> None:
    async with serving([said(1), failure]) as (_, connection):
        events = follow_run(connection, "r")
        assert (await anext(events)).sequence == 1
        with pytest.raises(kind):
            await anext(events)


async def test_who_leaves_ends_the_stream() -> None:
    async with serving([said(1)]) as (service, connection):
        events = follow_run(connection, "r")
        await anext(events)
        await events.aclose()
        await until(lambda: not service.open)

        async def follow() -> None:
            async for _ in follow_run(connection, "r"):
                pass

        following = asyncio.create_task(follow())
        await until(lambda: service.open)
        following.cancel()
        await asyncio.wait({following})
        await until(lambda: not service.open)


async def test_waiting_goes_on_after_failures(caplog: pytest.LogCaptureFixture) -> None:
    broken = [grpc.StatusCode.DEADLINE_EXCEEDED], [grpc.StatusCode.INTERNAL], [grpc.StatusCode.DEADLINE_EXCEEDED]
    async with serving(*broken) as (service, connection):
        run = await wait_run(connection, "r")
    assert (run.status, service.waits) == ("success", [20] * 4)
    assert len(told(caplog, logging.WARNING)) == 1
    async with serving([grpc.StatusCode.PERMISSION_DENIED]) as (_, connection):
        with pytest.raises(errors.PermissionDenied):
            await wait_run(connection, "r")
    async with serving(*[[grpc.StatusCode.DEADLINE_EXCEEDED]] * 100) as (_, connection):
        with pytest.raises(TimeoutError):
            await wait_run(connection, "r", timeout=0.5)
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            await wait_run(connection, "r", timeout=timeout)
