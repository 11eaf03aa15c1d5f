"""Deleting what has outlived its time, as SQL.

Any number of processes do it at once. A row that one has chosen is locked by it, and the others pass it over (SKIP LOCKED), so that each
is deleted once and nobody waits; what a call is at work on is passed over as well. What the choice rests on is looked at again behind the
locks, where nothing changes it any more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from psycopg import Rollback

from storage_service.store.postgres.adapt import Texts
from storage_service.store.postgres.checkpoint_reads import Arg, versions
from storage_service.store.postgres.checkpoints import Checkpoints, pruning
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.rows import Statement, Values
from storage_service.store.postgres.threads import RUN_IN_FLIGHT
from storage_service.store.retention import (
    AGAIN_SECONDS,
    MOST_ROWS,
    QUIET_SECONDS,
    TIMED_ID,
    Swept,
    id_before,
    in_use_until,
)
from storage_service.store.tables import CHECKPOINT_BLOBS, CHECKPOINTS, ITEMS, THREAD_STATES, THREADS

#: Takes the turn of work that is done once in so many seconds; gives no row where it is not due.
CLAIM = (
    "INSERT INTO langgraph_server.sweeps AS s (name, began_at) VALUES ($1, now()) ON CONFLICT (name) DO UPDATE SET began_at = now()"
    " WHERE s.began_at <= now() - make_interval(secs => $2::float8) RETURNING true"
)
# One thread may have more to delete than a call would have the time for.
_WITHOUT_TIMEOUT: Statement = ("SET LOCAL statement_timeout = 0", Values())


class Retention(Checkpoints):
    """The named operations of retention, and what tells beforehand what they would do."""

    # Threads.

    async def sweep_threads(self, limit: int, thread_id: str = "") -> Swept:
        async def work(transaction: Transaction) -> Swept:
            given = {"limit": limit, "thread_id": thread_id}
            chosen = (await transaction.run_all([_WITHOUT_TIMEOUT, self.write(_choosing, given, bool(thread_id))]))[1]
            if not chosen:
                return Counter()
            rows = await transaction.run(*self._looking([id for (id,) in chosen]))
            await transaction.run_all(self._ending(rows))
            return Counter(map(_verdict, rows))

        return await self.atomic(work)

    async def expired_threads(self, thread_ids: Sequence[str]) -> dict[str, str]:
        """What :meth:`sweep_threads` would do with those of these threads whose time is over."""
        rows = await self.run(*self._looking(thread_ids), again=True, slow=True)
        return {row[0]: _verdict(row) for row in rows}

    def _looking(self, thread_ids: Sequence[str]) -> Statement:
        return self.write(_looking, {"thread_ids": Texts(thread_ids)})

    def _ending(self, rows: Sequence[Row]) -> list[Statement]:
        """The statements that end the time of threads that are locked."""
        of: dict[str, list[str]] = {"threads": [], "pruned": [], "renewed": []}
        for row in rows:
            of[_verdict(row)].append(row[0])
        ends = [_until(row) for row in rows if _until(row) is not None]
        return [
            self.deletion(of["threads"]),
            (_KEEPING, Values((of["pruned"], AGAIN_SECONDS))),
            *(self.write(pruning, {"thread_id": id}) for id in of["pruned"]),
            (_RENEWING, Values((of["renewed"], ends))),
        ]

    # Items.

    async def sweep_items(self, limit: int) -> Swept:
        rows = await self.run(*self.write(_sweeping_items, {"limit": limit}), slow=True)
        return Counter(items=rows[0][0])

    async def expired_items(self) -> int:
        """How many items :meth:`sweep_items` would delete in the end."""
        return await self.number(*self.write(_counting_items, {}), again=True, slow=True)

    # Checkpoints.

    async def sweep_checkpoints(self, thread_ids: Sequence[str], before: str, *, dry_run: bool = False) -> Swept:
        given: dict[str, Any] = {
            "thread_ids": Texts(thread_ids),
            "before": before,
            "quiet": id_before(time.time() - QUIET_SECONDS),
            # What is undone in the end need not be done in small parts.
            "limit": 2**31 if dry_run else MOST_ROWS,
        }
        swept: Swept = Counter()
        for thread_id, is_old, has_unused in await self.run(
            *self.write(_searching, given, bool(before)), again=True, slow=True
        ):
            given["thread_id"] = thread_id
            if is_old:
                swept["checkpoints"] += await self._in_parts(_locking, self.write(pruning, given, True), given, dry_run)
            if has_unused:
                swept["blobs"] += await self._in_parts(_locking_quiet, self.write(_collecting, given), given, dry_run)
        return swept

    async def _in_parts(
        self, lock: Callable[..., str], statement: Statement, given: dict[str, Any], dry_run: bool
    ) -> int:
        """Run a statement again and again, behind a lock that is to be had at once, until it deletes less than it may; says how many."""
        deleted = part = 0

        async def work(transaction: Transaction) -> None:
            nonlocal part
            part = 0
            if await transaction.run(*self.write(lock, given)):
                part = int((await transaction.run(*statement))[0][0])
            if dry_run:
                raise Rollback

        while True:
            await self.atomic(work)
            deleted += part
            if part < given["limit"]:
                return deleted


def _until(row: Row) -> float | None:
    """Until when a thread is in use that _looking gave, or None."""
    _, _, minutes, now, checkpoint_id, ts = row
    return in_use_until(now, minutes, checkpoint_id or "", ts)


def _verdict(row: Row) -> str:
    """What becomes of a thread that _looking gave."""
    if _until(row) is not None:
        return "renewed"
    return "pruned" if row[1] == "keep_latest" else "threads"


# A thread that somebody is at work on is not swept; nor one with a status that a newer version may have given it.
_LEFT_ALONE = f"threads.status IN ('idle', 'interrupted', 'error') AND NOT {RUN_IN_FLIGHT}"
_OVER = f"threads.expires_at <= now() AND (threads.ttl).strategy IN ('delete', 'keep_latest') AND {_LEFT_ALONE}"


def _choosing(own: str, arg: Arg, is_named: bool) -> str:
    named = f" AND threads.id = {arg('thread_id')}" if is_named else ""
    return (
        f"SELECT threads.id FROM {THREADS.name} WHERE {own} AND {_OVER}{named}"
        f" ORDER BY threads.expires_at LIMIT {arg('limit')} FOR UPDATE SKIP LOCKED"
    )


def _looking(own: str, arg: Arg) -> str:
    """Gives of threads whose time is over what tells whether they are in use all the same: their newest checkpoint."""
    return (
        f"SELECT threads.id, (threads.ttl).strategy, (threads.ttl).minutes, extract(epoch FROM now())::float8,"
        f" newest.checkpoint_id, newest.ts FROM {THREADS.name} LEFT JOIN LATERAL (SELECT c.checkpoint_id, c.checkpoint ->> 'ts' AS ts"
        # All that the thread has: an index in the order of ids would lead through those of other threads.
        f" FROM (SELECT checkpoint_id, checkpoint FROM {CHECKPOINTS.name} WHERE thread_id = threads.id OFFSET 0) AS c"
        " ORDER BY c.checkpoint_id DESC LIMIT 1) AS newest ON true"
        f" WHERE threads.id = ANY ({arg('thread_ids')}::text[]) AND {own} AND {_OVER}"
    )


_KEEPING = (
    f"WITH kept AS (UPDATE {THREADS.name} SET expires_at = now() + make_interval(secs => greatest((ttl).minutes * 60, $2::float8))"
    f" WHERE id = ANY ($1::text[]) RETURNING id) DELETE FROM {THREAD_STATES.name} AS s USING kept WHERE s.thread_id = kept.id"
    f" AND s.id < (SELECT max(n.id) FROM {THREAD_STATES.name} AS n WHERE n.thread_id = kept.id)"
)
_RENEWING = (
    f"UPDATE {THREADS.name} SET expires_at = to_timestamp(u.until)"
    " FROM unnest($1::text[], $2::float8[]) AS u (id, until) WHERE threads.id = u.id"
)


def _sweeping_items(own: str, arg: Arg) -> str:
    return (
        f"WITH gone AS (DELETE FROM {ITEMS.name} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {ITEMS.name}"
        f" WHERE expires_at <= now() AND {own} LIMIT {arg('limit')} FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"
    )


def _counting_items(own: str, arg: Arg) -> str:
    return f"SELECT count(*) FROM {ITEMS.name} WHERE expires_at <= now() AND {own}"


def _searching(own: str, arg: Arg, by_age: bool) -> str:
    """Gives those of threads that have checkpoints that may be too old, or values that no checkpoint uses, and which of both."""
    old = "false"
    if by_age:
        old = (
            f"EXISTS (SELECT FROM {CHECKPOINTS.name} AS c WHERE c.thread_id = threads.id AND c.checkpoint_id < {arg('before')}"
            f" AND c.checkpoint_id ~ '{TIMED_ID}' AND EXISTS (SELECT FROM {CHECKPOINTS.name} AS n WHERE n.thread_id = c.thread_id"
            " AND n.checkpoint_ns = c.checkpoint_ns AND n.checkpoint_id > c.checkpoint_id))"
        )
    unused = f"CASE WHEN {_quiet(arg)} THEN EXISTS ({_unused('threads.id')}) ELSE false END"
    return (
        f"SELECT threads.id, found.* FROM {THREADS.name} CROSS JOIN LATERAL"
        f" (SELECT {old} AS old, {unused} AS unused WHERE {_LEFT_ALONE} OFFSET 0) AS found"
        f" WHERE threads.id = ANY ({arg('thread_ids')}::text[]) AND {own} AND (found.old OR found.unused)"
    )


def _locking(own: str, arg: Arg, condition: str = "true", strength: str = "NO KEY UPDATE") -> str:
    # Puts go on meanwhile: what they write follows the newest checkpoint, which stays.
    return (
        f"SELECT threads.id FROM {THREADS.name} WHERE threads.id = {arg('thread_id')} AND {own} AND {_LEFT_ALONE}"
        f" AND {condition} FOR {strength} SKIP LOCKED"
    )


def _locking_quiet(own: str, arg: Arg) -> str:
    # A put would find a value there and not keep it again.
    return _locking(own, arg, _quiet(arg), "UPDATE")


def _quiet(arg: Arg) -> str:
    """Whether nothing of a thread has changed for a while. What comes ahead of its checkpoint changes the thread's row."""
    return (
        f"(threads.updated_at < now() - interval '{QUIET_SECONDS:g} seconds' AND NOT EXISTS (SELECT FROM {CHECKPOINTS.name} AS q"
        f" WHERE q.thread_id = threads.id AND q.checkpoint_id >= {arg('quiet')}))"
    )


def _unused(thread: str) -> str:
    """The values of a thread that none of its checkpoints uses."""
    return (
        f"SELECT b.checkpoint_ns, b.channel, b.version FROM {CHECKPOINT_BLOBS.name} AS b WHERE b.thread_id = {thread}"
        f" EXCEPT SELECT c.checkpoint_ns, v.key, v.value FROM {CHECKPOINTS.name} AS c CROSS JOIN LATERAL {versions('c')} AS v"
        f" WHERE c.thread_id = {thread}"
    )


def _collecting(own: str, arg: Arg) -> str:
    thread = f"(SELECT threads.id FROM {THREADS.name} WHERE threads.id = {arg('thread_id')} AND {own})"
    return (
        f"WITH unused AS ({_unused(thread)} LIMIT {arg('limit')}), gone AS (DELETE FROM {CHECKPOINT_BLOBS.name} AS b"
        f" USING unused AS u WHERE b.thread_id = {thread} AND b.checkpoint_ns = u.checkpoint_ns"
        " AND b.channel = u.channel AND b.version = u.version RETURNING 1) SELECT count(*) FROM gone"
    )
