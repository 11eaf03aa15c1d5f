"""The verbs over rows, in dictionaries.

The event loop runs one step at a time and no step here waits, so that every operation is atomic. Messages are copied in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, cast
from weakref import WeakValueDictionary

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1.runs_pb2 import RUN_STATUS_PENDING, RUN_STATUS_RUNNING, Run, RunEvent
from agentstorage.v1.threads_pb2 import ThreadTtl
from storage_service import jsontext
from storage_service.caller import SYSTEM_OWNER, AllOwners, Owner, Scope
from storage_service.errors import AlreadyExists
from storage_service.store import Access, Inserted, Order, Page, is_too_large, key_of_request, repeated, too_large
from storage_service.store.change import Change
from storage_service.store.memory.histories import History
from storage_service.store.tables import (
    ASSISTANT_VERSIONS,
    ASSISTANTS,
    CRONS,
    DISPLACED_ITEMS,
    ITEMS,
    RUNS,
    SORTED_CHARACTERS,
    THREAD_STATES,
    THREADS,
    Column,
    M,
    Table,
)
from storage_service.store.where import Equals, Where

Key = tuple[Any, ...]
Clock = Callable[[], datetime]

TABLES: tuple[Table[Any], ...] = (
    ASSISTANTS,
    ASSISTANT_VERSIONS,
    THREADS,
    THREAD_STATES,
    RUNS,
    ITEMS,
    CRONS,
    # What only a database that others wrote to can hold.
    DISPLACED_ITEMS,
)


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


@dataclass(slots=True, weakref_slot=True)
class Record(Generic[M]):
    """A row with what its message does not show."""

    row: M
    owner: str | None
    request_id: str = ""
    # Assistants: the largest version ever given.
    last_version: int = 1
    # Items: what they are searched by.
    vectors: tuple[tuple[float, ...], ...] = ()
    # Runs: the token of the newest claim, and of the worker that let it go last; how many leases lapsed; the log, and what of it was
    # deleted. Threads: whether a cron made it for its run.
    token: int = 0
    settled_token: int = 0
    lapses: int = 0
    events: list[RunEvent] = field(default_factory=list)
    deleted_sequence: int = 0
    deleted_position: int = 0
    ends_with_runs: bool = False


@dataclass(slots=True)
class Tables:
    """All rows of a memory backend, and its clock."""

    clock: Clock = utc_now
    rows: dict[str, dict[Key, Record[Any]]] = field(default_factory=lambda: {table.name: {} for table in TABLES})
    # The checkpoints of threads by the thread's id.
    histories: dict[str, History] = field(default_factory=dict)
    # What new threads get that name no time to live of their own.
    thread_ttl: ThreadTtl | None = None
    # When work that is done now and then began last, by its name.
    sweeps: dict[str, datetime] = field(default_factory=dict)
    # The rows by the key of the request that made them.
    requests: WeakValueDictionary[str, Record[Any]] = field(default_factory=WeakValueDictionary)
    sequence: int = 0
    # How often runs were claimed, and how many events they have had.
    claims: int = 0
    position: int = 0
    time: datetime | None = None

    def of(self, table: Table[M]) -> dict[Key, Record[M]]:
        """The rows of one table by key."""
        return cast("dict[Key, Record[M]]", self.rows[table.name])

    def begin(self) -> None:
        """Begin an operation: it has one time, as a transaction has."""
        self.time = self.clock()

    def now(self) -> Timestamp:
        """The time of the operation, to the microsecond."""
        now = Timestamp()
        now.FromDatetime(self.time or self.clock())
        return now

    def is_alive(self, row: Any) -> bool:
        """Whether the time of an item, or of a thread, is not over."""
        return not row.HasField("expires_at") or row.expires_at.ToMicroseconds() > self.now().ToMicroseconds()


def copy(row: M, fields: frozenset[str] | None = None) -> M:
    """A copy, with these fields only where they are named."""
    new = type(row)()
    new.CopyFrom(row)
    if fields is not None:
        for descriptor in row.DESCRIPTOR.fields:
            if descriptor.name not in fields:
                new.ClearField(descriptor.name)
    return new


def sort_value(column: Column, value: Any) -> Any:
    """What orders a row by a column, as ``Column.sort_key`` has it in SQL."""
    if column.is_time:
        if value is not None:
            return (0, value.ToMicroseconds())
        return (-1, 0) if column.absent == "-infinity" else (1, 0)
    if column.words:
        return column.words.get(value, "")
    if column.absent:
        return value[:SORTED_CHARACTERS]
    return ".".join(value) if column.field == "namespace" else value


def _field(row: Message, column: Column) -> Any:
    return None if column.is_time and not row.HasField(column.field) else getattr(row, column.field)


class Rows:
    """The rows of one scope: the verbs of :class:`storage_service.store.Handle`."""

    def __init__(self, tables: Tables, scope: Scope, most_bytes: int) -> None:
        self.tables = tables
        self.scope = scope
        self.most_bytes = most_bytes

    @property
    def owner_id(self) -> str | None:
        """The owner, or None for all."""
        return self.scope.id if isinstance(self.scope, Owner) else None

    def visible(self, table: Table[Any], record: Record[Any], access: Access) -> bool:
        """Whether the scope may see a row."""
        if isinstance(self.scope, AllOwners) or record.owner == self.scope.id:
            return True
        if table is ASSISTANTS and access is not Access.OWN:
            return record.owner == SYSTEM_OWNER
        if access is Access.BY_ID and table is THREADS:
            return bool(record.row.visibility == 2)
        if access is Access.BY_ID and table is RUNS:
            thread = self.tables.of(THREADS).get((record.row.thread_id,))
            return thread is not None and thread.owner == record.owner and thread.row.visibility == 2
        return False

    def records(self, table: Table[M], where: Iterable[Where], access: Access) -> list[Record[M]]:
        """The rows that the scope sees and that fulfil the conditions."""
        wanted = list(where)
        rows = self.tables.of(table)
        named = [term.value for term in wanted if isinstance(term, Equals) and term.field == table.id]
        if named and len(table.key) == 1:
            candidates: Iterable[Record[M]] = filter(None, [rows.get((named[0],))])
        else:
            candidates = rows.values()
        return [
            record
            for record in candidates
            if self.visible(table, record, access)
            and (not table.alive or self.tables.is_alive(record.row))
            and all(term.test(record.row) for term in wanted)
        ]

    def one(self, table: Table[M], key_value: str, access: Access) -> Record[M] | None:
        """The row with this id, when the scope sees it."""
        record = self.tables.of(table).get((key_value,))
        return record if record is not None and self.visible(table, record, access) else None

    def stamp(self, metadata: str) -> str:
        """Metadata with the owner of the scope in it."""
        if self.owner_id is None:
            return jsontext.merge(metadata, "{}", ("owner",))
        return jsontext.merge(metadata, jsontext.single("owner", self.owner_id))

    def stored(self, table: Table[M], row: M) -> M:
        """A new row as it is kept: defaults and canonical JSON, times, owner."""
        new: Any = copy(row)
        now = self.tables.now()
        for name, column in table.columns.items():
            if column.is_json:
                text = jsontext.canonical(getattr(row, name) or column.default)
                setattr(new, name, "" if column.default == text == "null" else text)
        new.metadata = self.stamp(new.metadata)
        new.created_at.CopyFrom(now)
        self._changed(table, new)
        return cast("M", new)

    def _changed(self, table: Table[Any], row: Any) -> None:
        """Note that a row changes: the time of a thread begins anew."""
        now = self.tables.now()
        row.updated_at.CopyFrom(now)
        if table is THREADS:
            row.ClearField("expires_at")
            if row.HasField("ttl"):
                row.expires_at.FromMicroseconds(now.ToMicroseconds() + round(row.ttl.minutes * 60_000_000))

    async def insert(self, table: Table[M], row: M, request_id: str = "") -> Inserted[M]:
        return self.insert_now(table, row, request_id)

    def insert_now(self, table: Table[M], row: M, request_id: str, owner: str | None = None) -> Inserted[M]:
        """Insert a row of the scope's owner, or, without one, of ``owner``."""
        id = getattr(row, table.id)
        if self.is_taken(table, id, request_id):
            return self.existing(table, id, request_id)
        record = Record(self.stored(table, row), self.owner_id or owner, request_id)
        self.tables.of(table)[(id,)] = record
        if key := key_of_request(request_id):
            self.tables.requests[key] = record
        return Inserted(copy(record.row), True)

    def is_taken(self, table: Table[Any], id: str, request_id: str) -> bool:
        """Whether a row has the id, or was made by this request."""
        return (id,) in self.tables.of(table) or self.has_come(table, request_id)

    def has_come(self, table: Table[Any], request_id: str) -> bool:
        """Whether a row was made by this request."""
        made = self.tables.requests.get(key_of_request(request_id))
        # What was deleted may not have been collected yet.
        return made is not None and self.tables.of(table).get(key_of(table, made.row)) is made

    def existing(self, table: Table[M], id: str, request_id: str) -> Inserted[M]:
        """The own row that has the id already."""
        record = self.one(table, id, Access.OWN)
        if record is not None:
            return Inserted(copy(record.row), False, record.request_id)
        raise repeated() if self.has_come(table, request_id) else AlreadyExists(table.resource, id)

    async def get(
        self, table: Table[M], *where: Where, access: Access = Access.BY_ID, fields: frozenset[str] | None = None
    ) -> M | None:
        records = self.records(table, where, access)
        return copy(records[0].row, fields) if records else None

    async def find(
        self, table: Table[M], where: Sequence[Where], order: Order, page: Page, access: Access = Access.SEARCH
    ) -> list[M]:
        rows = (record.row for record in self.records(table, where, access))
        return self.page(table, rows, order, page, self.most_bytes)

    def page(
        self, table: Table[M], rows: Iterable[M], order: Order, page: Page, most_bytes: int | None = None
    ) -> list[M]:
        """Copies of a page of these rows. Raises LimitReached where those before the last are more than ``most_bytes``."""
        columns = [table.columns[name] for name in order.fields]

        def place(row: M) -> list[Any]:
            return [sort_value(column, _field(row, column)) for column in columns]

        ordered = sorted(rows, key=place, reverse=order.descending)
        if page.after is not None:
            last = [sort_value(column, value) for column, value in zip(columns, page.after, strict=True)]
            ordered = [row for row in ordered if (place(row) < last if order.descending else place(row) > last)]
        found: list[M] = []
        size = 0
        for row in ordered[page.offset : page.offset + page.limit]:
            if most_bytes is not None and is_too_large(size, most_bytes):
                # The failure would hold them as long as it lives.
                found.clear()
                raise too_large()
            found.append(copy(row, page.fields))
            size += found[-1].ByteSize()
        return found

    async def count(self, table: Table[Any], where: Sequence[Where], access: Access = Access.SEARCH) -> int:
        return len(self.records(table, where, access))

    async def update(self, table: Table[M], where: Sequence[Where], changes: Sequence[Change]) -> M | None:
        for record in self.records(table, where, Access.OWN):
            return copy(self.change(table, record, changes))
        return None

    def change(self, table: Table[M], record: Record[M], changes: Sequence[Change]) -> M:
        """Change a row and set updated_at; all of the changes or, when one of them raises, none."""
        row: Any = copy(record.row)
        now = self.tables.now()
        for change in changes:
            change.apply(table, row, now)
        self._changed(table, row)
        former, record.row = record.row, row
        if table is RUNS:
            self._leave_queue(cast("Record[Run]", record), cast("Run", former).status)
        if table is RUNS and record.owner is None:
            thread = self.tables.of(THREADS).get((row.thread_id,))
            if thread is not None and thread.owner is not None:
                record.owner = thread.owner
                row.metadata = jsontext.merge(row.metadata, jsontext.single("owner", thread.owner))
        return record.row

    def _leave_queue(self, record: Record[Run], former: int) -> None:
        """End the lease of a queued run that runs no more, and give its log its end."""
        run = record.row
        if not run.HasField("run_after") or run.status in (former, RUN_STATUS_RUNNING):
            return
        run.ClearField("lease")
        run.ClearField("cancel")
        if former in (RUN_STATUS_PENDING, RUN_STATUS_RUNNING) and run.status != RUN_STATUS_PENDING:
            if not run.HasField("finished_at"):
                run.finished_at.CopyFrom(self.tables.now())
            self.note_event(record, type="end", end=run.status)

    def note_event(self, record: Record[Run], **content: Any) -> None:
        """Add an event to the log of a run."""
        run = record.row
        run.last_sequence += 1
        self.tables.position += 1
        record.events.append(
            RunEvent(
                run_id=run.run_id,
                sequence=run.last_sequence,
                position=self.tables.position,
                attempt=run.attempt,
                created_at=self.tables.now(),
                **content,
            )
        )

    async def delete(self, table: Table[Any], where: Sequence[Where]) -> int:
        records = self.records(table, where, Access.OWN)
        self.drop(table, records)
        return len(records)

    def drop(self, table: Table[Any], records: Iterable[Record[Any]]) -> None:
        """Delete rows that are there."""
        rows = self.tables.of(table)
        for record in records:
            del rows[key_of(table, record.row)]


def key_of(table: Table[Any], row: Any) -> Key:
    """The key of a row that is known by its id alone."""
    return (getattr(row, table.id),)
