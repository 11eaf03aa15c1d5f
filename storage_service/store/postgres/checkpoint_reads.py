"""Reading LangGraph's checkpoints, as SQL.

A checkpoint is its thread's, and every statement asks the thread's row whose it is. Statements that are sent often are written once. Rows
are looked up by primary keys, one by one (LATERAL with LIMIT or OFFSET): a join would be planned for threads of average size, and read all
of a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from agentstorage.v1 import checkpoints_pb2 as pb
from storage_service.errors import LimitReached
from storage_service.store import Access
from storage_service.store.checkpoints import (
    CHANNEL,
    EMPTY,
    SEND,
    SENDS_KEPT,
    TASKS,
    WRITE,
    Listed,
    Place,
    ValuePlace,
)
from storage_service.store.postgres.adapt import Texts
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.rows import Statement, Values
from storage_service.store.postgres.threads import Threads
from storage_service.store.tables import CHECKPOINT_BLOBS, CHECKPOINT_WRITES, CHECKPOINTS, THREADS
from storage_service.store.where import Where

# Binds a value by its name and gives its place.
Arg = Callable[[str], str]


class Names(list[str]):
    """The names of the values of a statement, after so many that come before; calling it gives a value's place."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self._before = before

    def __call__(self, name: str) -> str:
        if name not in self:
            self.append(name)
        return f"${self._before + self.index(name) + 1}"


# Statements that were written, by what they follow from.
_WRITTEN: dict[tuple[Any, ...], tuple[str, Names]] = {}
#: The owner, where a statement is an owner's: the first of its values.
OWNER = "$1"


class CheckpointReads(Threads):
    """The named operations that read checkpoints."""

    def write(self, build: Callable[..., str], given: Mapping[str, Any], *how: bool) -> Statement:
        """The statement that ``build`` makes of the condition that a thread is the scope's, of names for values, and of ``how``."""
        values = Values()
        own = self.visible(THREADS, Access.OWN, values)
        key = (build, own, *how)
        if key not in _WRITTEN:
            names = Names(len(values))
            _WRITTEN[key] = build(own, names, *how), names
        statement, names = _WRITTEN[key]
        values += [given[name] for name in names]
        return statement, values

    async def get_checkpoint(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, most_bytes: int
    ) -> pb.Checkpoint | None:
        given = {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint_ns,
            "checkpoint_id": checkpoint_id,
            "most_bytes": most_bytes,
        }
        statement, values = self.write(_getting, given, bool(checkpoint_id))
        rows = await self.run(statement, values, reads=True)
        if not rows:
            return None
        if rows[0][-1] > most_bytes:
            raise LimitReached("the checkpoint is larger than a message; ListCheckpoints gives it in parts")
        return _checkpoints(rows)[0]

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
        values = Values()
        threads = f'SELECT "id" FROM {THREADS.name} WHERE {self.visible(THREADS, Access.OWN, values)}'
        if thread_id:
            thread = values(thread_id)
            terms = [f'"thread_id" = {thread}', f'EXISTS ({threads} AND "id" = {thread})']
        else:
            # As an array, the threads are looked up in the index, however many rows the table has.
            terms = [f'"thread_id" = ANY (ARRAY({threads}))']
        terms += (term.sql(CHECKPOINTS, values) for term in where)
        if after is not None:
            id, thread, namespace = map(values, after)
            # The first of these is for the index.
            terms.append(f'"checkpoint_id" <= {id}')
            terms.append(f'("checkpoint_id", "thread_id", "checkpoint_ns") < ({id}, {thread}, {namespace})')
        order = 'ORDER BY "checkpoint_id" DESC, "thread_id" DESC, "checkpoint_ns" DESC'
        heads = (
            f"SELECT row_number() OVER ({order}) AS n, * FROM {CHECKPOINTS.name} WHERE {' AND '.join(terms)}"
            f" {order} LIMIT {values(limit)}"
        )
        statement = _reading(heads, "ORDER BY n", values(most_bytes), summary=summary)
        rows = await self.run(statement, values, again=True, slow=True)
        found = _checkpoints(rows)
        sizes = [row[-1] for row in rows if row[0] == 1]
        return [
            Listed(checkpoint, bool(place) or summary or sizes[0] <= most_bytes)
            for place, checkpoint in enumerate(found)
        ]

    async def checkpoint_values(
        self, place: Place, after: ValuePlace, most_bytes: int
    ) -> tuple[pb.Checkpoint, ValuePlace | None]:
        given = place._asdict() | after._asdict() | {"most_bytes": most_bytes}
        rows = await self.run(*self.write(_reading_values, given), again=True, slow=True)
        checkpoint = pb.Checkpoint()
        ordered = sorted(rows, key=_ORDER)
        for row in ordered:
            _add_value(checkpoint, row)
        if not ordered or ordered[-1][-1] == len(ordered):
            return checkpoint, None
        _, *last = _ORDER(ordered[-1])
        return checkpoint, ValuePlace(*last)

    async def delta_history(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, channels: Sequence[str], most_bytes: int
    ) -> list[pb.DeltaChannelHistory] | None:
        given = {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint_ns,
            "checkpoint_id": checkpoint_id,
            "channels": Texts(dict.fromkeys(channels)),
            "most_bytes": most_bytes,
        }
        statement, values = self.write(_reading_history, given, bool(checkpoint_id))
        rows = await self.run(statement, values, again=True, slow=True)
        if not rows:
            return None
        if rows[0][-1] > most_bytes:
            raise LimitReached("the history is larger than a message; ask for fewer channels")
        found = {channel: pb.DeltaChannelHistory(channel=channel) for channel in channels}
        for _, kind, first, second, channel, type_, index, value, json, _, _ in sorted(rows, key=_ORDER):
            if kind == WRITE:
                found[channel].writes.add(
                    task_path=first, task_id=second, channel=channel, type=type_ or "", index=index, value=value
                )
            elif kind == CHANNEL and json is not None:
                found[channel].json = json
            elif kind == CHANNEL:
                found[channel].value.CopyFrom(
                    pb.ChannelValue(channel=channel, version=second, type=type_, value=value or b"")
                )
        return [found[channel] for channel in channels]


