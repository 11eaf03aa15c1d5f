"""What a backend must do. The contract is here; the backends repeat none of it.

A backend is reached only through :meth:`Store.seen_by`, whose handle reads and writes the rows of one scope: an owner, or, as a type of
its own, all owners. There is no other way to a row, so a call that forgets the owner cannot be written.

The seam is low: six verbs over rows, which both backends implement once for every table, and the named operations that must be one
statement or one transaction. What gives meaning (defaults, ids, merges, what a mismatch is) lives above, once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import (
    assistants_pb2,
    checkpoints_pb2,
    common_pb2,
    crons_pb2,
    owner_pb2,
    runs_pb2,
    server_pb2,
    threads_pb2,
)
from storage_service.caller import Scope
from storage_service.errors import InvalidRequest, LimitReached
from storage_service.store.change import Change
from storage_service.store.tables import M, Table
from storage_service.store.where import Where
from storage_service.wakeups import Wakeups

if TYPE_CHECKING:
    from storage_service.store.checkpoints import Listed, Place, Superstep, ValuePlace
    from storage_service.store.items import Operation, Result
    from storage_service.store.retention import Swept


class Access(enum.Enum):
    """Which rows beyond its own a scope may see."""

    # Only its own: what it may change.
    OWN = enum.auto()
    # Also those of the system owner, where the table has any.
    SEARCH = enum.auto()
    # Also those that their owner lets everybody read who knows the id.
    BY_ID = enum.auto()


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a search: by a field, ties by the rest of ``fields``, all in one direction."""

    fields: tuple[str, ...]
    descending: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a search. ``after`` holds the values of the order's fields of the row before the part."""

    limit: int
    offset: int = 0
    after: tuple[Any, ...] | None = None
    fields: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Inserted(Generic[M]):
    """What an insert gave: the new row, or the row that had the id and the request that made it."""

    row: M
    created: bool
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a run that its worker let go: the run, unless it was deleted, and its thread."""

    thread_id: str
    run: runs_pb2.Run | None


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The runs whose leases were taken back, each with its thread: what became of them."""

    requeued: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    stopped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Log:
    """A part of a log of events.

    ``last`` is the place of the last event there is, ``deleted`` that of the last one that was deleted for its age. Of a run also its
    status, and how it is to stop.
    """

    events: list[runs_pb2.RunEvent]
    last: int
    deleted: int
    status: int = 0
    cancel: runs_pb2.CancelAction = runs_pb2.CANCEL_ACTION_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class DueCron:
    """A cron whose tick has come, its owner, and the time by which it has."""

    cron: crons_pb2.Cron
    owner_id: str | None
    now: Timestamp


#: The error of a run whose workers all let their leases lapse, as JSON.
LAPSED: Final = '{"error": "LeaseLapsed", "message": "no worker that claimed the run ended it"}'


def key_of_request(request_id: str) -> str:
    """What a row's request_id begins with, the same for every content; "" for a create that was sent without one."""
    return "" if ":" in request_id else request_id[:32]


def repeated() -> InvalidRequest:
    """The failure of a create whose request_id came before, with another content or for another id."""
    return InvalidRequest(violations={"request_id": "came with another content before"})


#: What a message takes by default, in bytes.
MESSAGE_BYTES: Final = 64 * 1024 * 1024
# What rows are ordered by is read with them also where it is not asked for: at most a short text of a thousand rows.
_UNASKED_BYTES: Final = 1024 * 1024


def is_too_large(size: int, most_bytes: int) -> bool:
    """Whether rows of so many bytes, all of them to be answered, are certainly more than a message takes."""
    return size > most_bytes + _UNASKED_BYTES


def too_large() -> LimitReached:
    """The failure of a page that is so, worded as that of every answer."""
    return LimitReached("the answer is larger than a message; ask for a smaller page or fewer fields")


