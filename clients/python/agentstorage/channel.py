"""A gRPC channel whose calls have deadlines, carry the token and fail with the classes of ``agentstorage.errors``.

It wraps calls instead of using grpc's client interceptors: those start a task for each call, which costs 20 us and
more; the wrapper costs 1 us of the 250 us that a call takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from agentstorage.errors import from_rpc_error
from agentstorage.exchange import LARGEST, Exchange, ExchangedCall, FutureCall
from agentstorage.identifiers import new_id
from agentstorage.methods import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, METHODS, PAUSE_FACTOR, Method

_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# What the service takes for wait_seconds at most.
_LONGEST_WAIT = 3600.0

#: Answers the metadata that every call carries.
MetadataSource = Callable[[], grpc.aio.Metadata | None]


class Call:
    """A call on its way. Awaiting or iterating it raises ``StorageError``; all else is as in grpc's own call object."""

    __slots__ = ("_call", "_idempotent", "_target", "method")

    def __init__(self, call: Any, method: Method, target: str, idempotent: bool) -> None:
        self._call = call
        self.method = method
        self._target = target
        self._idempotent = idempotent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except grpc.aio.AioRpcError as error:
            self._fail(error)

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._call:
                yield message
        except grpc.aio.AioRpcError as error:
            self._fail(error)
        finally:
            # A stream that nobody reads to its end is never collected by grpc.
            self._call.cancel()

    async def read(self) -> Any:
        """Read the next message of a stream; ``grpc.aio.EOF`` at its end."""
        return await self._guarded(self._call.read())

    async def write(self, request: Any) -> None:
        """Write a message to a stream."""
        await self._guarded(self._call.write(request))

    async def done_writing(self) -> None:
        """End the client's side of a stream."""
        await self._guarded(self._call.done_writing())

    async def _guarded(self, step: Awaitable[Any]) -> Any:
        try:
            return await step
        except grpc.aio.AioRpcError as error:
            self._fail(error)

    def _fail(self, error: grpc.aio.AioRpcError) -> NoReturn:
        failure = from_rpc_error(error, method=self.method.path, target=self._target, idempotent=self._idempotent)
        # What the server gave a reason for is told in full; for the rest grpc's own words may say more.
        raise failure from (None if failure.reason else error)


class RepeatedCall(FutureCall, Call):
    """An idempotent call of a method of which not all are, so that grpc does not send it again by itself.

    A task makes the attempts, so that it is one call between them too: not over, and cancelled for good. What it is asked other than
    when and how it ends, the last attempt answers.
    """

    __slots__ = ("__weakref__", "_task", "future")

    def __init__(
        self,
        start: Callable[[float], Any],
        method: Method,
        target: str,
        timeout: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(start(timeout), method, target, True)
        self.future = loop.create_future()
        self._task = loop.create_task(self._repeat(start, time.monotonic() + timeout))
        self._task.add_done_callback(self.end_as)

    def _leave(self) -> None:
        self._task.cancel()
        # The task may not have come to wait for it.
        self._call.cancel()

    async def _repeat(self, start: Callable[[float], Any], deadline: float) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return await self._call
            except grpc.aio.AioRpcError as error:
                spread = random.uniform(0.8, 1.2)  # noqa: S311 - keeps callers apart, keeps no secret
                pause = spread * min(FIRST_PAUSE * PAUSE_FACTOR**attempt, LONGEST_PAUSE)
                left = deadline - time.monotonic() - pause
                if error.code() not in _RETRIED or attempt + 1 == ATTEMPTS or left <= 0:
                    self._fail(error)
            await asyncio.sleep(pause)
            self._call = start(left)
        raise AssertionError("the last attempt returns or raises")


class _Closed:
    """What is left of a channel that is closed."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise grpc.aio.UsageError("Channel is closed.")

    __call__ = unary_unary = unary_stream = stream_unary = stream_stream = _refuse
    wait_for_state_change = channel_ready = _refuse

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Say that it is closed."""
        return grpc.ChannelConnectivity.SHUTDOWN

    async def close(self, grace: float | None = None) -> None:
        """Is closed already."""


class _Callable:
    """Starts calls of one method."""

    __slots__ = (
        "__weakref__",
        "_codec",
        "_exchange",
        "_inner",
        "_loop",
        "_method",
        "_repeated",
        "_source",
        "_target",
        "_timeout",
    )

    def __init__(
        self,
        inner: Any,
        method: Method,
        source: MetadataSource,
        target: str,
        loop: asyncio.AbstractEventLoop,
        timeout: float | None,
        exchange: Exchange | None = None,
        codec: tuple[Any, Any] = (None, None),
    ) -> None:
        self._inner = inner
        self._method = method
        self._source = source
        self._target = target
        self._loop = loop
        self._timeout = timeout
        self._exchange = exchange
        self._codec = codec
        self._repeated: weakref.WeakSet[RepeatedCall] = weakref.WeakSet()

    def let_go(self) -> None:
        """Hold the channel no more: it is closed, and with it end the calls that have a pause."""
        self._inner = _Closed()
        for call in list(self._repeated):
            call.cancel()

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        **options: Any,
    ) -> Call | ExchangedCall:
        method = self._method
        if timeout is None:
            timeout = self._timeout
            if method.waits and timeout is not None:
                timeout += _wait_seconds(request)
        elif not timeout > 0:
            # grpc would answer at once, or not, by a race; NaN is no time.
            raise ValueError("timeout must be more than 0 seconds")
        if method.id_field and not getattr(request, method.id_field) and not getattr(request, "request_id", ""):
            request = _with_id(request, method.id_field)
        # A call that waits is an RPC of its own: a stream with calls at work is asked every second whether its server is there, and does
        # not end while one of them waits. An RPC costs 250 us, once in a wait.
        exchange = None if method.waits else self._exchange
        # What is said of a single call, other than its time, is said of an RPC.
        if exchange is not None and not (metadata or options) and timeout is not None and exchange.takes_calls():
            serialize, deserialize = self._codec
            data = serialize(request) if serialize else request
            if len(data) <= LARGEST:
                idempotent = method.idempotent or bool(
                    method.expectation and not _is_present(request, method.expectation)
                )
                call = ExchangedCall(
                    exchange,
                    method,
                    data,
                    timeout,
                    idempotent,
                    deserialize or bytes,
                    lambda left: self._start(request, left, None, {}),
                )
                exchange.send(call)
                return call
        return self._start(request, timeout, metadata, options)

    def _start(self, request: Any, timeout: float | None, metadata: Any, options: dict[str, Any]) -> Call:
        """Start a plain RPC."""
        carried = self._source()
        if carried is not None:
            metadata = carried if not metadata else grpc.aio.Metadata(*carried, *metadata)
        method = self._method
        if method.expectation and timeout is not None and not _is_present(request, method.expectation):
            call = RepeatedCall(
                lambda left: self._inner(request, timeout=left, metadata=metadata, **options),
                method,
                self._target,
                timeout,
                self._loop,
            )
            self._repeated.add(call)
            return call
        return Call(
            self._inner(request, timeout=timeout, metadata=metadata, **options),
            method,
            self._target,
            method.idempotent,
        )


