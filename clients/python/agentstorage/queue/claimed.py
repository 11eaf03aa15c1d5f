"""What a handler gets, gives and raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentstorage import jsontext
from agentstorage.queue.appending import Appender
from agentstorage.queue.records import QueuedRun

_TYPE_BYTES = 255


class StopReason(StrEnum):
    """Why a handler is cancelled."""

    #: Somebody asked for the run to be interrupted.
    INTERRUPT = "interrupt"
    #: Somebody asked for the run to be rolled back.
    ROLLBACK = "rollback"
    #: It took longer than the worker's ``run_timeout``.
    TIMEOUT = "timeout"
    #: The worker stops and its grace is over: another worker gets the run.
    SHUTDOWN = "shutdown"
    #: The run is another worker's by now, or may be: nothing that is said about it is heard any more.
    LEASE_LOST = "lease_lost"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run leaves on its thread.

    Attributes:
        values: What replaces the thread's values, as JSON has it; None leaves them as they are.
        interrupts: What replaces the thread's interrupts; with any the run ends as interrupted. None for none.
    """

    values: Mapping[str, Any] | None = None
    interrupts: Mapping[str, Any] | None = None


class Interrupted(Exception):
    """Raised by a handler whose run waits for somebody: it ends as interrupted, with these interrupts and values.

    Args:
        interrupts: What replaces the thread's interrupts; None for none.
        values: What replaces the thread's values, as JSON has it; None leaves them as they are.
    """

    def __init__(self, interrupts: Mapping[str, Any] | None = None, values: Mapping[str, Any] | None = None) -> None:
        super().__init__("the run is interrupted")
        self.result = Result(values, interrupts)


class ClaimedRun:
    """A run that a worker has leased, as its handler sees it.

    Attributes:
        run: All that the service says of it.
        run_id: The run.
        thread_id: Its thread.
        assistant_id: Its assistant.
        owner_id: Its owner; None for none. Calls that a handler makes for the run should name it.
        kwargs: What was submitted: input, config and the like.
        metadata: The user's labels.
        attempt: How often the run was claimed, this time included. Above 1 an earlier worker did not finish it.
        stop_reason: Why the handler is cancelled; None while it is not.
    """

    def __init__(self, run: QueuedRun, owner_id: str | None, appender: Appender) -> None:
        self.run = run
        self.run_id = run.run_id
        self.thread_id = run.thread_id
        self.assistant_id = run.assistant_id
        self.owner_id = owner_id
        self.kwargs = run.kwargs
        self.metadata = run.metadata
        self.attempt = run.attempt
        self.stop_reason: StopReason | None = None
        self._appender = appender

    async def emit(self, type: str, data: Any = b"") -> None:
        """Add an event to the run's log.

        Events are gathered for some 50 ms and appended together, in order; those of a run that ends are appended before its end.
        This returns before that, and waits only where too many events wait already. See :meth:`flush`.

        Args:
            type: The kind of event, of at most 255 bytes.
            data: What happened: bytes as they are, a text as UTF-8, and any other value as JSON.

        Raises:
            TypeError: The type is no text, or the data has no form in JSON.
            ValueError: The type is too long, or the data has no form in JSON.
            LeaseLost: The run is another worker's by now; the handler is being cancelled.
            StorageError: Earlier events were refused, such as one that is too large. The run will end with this error.
        """
        if not isinstance(type, str):
            raise TypeError(f"type must be a str, not {type.__class__.__name__}")
        if len(type.encode()) > _TYPE_BYTES:
            raise ValueError(f"type must have no more than {_TYPE_BYTES} bytes")
        await self._appender.add(type, _as_bytes(data))

    async def flush(self) -> None:
        """Wait until all events that were emitted are in the run's log. Raises as :meth:`emit` does."""
        await self._appender.flush()

    def __repr__(self) -> str:
        return f"ClaimedRun({self.run_id!r}, attempt={self.attempt})"


#: What a worker runs for each run. A mapping that it returns is the thread's new values; None leaves them.
Handler = Callable[[ClaimedRun], Awaitable[Result | Mapping[str, Any] | None]]


def _as_bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    return (data if isinstance(data, str) else jsontext.dump(data, "data")).encode()
