"""What becomes of calls when their stream breaks, drains or falls silent: each ends once, and no effect is doubled."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.exchange import Exchange
from agentstorage.exchange.stream import SILENCE, Stream
from agentstorage.v1 import exchange_pb2 as pb
from agentstorage.v1 import threads_pb2, threads_pb2_grpc
from tests.clients.fake_exchange import FakeExchange, Plain, copy, echo, failing, get, never, outcomes, serving, until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def sent(exchange: FakeExchange) -> Counter[bytes]:
    """How often each request has come."""
    return Counter(call.request for call in exchange.calls)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"])
async def test_a_stream_that_breaks(code: str) -> None:
    exchange = FakeExchange(never, room=100)
    ended: list[object] = []
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        idempotent = [get(connection, number) for number in range(90)]
        others = [copy(connection, f"c{number}") for number in range(20)]
        for call in (*idempotent, *others):
            call.add_done_callback(ended.append)
        calls = asyncio.ensure_future(outcomes(*idempotent)), asyncio.ensure_future(outcomes(*others))
        await exchange.until_called(100)
        exchange.answer = echo
        exchange.push(grpc.StatusCode[code])
        # Ten of the others were not sent, for want of room.
        assert await calls[0] == {"ok": 90}
        assert await calls[1] == {"ok": 10, "Unreachable": 10}
        failed = [call for call in others if await call.code() is not grpc.StatusCode.OK]
        with pytest.raises(errors.Unavailable) as caught:
            await failed[0]
        assert not caught.value.safe_to_retry
    assert len(ended) == len(set(ended)) == 110
    assert sorted(Counter(sent(exchange).values()).items()) == [(1, 20), (2, 90)]
    assert exchange.streams == 2


async def test_a_call_is_sent_four_times_at_most() -> None:
    exchange = FakeExchange(never)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        call = asyncio.ensure_future(outcomes(get(connection)))
        for times in range(1, 5):
            await exchange.until_called(times)
            exchange.push(UNAVAILABLE)
        assert await call == {"Unreachable": 1}
    assert len(exchange.calls) == 4


async def test_streams_that_break_at_once_are_not_opened_in_a_hurry() -> None:
    class Breaking(FakeExchange):
        async def _read(self, _: object, out: asyncio.Queue[Any], __: object) -> None:
            out.put_nowait(UNAVAILABLE)

    exchange = Breaking(never)
    async with serving(exchange) as target, Connection(target) as connection:
        ends = await outcomes(*(get(connection, timeout=1) for _ in range(10)))
    assert ends.keys() <= {"DeadlineExceeded", "Unreachable"}
    assert 2 < exchange.streams < 20


async def test_a_server_that_drains_fails_nothing() -> None:
    refusal = failing(UNAVAILABLE, "SHUTTING_DOWN")

    async def drain(call: pb.Call) -> list[pb.Reply]:
        # What came before is answered, what comes later is refused, and some is neither, since the end overtakes it.
        number = int(call.id)
        if exchange.streams == number == 1:
            exchange.push(pb.ExchangeResponse(draining=True))
        if exchange.streams > 1 or number < 20:
            return await echo(call)
        return [refusal] if number < 40 else []

    exchange = FakeExchange(drain, room=50)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        calls = asyncio.ensure_future(outcomes(*(copy(connection, number) for number in range(80))))
        await exchange.until_called(50)
        await asyncio.sleep(0.1)
        exchange.end(0)
        async with asyncio.timeout(3):
            assert await calls == {"ok": 80}
    assert set(sent(exchange).values()) == {1, 2}
    assert exchange.streams == 2


async def test_a_refusal_by_a_server_that_does_not_drain_is_a_failure() -> None:
    async def refuse(_: pb.Call) -> list[pb.Reply]:
        return [failing(UNAVAILABLE, "SHUTTING_DOWN")]

    exchange = FakeExchange(refuse)
    async with serving(exchange) as target, Connection(target) as connection:
        assert await outcomes(copy(connection), get(connection)) == {"ShuttingDown": 2}
    assert len(exchange.calls) == 5


async def test_a_draining_stream_ends_when_its_last_call_is_cancelled() -> None:
    exchange = FakeExchange(never)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        call = get(connection)
        await exchange.until_called(1)
        exchange.push(pb.ExchangeResponse(draining=True))
        await asyncio.sleep(0.05)
        assert not exchange.half_closed
        call.cancel()
        await until(lambda: exchange.half_closed)


async def test_one_stream_that_can_not_begin_is_an_accident_where_others_have_begun() -> None:
    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        await get(connection)
        exchange.push(pb.ExchangeResponse(draining=True))
        await until(lambda: exchange.half_closed)
        exchange.refusal = grpc.StatusCode.INTERNAL
        # Through plain RPCs, after a second try.
        assert await outcomes(get(connection)) == {"ok": 1}
        assert (len(exchange.calls), exchange.streams) == (1, 3)


@pytest.mark.parametrize("why", ["another token", "draining"])
async def test_the_end_of_a_stream_that_was_to_end_and_carries_nothing_is_no_failure(
    why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agentstorage.connection._TOKEN_FILE_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text("first")
    monkeypatch.setenv("AGENTSTORAGE_TOKEN_FILE", str(file))
    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        await get(connection)
        exchange.refusal = UNAVAILABLE
        if why == "draining":
            exchange.push(pb.ExchangeResponse(draining=True))
            exchange.push(UNAVAILABLE)
            await until(lambda: not exchange.open)
        else:
            file.write_text("second")
        assert await outcomes(get(connection)) == {"Unreachable": 1}
    # One that ended, and the four that a call without any other is given.
    assert exchange.streams == 1 + 4


async def test_a_stream_that_begins_after_it_was_given_up_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, run = Stream._begin, Stream.run
    ended = asyncio.Event()

    async def notice_late(stream: Stream) -> Any:
        begun = await begin(stream)
        await until(lambda: stream._is_abandoned)
        return begun

    async def run_and_tell(stream: Stream) -> None:
        await run(stream)
        ended.set()

    monkeypatch.setattr("agentstorage.exchange.streams._BEGIN", 0.1)
    monkeypatch.setattr(Stream, "_begin", notice_late)
    monkeypatch.setattr(Stream, "run", run_and_tell)
    exchange, plain = FakeExchange(echo), Plain()
    async with serving(exchange, plain) as target, Connection(target) as connection:
        await get(connection)
        await ended.wait()
        await until(lambda: not exchange.open)
        await get(connection)
    assert (plain.calls, len(exchange.calls), exchange.streams) == (2, 0, 1)


async def test_a_further_stream_that_is_given_up_while_it_begins_just_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    knows = Exchange.knows

    def give_up(exchange: Exchange, instance: object) -> bool:
        for stream in [stream for stream in exchange._streams if not stream.has_begun and knows(exchange, instance)]:
            stream.abandon()
        return knows(exchange, instance)

    monkeypatch.setattr(Exchange, "knows", give_up)
    # No other is looked for afterwards.
    monkeypatch.setattr("agentstorage.exchange.streams._MEETINGS", 0)
    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target) as connection:
        await get(connection)
        await until(lambda: exchange.streams == 2 and exchange.open == 1)
        await get(connection)
        gc.collect()
    assert (len(exchange.calls), exchange.streams) == (2, 2)
    assert not caplog.records


async def test_retries_are_throttled() -> None:
    async def fail(_: pb.Call) -> list[pb.Reply]:
        return [failing(UNAVAILABLE)]

    exchange = FakeExchange(fail)
    async with serving(exchange) as target, Connection(target) as connection:
        for _ in range(40):
            assert await outcomes(*(get(connection) for _ in range(5))) == {"Unreachable": 5}
        # Of 100 tokens half may go; 150 calls and more were sent once.
        assert 200 <= len(exchange.calls) < 260
        exchange.answer = echo
        # Each answer gives a tenth back.
        for _ in range(12):
            await outcomes(*(get(connection) for _ in range(100)))
        exchange.answer = fail
        before = len(exchange.calls)
        await outcomes(get(connection))
        assert len(exchange.calls) - before == 4


async def test_a_server_that_was_frozen_goes_on_with_what_waits() -> None:
    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target, read_timeout=20, write_timeout=20) as connection:
        await get(connection)
        exchange.thawed.clear()
        calls = asyncio.ensure_future(outcomes(*(get(connection, n) for n in range(10)), copy(connection)))
        await asyncio.sleep(4 * SILENCE)
        later = asyncio.ensure_future(outcomes(get(connection, "later"), copy(connection, "later")))
        await asyncio.sleep(0.1)
        assert not calls.done()
        exchange.thawed.set()
        started = time.monotonic()
        assert await calls == {"ok": 11}
        assert await later == {"ok": 2}
        assert time.monotonic() - started < 2


async def test_calls_move_from_a_frozen_process_to_another() -> None:
    first, second = FakeExchange(echo, "a"), FakeExchange(echo, "b")
    async with serving(first) as one, serving(second) as other, Connection(f"ipv4:{one},{other}") as connection:
        async with asyncio.timeout(10):
            while not (first.calls and second.calls):
                await outcomes(*(get(connection) for _ in range(10)))
        first.thawed.clear()
        started = time.monotonic()
        assert await outcomes(*(get(connection) for _ in range(20))) == {"ok": 20}
        assert SILENCE < time.monotonic() - started < 4 * SILENCE
        # From here on nothing goes to it.
        started = time.monotonic()
        assert await outcomes(*(copy(connection) for _ in range(20))) == {"ok": 20}
        assert time.monotonic() - started < 0.5
        first.thawed.set()
        before = len(first.calls)
        async with asyncio.timeout(40):
            while len(first.calls) < before + 20:
                await outcomes(*(get(connection) for _ in range(10)))
                await asyncio.sleep(0.01)


async def test_writes_that_were_sent_to_a_frozen_process_stay_there() -> None:
    # Done elsewhere as well, they could be done once more when it goes on, after others that came later.
    first, second = FakeExchange(echo, "a"), FakeExchange(echo, "b")
    async with (
        serving(first) as one,
        serving(second) as other,
        Connection(f"ipv4:{one},{other}", write_timeout=20) as connection,
    ):
        async with asyncio.timeout(10):
            while not (first.calls and second.calls):
                await outcomes(*(get(connection) for _ in range(10)))
        first.thawed.clear()
        stub = connection.stub(threads_pb2_grpc.ThreadServiceStub)
        requests = [threads_pb2.DeleteThreadRequest(thread_id=f"t{n}") for n in range(20)]
        deletes = [stub.DeleteThread(request) for request in requests]
        await asyncio.sleep(4 * SILENCE)
        assert 0 < sum(not call.done() for call in deletes) < 20
        first.thawed.set()
        assert await outcomes(*deletes) == {"ok": 20}
    came = sent(first) + sent(second)
    assert [came[request.SerializeToString()] for request in requests] == [1] * 20


async def test_streams_lead_to_different_processes_and_no_more_are_tried_than_help() -> None:
    alone = FakeExchange(echo)
    async with serving(alone) as target, Connection(target) as connection:
        for _ in range(20):
            await outcomes(*(get(connection) for _ in range(10)))
            await asyncio.sleep(0.01)
    # One that stays, and a few that found the same process.
    assert 2 <= alone.streams <= 10
