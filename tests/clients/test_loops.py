"""The client and the event loops that it runs in: whose context it keeps, and what loops that end leave behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVarTuple

import pytest

from agentstorage import Connection, poller
from agentstorage.exchange import Exchange, ExchangedCall
from agentstorage.methods import METHODS
from tests.clients.fake_exchange import FakeExchange, Plain, echo, get, serving, until
from tests.clients.test_connecting import WAYS

Ts = TypeVarTuple("Ts")
DESTROYED = "Task was destroyed but it is pending!"


class Span:
    """What a program puts into the context of a request."""


SPAN: contextvars.ContextVar[Span] = contextvars.ContextVar("span")


# Contexts.


@WAYS
async def test_the_context_of_the_first_caller_lives_no_longer_than_its_call(exchange: bool) -> None:
    fake, plain = FakeExchange(echo), Plain()

    async def first(connection: Connection) -> weakref.ref[Span]:
        span = Span()
        SPAN.set(span)
        await get(connection)
        return weakref.ref(span)

    # A loop that grpc has not met yet.
    async def calls(target: str) -> None:
        async with Connection(target, exchange=exchange) as connection:
            # What it opens and waits for goes on: streams, and timers of calls in flight and of such as are over.
            span = await asyncio.create_task(first(connection))
            # For one turn more the loop itself holds the end of that task.
            await asyncio.sleep(0)
            gc.collect()
            assert span() is None
            await get(connection)

    async with serving(fake, plain) as target:
        await asyncio.to_thread(asyncio.run, calls(target))
    assert (len(fake.calls), plain.calls) == ((2, 0) if exchange else (0, 2))


# Loops that end.


@pytest.mark.parametrize("moment", ["it has closed", "it has stopped", "it is in its last turn"])
async def test_closing_a_connection_while_another_loop_ends(moment: str, caplog: pytest.LogCaptureFixture) -> None:
    connection = Connection("127.0.0.1:1")
    blocked, go = threading.Event(), threading.Event()

    class Ending(asyncio.SelectorEventLoop):
        """A loop that ends when it is given something from outside: before it has taken that, or after."""

        def call_soon_threadsafe(
            self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
        ) -> asyncio.Handle:
            if moment == "it has closed" and blocked.is_set():
                end()
            handle = super().call_soon_threadsafe(callback, *args, context=context)
            if blocked.is_set():
                end()
            return handle

    async def use() -> None:
        connection.channel()

    def block() -> None:
        blocked.set()
        assert go.wait(10)
        if moment == "it is in its last turn":
            loop.call_soon(loop.stop)
        else:
            loop.stop()

    def run() -> None:
        loop.run_until_complete(use())
        loop.call_soon(block)
        loop.run_forever()
        loop.close()

    def end() -> None:
        go.set()
        thread.join(10)
        assert loop.is_closed()

    loop = Ending()
    thread = threading.Thread(target=run)
    thread.start()
    await until(blocked.is_set)
    await connection.close()
    # A coroutine that was never awaited is a warning, and so an error.
    gc.collect()
    assert loop.is_closed()
    assert not caplog.records


class Silent:
    """In place of a channel of grpc: its calls get no answer, and it keeps nothing of them alive."""

    def stream_stream(self, _: str) -> Any:
        return lambda metadata: self

    async def initial_metadata(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        """Nothing came of it."""


def test_a_loop_that_is_closed_leaves_streams_to_the_garbage_collector(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> weakref.ref[Exchange]:
        made = Exchange(Silent, lambda: None, "target", 1)  # type: ignore[arg-type]  # as much of a channel as it meets here
        method = METHODS["/agentstorage.v1.ThreadService/GetThread"]
        made.send(ExchangedCall(made, method, b"", 5, True, bytes, lambda _: asyncio.sleep(0)))
        await until(lambda: made._streams and made._streams[0]._rpc is not None)
        return weakref.ref(made)

    poller.quiet()
    loop = asyncio.new_event_loop()
    exchange = loop.run_until_complete(call())
    loop.close()
    # An exception in a finalizer is a warning, and so an error.
    gc.collect()
    assert exchange() is None
    assert not caplog.records


# False alarms.


async def test_what_is_said_of_grpcs_own_tasks_is_dropped_and_of_others_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wait_for(task: asyncio.Task[Any]) -> None:
        await task

    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    async with serving(FakeExchange(echo)) as target, Connection(target, streams=1) as connection:
        await get(connection)
        begun = asyncio.all_tasks() - before
        own = {task for task in begun if name_of(task) == "_AioCall._handle_status_once_received"}
        assert own
        # Named as one of those, waiting for one of those.
        others = [loop.create_task(wait_for(task), name="coro=<_AioCall.x() at /_cython/_cygrpc/") for task in own]
        await until(lambda: all("wait_for=<Task" in repr(task) for task in others))
        for task in (*own, *others):
            loop.call_exception_handler({"message": DESTROYED, "task": task})
        assert [record.message for record in caplog.records] == [f"{DESTROYED}\ntask: {task!r}" for task in others]


def name_of(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", ""))


TASK = "task: <Task pending name='Task-36' coro=<{}:7> wait_for=<Future finished result=None>>"
CYGRPC = "src/python/grpcio/grpc/_cython/_cygrpc/aio/call.pyx.pxi"


@pytest.mark.parametrize(
    ("report", "passes"),
    [
        (TASK.format(f"_AioCall._handle_status_once_received() running at {CYGRPC}"), False),
        (TASK.format(f"_AioCall.unary_unary() done, defined at {CYGRPC}"), False),
        (TASK.format("Stream._write() running at /lib/agentstorage/exchange/stream.py"), False),
        (f"source_traceback: Object created at\n{TASK.format(f'_AioCall.status() running at {CYGRPC}')}", False),
        (TASK.format("_AioCall.status() running at /app/calls.py"), True),
        (TASK.format(f"main() running at {CYGRPC}"), True),
        (TASK.format("Stream._write() running at /app/stream.py"), True),
        (TASK.format(f"main() running at /app/main.py:1> wait_for=<Task coro=<_AioCall.x() running at {CYGRPC}"), True),
    ],
)
def test_which_destroyed_tasks_are_reported(report: str, passes: bool, caplog: pytest.LogCaptureFixture) -> None:
    poller.quiet()
    logging.getLogger("asyncio").error(f"{DESTROYED}\n{report}")
    assert bool(caplog.records) is passes
