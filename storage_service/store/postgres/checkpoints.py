"""LangGraph's checkpoints, in LangGraph's own tables: writing, copying and deleting them, as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from storage_service.errors import NotFound, ParentMismatch
from storage_service.store import Access
from storage_service.store.checkpoints import EMPTY, Put, Superstep, Writes
from storage_service.store.postgres.adapt import Blobs, Integers, Texts
from storage_service.store.postgres.checkpoint_reads import (
    OWNER,
    Arg,
    CheckpointReads,
    first,
    kept_blob,
    lacking,
    sends_of,
    versions,
    writes_of,
)
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.rows import Statement
from storage_service.store.postgres.threads import CHECKPOINT_COLUMNS
from storage_service.store.retention import TIMED_ID
from storage_service.store.tables import (
    CHECKPOINT_BLOBS,
    CHECKPOINT_WRITES,
    CHECKPOINTS,
    LANGGRAPH_TABLES,
    RUNS,
    THREADS,
)
from storage_service.store.where import Equals, OneOf

_KEY = '"thread_id", "checkpoint_ns", "checkpoint_id"'
# How often a thread may be deleted under a call that writes to it.
_TRIES: Final = 5


class Checkpoints(CheckpointReads):
    """The named operations on checkpoints."""

    # Writing.

    async def write_checkpoints(self, superstep: Superstep) -> None:
        put = superstep.put
        given: dict[str, Any] = {"thread_id": superstep.thread_id, "ttl": self.default_ttl}
        is_expecting = put is not None and put.HasField("expected_parent_id")
        if put is not None:
            given |= _put_values(put)
        if superstep.writes:
            given |= _write_values(superstep.writes)
        how = (bool(put and put.checkpoint), bool(put and put.channels), bool(superstep.writes), is_expecting)
        statement = self.write(_writing, given, *how)
        if is_expecting or superstep.changes_thread:
            await self.atomic(lambda transaction: self._commit(transaction, superstep, statement))
            return
        await self._written(superstep.thread_id, statement)

    async def _written(self, thread_id: str, statement: Statement, *, slow: bool = False) -> list[Row]:
        """Run a statement that writes to a thread and gives its rows, none when it may not. Raises NotFound."""
        for _ in range(_TRIES):
            if rows := await self.run(*statement, slow=slow):
                return rows
            # One that waited while the thread was deleted has seen checkpoints that are gone now, and found the id taken.
            may_write = await self.run(*self.write(_may_write, {"thread_id": thread_id}), reads=True)
            if not may_write[0][0]:
                break
        raise NotFound("thread", thread_id)

    async def _commit(self, transaction: Transaction, superstep: Superstep, statement: Statement) -> None:
        """Write behind a lock of the thread, so that what is expected holds until the end, and change the thread."""
        thread_id = superstep.thread_id
        statements = [
            self.write(_making, {"thread_id": thread_id, "ttl": self.default_ttl}),
            self.lock(THREADS, [Equals("thread_id", thread_id)], Access.OWN, "NO KEY UPDATE"),
            statement,
        ]
        if superstep.changes_thread:
            statements.append(self.change_of_thread(thread_id, superstep.status, [], superstep.changes))
        rows = (await transaction.run_all(statements))[2]
        if not rows:
            raise NotFound("thread", thread_id)
        is_newest, newest = rows[0]
        if not is_newest:
            raise ParentMismatch(newest)

    async def copy_checkpoints(self, thread_id: str, new_id: str) -> int:
        given = {"thread_id": new_id, "source": thread_id, "ttl": self.default_ttl}
        rows = await self._written(new_id, self.write(_copying, given), slow=True)
        return int(rows[0][0])

    # Deleting. What is written meanwhile waits behind the threads' locks, so that what it presumes is not deleted under it.

    async def delete_checkpoints(self, thread_ids: Sequence[str]) -> int:
        own = [OneOf("thread_id", tuple(thread_ids))]
        statement, values = self.write(_deleting, {"thread_ids": Texts(thread_ids)})
        rows = await self.behind_locks([self.lock(THREADS, own, Access.OWN)], statement, values)
        return int(rows[0][0])

    async def delete_run_checkpoints(self, run_ids: Sequence[str]) -> int:
        given = {"run_ids": Texts(run_ids)}
        rows = await self.behind_locks([self.write(_locking_runs, given)], *self.write(deleting_runs, given))
        return int(rows[0][0])

    async def prune_checkpoints(self, thread_ids: Sequence[str]) -> int:
        deleted = 0
        # A transaction for each thread, which may have much to delete.
        for thread_id in dict.fromkeys(thread_ids):
            # Runs go on meanwhile: what they write follows the newest checkpoint, which stays.
            lock = self.lock(THREADS, [Equals("thread_id", thread_id)], Access.OWN, "NO KEY UPDATE")
            rows = await self.behind_locks([lock], *self.write(pruning, {"thread_id": thread_id}))
            deleted += int(rows[0][0])
        return deleted


def _put_values(put: Put) -> dict[str, Any]:
    channels = put.channels
    return {
        "checkpoint_ns": put.checkpoint_ns,
        "checkpoint_id": put.checkpoint_id,
        "parent_checkpoint_id": put.parent_checkpoint_id or None,
        "checkpoint": put.checkpoint,
        "metadata": put.metadata or "{}",
        "expected_parent_id": put.expected_parent_id,
        "channels": Texts(value.channel for value in channels),
        "versions": Texts(value.version for value in channels),
        "channel_types": Texts(value.type for value in channels),
        "channel_values": Blobs(None if value.type == EMPTY else value.value for value in channels),
    }


def _write_values(groups: Sequence[Writes]) -> dict[str, Any]:
    writes = [write for group in groups for write in group.writes]
    return {
        "namespaces": Texts(group.checkpoint_ns for group in groups),
        "checkpoint_ids": Texts(group.checkpoint_id for group in groups),
        "groups": Integers(place for place, group in enumerate(groups, 1) for _ in group.writes),
        "task_ids": Texts(write.task_id for write in writes),
        "task_paths": Texts(write.task_path for write in writes),
        "indexes": Integers(write.index for write in writes),
        "write_channels": Texts(write.channel for write in writes),
        "write_types": Texts(write.type for write in writes),
        "write_values": Blobs(write.value for write in writes),
    }


# The statements that write: the arrays of channels and of writes, by the names of their values.
_CHANNELS = {"channels": "text", "versions": "text", "channel_types": "text", "channel_values": "bytea"}
_WRITES = {
    "groups": "int4",
    "task_ids": "text",
    "indexes": "int4",
    "write_channels": "text",
    "write_types": "text",
    "write_values": "bytea",
    "task_paths": "text",
}


def _new_thread(own: str, arg: Arg, condition: str = "true") -> str:
    """What inserts the thread's row; an owner's only where no checkpoints have the id already."""
    thread, metadata, free = arg("thread_id"), "'{}'::jsonb", ""
    if own != "true":
        metadata, free = f"jsonb_build_object('owner', {OWNER}::text)", f" AND NOT {THREADS.taken.format(thread)}"
    ttl = THREADS.columns["ttl"].write.format(arg("ttl"))
    return f'INSERT INTO {THREADS.name} ("id", "metadata", "ttl") SELECT {thread}, {metadata}, {ttl} WHERE {condition}{free}'


def _may_write(own: str, arg: Arg) -> str:
    """Whether a thread is the owner's, or the id is free."""
    thread = arg("thread_id")
    free = "true" if own == "true" else f"NOT {THREADS.taken.format(thread)}"
    return f'SELECT coalesce((SELECT ({own}) IS TRUE FROM {THREADS.name} WHERE "id" = {thread}), {free})'