# Rows of checkpoints: a checkpoint itself, which is of kind 0, and its values. n is the number of the checkpoint, or the distance to one.
_ROW = "n, kind, first, second, channel, type, idx, blob, more, checkpoint_ns"
_ORDER = itemgetter(0, 1, 2, 3, 6)
# With what surrounds a value in a message.
_SIZE = (
    "octet_length(first) + octet_length(second) + octet_length(channel) + coalesce(octet_length(type), 0)"
    " + coalesce(octet_length(blob), 0) + coalesce(octet_length(more), 0) + 32"
)


def versions(row: str) -> str:
    """The channels and versions of a checkpoint, as rows of texts."""
    object = f"""{row}."checkpoint" -> 'channel_versions'"""
    return f"jsonb_each_text(CASE jsonb_typeof({object}) WHEN 'object' THEN {object} END)"


def blob_of(row: str, channel: str, version: str) -> str:
    """The kept value of a channel of a checkpoint, as FROM takes it; add LIMIT 1."""
    return (
        f'{CHECKPOINT_BLOBS.name} WHERE "thread_id" = {row}."thread_id" AND "checkpoint_ns" = {row}."checkpoint_ns"'
        f' AND "channel" = {channel} AND "version" = {version}'
    )


def writes_of(row: str, checkpoint_id: str = "checkpoint_id") -> str:
    """The writes for a checkpoint, or for its parent, as FROM takes them."""
    return (
        f'{CHECKPOINT_WRITES.name} WHERE "thread_id" = {row}."thread_id" AND "checkpoint_ns" = {row}."checkpoint_ns"'
        f' AND "checkpoint_id" = {row}."{checkpoint_id}"'
    )


def sends_of(row: str) -> str:
    """What the tasks of a checkpoint's parent sent, as FROM takes it, where the checkpoint does not keep it itself."""
    form = f"""{row}."checkpoint" -> 'v'"""
    return (
        f"{writes_of(row, 'parent_checkpoint_id')} AND \"channel\" = '{TASKS}'"
        f" AND {form} >= '0' AND {form} < '{SENDS_KEPT}'"
    )


