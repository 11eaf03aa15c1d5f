"""ExchangeService: any number of unary calls on one stream; the contract is in exchange.proto.

    message ─> a task for each call: Pipeline.answer ─> replies that gather while the last message is written ─> message

Nothing on a stream is without a bound: calls at work, bytes of requests and of replies that are not written yet, and the time of each
call. A large response goes in parts, between which other replies go on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from agentstorage.v1 import exchange_pb2 as pb
from storage_service import errors
from storage_service.caller import Caller
from storage_service.rpc import Method, Pipeline, abort, status_of
from storage_service.settings import Limits

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ExchangeService"].full_name

# The largest response that goes in one piece, the size of the parts of others, and what a message holds of small ones, in bytes.
_WHOLE, _PART, _MESSAGE = 131072, 65536, 262144
# So many calls of a message begin before other streams have their turn.
_TURN: Final = 32
# How often passed deadlines are looked for, and how long a stream whose end was announced waits for the client's, in seconds.
_SWEEP_SECONDS, _FAREWELL_SECONDS = 0.05, 0.5


_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs
_INSTANCE: Final = secrets.token_hex(8)
# As gRPC says it.
_UNKNOWN_METHOD: Final = pb.Status(code=grpc.StatusCode.UNIMPLEMENTED.value[0], message="Method not found!")


class _Running:
    """A call at work."""

    __slots__ = ("deadline", "size", "task")

    def __init__(self, task: asyncio.Task[None], size: int, deadline: float) -> None:
        self.task = task
        self.size = size
        self.deadline = deadline


class Exchange:
    """The streams of a server. ``stream_seconds`` is how long one lives before its client is asked to open another."""

    def __init__(self, pipeline: Pipeline, limits: Limits, stream_seconds: float = 240.0) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._stream_seconds = stream_seconds
        self._streams: set[_Stream] = set()
        self._draining = False
        self._empty = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service, as grpc takes it: bytes in, bytes out."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"Exchange": grpc.stream_stream_rpc_method_handler(self._serve)}
        )

    def drain(self) -> None:
        """Announce the end of every stream, and open no more."""
        self._draining = True
        for stream in self._streams:
            stream.drain()
        if not self._streams:
            self._empty.set()

    async def ended(self) -> None:
        """Wait until the streams have ended, after :meth:`drain`."""
        await self._empty.wait()

    async def _serve(self, _: Any, context: Any) -> None:
        try:
            await self._run(context)
            return
        except errors.Failure as error:
            failure = error
        await abort(context, failure)

    async def _run(self, context: Any) -> None:
        """Serve one stream to its end. Raises what it fails with."""
        if self._draining:
            raise errors.ShuttingDown()
        caller = self._pipeline.identify(context.invocation_metadata() or ())
        stream = _Stream(self._pipeline, caller, self._limits, context)
        self._streams.add(stream)
        # Not all at once, where many began together.
        seconds = self._stream_seconds * random.uniform(0.75, 1)  # noqa: S311 - spreads work, keeps no secret
        aging = asyncio.get_running_loop().call_later(seconds, stream.drain)
        try:
            await stream.run()
        finally:
            aging.cancel()
            self._leave(stream)

    def _leave(self, stream: _Stream) -> None:
        self._streams.discard(stream)
        if self._draining and not self._streams:
            self._empty.set()


class _Stream:
    """One stream."""

    def __init__(self, pipeline: Pipeline, caller: Caller, limits: Limits, context: Any) -> None:
        self._pipeline = pipeline
        self._caller = caller
        self._limits = limits
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, _Running] = {}
        # Requests at work and replies that are not written.
        self._bytes = 0
        self._replies: deque[tuple[int, bytes | pb.Status]] = deque()
        self._parts: deque[tuple[int, memoryview]] = deque()
        self._woken = asyncio.Event()
        self._sweeping: asyncio.TimerHandle | None = None
        # Whether there is to be a message without need, whether the end is announced, and whether the client has ended its side.
        self._announce = self._draining = self._half_closed = False

    def drain(self) -> None:
        """Announce the end, and end once all is answered."""
        if not self._draining:
            self._draining = self._announce = True
            self._woken.set()

    async def run(self) -> None:
        """Serve until the client ends its side, or the end that was announced has come. Raises what the stream fails with."""
        reading = asyncio.create_task(self._read(), name="exchange, in")
        writing = asyncio.create_task(self._write(), name="exchange, out")
        try:
            done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if reading in done:
                reading.result()
                self._half_closed = True
                self._woken.set()
            await writing
        except (grpc.aio.UsageError, grpc.aio.InternalError):
            # The connection has gone.
            return
        finally:
            for task in (reading, writing, *(running.task for running in self._calls.values())):
                task.cancel()
            if self._sweeping is not None:
                self._sweeping.cancel()

    # In.

    async def _read(self) -> None:
        # So that a client knows at once that there is an exchange, in which process, and how much it takes.
        await self._context.send_initial_metadata(
            (("agentstorage-instance", _INSTANCE), ("agentstorage-exchange-calls", str(self._limits.exchange_calls)))
        )
        while (data := await self._context.read()) is not _EOF:
            try:
                message = pb.ExchangeRequest.FromString(data)
            except DecodeError:
                raise errors.InvalidRequest("the message is no ExchangeRequest") from None
            if not (message.calls or message.cancels):
                self._announce = True
                self._woken.set()
            for id in message.cancels:
                running = self._calls.pop(id, None)
                if running is not None:
                    self._bytes -= running.size
                    running.task.cancel()
                    self._woken.set()
            for number, call in enumerate(message.calls, 1):
                self._begin(call)
                if not number % _TURN:
                    await asyncio.sleep(0)

    def _begin(self, call: pb.Call) -> None:
        id, method = call.id, self._pipeline.method(call.method)
        if id in self._calls:
            raise errors.InvalidRequest(violations={"calls.id": "is that of a call in flight"})
        if method is None or method.streams:
            self._refuse(id, _UNKNOWN_METHOD)
            return
        request, limits = call.request, self._limits
        size = len(request)
        if len(self._calls) >= limits.exchange_calls or (self._bytes and self._bytes + size > limits.exchange_bytes):
            failure = errors.LimitReached("too many calls at once on one stream")
            self._pipeline.refuse(method, size, self._caller, failure)
            self._refuse(id, _status(failure))
            return
        seconds = min(limits.call_seconds, call.timeout_ms / 1000) if call.timeout_ms else limits.call_seconds
        task = self._loop.create_task(self._answer(id, method, request, seconds))
        self._calls[id] = _Running(task, size, self._loop.time() + seconds)
        self._bytes += size
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _refuse(self, id: int, status: pb.Status) -> None:
        if len(self._replies) > 2 * self._limits.exchange_calls:
            raise errors.LimitReached("the client sends calls and reads no replies")
        self._reply(id, status)

    async def _answer(self, id: int, method: Method, request: bytes, seconds: float) -> None:
        try:
            response = await self._pipeline.answer(method, request, self._caller, seconds)
        except errors.Failure as failure:
            self._end(id, _status(failure))
        else:
            self._end(id, response)

    def _sweep(self) -> None:
        """End the calls whose time is over. One that does not end at once is left behind."""
        self._sweeping = None
        now = self._loop.time()
        for id in [id for id, running in self._calls.items() if running.deadline <= now]:
            self._calls[id].task.cancel()
            self._end(id, _status(errors.DeadlineExceeded()))
        if self._calls:
            self._sweeping = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    # Out.

    def _end(self, id: int, outcome: bytes | pb.Status) -> None:
        """Take a call from those at work. Nobody waits for one that is not among them any more."""
        running = self._calls.pop(id, None)
        if running is not None:
            self._bytes -= running.size
            self._reply(id, outcome)

    def _reply(self, id: int, outcome: bytes | pb.Status) -> None:
        if not isinstance(outcome, bytes):
            self._replies.append((id, outcome))
        else:
            self._bytes += len(outcome)
            if len(outcome) <= _WHOLE:
                self._replies.append((id, outcome))
            else:
                self._parts.append((id, memoryview(outcome)))
        self._woken.set()

    async def _write(self) -> None:
        while True:
            self._woken.clear()
            while self._replies or self._parts or self._announce:
                message, size = self._next()
                await self._context.write(message)
                self._bytes -= size
            if self._half_closed and not self._calls:
                return
            # Who was told of the end may have sent something before: that is refused, not lost.
            is_last = self._draining and not self._calls
            try:
                async with asyncio.timeout(_FAREWELL_SECONDS if is_last else None):
                    await self._woken.wait()
            except TimeoutError:
                return

    def _next(self) -> tuple[bytes, int]:
        """The next message, and how many bytes of responses it holds."""
        response = pb.ExchangeResponse(draining=self._draining)
        self._announce = False
        size = 0
        while self._replies and size < _MESSAGE:
            id, outcome = self._replies.popleft()
            if isinstance(outcome, bytes):
                size += len(outcome)
                response.replies.add(id=id, response=outcome)
            else:
                response.replies.add(id=id, error=outcome)
        if self._parts and size < _MESSAGE:
            id, rest = self._parts.popleft()
            response.replies.add(id=id, response=bytes(rest[:_PART]), more=len(rest) > _PART)
            size += min(len(rest), _PART)
            if len(rest) > _PART:
                # Behind the others, so that they take turns.
                self._parts.append((id, rest[_PART:]))
        return response.SerializeToString(), size


def _status(failure: errors.Failure) -> pb.Status:
    return pb.Status.FromString(status_of(failure).SerializeToString())