def _making(own: str, arg: Arg) -> str:
    """Makes the thread where there is none."""
    return f'{_new_thread(own, arg)} ON CONFLICT ("id") DO NOTHING'


def _own_thread(own: str, arg: Arg, name: str = "thread") -> str:
    """The WITH queries that give the id of an own thread, made where there is none; no row for another's.

    The thread's row is not deleted before this is committed, so that a deletion that comes after it finds what it wrote.
    """
    thread = arg("thread_id")
    return (
        f'found AS (SELECT "id" FROM {THREADS.name} WHERE "id" = {thread} AND {own} FOR KEY SHARE),'
        # A row that another call makes meanwhile is not seen by this statement; an update that leaves it as it is gives it all the same.
        f" made AS ({_new_thread(own, arg, 'NOT EXISTS (SELECT FROM found)')}"
        ' ON CONFLICT ("id") DO UPDATE SET "metadata" = "threads"."metadata"'
        f' WHERE {_of("threads", own)} RETURNING "id"),'
        f' {name} AS (SELECT "id" FROM found UNION ALL SELECT "id" FROM made)'
    )


def _writing(own: str, arg: Arg, has_checkpoint: bool, has_channels: bool, has_writes: bool, is_expecting: bool) -> str:
    """Writes rows of a thread. Gives no row for another's thread; else one, that says whether the newest checkpoint is the expected one."""
    thread = arg("thread_id")
    parts = [_own_thread(own, arg, "own" if is_expecting else "thread")]
    answer = "SELECT true, '' FROM thread"
    if is_expecting:
        of = f'FROM {CHECKPOINTS.name} WHERE "thread_id" = {thread} AND "checkpoint_ns" = {arg("checkpoint_ns")}'
        parts += [
            f'newest AS (SELECT coalesce((SELECT "checkpoint_id" {of} ORDER BY "checkpoint_id" DESC LIMIT 1), \'\') AS id)',
            f'thread AS (SELECT own."id" FROM own, newest WHERE newest.id = {arg("expected_parent_id")}'
            f' OR EXISTS (SELECT {of} AND "checkpoint_id" = {arg("checkpoint_id")}))',
        ]
        answer = "SELECT EXISTS (SELECT FROM thread), newest.id FROM own, newest"
    if has_channels:
        parts.append(
            f'blobs AS (INSERT INTO {CHECKPOINT_BLOBS.name} ("thread_id", "checkpoint_ns", "channel", "version", "type", "blob")'
            f' SELECT thread."id", {arg("checkpoint_ns")}, v.* FROM thread, {_unnest(arg, _CHANNELS)} AS v ON CONFLICT DO NOTHING)'
        )
    if has_checkpoint:
        terms = ", ".join(arg(name) for name in ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id"))
        parts.append(
            f'put AS (INSERT INTO {CHECKPOINTS.name} ({_KEY}, "parent_checkpoint_id", "checkpoint", "metadata")'
            f' SELECT "id", {terms}, {arg("checkpoint")}::jsonb, {arg("metadata")}::jsonb FROM thread'
            f' ON CONFLICT ({_KEY}) DO UPDATE SET "checkpoint" = EXCLUDED."checkpoint", "metadata" = EXCLUDED."metadata")'
        )
    if has_writes:
        columns = ("channel", "type", "blob", "task_path")
        parts.append(
            f'written AS (INSERT INTO {CHECKPOINT_WRITES.name} ({_KEY}, "task_id", "idx", "channel", "type", "blob", "task_path")'
            f' SELECT thread."id", ({arg("namespaces")}::text[])[w.place], ({arg("checkpoint_ids")}::text[])[w.place],'
            f" w.task_id, w.idx, w.channel, w.type, w.blob, w.task_path FROM thread, {_unnest(arg, _WRITES)}"
            f' AS w (place, task_id, idx, channel, type, blob, task_path) ON CONFLICT ({_KEY}, "task_id", "idx")'
            f' DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in columns)} WHERE EXCLUDED."idx" < 0)'
        )
    return f"WITH {', '.join(parts)} {answer}"


def _of(table: str, own: str) -> str:
    """The condition with its column of this table."""
    return own.replace('"owner_id"', f'"{table}"."owner_id"')


def _unnest(arg: Arg, arrays: dict[str, str]) -> str:
    return f"unnest({', '.join(f'{arg(name)}::{element}[]' for name, element in arrays.items())})"


# The statements that copy and delete.


def _copying(own: str, arg: Arg) -> str:
    source = f'(SELECT "id" FROM {THREADS.name} WHERE "id" = {arg("source")} AND {own})'
    parts = [_own_thread(own, arg)]
    for name, columns in CHECKPOINT_COLUMNS.items():
        parts.append(
            f'copied_{len(parts)} AS (INSERT INTO {name} ("thread_id", {columns}) SELECT thread."id", {columns}'
            f' FROM thread, {name} WHERE "thread_id" = {source} ON CONFLICT DO NOTHING RETURNING 1)'
        )
    return f"WITH {', '.join(parts)} SELECT (SELECT count(*) FROM copied_1) FROM thread"


def _deleting(own: str, arg: Arg) -> str:
    """Deletes all checkpoints of threads."""
    # As an array, the threads are looked up in the indexes, however many rows the tables have.
    of = f'= ANY (ARRAY(SELECT "id" FROM {THREADS.name} WHERE "id" = ANY ({arg("thread_ids")}::text[]) AND {own}))'
    parts = [
        f'gone_{place} AS (DELETE FROM {table.name} WHERE "thread_id" {of} RETURNING 1)'
        for place, table in enumerate(LANGGRAPH_TABLES)
    ]
    return f"WITH {', '.join(parts)} SELECT count(*) FROM gone_0"


def _of_runs(own: str, arg: Arg) -> str:
    run = "c.\"metadata\" ->> 'run_id'"
    runs = f"ANY ({arg('run_ids')}::text[])"
    return (
        f'{CHECKPOINTS.name} AS c JOIN {THREADS.name} AS t ON t."id" = c."thread_id" WHERE {_of("t", own)}'
        # The index holds the first characters.
        f' AND "left"({run}, 255) = {runs} AND {run} = {runs}'
    )


def _locking_runs(own: str, arg: Arg) -> str:
    threads = f'SELECT c."thread_id" FROM {_of_runs(own, arg)}'
    return f'SELECT FROM {THREADS.name} WHERE "id" IN ({threads}) ORDER BY "id" FOR UPDATE'


def deleting_runs(own: str, arg: Arg) -> str:
    """Deletes the checkpoints of runs, behind the locks of their threads, and gives their number."""
    chosen = f"ARRAY(SELECT c.ctid FROM {_of_runs(own, arg)})"
    return f"WITH {_gone(f'ctid = ANY ({chosen})')} SELECT count(*) FROM gone"


def undoing(run_ids: str) -> str:
    """Deletes the checkpoints that runs left in their own threads: those of a copy, and whatever else names the run, stay."""
    run = "c.\"metadata\" ->> 'run_id'"
    chosen = (
        f'SELECT c.ctid FROM {RUNS.name} AS r JOIN {THREADS.name} AS t ON t."id" = r."thread_id"'
        ' AND coalesce(r."owner_id", t."owner_id") IS NOT DISTINCT FROM t."owner_id"'
        f' JOIN {CHECKPOINTS.name} AS c ON c."thread_id" = t."id"'
        f' AND "left"({run}, 255) = "left"(r."id", 255) AND {run} = r."id" WHERE r."id" = ANY ({run_ids}::text[])'
    )
    return f"WITH {_gone(f'ctid = ANY (ARRAY({chosen}))')} SELECT count(*) FROM gone"


def _gone(condition: str) -> str:
    """The WITH queries that delete checkpoints, their writes, and the values that only they use. Those found are named by their places."""
    blob = " AND ".join(f'x."{name}" = f."{name}"' for name in ("thread_id", "checkpoint_ns", "channel", "version"))
    return (
        f'gone AS (DELETE FROM {CHECKPOINTS.name} WHERE {condition} RETURNING {_KEY}, "checkpoint"),'
        f' freed ("thread_id", "checkpoint_ns", "channel", "version") AS (SELECT c."thread_id", c."checkpoint_ns", v.key, v.value'
        f" FROM gone AS c CROSS JOIN LATERAL {versions('c')} AS v"
        f' EXCEPT SELECT c."thread_id", c."checkpoint_ns", v.key, v.value'
        f' FROM (SELECT DISTINCT "thread_id" FROM gone) AS n CROSS JOIN LATERAL'
        f' (SELECT * FROM {CHECKPOINTS.name} AS x WHERE x."thread_id" = n."thread_id"'
        f' AND (x."thread_id", x."checkpoint_ns", x."checkpoint_id") NOT IN (SELECT {_KEY} FROM gone) OFFSET 0) AS c'
        f" CROSS JOIN LATERAL {versions('c')} AS v),"
        f" gone_blobs AS (DELETE FROM {CHECKPOINT_BLOBS.name} WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM freed AS f"
        f" CROSS JOIN LATERAL (SELECT ctid FROM {CHECKPOINT_BLOBS.name} AS x WHERE {blob} LIMIT 1) AS x))),"
        f" gone_writes AS (DELETE FROM {CHECKPOINT_WRITES.name} WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM gone AS c"
        f" CROSS JOIN LATERAL (SELECT ctid FROM {writes_of('c')} OFFSET 0) AS x)))"
    )


def pruning(own: str, arg: Arg, in_parts: bool = False, by_age: bool = False) -> str:
    """Deletes of a thread all checkpoints but the newest of each namespace and those that these are read from.

    In parts, only those go whose ids are before a given one, so many at most, and those that later ones are read from stay. The newest go
    first, so that what is left between two parts reads as before: its ancestors are there, and a parent's id goes with the parent. The
    checkpoint that the call of a subgraph began from goes after the call, which is found by it. By age, ids that tell no time stay.

    Which channels are delta channels shows in what LangGraph keeps: the steps since a snapshot in the metadata, or a snapshot, which is an
    inline true beside bytes, as a plain true never is. LangGraph.js only marks the thread: there, any channel may be one.
    """
    rows = f'"thread_id" = (SELECT "id" FROM {THREADS.name} WHERE "id" = {arg("thread_id")} AND {own})'
    counters = "\"metadata\" -> 'counters_since_delta_snapshot'"
    inlined = "\"checkpoint\" -> 'channel_values'"
    began = "\"metadata\" -> 'parents' ->> ''"
    root = f"{CHECKPOINTS.name} AS c WHERE {rows} AND c.checkpoint_ns = '' AND c.checkpoint_id = h.{began}"

    def old(id: str) -> str:
        if not in_parts:
            return "true"
        return f"({id} < {arg('before')}" + (f" AND {id} ~ '{TIMED_ID}')" if by_age else ")")

    chosen = f"{rows} AND {old('checkpoint_id')} AND (checkpoint_ns, checkpoint_id) NOT IN (SELECT checkpoint_ns, checkpoint_id FROM kept)"
    later = done = cut = ""
    if in_parts:
        order = "ORDER BY checkpoint_ns = '', checkpoint_id DESC"
        chosen = f"ctid = ANY (ARRAY(SELECT ctid FROM {CHECKPOINTS.name} WHERE {chosen} {order} LIMIT {arg('limit')}))"
        # Of those that are not old the first ones, since what the others are read from is theirs or not old; and those that the calls of
        # subgraphs began from which are not old.
        later = (
            f" UNION ALL SELECT * FROM {CHECKPOINTS.name} AS c WHERE {rows} AND ((NOT {old('checkpoint_id')}"
            f" AND (parent_checkpoint_id IS NULL OR {old('parent_checkpoint_id')})) OR (checkpoint_ns = '' AND EXISTS (SELECT"
            f" FROM heads AS h WHERE strpos(h.checkpoint_ns, ':') > 0 AND NOT {old('h.checkpoint_id')} AND c.checkpoint_id = h.{began})))"
        )
        done = f" AND (SELECT count(*) FROM gone) < {arg('limit')}"
        parent = "(checkpoint_ns, parent_checkpoint_id)"
        cut = f" AND (true{done} OR {parent} IN (SELECT checkpoint_ns, checkpoint_id FROM gone))"
    return (
        f"WITH RECURSIVE heads AS (SELECT DISTINCT ON (checkpoint_ns) * FROM {CHECKPOINTS.name} WHERE {rows}"
        f" ORDER BY checkpoint_ns DESC, checkpoint_id DESC), tops AS (SELECT * FROM heads{later}),"
        f" delta AS MATERIALIZED (SELECT c.checkpoint_ns, k AS channel FROM {CHECKPOINTS.name} AS c CROSS JOIN LATERAL"
        f" jsonb_object_keys(CASE jsonb_typeof(c.{counters}) WHEN 'object' THEN c.{counters} END) AS k WHERE {rows}"
        f" UNION SELECT c.checkpoint_ns, v.key FROM {CHECKPOINTS.name} AS c CROSS JOIN LATERAL"
        f" jsonb_each(CASE jsonb_typeof(c.{inlined}) WHEN 'object' THEN c.{inlined} END) AS v"
        f" WHERE {rows} AND v.value = 'true' AND {first(kept_blob('c', 'v.key'))}"
        f" UNION SELECT h.checkpoint_ns, v.key FROM (SELECT DISTINCT checkpoint_ns FROM {CHECKPOINTS.name} WHERE {rows}"
        " AND metadata -> 'delta_writes_versioned' IS NOT NULL) AS marked JOIN tops AS h ON h.checkpoint_ns = marked.checkpoint_ns"
        f" CROSS JOIN LATERAL {versions('h')} AS v),"
        # The newest ones, and one ancestor after the other, as long as there is a channel whose value it takes more to build.
        " chain AS (SELECT h.thread_id, h.checkpoint_ns, h.checkpoint_id, h.parent_checkpoint_id,"
        f" {lacking('h', _DELTA_OF_HEAD)} AS wanted FROM tops AS h"
        f" UNION ALL SELECT a.thread_id, a.checkpoint_ns, a.checkpoint_id, a.parent_checkpoint_id, {lacking('a', 'c.wanted')}"
        f" FROM chain AS c CROSS JOIN LATERAL (SELECT * FROM {CHECKPOINTS.name} AS p WHERE p.thread_id = c.thread_id"
        " AND p.checkpoint_ns = c.checkpoint_ns AND p.checkpoint_id = c.parent_checkpoint_id"
        " AND p.checkpoint_id < c.checkpoint_id LIMIT 1) AS a WHERE c.wanted <> '{}'),"
        " needed AS (SELECT checkpoint_ns, checkpoint_id FROM chain UNION SELECT h.checkpoint_ns, h.parent_checkpoint_id"
        f" FROM tops AS h WHERE {first(sends_of('h'))}),"
        # The namespace of a subgraph's call has a task's id after ":"; it goes with the checkpoint that the call began from.
        f" calls AS (SELECT h.checkpoint_ns FROM heads AS h WHERE strpos(h.checkpoint_ns, ':') > 0 AND {old('h.checkpoint_id')}"
        f" AND {first(root)}"
        f" AND {old(f'h.{began}')} AND ('', h.{began}) NOT IN (SELECT checkpoint_ns, checkpoint_id FROM needed)),"
        " kept AS (SELECT * FROM needed WHERE checkpoint_ns NOT IN (SELECT checkpoint_ns FROM calls)),"
        f" {_gone(chosen)},"
        + "".join(
            f" calls_{place} AS (DELETE FROM {table.name} WHERE {rows} AND checkpoint_ns IN (SELECT checkpoint_ns FROM calls){done}),"
            for place, table in enumerate(LANGGRAPH_TABLES[1:])
        )
        + f" cut AS (UPDATE {CHECKPOINTS.name} SET parent_checkpoint_id = NULL WHERE {rows} AND {old('parent_checkpoint_id')}{cut}"
        " AND ((checkpoint_ns, checkpoint_id) NOT IN (SELECT checkpoint_ns, checkpoint_id FROM kept)) IS NOT TRUE"
        " AND (checkpoint_ns, parent_checkpoint_id) NOT IN (SELECT checkpoint_ns, checkpoint_id FROM kept))"
        " SELECT count(*) FROM gone"
    )


# The delta channels of the checkpoint h that have a version there.
_DELTA_OF_HEAD = (
    "ARRAY(SELECT d.channel FROM delta AS d WHERE d.checkpoint_ns = h.checkpoint_ns"
    " AND jsonb_exists(h.checkpoint -> 'channel_versions', d.channel))"
)