class _StreamCallable(_Callable):
    """Starts calls of a method whose requests are a stream."""

    __slots__ = ()

    def __call__(
        self, request: Any = None, *, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> Call:
        if timeout is not None and not timeout > 0:
            raise ValueError("timeout must be more than 0 seconds")
        carried = self._source()
        if carried is not None:
            metadata = carried if not metadata else grpc.aio.Metadata(*carried, *metadata)
        call = self._inner(request, timeout=timeout, metadata=metadata, **options)
        return Call(call, self._method, self._target, self._method.idempotent)


def _with_id(request: Message, field: str) -> Message:
    copy = type(request)()
    copy.CopyFrom(request)
    setattr(copy, field, new_id())
    return copy


def _wait_seconds(request: Any) -> float:
    """How long a call waits by its request; what is no such time the server refuses at once."""
    seconds: float = request.wait_seconds
    return seconds if 0 < seconds <= _LONGEST_WAIT else 0.0


def _is_present(request: Message, field: str) -> bool:
    value = getattr(request, field)
    return request.HasField(field) if isinstance(value, int) else bool(value)


class Channel(grpc.aio.Channel):
    """A channel for the generated stubs, bound to the event loop in which it was made.

    Calls without a ``timeout`` get one: ``read_timeout`` seconds for methods without side effects, ``write_timeout``
    for the others, and what the request says that it waits; none for streams. A create without an id is given one, so
    that sending it again is safe. Idempotent calls are sent again after UNAVAILABLE and CANCELLED, up to four times in
    all and within their time.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        target: str,
        source: MetadataSource,
        *,
        read_timeout: float,
        write_timeout: float,
        exchange: Exchange | None = None,
    ) -> None:
        self._channel: Any = channel
        self._exchange = exchange
        self._callables: weakref.WeakSet[_Callable] = weakref.WeakSet()
        self._target = target
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable for a unary method."""
        known = METHODS.get(method) or Method(method)
        timeout = self._read_timeout if known.reads else self._write_timeout
        inner = self._channel.unary_unary(method, *args, **kwargs)
        codec = (*args, None, None)[:2]
        codec = (kwargs.get("request_serializer", codec[0]), kwargs.get("response_deserializer", codec[1]))
        exchange = self._exchange if method in METHODS else None
        return self._keep(_Callable(inner, known, self._source, self._target, self._loop, timeout, exchange, codec))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable for a method that answers a stream."""
        inner = self._channel.unary_stream(method, *args, **kwargs)
        known = METHODS.get(method) or Method(method)
        return self._keep(_Callable(inner, known, self._source, self._target, self._loop, None))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable for a method that takes a stream."""
        inner = self._channel.stream_unary(method, *args, **kwargs)
        return self._keep(
            _StreamCallable(inner, METHODS.get(method) or Method(method), self._source, self._target, self._loop, None)
        )

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable for a method that takes and answers a stream."""
        inner = self._channel.stream_stream(method, *args, **kwargs)
        return self._keep(
            _StreamCallable(inner, METHODS.get(method) or Method(method), self._source, self._target, self._loop, None)
        )

    def _keep(self, made: _Callable) -> _Callable:
        self._callables.add(made)
        return made

    async def close(self, grace: float | None = None) -> None:
        """Close the channel; calls in flight get ``grace`` seconds, then are cancelled."""
        # At once, so that the grace is one.
        exchange = () if self._exchange is None else (self._exchange.close(grace),)
        await asyncio.gather(*exchange, self._channel.close(grace))
        self._let_go()

    def shut(self) -> None:
        """Close the channel and wait for nothing, in an event loop that may be about to end."""
        if self._exchange is not None:
            self._exchange.stop()
        # A task might never be run. Without a grace grpc waits for nothing either, so this is over with its first step.
        with contextlib.suppress(StopIteration):
            self._channel.close().send(None)
        self._let_go()

    def _let_go(self) -> None:
        # grpc goes on to connect for as long as anybody holds what was made of a channel.
        for made in list(self._callables):
            made.let_go()
        self._callables.clear()
        self._channel = _Closed()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Say whether the channel is connected."""
        state: grpc.ChannelConnectivity = self._channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another one."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is connected."""
        await self._channel.channel_ready()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
