"""What the queue gives: its runs with all that the service knows of them, and the events of their logs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage import jsontext
from agentstorage.storage.rows import RUN_STATUS, Run, words
from agentstorage.v1 import runs_pb2 as pb

CANCEL_ACTION: Final = words(pb.CancelAction, "CANCEL_ACTION_")
IF_NOT_EXISTS: Final = words(pb.IfNotExists, "IF_NOT_EXISTS_")

#: The statuses that a run keeps.
FINAL: Final = frozenset({pb.RUN_STATUS_SUCCESS, pb.RUN_STATUS_ERROR, pb.RUN_STATUS_TIMEOUT, pb.RUN_STATUS_INTERRUPTED})


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


@dataclass(slots=True)
class QueuedRun(Run):
    """A run with what the queue knows of it.

    Attributes:
        error: How it failed, a JSON value; None when it did not.
        attempt: How often it was claimed.
        run_after: When it may be claimed; None when it is not queued.
        worker_id: The worker that executes it; None when none does.
        lease_expires_at: When the lease of that worker lapses.
        cancel: How its worker is to stop it, interrupt or rollback; None while it may go on.
        last_sequence: The sequence of its last event; 0 before there is one.
        cron_id: The cron that made it; None for none.
        cron_tick: The tick for which that made it.
        finished_at: When its status became final; None before.
    """

    error: Any
    attempt: int
    run_after: datetime | None
    worker_id: str | None
    lease_expires_at: datetime | None
    cancel: str | None
    last_sequence: int
    cron_id: str | None
    cron_tick: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, message: pb.Run) -> QueuedRun:
        """Make it from the message of the service."""
        run = Run.of(message)
        leased = message.HasField("lease")
        return cls(
            run.run_id,
            run.thread_id,
            run.assistant_id,
            run.status,
            run.metadata,
            run.kwargs,
            run.multitask_strategy,
            run.created_at,
            run.updated_at,
            jsontext.load(message.error, None),
            message.attempt,
            _time(message.run_after) if message.HasField("run_after") else None,
            message.lease.worker_id if leased else None,
            _time(message.lease.expires_at) if leased else None,
            CANCEL_ACTION.get(message.cancel, "unknown") if message.cancel else None,
            message.last_sequence,
            message.cron_id or None,
            _time(message.cron_tick) if message.HasField("cron_tick") else None,
            _time(message.finished_at) if message.HasField("finished_at") else None,
        )


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of runs that were cancelled.

    Attributes:
        stopped: The ids of those that were stopped at once; those of a rollback are deleted.
        asked: The ids of those whose workers are asked to stop.
    """

    stopped: list[str]
    asked: list[str]


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of a run's log.

    Attributes:
        run_id: The run.
        sequence: Its place in the log of the run: 1, 2, 3 and so on, without a gap.
        position: Its place among the events of all runs; those of a thread are in this order.
        type: The kind of event, in the worker's words.
        data: What happened, in the worker's form.
        attempt: The attempt that it belongs to.
        created_at: When the service appended it.
        end: The final status of the run in the last event alone, the end marker, which the service appends; else None.
    """

    run_id: str
    sequence: int
    position: int
    type: str
    data: bytes
    attempt: int
    created_at: datetime
    end: str | None

    @classmethod
    def of(cls, message: pb.RunEvent) -> Event:
        """Make it from the message of the service."""
        return cls(
            message.run_id,
            message.sequence,
            message.position,
            message.type,
            message.data,
            message.attempt,
            _time(message.created_at),
            RUN_STATUS.get(message.end, "unknown") if message.end else None,
        )

    def text(self) -> str:
        """Return the data as text. UnicodeDecodeError when it is not UTF-8."""
        return self.data.decode()

    def json(self) -> Any:
        """Return the data as a JSON value; None for empty data. ValueError when it is not JSON."""
        return jsontext.load(self.data.decode(), None)
