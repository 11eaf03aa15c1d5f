"""What the client's exchange does with its calls, against an exchange that does as the test says."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentstorage import Connection, errors
from agentstorage.exchange import LARGEST, ExchangedCall
from agentstorage.v1 import exchange_pb2 as pb
from agentstorage.v1 import threads_pb2
from tests.clients.fake_exchange import FakeExchange, Plain, copy, echo, failing, get, never, outcomes, serving, until
from tests.clients.test_channel import closed_port

# Messages.


async def test_what_is_called_together_travels_together() -> None:
    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target) as connection:
        await get(connection)
        before = len(exchange.messages)
        replies = await asyncio.gather(*(get(connection, number) for number in range(64)))
        assert [reply.thread.thread_id for reply in replies] == [str(number) for number in range(64)]
        assert len(exchange.messages) - before <= 3


async def test_replies_come_in_any_order_and_in_parts() -> None:
    async def answer(call: pb.Call) -> list[pb.Reply]:
        (whole,) = await echo(call)
        number = int(threads_pb2.GetThreadRequest.FromString(call.request).thread_id)
        await asyncio.sleep((20 - number) / 200)
        data = whole.response
        return [pb.Reply(response=data[i : i + 1], more=i + 1 < len(data)) for i in range(len(data))]

    ended: list[int] = []

    async def one(number: int) -> None:
        assert (await get(connection, number)).thread.thread_id == str(number)
        ended.append(number)

    async with serving(FakeExchange(answer)) as target, Connection(target) as connection:
        await asyncio.gather(*(one(number) for number in range(20)))
    assert ended == sorted(range(20), reverse=True)


async def test_no_more_calls_are_sent_than_the_server_takes() -> None:
    async def answer(call: pb.Call) -> list[pb.Reply]:
        await asyncio.sleep(0.01)
        return await echo(call)

    exchange = FakeExchange(answer, room=10)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        assert await outcomes(*(get(connection, number) for number in range(200))) == {"ok": 200}
    assert exchange.most == 10


@pytest.mark.parametrize(("room", "size"), [(1000, 1), (1000, 0), (0, 1000)])
async def test_a_server_that_takes_next_to_nothing_gets_one_call_at_a_time(room: int, size: int) -> None:
    exchange = FakeExchange(echo, room=room, size=size)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        assert await outcomes(*(get(connection, number) for number in range(20))) == {"ok": 20}
    assert exchange.most == 1


async def test_an_answer_that_is_none_fails_its_call_alone() -> None:
    async def answer(call: pb.Call) -> list[pb.Reply]:
        request = threads_pb2.GetThreadRequest.FromString(call.request)
        return [pb.Reply(response=b"\xff")] if request.thread_id == "bad" else await echo(call)

    async with serving(FakeExchange(answer)) as target, Connection(target) as connection:
        assert await outcomes(get(connection, "bad"), get(connection)) == {"ServerFault": 1, "ok": 1}


@pytest.mark.parametrize(("raised", "seen"), [(ValueError, "ValueError"), (StopIteration, "RuntimeError")])
async def test_a_deserializer_that_fails_fails_its_call_alone(raised: type[Exception], seen: str) -> None:
    def deserialize(_: bytes) -> Any:
        raise raised("as told")

    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:
        serialize = threads_pb2.GetThreadRequest.SerializeToString
        broken = connection.channel().unary_unary("/agentstorage.v1.ThreadService/GetThread", serialize, deserialize)
        others = [get(connection, number) for number in range(10)]
        assert await outcomes(broken(threads_pb2.GetThreadRequest()), *others) == {seen: 1, "ok": 10}
        assert await outcomes(get(connection)) == {"ok": 1}
    assert (len(exchange.calls), exchange.streams) == (12, 1)


# What goes as a plain RPC.


async def test_large_calls_and_calls_with_options_are_plain_rpcs() -> None:
    exchange, plain = FakeExchange(echo), Plain()
    async with serving(exchange, plain) as target, Connection(target) as connection:
        await get(connection, "x" * LARGEST)
        await get(connection, metadata=[("x-trace", "1")])
        await get(connection, wait_for_ready=True)
        assert (plain.calls, len(exchange.calls)) == (3, 0)
        await get(connection, "x" * (LARGEST - 100))
        assert (plain.calls, len(exchange.calls)) == (3, 1)


async def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, plain = FakeExchange(echo), Plain()
    async with serving(exchange, plain) as target:
        async with Connection(target, exchange=False) as connection:
            await get(connection)
        monkeypatch.setenv("AGENTSTORAGE_EXCHANGE", "false")
        async with Connection(target) as connection:
            await get(connection)
    assert (plain.calls, exchange.streams) == (2, 0)


async def test_a_server_without_an_exchange_gets_plain_rpcs() -> None:
    plain = Plain()
    async with serving(None, plain) as target, Connection(target) as connection:
        assert await outcomes(*(get(connection) for _ in range(20))) == {"ok": 20}
        await get(connection)
    assert plain.calls == 21


@pytest.mark.parametrize("code", ["UNKNOWN", "INTERNAL", "PERMISSION_DENIED", "NOT_FOUND"])
async def test_a_proxy_that_refuses_the_stream_lets_plain_rpcs_pass(code: str) -> None:
    exchange, plain = FakeExchange(echo), Plain()
    exchange.refusal = grpc.StatusCode[code]
    async with serving(exchange, plain) as target, Connection(target) as connection:
        assert await outcomes(*(get(connection) for _ in range(20))) == {"ok": 20}
        await get(connection)
    assert (plain.calls, exchange.streams) == (21, 1)


async def test_a_proxy_that_holds_the_stream_back_gets_plain_rpcs() -> None:
    exchange, plain = FakeExchange(echo), Plain()
    exchange.thawed.clear()
    async with serving(exchange, plain) as target, Connection(target) as connection:
        started = time.monotonic()
        assert await outcomes(*(get(connection) for _ in range(20))) == {"ok": 20}
        assert 1.9 < time.monotonic() - started < 3.5
        started = time.monotonic()
        await get(connection)
        assert time.monotonic() - started < 0.5
    assert plain.calls == 21


async def test_the_exchange_is_tried_again_without_keeping_calls_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentstorage.exchange.streams._WITHOUT", 0.2)
    exchange, plain = FakeExchange(echo), Plain()
    exchange.thawed.clear()
    async with serving(exchange, plain) as target, Connection(target) as connection:
        await get(connection)
        until_then = time.monotonic() + 2.5
        while (started := time.monotonic()) < until_then:
            await get(connection)
            assert time.monotonic() - started < 0.5
            await asyncio.sleep(0.01)
        assert not exchange.calls
        exchange.thawed.set()
        async with asyncio.timeout(3):
            while not exchange.calls:
                await get(connection)
                await asyncio.sleep(0.01)


async def test_cancelling_reaches_the_plain_rpc_that_a_call_has_become() -> None:
    plain = Plain()
    plain.hangs = True
    async with serving(None, plain) as target, Connection(target) as connection:
        call = get(connection)
        await until(lambda: plain.calls)
        assert call.cancel()
        await until(lambda: plain.ended)
        with pytest.raises(asyncio.CancelledError):
            await call


# Ends of calls.


async def test_the_time_of_a_call() -> None:
    exchange = FakeExchange(never)
    async with serving(exchange) as target, Connection(target, read_timeout=0.5) as connection:
        for options, seconds in (({}, 0.5), ({"timeout": 0.2}, 0.2)):
            late = []
            for _ in range(3):
                started = time.monotonic()
                with pytest.raises(errors.DeadlineExceeded, match=f"GetThread got no answer from {target}") as caught:
                    await get(connection, **options)
                late.append(time.monotonic() - started - seconds)
                assert caught.value.safe_to_retry
            # The best of three, since the machine may be busy.
            assert 0 <= min(late) < 0.1
        with pytest.raises(errors.DeadlineExceeded) as caught:
            await copy(connection, timeout=0.1)
        assert not caught.value.safe_to_retry
        await until(lambda: len(exchange.cancels) == 7)
    for call, seconds in zip(exchange.calls, [0.5] * 3 + [0.2] * 3 + [0.1], strict=True):
        assert 0.5 * seconds < call.timeout_ms / 1000 <= seconds
    assert exchange.cancels == [call.id for call in exchange.calls]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
async def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    async with Connection("127.0.0.1:1") as connection:
        with pytest.raises(ValueError, match="more than 0"):
            get(connection, timeout=seconds)


async def test_a_call_without_an_end_of_its_own() -> None:
    exchange = FakeExchange(echo)
    async with serving(exchange) as target, Connection(target) as connection:
        await get(connection, timeout=float("inf"))
    assert exchange.calls[0].timeout_ms == 2**32 - 1


async def test_cancelling_the_task_or_the_call() -> None:
    exchange = FakeExchange(never)
    async with serving(exchange) as target, Connection(target) as connection:
        first, second = asyncio.ensure_future(get(connection)), get(connection)
        await exchange.until_called(2)
        first.cancel()
        assert second.cancel()
        assert not second.cancel()
        assert await outcomes(first, second) == {"CancelledError": 2}
        assert await second.code() is grpc.StatusCode.CANCELLED
        await until(lambda: len(exchange.cancels) == 2)
    assert set(exchange.cancels) == {call.id for call in exchange.calls}


async def test_a_call_has_what_grpcs_own_has() -> None:
    async def answer(call: pb.Call) -> list[pb.Reply]:
        await asyncio.sleep(0.05)
        request = threads_pb2.GetThreadRequest.FromString(call.request)
        return [failing(grpc.StatusCode.NOT_FOUND, "NOT_FOUND")] if request.thread_id == "bad" else await echo(call)

    ended: list[Any] = []
    async with serving(FakeExchange(answer)) as target, Connection(target) as connection:
        good, bad = get(connection), get(connection, "bad")
        good.add_done_callback(ended.append)
        await good.wait_for_connection()
        assert (good.done(), good.cancelled()) == (False, False)
        assert 4 < good.time_remaining() <= 5
        assert await good.code() is grpc.StatusCode.OK
        assert (good.done(), await good.details(), ended) == (True, "", [good])
        assert list(await good.initial_metadata()) == list(await good.trailing_metadata()) == []
        # It may be awaited again and again.
        assert (await good) == (await good)
        assert await bad.code() is grpc.StatusCode.NOT_FOUND
        assert await bad.details() == "as told"
        with pytest.raises(errors.NotFound):
            await bad


async def test_closing_cancels_what_is_in_flight() -> None:
    exchange = FakeExchange(never)
    async with serving(exchange) as target:
        connection = Connection(target)
        calls = [asyncio.ensure_future(get(connection)) for _ in range(10)]
        await exchange.until_called(10)
        unsent = get(connection)
        await connection.close()
        assert await outcomes(*calls, unsent) == {"CancelledError": 11}


async def test_closing_with_a_grace() -> None:
    async def answer(call: pb.Call) -> list[pb.Reply]:
        number = int(threads_pb2.GetThreadRequest.FromString(call.request).thread_id)
        await asyncio.sleep(number)
        return await echo(call)

    exchange = FakeExchange(answer)
    async with serving(exchange) as target:
        channel = (connection := Connection(target)).channel()
        calls = [asyncio.ensure_future(get(connection, seconds)) for seconds in (0, 0, 4)]
        await exchange.until_called(3)
        started = time.monotonic()
        await channel.close(0.5)
        assert time.monotonic() - started < 1
        assert await outcomes(*calls) == {"ok": 2, "CancelledError": 1}


async def test_calls_that_nobody_waits_for_are_not_kept() -> None:
    exchange = FakeExchange(echo)
    exchange.thawed.clear()
    async with serving(exchange) as target, Connection(target) as connection:
        assert await outcomes(*(get(connection, n, timeout=0.05) for n in range(500))) == {"DeadlineExceeded": 500}
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        assert not [found for found in gc.get_objects() if isinstance(found, ExchangedCall)]


# Tokens.


async def test_a_token_that_is_refused_fails_each_call() -> None:
    exchange = FakeExchange(echo)
    exchange.refusal = grpc.StatusCode.UNAUTHENTICATED
    async with serving(exchange) as target, Connection(target, token="wrong") as connection:
        started = time.monotonic()
        assert await outcomes(*(get(connection) for _ in range(20))) == {"Unauthenticated": 20}
        assert await outcomes(get(connection)) == {"Unauthenticated": 1}
        assert time.monotonic() - started < 1
        exchange.refusal = None
        await get(connection)


async def test_another_token_is_another_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def answer(call: pb.Call) -> list[pb.Reply]:
        await asyncio.sleep(0.02)
        return await echo(call)

    monkeypatch.setattr("agentstorage.connection._TOKEN_FILE_SECONDS", 0.05)
    file = tmp_path / "token"
    file.write_text("first")
    monkeypatch.setenv("AGENTSTORAGE_TOKEN_FILE", str(file))
    exchange = FakeExchange(answer, room=4)
    async with serving(exchange) as target, Connection(target, streams=1) as connection:

        async def caller() -> None:
            for _ in range(20):
                await copy(connection)

        callers = asyncio.gather(*(caller() for _ in range(8)))
        await exchange.until_called(40)
        file.write_text("second")
        await callers
    assert [found["authorization"] for found in exchange.metadata] == ["Bearer first", "Bearer second"]
    assert len(exchange.calls) == 160


# Servers that are away.


async def test_a_server_that_is_away_and_comes() -> None:
    port = closed_port()
    async with Connection(f"127.0.0.1:{port}") as connection:
        for _ in range(4):
            started = time.monotonic()
            with pytest.raises(errors.Unreachable, match=f"cannot reach 127.0.0.1:{port} .*storage-service serve"):
                await get(connection)
            assert time.monotonic() - started < 1.5
        async with serving(FakeExchange(echo), port=port):
            await get(connection)
