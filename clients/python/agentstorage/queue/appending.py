"""Gathers the events of a run and appends them in order, each once whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from agentstorage.errors import StorageError
from agentstorage.queue.retrying import Pauses, may_pass
from agentstorage.v1 import runs_pb2 as pb

#: Seconds that events gather.
GATHER: Final = 0.05
# The most events of a call, and the most bytes in those of several events: what is larger is no call of the exchange.
_EVENTS, _BYTES = 1000, 196_608
# So many events, or bytes of them, may wait to be appended before those who emit have to wait.
_MOST_EVENTS, _MOST_BYTES = 2000, 4_194_304
# What an event counts beside its data.
_ENTRY = 32

#: Appends events from a sequence on; raises StorageError.
Append = Callable[[int, list[pb.NewRunEvent]], Awaitable[object]]


class Appender:
    """The events of one run on their way to its log.

    Args:
        append: Makes the call. It is made again with the same events and sequence until it says how it went.
        first_sequence: The sequence of the first event.
        gather: Seconds that events gather.
    """

    def __init__(self, append: Append, first_sequence: int, gather: float = GATHER) -> None:
        self._append = append
        self._sequence = first_sequence
        self._gather = gather
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[pb.NewRunEvent] = deque()
        self._bytes = 0
        # How many were added and how many of them are appended, to know what a flush waits for.
        self._added = self._appended = self._flushed = 0
        self._turn = asyncio.Lock()
        self._progress = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def add(self, type: str, data: bytes) -> None:
        """Add an event; waits while too many wait. Raises what the run's events failed with."""
        event = pb.NewRunEvent(type=type, data=data)
        # In turn, or what is emitted one after another by several tasks might not be in that order.
        async with self._turn:
            while self._failure is None and (len(self._waiting) >= _MOST_EVENTS or self._bytes >= _MOST_BYTES):
                await self._progress.wait()
            self._check()
            self._waiting.append(event)
            self._bytes += _ENTRY + len(data)
            self._added += 1
        if self._sending is None:
            self._send_soon()

    async def flush(self) -> None:
        """Wait until all that was added is appended. Raises what the run's events failed with."""
        self._flushed = target = self._added
        while self._failure is None and self._appended < target:
            self._send_now()
            await self._progress.wait()
        self._check()

    def fail(self, error: Exception) -> None:
        """Append no more, of what was added either, and let all who wait or come raise this."""
        if self._failure is None:
            self._failure = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is not None:
            self._sending.cancel()
        self._tell()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _tell(self) -> None:
        told, self._progress = self._progress, asyncio.Event()
        told.set()

    def _send_soon(self) -> None:
        if len(self._waiting) >= _EVENTS or self._bytes >= _BYTES:
            self._send_now()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._gather, self._send_now)

    def _send_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is None:
            self._sending = self._loop.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch = self._next()
                await self._until_appended(batch)
                for event in batch:
                    self._bytes -= _ENTRY + len(event.data)
                    self._waiting.popleft()
                self._sequence += len(batch)
                self._appended += len(batch)
                self._tell()
                if self._appended >= self._flushed and len(self._waiting) < _EVENTS and self._bytes < _BYTES:
                    break
        # Whatever it is, those who emit and flush wait for this task and have to hear of it.
        except Exception as error:
            self._sending = None
            self.fail(error)
        finally:
            self._sending = None
        if self._waiting and self._failure is None:
            # What came meanwhile gathers too.
            self._send_soon()

    def _next(self) -> list[pb.NewRunEvent]:
        batch: list[pb.NewRunEvent] = []
        size = 0
        for event in self._waiting:
            size += _ENTRY + len(event.data)
            if batch and (size > _BYTES or len(batch) == _EVENTS):
                break
            batch.append(event)
        return batch

    async def _until_appended(self, batch: list[pb.NewRunEvent]) -> None:
        pauses = Pauses(1.0)
        while True:
            try:
                await self._append(self._sequence, batch)
                return
            except StorageError as error:
                if not may_pass(error):
                    raise
            await asyncio.sleep(pauses.next())
