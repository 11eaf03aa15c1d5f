"""The streams of a channel: which call goes where, and what becomes of it when a stream breaks."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import grpc

from agentstorage.errors import StorageError, from_rpc_error, from_status
from agentstorage.exchange.call import ExchangedCall
from agentstorage.exchange.stream import SILENCE, Stream
from agentstorage.methods import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, PAUSE_FACTOR
from agentstorage.v1 import exchange_pb2 as pb

_RETRIED: Final = (grpc.StatusCode.UNAVAILABLE.value[0], grpc.StatusCode.CANCELLED.value[0])
# What a server or a proxy without an exchange ends the stream with, before it has begun.
_NO_EXCHANGE: Final = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
# Seconds: for a stream to begin; without an exchange until it is tried again; between searches for further processes.
_BEGIN, _WITHOUT, _SEARCH = 2.0, 60.0, 30.0
# How often a process that is known already is met before a search ends.
_MEETINGS: Final = 2
# As grpc's retryThrottling: no call is sent again while fewer than half of the tokens are left.
_TOKENS, _TOKEN_RATIO = 100.0, 0.1


class Exchange:
    """The streams of one channel, in the event loop in which it was made.

    Args:
        open_channel: Makes a channel with a connection of its own.
        source: Answers the metadata that a stream carries.
        target: The target, for messages.
        streams: Streams at most, each to another process of the service.
    """

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        source: Callable[[], grpc.aio.Metadata | None],
        target: str,
        streams: int,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.open_channel = open_channel
        self.source = source
        self.target = target
        self._wanted = streams
        self._streams: list[Stream] = []
        self._waiting: deque[ExchangedCall] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._failures = 0
        self._meetings = 0
        self._searched = 0.0
        self._without_until = 0.0
        self._tokens = _TOKENS
        self._closed = False

    @property
    def usable(self) -> bool:
        """Whether calls may go this way."""
        return not self._closed and self.loop.time() >= self._without_until

    def send(self, call: ExchangedCall) -> None:
        """Send a call on the stream that has the fewest, or as soon as there is one."""
        call.is_sent = False
        call.parts = None
        stream = self._fittest()
        if stream is None:
            call.stream = None
            self._waiting.append(call)
        else:
            stream.send(call)
        if self._watching is None:
            self._watching = self.loop.call_later(SILENCE / 2, self._watch)
        if len(self._streams) < self._wanted:
            self._look_for_more(stream is None)

    def forget(self, call: ExchangedCall) -> None:
        """Let a call go that nobody waits for any more, and tell the server."""
        if call.stream is not None:
            call.stream.cancel(call)
            call.stream = None

    def _fittest(self) -> Stream | None:
        best: Stream | None = None
        carried = self.source()
        for stream in list(self._streams):
            if stream.is_open and stream.metadata is not carried:
                # The token is another one now.
                stream.retire()
            elif stream.is_open and not stream.is_suspect and (best is None or len(stream.calls) < len(best.calls)):
                best = stream
        return best

    # Streams come and go.

    def _look_for_more(self, needed: bool) -> None:
        now = self.loop.time()
        if self._opening is not None or self._closed or any(not stream.is_open for stream in self._streams):
            return
        if needed:
            pause = _pause(self._failures - 1) if self._failures else 0.0
            self._opening = self.loop.call_later(pause, self._open)
        elif self._meetings < _MEETINGS or now - self._searched > _SEARCH:
            if self._meetings >= _MEETINGS:
                self._meetings = 0
            self._searched = now
            self._opening = self.loop.call_soon(self._open)  # type: ignore[assignment]  # both can be cancelled

    def _open(self) -> None:
        self._opening = None
        if not self._closed:
            stream = Stream(self)
            self._streams.append(stream)
            self._spawn(stream.run())

    def _spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def opened(self, stream: Stream) -> bool:
        """Take a stream that has begun into use; False when there is one to its process already."""
        self._failures = 0
        if any(other is not stream and other.is_open and other.instance == stream.instance for other in self._streams):
            self._meetings += 1
            self._streams.remove(stream)
            if len(self._streams) < self._wanted:
                self._look_for_more(False)
            return False
        self._meetings = 0
        stream.is_open = True
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if not call.future.done():
                stream.send(call)
        if len(self._streams) < self._wanted:
            self._look_for_more(False)
        return True

    def retired(self, stream: Stream) -> None:
        """Give a stream no further calls."""
        if stream in self._streams:
            self._streams.remove(stream)

    def ended(self, stream: Stream, error: grpc.aio.AioRpcError | None) -> None:
        """Deal with the calls of a stream that is over; without an error the server has run none of those it did not answer."""
        self.retired(stream)
        if self._closed:
            return
        if not stream.has_begun and error is not None:
            self._not_begun(error)
        for call in list(stream.calls.values()):
            call.stream = None
            if call.future.done():
                continue
            if error is None or not call.is_sent:
                self.send(call)
            else:
                self._again_or_fail(call, self._failure(error, call))

    def _not_begun(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() in _NO_EXCHANGE:
            self._do_without()
            return
        self._failures += 1
        if any(stream.is_open for stream in self._streams):
            return
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.attempts += 1
            if call.future.done():
                continue
            # None of them was sent, so that each may be again.
            if error.code() is grpc.StatusCode.UNAVAILABLE and call.attempts < ATTEMPTS:
                self._waiting.append(call)
            else:
                call.fail(self._failure(error, call))
        if self._waiting:
            self._look_for_more(True)

    def _do_without(self) -> None:
        """Make plain RPCs of all calls for a while."""
        self._without_until = self.loop.time() + _WITHOUT
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if not call.future.done():
                self._spawn(call.go_plain())

    # Calls end, or begin again.

    def replied(self, call: ExchangedCall, reply: pb.Reply) -> None:
        """End a call with its reply, or send it again."""
        call.stream = None
        if reply.WhichOneof("outcome") != "error":
            self._tokens = min(_TOKENS, self._tokens + _TOKEN_RATIO)
            call.succeed(reply.response if call.parts is None else b"".join((*call.parts, reply.response)))
            return
        failure = from_status(reply.error, **self._about(call))
        if reply.error.code in _RETRIED:
            self._again_or_fail(call, failure)
        else:
            call.fail(failure)

    def _again_or_fail(self, call: ExchangedCall, failure: StorageError) -> None:
        self._tokens = max(0.0, self._tokens - 1)
        call.attempts += 1
        pause = _pause(call.attempts - 1)
        may = call.idempotent and call.attempts < ATTEMPTS and self._tokens > _TOKENS / 2
        if may and self.loop.time() + pause < call.deadline:
            self.loop.call_later(pause, self._send_again, call, failure)
        else:
            call.fail(failure)

    def _send_again(self, call: ExchangedCall, failure: StorageError) -> None:
        if call.future.done():
            return
        if self.usable:
            self.send(call)
        else:
            call.fail(failure)

    def _failure(self, error: grpc.aio.AioRpcError, call: ExchangedCall) -> StorageError:
        failure = from_rpc_error(error, **self._about(call))
        failure.__cause__ = error
        return failure

    def _about(self, call: ExchangedCall) -> dict[str, Any]:
        return {"method": call.method.path, "target": self.target, "idempotent": call.idempotent}

    def _watch(self) -> None:
        """Look for streams that are silent although calls wait; move what may be moved from those that seem frozen."""
        self._watching = None
        now = self.loop.time()
        busy = bool(self._waiting)
        for stream in list(self._streams):
            if stream.is_open and stream.calls:
                busy = True
                if stream.is_frozen(now):
                    for call in [call for call in stream.calls.values() if call.idempotent]:
                        self.forget(call)
                        self.send(call)
                    self._look_for_more(self._fittest() is None)
            elif not stream.has_begun and now - stream.since > _BEGIN:
                stream.abandon()
                if not any(other.is_open for other in self._streams):
                    # A proxy that holds back what it does not know. If there is no server at all, plain RPCs say so.
                    self._do_without()
        if busy and not self._closed:
            self._watching = self.loop.call_later(SILENCE / 2, self._watch)

    async def close(self, grace: float | None = None) -> None:
        """End the streams; calls in flight get ``grace`` seconds, then are cancelled."""
        calls = [call for stream in self._streams for call in stream.calls.values()] + list(self._waiting)
        futures = {call.future for call in calls if not call.future.done()}
        if grace and futures:
            await asyncio.wait(futures, timeout=grace)
        self._closed = True
        for timer in (self._opening, self._watching):
            if timer is not None:
                timer.cancel()
        for call in calls:
            call.timer.cancel()
            call.future.cancel()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _pause(failures: int) -> float:
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - keeps callers apart, keeps no secret
    return spread * min(FIRST_PAUSE * PAUSE_FACTOR ** min(failures, 10), LONGEST_PAUSE)
