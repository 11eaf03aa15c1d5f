"""One stream of the exchange.

    message ─> calls that wait ─> a task for each: Pipeline.answer ─> replies that gather while the last message is written ─> message

Nothing on a stream is without a bound: calls, bytes of requests and of replies that are not written yet, and the time of each call. A
large response goes in parts, between which other replies go on.

A stream with many calls does not keep the others waiting: it begins few of them in a turn of the event loop, and has few of them at work,
since those wait in line with the calls of others for processor and database. Calls that take long, as those that wait for a lock, don't
count among these few, or they would hold up the rest of the stream.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from agentstorage.v1 import exchange_pb2 as pb
from storage_service import errors
from storage_service.caller import Caller
from storage_service.rpc import Method, Pipeline, presentable
from storage_service.settings import Limits
from storage_service.status import status_of

# The largest response that goes in one piece, the size of the parts of others, and what a message holds of small ones, in bytes.
_WHOLE, _PART, _MESSAGE = 131072, 65536, 262144
# No message that gathers, in a client or here, is larger. Where even less is allowed, less is to gather.
_LARGEST_MESSAGE: Final = 1024 * 1024
# So many calls of a stream begin in a turn of the event loop, so many are taken from a message in one, and so many are at work.
_BEGUN, _TAKEN, _AT_WORK = 8, 32, 64
# Replies to a client that waits for so many calls or more gather before they go: to a share of those calls, up to so many, while others
# are at work, and for so many seconds at most.
_MANY, _SHARE, _ENOUGH, _GATHER_SECONDS = 16, 4, 16, 0.001
# After so many seconds a call takes long.
_LONG: Final = 0.2
# How often passed deadlines are looked for, in seconds.
_SWEEP_SECONDS: Final = 0.05
# A client that lets more bytes gather than it may has so many seconds to read some.
_UNREAD_SECONDS: Final = 1.0

_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs
_INSTANCE: Final = secrets.token_hex(8)
_UNREAD: Final = "the client sends calls and reads no replies"
# As gRPC says it.
_UNKNOWN_METHOD: Final = pb.Status(code=grpc.StatusCode.UNIMPLEMENTED.value[0], message="Method not found!")


class _Work:
    """A call, from its arrival to its end."""

    __slots__ = ("deadline", "has_begun", "id", "is_over", "late", "method", "request", "since", "takes_place", "task")

    def __init__(self, id: int, method: Method, request: bytes, deadline: float, late: errors.Failure | None) -> None:
        self.id = id
        self.method = method
        self.request = request
        self.deadline = deadline
        # What the log says of it after its deadline: as of plain RPCs, that the client gave up, if the deadline is the client's.
        self.late = late
        self.task: asyncio.Task[None] | None = None
        self.since = 0.0
        self.has_begun = self.is_over = self.takes_place = False


class Stream:
    """One stream."""

    def __init__(self, pipeline: Pipeline, caller: Caller, limits: Limits, context: Any) -> None:
        self._pipeline = pipeline
        self._caller = caller
        self._limits = limits
        self._context = context
        self._loop = asyncio.get_running_loop()
        is_tight = limits.message_bytes < _LARGEST_MESSAGE
        self._room = min(limits.exchange_bytes, limits.message_bytes // 2) if is_tight else limits.exchange_bytes
        self._whole, self._part, self._message = (
            min(size, limits.message_bytes // 4) for size in (_WHOLE, _PART, _MESSAGE)
        )
        self._calls: dict[int, _Work] = {}
        self._waiting: deque[_Work] = deque()
        # How many calls are at work, without those that take long.
        self._at_work = 0
        # Bytes of requests that are not answered, and of replies that are not written.
        self._requested = self._unread = 0
        self._replies: deque[tuple[int, bytes | pb.Status]] = deque()
        self._parts: deque[tuple[int, memoryview]] = deque()
        self._woken, self._written = asyncio.Event(), asyncio.Event()
        self._starting: asyncio.Handle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        # How many replies are worth a message, and whether those that are there have waited for others long enough.
        self._enough = 0
        self._is_late = False
        # Since when a message waits to be written.
        self._writing_since: float | None = None
        self._unread_too_long: asyncio.Future[None] = self._loop.create_future()
        # Whether there is to be a message without need, whether the end is announced, and whether the client has ended its side.
        self._announce = self._draining = self._half_closed = False
        # How long to wait for the client's end then, in seconds.
        self._farewell = math.inf

    @property
    def is_draining(self) -> bool:
        """Whether the end is announced."""
        return self._draining

    def drain(self, farewell: float) -> None:
        """Announce the end, and end once all is answered and the client has had ``farewell`` seconds to end its side."""
        self._farewell = min(self._farewell, farewell)
        if not self._draining:
            self._draining = self._announce = True
        self._woken.set()

    async def run(self) -> None:
        """Serve until the client ends its side, or the end that was announced has come. Raises what the stream fails with."""
        reading = asyncio.create_task(self._read(), name="exchange, in")
        writing = asyncio.create_task(self._write(), name="exchange, out")
        try:
            done, _ = await asyncio.wait({reading, writing, self._unread_too_long}, return_when=asyncio.FIRST_COMPLETED)
            if reading in done:
                reading.result()
                self._half_closed = True
                self._woken.set()
                await asyncio.wait({writing, self._unread_too_long}, return_when=asyncio.FIRST_COMPLETED)
            if self._unread_too_long.done():
                raise errors.LimitReached(_UNREAD)
            await writing
        except (grpc.aio.UsageError, grpc.aio.InternalError):
            # The connection has gone.
            return
        finally:
            for task in (reading, writing):
                task.cancel()
            for handle in (self._sweeping, self._starting):
                if handle is not None:
                    handle.cancel()
            for work in self._calls.values():
                self._leave_behind(work, None)

    # In.

    async def _read(self) -> None:
        # So that a client knows at once that there is an exchange, in which process, and how much it takes.
        await self._context.send_initial_metadata(
            (
                ("agentstorage-instance", _INSTANCE),
                ("agentstorage-exchange-calls", str(self._limits.exchange_calls)),
                ("agentstorage-exchange-bytes", str(self._room)),
            )
        )
        while (data := await self._context.read()) is not _EOF:
            try:
                message = pb.ExchangeRequest.FromString(data)
            except DecodeError:
                raise errors.InvalidRequest("the message is no ExchangeRequest") from None
            if not (message.calls or message.cancels):
                self._announce = True
                self._woken.set()
            self._enough = min(message.in_flight // _SHARE, _ENOUGH) if message.in_flight >= _MANY else 0
            if len(message.cancels) > 2 * self._limits.exchange_calls:
                raise errors.InvalidRequest(violations={"cancels": "are more than there can be calls"})
            for number, id in enumerate(message.cancels, 1):
                self._cancel(id)
                if not number % _TAKEN:
                    await asyncio.sleep(0)
            for number, call in enumerate(message.calls, 1):
                self._take(call)
                if not number % _TAKEN:
                    await asyncio.sleep(0)
                    await self._keep_up()
            await self._keep_up()

    async def _keep_up(self) -> None:
        """Wait while a client that does not read its replies would let them gather by asking for more."""
        while len(self._replies) > 2 * self._limits.exchange_calls:
            self._written.clear()
            await self._written.wait()

    def _take(self, call: pb.Call) -> None:
        """Let a call wait for its turn, or refuse it."""
        id, method = call.id, self._pipeline.method(call.method)
        if id in self._calls:
            raise errors.InvalidRequest(violations={"calls.id": "is that of a call in flight"})
        if method is None or method.streams:
            self._reply(id, _UNKNOWN_METHOD)
            return
        request, limits = call.request, self._limits
        size = len(request)
        try:
            if len(self._calls) >= limits.exchange_calls or (
                self._requested and self._requested + size > limits.exchange_bytes
            ):
                raise errors.LimitReached("too many calls at once on one stream")
            self._pipeline.admit(method, size)
        except errors.Failure as failure:
            self._pipeline.refuse(method, size, self._caller, failure)
            self._reply(id, _status(failure))
            return
        seconds, late = call.timeout_ms / 1000, None
        if not 0 < seconds <= limits.call_seconds:
            seconds, late = limits.call_seconds, errors.DeadlineExceeded()
        work = _Work(id, method, request, self._loop.time() + seconds, late)
        self._calls[id] = work
        self._requested += size
        self._waiting.append(work)
        self._start_soon()
        self._sweep_later()

    def _cancel(self, id: int) -> None:
        work = self._calls.pop(id, None)
        if work is not None:
            self._free(work)
            self._leave_behind(work, None)
            # Whoever is to end once nothing is at work may end now.
            self._woken.set()
            return
        # The rest of an answer that is on its way already.
        for part in [part for part in self._parts if part[0] == id]:
            self._parts.remove(part)
            self._unread -= len(part[1])

    # Calls at work.

    def _start_soon(self) -> None:
        if self._starting is None and self._waiting:
            self._starting = self._loop.call_soon(self._start)

    def _start(self) -> None:
        """Begin calls that wait: a few, and further ones in the event loop's next turn."""
        self._starting = None
        begun = 0
        while self._waiting and self._at_work < _AT_WORK and self._unread <= self._limits.exchange_bytes // 2:
            if begun == _BEGUN:
                self._start_soon()
                return
            work = self._waiting.popleft()
            if work.is_over:
                continue
            begun += 1
            self._at_work += 1
            work.takes_place = True
            work.since = self._loop.time()
            work.task = self._loop.create_task(self._answer(work))

    async def _answer(self, work: _Work) -> None:
        if work.is_over:
            return
        work.has_begun = True
        seconds = max(0.0, work.deadline - self._loop.time())
        outcome: bytes | pb.Status
        try:
            outcome = await self._pipeline.answer(work.method, work.request, self._caller, seconds, is_admitted=True)
        # Whatever it is, the call must end: nobody else would answer it before its deadline.
        except Exception as error:
            outcome = _status(presentable(error))
        # Nobody waits for one that is not among them any more; another call may have its id by now.
        if self._calls.get(work.id) is work:
            del self._calls[work.id]
            self._free(work)
            self._reply(work.id, outcome)

    def _free(self, work: _Work) -> None:
        """Give a call's place to another."""
        self._requested -= len(work.request)
        self._give_place(work)

    def _give_place(self, work: _Work) -> None:
        if work.takes_place:
            work.takes_place = False
            self._at_work -= 1
        self._start_soon()

    def _leave_behind(self, work: _Work, failure: errors.Failure | None) -> None:
        """End the work on a call, without waiting until it has ended: a frozen database would hold it up.

        Without a failure its client gave up.
        """
        work.is_over = True
        size, work.request = len(work.request), b""
        if work.has_begun and work.task is not None:
            work.task.cancel(failure)
        else:
            self._pipeline.leave(size)
            self._pipeline.refuse(work.method, size, self._caller, failure)

    def _sweep_later(self) -> None:
        if self._sweeping is None and (self._calls or self._writing_since is not None):
            self._sweeping = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """End the calls whose time is over, let no call that takes long hold up others, and end a stream that is not read."""
        self._sweeping = None
        now = self._loop.time()
        for work in list(self._calls.values()):
            if work.deadline <= now:
                del self._calls[work.id]
                self._free(work)
                self._leave_behind(work, work.late)
                self._reply(work.id, _status(errors.DeadlineExceeded()))
            elif work.takes_place and now - work.since > _LONG:
                self._give_place(work)
        if self._writing_since is not None:
            is_full = (
                self._unread > self._limits.exchange_bytes // 2 or len(self._replies) > self._limits.exchange_calls
            )
            # Whoever reads nothing for longer than a call may take waits for none.
            seconds = _UNREAD_SECONDS if is_full else max(_UNREAD_SECONDS, self._limits.call_seconds)
            if now - self._writing_since > seconds and not self._unread_too_long.done():
                self._unread_too_long.set_result(None)
        self._sweep_later()

    # Out.

    def _reply(self, id: int, outcome: bytes | pb.Status) -> None:
        if not isinstance(outcome, bytes):
            self._replies.append((id, outcome))
        else:
            self._unread += len(outcome)
            if len(outcome) <= self._whole:
                self._replies.append((id, outcome))
            else:
                self._parts.append((id, memoryview(outcome)))
        self._woken.set()

    async def _write(self) -> None:
        while True:
            self._woken.clear()
            while self._replies or self._parts or self._announce:
                if self._may_gather():
                    await self._gather()
                message, size = self._next()
                self._writing_since = self._loop.time()
                self._sweep_later()
                await self._context.write(message)
                self._writing_since = None
                self._written.set()
                self._unread -= size
                self._start_soon()
            if self._half_closed and not self._calls:
                return
            # Who was told of the end may have sent something before: that is refused, not lost.
            is_last = self._draining and not self._calls
            try:
                async with asyncio.timeout(self._farewell if is_last else None):
                    await self._woken.wait()
            except TimeoutError:
                if not self._calls:
                    return

    def _may_gather(self) -> bool:
        """Whether there is little to be written, and soon more."""
        return len(self._replies) < self._enough and self._at_work > 0 and not (self._parts or self._announce)

    async def _gather(self) -> None:
        """Let replies gather for a moment."""
        self._is_late = False
        hurrying = self._loop.call_later(_GATHER_SECONDS, self._hurry)
        while self._may_gather() and not self._is_late:
            self._woken.clear()
            await self._woken.wait()
        hurrying.cancel()

    def _hurry(self) -> None:
        self._is_late = True
        self._woken.set()

    def _next(self) -> tuple[bytes, int]:
        """The next message, and how many bytes of responses it holds."""
        response = pb.ExchangeResponse(draining=self._draining)
        self._announce = False
        size = 0
        while self._replies and size < self._message:
            id, outcome = self._replies.popleft()
            if isinstance(outcome, bytes):
                size += len(outcome)
                response.replies.add(id=id, response=outcome)
            else:
                response.replies.add(id=id, error=outcome)
        if self._parts and size < self._message:
            id, rest = self._parts.popleft()
            response.replies.add(id=id, response=bytes(rest[: self._part]), more=len(rest) > self._part)
            size += min(len(rest), self._part)
            if len(rest) > self._part:
                # Behind the others, so that they take turns.
                self._parts.append((id, rest[self._part :]))
        return response.SerializeToString(), size


def _status(failure: errors.Failure) -> pb.Status:
    return pb.Status.FromString(status_of(failure).SerializeToString())
