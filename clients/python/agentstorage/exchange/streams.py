"""The streams of a channel: which call goes where, and what becomes of it when a stream breaks."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import grpc

from agentstorage.errors import ShuttingDown, StorageError, from_rpc_error, from_status
from agentstorage.exchange.call import ExchangedCall
from agentstorage.exchange.stream import SILENCE, Stream
from agentstorage.methods import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, PAUSE_FACTOR
from agentstorage.v1 import exchange_pb2 as pb

_RETRIED: Final = (grpc.StatusCode.UNAVAILABLE.value[0], grpc.StatusCode.CANCELLED.value[0])
# What a stream that can't begin ends with where there is, or should be, an exchange. A server without one, or a proxy that does not let
# it pass, has many other ways to say so.
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Seconds: for a stream to begin; without an exchange until it is tried again; between searches for further processes.
_BEGIN, _WITHOUT, _SEARCH = 2.0, 60.0, 30.0
# So many streams in a row that can't begin say that there is no exchange any more where there was one.
_ACCIDENTS: Final = 2
# How often a process that is known already is met before a search ends.
_MEETINGS: Final = 3
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
        # Streams and timers outlive the call that they were made for: in its context they would keep its request or its span.
        self.context = contextvars.Context()
        self.open_channel = open_channel
        self.source = source
        self.target = target
        self._wanted = streams
        self._streams: list[Stream] = []
        # Streams that take no more calls and are not over.
        self._leaving: set[Stream] = set()
        # Calls that wait for a stream, and those that have a pause or are plain RPCs now.
        self._waiting: dict[ExchangedCall, None] = {}
        self._elsewhere: dict[ExchangedCall, asyncio.TimerHandle | asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opening: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        # Streams in a row that ended before they carried anything; and those that led to no further process.
        self._failures = 0
        self._meetings = 0
        self._searched = 0.0
        # Whether a stream has ever begun; whether calls are plain RPCs now, and when a stream is tried again.
        self._has_begun = self._is_without = False
        self._next_try = 0.0
        self._tokens = _TOKENS
        self._closing = self._closed = False

    def takes_calls(self) -> bool:
        """Say whether calls may go this way; where they may not, see now and then whether they may again."""
        if self._is_without and not self._closing and self.loop.time() >= self._next_try:
            self._next_try = self.loop.time() + _WITHOUT
            self._look_for_more(True)
            self._watch_later()
        return not (self._closing or self._is_without)

    def send(self, call: ExchangedCall) -> None:
        """Send a call on the stream that has the fewest, or as soon as there is one."""
        call.is_sent = False
        call.parts = call.stream = None
        stream = self._fittest()
        if stream is not None:
            stream.send(call)
        elif self._is_without:
            self._go_plain(call)
            return
        else:
            self._waiting[call] = None
        self._watch_later()
        if len(self._streams) < self._wanted:
            self._look_for_more(stream is None)

    def forget(self, call: ExchangedCall) -> None:
        """Let a call go that nobody waits for any more, and tell the server."""
        if call.stream is not None:
            call.stream.cancel(call)
            call.stream = None
        else:
            self._waiting.pop(call, None)
            if (elsewhere := self._elsewhere.pop(call, None)) is not None:
                elsewhere.cancel()

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

    def _go_plain(self, call: ExchangedCall) -> None:
        self._elsewhere[call] = task = self._spawn(call.as_plain())
        task.add_done_callback(lambda plain: self._plain_ended(call, plain))

    def _plain_ended(self, call: ExchangedCall, plain: asyncio.Task[Any]) -> None:
        self._elsewhere.pop(call, None)
        call.end_as(plain)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            self.send(call)

    # Streams come and go.

    def _look_for_more(self, needed: bool) -> None:
        now = self.loop.time()
        if self._opening is not None or self._closed or any(not stream.is_open for stream in self._streams):
            return
        pause = 0.0
        if needed:
            if self._failures:
                pause = _pause(self._failures - 1)
        elif not self._failures and (self._meetings < _MEETINGS or now - self._searched > _SEARCH):
            if self._meetings >= _MEETINGS:
                self._meetings = 0
            self._searched = now
        else:
            return
        self._opening = self.loop.call_later(pause, self._open, context=self.context)

    def _open(self) -> None:
        self._opening = None
        stream = Stream(self)
        self._streams.append(stream)
        self._spawn(stream.run())

    def knows(self, instance: object) -> bool:
        """Whether there is a stream to this process."""
        return any(stream.is_open and stream.instance == instance for stream in self._streams if not stream.is_suspect)

    def opened(self, stream: Stream) -> bool:
        """Take a stream that has begun into use; False when it was abandoned, or there is one to its process already."""
        if stream not in self._streams:
            return False
        for other in [other for other in self._streams if other.is_open and other.instance == stream.instance]:
            if not other.is_suspect:
                self._meetings += 1
                self._streams.remove(stream)
                self._send_waiting()
                return False
            # Its process is there, so it is the connection that is not.
            other.retire()
        self._meetings = 0
        self._has_begun = stream.is_open = True
        self._is_without = False
        self._send_waiting()
        if len(self._streams) < self._wanted:
            self._look_for_more(False)
        return True

    def heard(self) -> None:
        """Take note that a stream carries something: what waits because it seemed frozen goes on."""
        self._failures = 0
        if self._waiting:
            self._send_waiting()

    def retired(self, stream: Stream) -> None:
        """Give a stream no further calls."""
        if stream in self._streams:
            self._streams.remove(stream)
            self._leaving.add(stream)

    def ended(self, stream: Stream, error: grpc.aio.AioRpcError | None) -> None:
        """Deal with the calls of a stream that is over; without an error the server has run none of those it did not answer."""
        if stream in self._leaving and not stream.calls:
            # It was to end and carried nothing: how it ended says nothing of the server.
            error = None
        self.retired(stream)
        self._leaving.discard(stream)
        if self._closed:
            return
        if error is not None:
            self._failures += 1
            if not stream.has_begun:
                self._not_begun(error)
            elif stream.calls:
                # One failure, however many calls it meets.
                self._tokens = max(0.0, self._tokens - 1)
            error = _as_unavailable(error)
        for call in list(stream.calls.values()):
            if error is None or not call.is_sent:
                self.send(call)
            else:
                call.stream = None
                self._again_or_fail(call, self._failure(error, call))

    def _not_begun(self, error: grpc.aio.AioRpcError) -> None:
        code = error.code()
        if self._fittest() is not None:
            self._meetings += 1
        elif code not in _AWAY and code is not grpc.StatusCode.UNAUTHENTICATED:
            self._do_without()
        elif code in _AWAY and self._failures < ATTEMPTS:
            # None of those that wait was sent, so that each may be.
            if self._waiting:
                self._look_for_more(True)
        else:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call.fail(self._failure(error, call))

    def _do_without(self) -> None:
        """Make plain RPCs of all calls for a while."""
        if self._has_begun and self._failures < _ACCIDENTS:
            # There was an exchange a moment ago.
            if self._waiting:
                self._look_for_more(True)
            return
        self._is_without = True
        self._next_try = self.loop.time() + _WITHOUT
        self._send_waiting()

    # Calls end, or begin again.

    def replied(self, call: ExchangedCall, reply: pb.Reply, stream: Stream) -> None:
        """End a call with its reply, or send it again."""
        call.stream = None
        if reply.WhichOneof("outcome") != "error":
            self._tokens = min(_TOKENS, self._tokens + _TOKEN_RATIO)
            call.succeed(reply.response if call.parts is None else b"".join((*call.parts, reply.response)))
            return
        failure = from_status(reply.error, **self._about(call))
        if stream.is_draining and isinstance(failure, ShuttingDown):
            # It came after the server had decided to stop, and was not begun.
            self.send(call)
        elif reply.error.code in _RETRIED:
            self._tokens = max(0.0, self._tokens - 1)
            self._again_or_fail(call, failure)
        else:
            call.fail(failure)

    def _again_or_fail(self, call: ExchangedCall, failure: StorageError) -> None:
        call.attempts += 1
        pause = _pause(call.attempts - 1)
        may = call.idempotent and call.attempts < ATTEMPTS and self._tokens > _TOKENS / 2
        if may and self.loop.time() + pause < call.deadline:
            self._elsewhere[call] = self.loop.call_later(pause, self._send_again, call)
        else:
            call.fail(failure)

    def _send_again(self, call: ExchangedCall) -> None:
        del self._elsewhere[call]
        self.send(call)

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
        for stream in (*self._streams, *self._leaving):
            if stream.calls:
                if stream.is_frozen(now):
                    # A write that was sent stays: the server, if it goes on, would do it after others that came later.
                    for call in [call for call in stream.calls.values() if call.method.reads or not call.is_sent]:
                        self.forget(call)
                        self.send(call)
                    self._look_for_more(self._fittest() is None)
            elif not stream.has_begun and now - stream.since > _BEGIN and stream in self._streams:
                stream.abandon()
                if any(other.is_open for other in self._streams):
                    self._meetings += 1
                else:
                    self._failures += 1
                    # A proxy that holds back what it does not know. If there is no server at all, plain RPCs say so.
                    self._do_without()
        if self._waiting:
            self._look_for_more(True)
        if self._waiting or any(not stream.has_begun or stream.calls for stream in (*self._streams, *self._leaving)):
            self._watch_later()

    def _watch_later(self) -> None:
        if self._watching is None:
            self._watching = self.loop.call_later(SILENCE / 2, self._watch, context=self.context)

    def _calls(self) -> Iterator[ExchangedCall]:
        for stream in (*self._streams, *self._leaving):
            yield from stream.calls.values()
        yield from self._waiting
        yield from self._elsewhere

    def shut(self) -> None:
        """Cancel every call and begin nothing more."""
        self._closing = self._closed = True
        for timer in (self._opening, self._watching):
            if timer is not None:
                timer.cancel()
        for call in list(self._calls()):
            call.cancel()

    def stop(self) -> set[asyncio.Task[Any]]:
        """Cancel every call and every stream; gives the tasks that still have to end."""
        self.shut()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def close(self, grace: float | None = None) -> None:
        """End the streams; calls in flight get ``grace`` seconds, then are cancelled."""
        self._closing = True
        futures = {call.future for call in self._calls()}
        if grace and futures:
            await asyncio.wait(futures, timeout=grace)
        if tasks := self.stop():
            await asyncio.wait(tasks)


def _pause(failures: int) -> float:
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - keeps callers apart, keeps no secret
    return spread * min(FIRST_PAUSE * PAUSE_FACTOR ** min(failures, 10), LONGEST_PAUSE)


def _as_unavailable(error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    """The end of a stream as each of its calls sees it: whatever the stream died of, the call was not at fault."""
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        return error
    metadata = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, metadata, metadata, f"{code.name}: {error.details()}", error.debug_error_string()
    )