def inline(row: str, channel: str) -> str:
    """The value of a channel that is JSON in the checkpoint; NULL for none."""
    return f"""nullif({row}."checkpoint" -> 'channel_values' -> {channel}, 'null'::jsonb)"""


def kept_blob(row: str, channel: str) -> str:
    """The value of a channel that is bytes beside the checkpoint, as FROM takes it."""
    version = f"""({row}."checkpoint" -> 'channel_versions' ->> {channel})"""
    return f"{blob_of(row, channel, version)} AND \"type\" <> '{EMPTY}'"


def first(rows: str) -> str:
    """Whether there are such rows: true, or NULL. EXISTS would become a join."""
    return f"(SELECT true FROM {rows} LIMIT 1)"


def lacking(row: str, channels: str) -> str:
    """Those of an array of channels that a checkpoint keeps no value of."""
    return (
        f"ARRAY(SELECT x FROM unnest({channels}) AS x WHERE {inline(row, 'x')} IS NULL"
        f" AND {first(kept_blob(row, 'x'))} IS NULL)"
    )


def _reading(heads: str, order: str, most: str, *, summary: bool = False) -> str:
    """Reads the checkpoints that ``heads`` finds, numbered by n from 1, with their values, as far as they have no more bytes together.

    The last column is the bytes up to a row's checkpoint, in the order of n. The first checkpoint itself always comes.
    """
    document = """"checkpoint" - 'channel_values'""" if summary else '"checkpoint"'
    rows = (
        f'SELECT n, 0, ({document})::text, "metadata"::text, "checkpoint_id", "parent_checkpoint_id", 0, NULL::bytea,'
        f' "thread_id", "checkpoint_ns" FROM heads'
    )
    if not summary:
        rows += f" UNION ALL {_values()}"
    return (
        f"WITH heads AS ({heads}) SELECT * FROM (SELECT *, sum({_SIZE}) OVER ({order}) AS upto"
        f" FROM ({rows}) AS r ({_ROW})) AS s WHERE upto <= {most} OR (n = 1 AND kind = 0)"
    )


def _values() -> str:
    """The rows of the values of the checkpoints "heads"."""
    write = 'x."task_path", x."task_id", x."channel", x."type", x."idx", x."blob", NULL::text, NULL::text'
    return (
        f"""SELECT n, {CHANNEL}, v.key, v.value, '', x."type", 0, x."blob", NULL::text, NULL::text FROM heads AS c"""
        f" CROSS JOIN LATERAL {versions('c')} AS v"
        f" CROSS JOIN LATERAL (SELECT * FROM {blob_of('c', 'v.key', 'v.value')} LIMIT 1) AS x"
        f" UNION ALL SELECT n, {WRITE}, {write} FROM heads AS c"
        f" CROSS JOIN LATERAL (SELECT * FROM {writes_of('c')} OFFSET 0) AS x"
        f" UNION ALL SELECT n, {SEND}, {write} FROM heads AS c"
        f" CROSS JOIN LATERAL (SELECT * FROM {sends_of('c')} OFFSET 0) AS x"
    )


def _one(own: str, arg: Arg, is_named: bool) -> str:
    """The checkpoint, or the newest."""
    thread = arg("thread_id")
    named = f'AND "checkpoint_id" = {arg("checkpoint_id")}' if is_named else 'ORDER BY "checkpoint_id" DESC LIMIT 1'
    return (
        f'SELECT 1 AS n, * FROM {CHECKPOINTS.name} WHERE "thread_id" = {thread} AND "checkpoint_ns" = {arg("checkpoint_ns")}'
        f' AND EXISTS (SELECT FROM {THREADS.name} WHERE "id" = {thread} AND {own}) {named}'
    )


def _getting(own: str, arg: Arg, is_named: bool) -> str:
    return _reading(_one(own, arg, is_named), "", arg("most_bytes"))


