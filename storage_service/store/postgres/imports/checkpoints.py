"""Copies LangGraph's checkpoints from elsewhere into LangGraph's tables here, with their threads, for one owner.

A source gives the rows of each table as they are to be. The checkpoints come last, so that one that is there can be read whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, TypeAlias

from google.protobuf.message import Message
from psycopg import sql
from psycopg.rows import tuple_row

from agentstorage.v1 import checkpoints_pb2 as pb
from storage_service import jsontext
from storage_service.errors import InvalidRequest
from storage_service.settings import Limits
from storage_service.store.postgres.adapt import Blobs
from storage_service.store.postgres.imports.report import Refused, Report, shown
from storage_service.store.postgres.imports.target import BEGIN, opened, rules_of
from storage_service.store.postgres.migrate import Connection
from storage_service.store.tables import THREADS

_BATCH_ROWS, _BATCH_BYTES = 500, 8 * 1024 * 1024

#: The columns of a row, in the order of its table's.
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """One of LangGraph's tables: what its rows are called, its columns with their types, and how many of them are the key.

    ``request`` is what a row would come in, were it sent: the row must keep that message's rules.
    """

    kind: str
    name: str
    columns: Mapping[str, str]
    key: int
    request: Callable[..., Message]

    @cached_property
    def insert(self) -> str:
        """The statement that adds rows, given as an array for each column, and answers the keys of those that were not there."""
        arrays = ", ".join(f"%s::{'text' if type == 'jsonb' else type}[]" for type in self.columns.values())
        values = ", ".join(f"r.{name}::{type}" for name, type in self.columns.items())
        return (
            f"INSERT INTO public.{self.name} ({', '.join(self.columns)})"
            f" SELECT {values} FROM unnest({arrays}) AS r ({', '.join(self.columns)})"
            f" ON CONFLICT DO NOTHING RETURNING {', '.join(self._keys)}"
        )

    @cached_property
    def look(self) -> str:
        """The statement that answers keys and digests of the rows whose keys are given, as an array for each column."""
        arrays = ", ".join(f"%s::{self.columns[name]}[]" for name in self._keys)
        same = " AND ".join(f"t.{name} = r.{name}" for name in self._keys)
        parts = [
            f"coalesce(t.{name}, '')" if type == "bytea" else f"convert_to(coalesce(t.{name}::text, ''), 'UTF8')"
            for name, type in list(self.columns.items())[self.key :]
        ]
        return (
            f"SELECT {', '.join(f'r.{name}' for name in self._keys)}, t.digest FROM unnest({arrays}) AS r ({', '.join(self._keys)})"
            # Row by row through the index of the key, however many rows the table has.
            f" CROSS JOIN LATERAL (SELECT sha256({' || decode($$00$$, $$hex$$) || '.join(parts)}) AS digest"
            f" FROM public.{self.name} AS t WHERE {same} LIMIT 1) AS t"
        )

    def digest(self, row: Row) -> bytes:
        """What ``look`` answers for a row with this content."""
        parts = []
        for value, type in zip(row[self.key :], list(self.columns.values())[self.key :], strict=True):
            text = jsontext.canonical(value) if type == "jsonb" else value
            parts.append(text.encode() if isinstance(text, str) else text or b"")
        return hashlib.sha256(b"\0".join(parts)).digest()

    def arrays(self, rows: Sequence[Row]) -> list[list[Any]]:
        """The columns of rows, as far as the rows go."""
        found: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
        types = self.columns.values()
        return [Blobs(column) if type == "bytea" else column for column, type in zip(found, types, strict=False)]

    @property
    def _keys(self) -> list[str]:
        return list(self.columns)[: self.key]


def _blob_request(thread_id: str, ns: str, channel: str, version: str, type: str, blob: bytes | None) -> Message:
    value = pb.ChannelValue(channel=channel, version=version, type=type, value=blob or b"")
    return pb.PutCheckpointRequest(thread_id=thread_id, checkpoint_ns=ns, checkpoint_id="-", channels=[value])


def _write_request(thread_id: str, ns: str, id: str, task_id: str, index: int, *content: Any) -> Message:
    channel, type, value, path = content
    write = pb.PendingWrite(task_id=task_id, task_path=path, index=index, channel=channel, type=type, value=value)
    return pb.PutWritesRequest(thread_id=thread_id, checkpoint_ns=ns, checkpoint_id=id, writes=[write])


def _checkpoint_request(
    thread_id: str, ns: str, id: str, parent: str | None, type: str | None, checkpoint: str, metadata: str
) -> Message:
    return pb.PutCheckpointRequest(
        thread_id=thread_id,
        checkpoint_ns=ns,
        checkpoint_id=id,
        parent_checkpoint_id=parent or "",
        checkpoint=checkpoint,
        metadata=metadata,
    )


_PLACE: Final = {"thread_id": "text", "checkpoint_ns": "text"}
VALUES: Final = Table(
    "values",
    "checkpoint_blobs",
    {**_PLACE, "channel": "text", "version": "text", "type": "text", "blob": "bytea"},
    4,
    _blob_request,
)
WRITES: Final = Table(
    "writes",
    "checkpoint_writes",
    {
        **_PLACE,
        "checkpoint_id": "text",
        "task_id": "text",
        "idx": "int",
        "channel": "text",
        "type": "text",
        "blob": "bytea",
        "task_path": "text",
    },
    5,
    _write_request,
)
CHECKPOINTS: Final = Table(
    "checkpoints",
    "checkpoints",
    {
        **_PLACE,
        "checkpoint_id": "text",
        "parent_checkpoint_id": "text",
        "type": "text",
        "checkpoint": "jsonb",
        "metadata": "jsonb",
    },
    3,
    _checkpoint_request,
)
#: In the order in which they come over.
TABLES: Final = (VALUES, WRITES, CHECKPOINTS)


class Source(Protocol):
    """Where checkpoints come from."""

    def rows(self, table: Table) -> AsyncGenerator[Row | Refused, None]:
        """The rows of a table, thread by thread, as they are to be here; or why one cannot be. Raises SourceError."""
        ...


_TAKEN = THREADS.taken.format("id")
_MAKE_THREADS = (
    "INSERT INTO langgraph_server.threads (id, metadata) SELECT id, jsonb_build_object('owner', %(owner)s::text)"
    f" FROM unnest(%(ids)s::text[]) AS t (id) WHERE NOT {_TAKEN} ORDER BY id ON CONFLICT (id) DO NOTHING"
)
_OWNERS = "SELECT id, owner_id FROM langgraph_server.threads WHERE id = ANY (%s) ORDER BY id FOR KEY SHARE"
# Values that no checkpoint uses yet are swept away, but for those of a thread that somebody else holds.
_HOLD = "SELECT FROM langgraph_server.threads WHERE id = ANY (%s) ORDER BY id FOR KEY SHARE"
_OWNERLESS = f"SELECT id FROM unnest(%s::text[]) AS t (id) WHERE {_TAKEN}"


async def import_checkpoints(
    conninfo: str,
    source: Source,
    *,
    owner: str,
    dry_run: bool = False,
    limits: Limits,
    tell: Callable[[str], None],
) -> Report:
    """Copies every row of the source that the service can hold, and answers what became of each.

    Threads that are not there are made, and are the owner's; the rows of a thread that is not the owner's are refused. What is there stays
    as it is. Raises SourceError, MigrationError and psycopg.Error.
    """
    async with opened(conninfo) as conn, opened(conninfo) as holder, holder.transaction(force_rollback=True):
        await holder.execute("SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
        work = _Import(conn, holder, owner, Report(tell, dry_run=dry_run), limits)
        for table in TABLES:
            await work.copy(source, table)
        # Whoever lost its hold with its connection can't say that everything is there.
        await holder.execute("SELECT 1")
        return work.report


class _Import:
    def __init__(self, conn: Connection, holder: Connection, owner: str, report: Report, limits: Limits) -> None:
        self._conn = conn
        self._holder = holder
        self._owner = owner
        self.report = report
        requests: tuple[type[Message], ...] = (pb.PutCheckpointRequest, pb.PutWritesRequest)
        self._rules = {request: rules_of(request, limits) for request in requests}
        # The threads that have been told to be not the owner's.
        self._foreign: set[str] = set()
        # The keys of values that are not here, or not as in the source: what needs them would not be read as it was.
        self._without: set[Row] = set()

    async def copy(self, source: Source, table: Table) -> None:
        """Copy the rows of a table, in batches."""
        counts = self.report.of(table.kind)
        batch: list[Row] = []
        room = _BATCH_BYTES
        # A source that is left in the middle is to let go of what it reads from.
        async with aclosing(source.rows(table)) as rows:
            async for row in rows:
                counts.read += 1
                if isinstance(row, Refused):
                    self.report.refuse(table.kind, row)
                    continue
                if refused := self._refusal(table, row):
                    self.report.refuse(table.kind, refused)
                    if table is VALUES:
                        self._without.add(row[: table.key])
                    continue
                batch.append(row)
                room -= sum(len(value) for value in row if isinstance(value, str | bytes))
                if room <= 0 or len(batch) == _BATCH_ROWS:
                    await self._deliver(table, batch)
                    batch, room = [], _BATCH_BYTES
        if batch:
            await self._deliver(table, batch)

    def _refusal(self, table: Table, row: Row) -> Refused | None:
        """What the API would say of a row."""
        try:
            request = table.request(*row)
            self._rules[type(request)].check(request)
        except InvalidRequest as invalid:
            return Refused(shown(row[: table.key]), str(invalid))
        except (TypeError, ValueError):
            return Refused(shown(row[: table.key]), "a column of it holds what is no text")
        if table is CHECKPOINTS and self._without:
            for channel, version in jsontext.members(row[5], "channel_versions").items():
                if (*row[:2], channel, jsontext.text_of(version)) in self._without:
                    return Refused(
                        shown(row[: table.key]), f"the value of its channel {shown((channel,))} is not there"
                    )
        return None

    async def _deliver(self, table: Table, rows: list[Row]) -> None:
        """Write rows in a transaction, and compare what is there with them once it is committed."""
        written: set[Row] = set()
        async with self._conn.transaction():
            await self._conn.execute(BEGIN)
            rows = await self._own(table, rows)
            if rows and not self.report.dry_run:
                cursor = self._conn.cursor(row_factory=tuple_row)
                await cursor.execute(sql.SQL(table.insert), table.arrays(rows))
                written = set(await cursor.fetchall())
        if not rows:
            return
        if table is VALUES and not self.report.dry_run:
            await self._holder.execute(_HOLD, (sorted({row[0] for row in rows}),))
        cursor = self._conn.cursor(row_factory=tuple_row)
        await cursor.execute(sql.SQL(table.look), table.arrays([row[: table.key] for row in rows]))
        there = {found[:-1]: found[-1] async for found in cursor}
        for row in rows:
            key = row[: table.key]
            equal = there[key] == table.digest(row) if key in there else None
            if table is VALUES and not equal and not (self.report.dry_run and equal is None):
                self._without.add(key)
            self.report.settle(table.kind, shown(key), written=key in written, equal=equal)

    async def _own(self, table: Table, rows: list[Row]) -> list[Row]:
        """The rows whose threads are the owner's, in the transaction that writes them; the threads that are not there are made."""
        ids = sorted({row[0] for row in rows})
        if not self.report.dry_run:
            await self._conn.execute(_MAKE_THREADS, {"owner": self._owner, "ids": ids})
        cursor = await self._conn.execute(_OWNERS, (ids,))
        owners = {row["id"]: row["owner_id"] for row in await cursor.fetchall()}
        cursor = await self._conn.execute(_OWNERLESS, ([id for id in ids if id not in owners],))
        owners |= {row["id"]: None for row in await cursor.fetchall()}
        mine = []
        for row in rows:
            id = row[0]
            if owners.get(id, self._owner) == self._owner:
                mine.append(row)
                continue
            self.report.of(table.kind).refused += 1
            if id not in self._foreign:
                self._foreign.add(id)
                why = (
                    "belongs to another owner"
                    if owners[id]
                    else "has no owner; `storage-service assign-owner` gives it one"
                )
                self.report.tell(f"refused: thread {shown((id,))}: here it {why}")
        return mine