class Handle(Protocol):
    """The rows of one scope."""

    # The verbs.

    async def insert(self, table: Table[M], row: M, request_id: str = "") -> Inserted[M]:
        """Insert a row; its times are set and its metadata stamped with the owner.

        Answers the scope's existing row when the id is taken. Raises InvalidRequest when the request_id made a row of another id, and
        AlreadyExists when another scope's row has the id.
        """
        ...

    async def get(
        self, table: Table[M], *where: Where, access: Access = Access.BY_ID, fields: frozenset[str] | None = None
    ) -> M | None:
        """Read one row, or None."""
        ...

    async def find(
        self, table: Table[M], where: Sequence[Where], order: Order, page: Page, access: Access = Access.SEARCH
    ) -> list[M]:
        """Read a page of rows in order. Raises LimitReached, as every listing of pages, before it holds much more than a message takes."""
        ...

    async def count(self, table: Table[Any], where: Sequence[Where], access: Access = Access.SEARCH) -> int:
        """Count rows."""
        ...

    async def update(self, table: Table[M], where: Sequence[Where], changes: Sequence[Change]) -> M | None:
        """Change one own row and set updated_at; None when no row fulfils the conditions."""
        ...

    async def delete(self, table: Table[Any], where: Sequence[Where]) -> int:
        """Delete own rows and say how many."""
        ...

    # Assistants.

    async def update_assistant(
        self, assistant_id: str, changes: Sequence[Change], expected_version: int | None
    ) -> assistants_pb2.Assistant | None:
        """Keep the current version, change the row and give it the next version ever; None when no row fulfils it."""
        ...

    async def delete_assistant(self, assistant_id: str, delete_threads: bool) -> bool:
        """Delete an assistant, its versions and crons, maybe its threads; interrupt its runs in flight, and free their threads.

        A thread is freed when it is BUSY and has no run in flight any more: it becomes IDLE.
        """
        ...

    async def list_versions(
        self, assistant_id: str, where: Sequence[Where], limit: int, offset: int, before: int | None
    ) -> list[assistants_pb2.Assistant]:
        """Versions, the current one included, largest first, smaller than ``before``."""
        ...

    async def set_latest_version(self, assistant_id: str, version: int) -> assistants_pb2.Assistant | None:
        """Make a kept version current; None when the assistant or the version is absent."""
        ...

    # Threads.

    async def delete_threads(self, thread_ids: Sequence[str]) -> int:
        """Delete threads with states, runs, crons and checkpoints; says how many threads."""
        ...

    async def copy_thread(self, thread_id: str, new_id: str, request_id: str) -> Inserted[threads_pb2.Thread] | None:
        """Copy a readable thread with states and checkpoints; None when it is absent. As ``insert`` when the new id is taken."""
        ...

    async def set_thread_status(
        self, thread_id: str, status: int, expected: Sequence[Where], changes: Sequence[Change]
    ) -> threads_pb2.Thread | None:
        """Change a thread and set its status, BUSY while it has a run in flight; None when no row fulfils it."""
        ...

    async def thread_state(self, thread_id: str) -> threads_pb2.ThreadState | None:
        """The newest state, or one of the thread's values; None when the thread is absent."""
        ...

    async def add_thread_state(self, state: threads_pb2.ThreadState) -> Inserted[threads_pb2.ThreadState] | None:
        """Add a state and set the thread's values; None when the thread is absent.

        An empty parent_checkpoint means the thread's newest state. Answers the existing state when the checkpoint id is taken.
        """
        ...

    async def list_thread_states(
        self, thread_id: str, where: Sequence[Where], before: str, page: Page
    ) -> list[threads_pb2.ThreadState] | None:
        """States, newest first; None when the thread, or the state ``before``, is absent."""
        ...

    async def prune_thread_states(self, thread_ids: Sequence[str]) -> int:
        """Delete all but the newest state of each own thread; says how many threads there were."""
        ...

    # Runs and crons.

    async def create_run(
        self, run: runs_pb2.Run, request_id: str, *, admit: bool, makes_thread: bool = False
    ) -> Inserted[runs_pb2.Run]:
        """Insert a run. With ``admit``, ask that its thread and assistant exist, apply its strategy, make the thread BUSY and queue it.

        With ``makes_thread`` a thread that is absent is made. Raises NotFound for an absent (with ``admit``) or foreign thread or
        assistant, ThreadBusy, and what ``insert`` does.
        """
        ...

    async def delete_run(self, where: Sequence[Where]) -> int:
        """Delete own runs, free their threads (see ``delete_assistant``), and say how many runs."""
        ...

    async def create_cron(self, cron: crons_pb2.Cron, request_id: str, *, must_exist: bool) -> Inserted[crons_pb2.Cron]:
        """Insert a cron. Raises NotFound for a foreign or, with ``must_exist``, absent thread or assistant; else as ``insert``."""
        ...

    # The queue. A token is stale when it is not that of the run's lease, or the lease has lapsed: LeaseLost; an absent run: NotFound.

    async def claim_runs(self, worker_id: str, limit: int, lease_seconds: float) -> list[runs_pb2.ClaimedRun]:
        """Lease due runs, one of a thread, of threads that have none running, those first that are due longest."""
        ...

    async def heartbeat_run(self, run_id: str, token: int, lease_seconds: float) -> runs_pb2.HeartbeatRunResponse:
        """Renew a lease."""
        ...

    async def finish_run(
        self,
        run_id: str,
        token: int,
        status: runs_pb2.RunStatus,
        error: str,
        thread_status: threads_pb2.ThreadStatus,
        changes: Sequence[Change],
    ) -> Finished:
        """End a leased run, and change its thread; or undo it, when it is to be rolled back. Sent again it finds what it did."""
        ...

    async def release_run(self, run_id: str, token: int, delay_seconds: float) -> Finished:
        """Give a leased run back; sent again it finds what it did."""
        ...

    async def cancel_runs(self, where: Sequence[Where], action: runs_pb2.CancelAction) -> tuple[list[str], list[str]]:
        """Stop own runs in flight: gives those that are stopped, or deleted, and those that are leased and asked to stop."""
        ...

    async def sweep_runs(self, limit: int, most_attempts: int) -> Lapsed:
        """Take back up to ``limit`` leases that have lapsed."""
        ...

    async def run_stats(self) -> runs_pb2.GetRunStatsResponse:
        """How the queue stands."""
        ...

    async def append_events(
        self, run_id: str, token: int, first_sequence: int, events: Sequence[runs_pb2.NewRunEvent]
    ) -> tuple[str, int]:
        """Add events to a leased run's log; gives its thread and the last sequence. Raises SequenceMismatch; sent again it finds them."""
        ...

    async def read_run_events(self, run_id: str, after: int, most_bytes: int) -> Log | None:
        """Events of a run after a sequence, one at least if there is one, else no more than so many bytes; None when it is absent."""
        ...

    async def read_thread_events(self, thread_id: str, after: int, most_bytes: int) -> Log | None:
        """The same of all runs of a thread, after a position."""
        ...

    async def sweep_events(self, limit: int, seconds: float) -> int:
        """Delete the events of up to ``limit`` runs that ended longer ago; says how many events."""
        ...

    async def due_crons(self, limit: int, but: Sequence[str] = ()) -> list[DueCron]:
        """Enabled crons whose tick has come, those first that are due longest."""
        ...

    async def sweep_threads_of_crons(self, limit: int, seconds: float) -> int:
        """Delete up to ``limit`` threads that crons made for runs, have none in flight and have not changed for so long; says how many."""
        ...

    async def fire_cron(
        self, cron: crons_pb2.Cron, next_run: Timestamp | None, run: runs_pb2.Run | None
    ) -> crons_pb2.FiredCron | None:
        """Take the tick of a cron, if it is still there: admit the run, if one is given, and set the next tick. None when it is taken."""
        ...

    # Items.

    async def run_operations(self, operations: Sequence[Operation]) -> list[Result]:
        """Run checked operations in order in one transaction, and give the response of each.

        Raises VersionMismatch with the metadata ``index`` of the operation.
        """
        ...

    async def delete_namespace(self, namespace: Sequence[str]) -> int:
        """Delete the items of a namespace and below; says how many."""
        ...

    # Checkpoints. Ids are ordered as the backend orders texts.

    async def write_checkpoints(self, superstep: Superstep) -> None:
        """Write all of it in one transaction.

        Raises NotFound for a foreign thread, and ParentMismatch where the newest checkpoint is not the expected one.
        """
        ...

    async def get_checkpoint(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, most_bytes: int
    ) -> checkpoints_pb2.Checkpoint | None:
        """The checkpoint, the newest for ""; None when it is absent. Raises LimitReached for values of more than ``most_bytes``."""
        ...

    async def list_checkpoints(
        self,
        thread_id: str,
        where: Sequence[Where],
        after: Place | None,
        limit: int,
        most_bytes: int,
        *,
        summary: bool,
    ) -> list[Listed]:
        """Some checkpoints of a thread, of all for "", after a place: one at least, and no more than have ``most_bytes`` together.

        Only the first may be not whole. With ``summary``, none has values.
        """
        ...

    async def checkpoint_values(
        self, place: Place, after: ValuePlace, most_bytes: int
    ) -> tuple[checkpoints_pb2.Checkpoint, ValuePlace | None]:
        """Values of a checkpoint, at least one and no more than ``most_bytes``, and what to pass as ``after`` for more, or None."""
        ...

    async def delta_history(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, channels: Sequence[str], most_bytes: int
    ) -> list[checkpoints_pb2.DeltaChannelHistory] | None:
        """What the channels of a checkpoint, the newest for "", are built from; None when it is absent. Raises LimitReached."""
        ...

    async def delete_checkpoints(self, thread_ids: Sequence[str]) -> int:
        """Delete all checkpoints of own threads; says how many."""
        ...

    async def delete_run_checkpoints(self, run_ids: Sequence[str]) -> int:
        """Delete the checkpoints of runs, and the values that nothing else uses; says how many checkpoints."""
        ...

    async def copy_checkpoints(self, thread_id: str, new_id: str) -> int:
        """Copy what the other thread has not; says how many checkpoints. Raises NotFound when the other thread is foreign."""
        ...

    async def prune_checkpoints(self, thread_ids: Sequence[str]) -> int:
        """Delete of own threads all checkpoints but the newest of each namespace and what it is read from; says how many."""
        ...

    # Retention. Each says what it deleted, in transactions that are short; what others are at work on is left to them.

    async def sweep_threads(self, limit: int, thread_id: str = "") -> Swept:
        """End the time of up to ``limit`` own threads whose time is over, or of the one; nothing, when there are no more."""
        ...

    async def sweep_items(self, limit: int) -> Swept:
        """Delete up to ``limit`` own items whose time is over."""
        ...

    async def sweep_checkpoints(self, thread_ids: Sequence[str], before: str) -> Swept:
        """Of own threads that are not busy, delete the checkpoints that were made before ``before`` (``retention.id_before``; "" for none)
        and that no later one and not the newest of its namespace is read from; then the values that no checkpoint uses any more.
        """
        ...

    # The whole owner.

    async def usage(self) -> list[owner_pb2.ResourceUsage]:
        """Rows and bytes of each resource."""
        ...

    async def erase(self, limit: int) -> int:
        """Delete up to ``limit`` rows with all that hangs on them, in one transaction; 0 when nothing is left."""
        ...

    async def export(
        self, table: Table[M], after: tuple[Any, ...] | None, limit: int
    ) -> tuple[list[M], tuple[Any, ...] | None]:
        """Some rows of a table in the order of its key, and what to pass as ``after`` for more, or None at the end."""
        ...


class Store(Protocol):
    """A backend. ``thread_ttl`` is what new threads get that name no time to live of their own."""

    name: str
    thread_ttl: threads_pb2.ThreadTtl | None
    wakeups: Wakeups

    def seen_by(self, scope: Scope, most_bytes: int = MESSAGE_BYTES) -> Handle:
        """The rows of a scope; pages of more bytes are refused."""
        ...

    async def truncate(self, resources: Sequence[common_pb2.Resource]) -> None:
        """Delete all rows of these resources, of all owners."""
        ...

    async def claim(self, name: str, seconds: float) -> bool:
        """Whether to do work that all processes together do once in so many seconds; then the next have to wait."""
        ...

    async def now(self) -> datetime:
        """The time by the backend's clock, aware."""
        ...

    def trouble(self) -> str:
        """Why the backend cannot serve now, for operators; "" when it can."""
        ...

    def revision(self) -> int:
        """The schema revision; 0 where there is none."""
        ...

    def pool(self) -> server_pb2.PoolFigures | None:
        """How the connections are used; None where there are none."""
        ...