def _reading_values(own: str, arg: Arg) -> str:
    """Reads values of a checkpoint after a place, one at least. The last column is how many there are."""
    place = 'kind, first COLLATE "C", second COLLATE "C", idx'
    after = ", ".join(f"{arg(name)}::{kind}" for name, kind in zip(ValuePlace._fields, _PLACE_TYPES, strict=True))
    return (
        f"WITH heads AS ({_one(own, arg, True)}) SELECT {_ROW}, whole FROM (SELECT *, sum({_SIZE}) OVER place AS upto,"
        f" row_number() OVER place AS number, count(*) OVER () AS whole FROM ({_values()}) AS r ({_ROW})"
        f" WHERE ({place}) > ({after}) WINDOW place AS (ORDER BY {place})) AS s"
        f" WHERE upto <= {arg('most_bytes')} OR number = 1"
    )


_PLACE_TYPES = ("int4", "text", "text", "int4")


def _reading_history(own: str, arg: Arg, is_named: bool) -> str:
    """Reads what channels are built from: n is how many steps an ancestor lies back, less than 0, so that the oldest comes first.

    An ancestor has a lesser id, so that no circle is walked. The last column is the bytes of all.
    """
    row = "NULL::text, NULL::text"
    write = f'x."task_path", x."task_id", x."channel", x."type", x."idx", x."blob", {row}'
    return (
        f"WITH RECURSIVE target AS ({_one(own, arg, is_named)}),"
        " chain AS (SELECT 0 AS n, thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint,"
        f" '{{}}'::text[] AS searched, {arg('channels')}::text[] AS wanted FROM target"
        " UNION ALL SELECT c.n - 1, a.thread_id, a.checkpoint_ns, a.checkpoint_id, a.parent_checkpoint_id, a.checkpoint,"
        f" c.wanted, {lacking('a', 'c.wanted')} FROM chain AS c CROSS JOIN LATERAL (SELECT * FROM {CHECKPOINTS.name} AS p"
        " WHERE p.thread_id = c.thread_id AND p.checkpoint_ns = c.checkpoint_ns AND p.checkpoint_id = c.parent_checkpoint_id"
        " AND p.checkpoint_id < c.checkpoint_id LIMIT 1) AS a WHERE c.wanted <> '{}'),"
        f" rows ({_ROW}) AS (SELECT 0, 0, '', '', '', '', 0, NULL::bytea, {row} FROM target"
        f""" UNION ALL SELECT n, {CHANNEL}, '', coalesce(x."version", ''), k, x."type", 0, x."blob","""
        f' CASE WHEN x."type" IS NULL THEN ({inline("c", "k")})::text END, NULL'
        f" FROM chain AS c CROSS JOIN LATERAL unnest(c.searched) AS k LEFT JOIN LATERAL"
        f" (SELECT * FROM {kept_blob('c', 'k')} LIMIT 1) AS x ON true WHERE k <> ALL (c.wanted)"
        f" UNION ALL SELECT n, {WRITE}, {write} FROM chain AS c CROSS JOIN LATERAL"
        f' (SELECT * FROM {writes_of("c")} AND "channel" = ANY (c.searched) OFFSET 0) AS x)'
        f" SELECT * FROM (SELECT *, sum({_SIZE}) OVER () AS upto FROM rows) AS s WHERE upto <= {arg('most_bytes')} OR kind = 0"
    )


def _checkpoints(rows: Iterable[Row]) -> list[pb.Checkpoint]:
    """The checkpoints of rows, in the order of their numbers."""
    found: list[pb.Checkpoint] = []
    for row in sorted(rows, key=_ORDER):
        _, kind, document, metadata, id, parent, _, _, thread_id, checkpoint_ns, _ = row
        if kind:
            _add_value(found[-1], row)
            continue
        found.append(
            pb.Checkpoint(
                thread_id=thread_id,
                checkpoint_ns=checkpoint_ns,
                checkpoint_id=id,
                parent_checkpoint_id=parent or "",
                checkpoint=document,
                metadata=metadata,
            )
        )
    return found


def _add_value(checkpoint: pb.Checkpoint, row: Row) -> None:
    _, kind, first, second, channel, type_, index, value, _, _, _ = row
    if kind == CHANNEL:
        checkpoint.channels.add(channel=first, version=second, type=type_, value=value or b"")
    else:
        (checkpoint.writes if kind == WRITE else checkpoint.parent_sends).add(
            task_path=first, task_id=second, channel=channel, type=type_ or "", index=index, value=value
        )
