"""Deleting what has outlived its time, as SQL.

Any number of processes do it at once. A row that one is at work on is locked by it, and the others pass it over (SKIP LOCKED), so that each
is deleted once and nobody waits; what a call is at work on is passed over as well. What the choice rests on is looked at again behind the
locks, where nothing changes it any more. A transaction deletes so many rows, or one thread that has more; between two of them nothing needs
to be remembered, so that who is killed has left only what the next one goes on with.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from psycopg import Rollback

from storage_service.store.postgres.adapt import Texts
from storage_service.store.postgres.checkpoint_reads import Arg, versions
from storage_service.store.postgres.checkpoints import Checkpoints, pruning
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.rows import WITHOUT_TIMEOUT, Statement, Values
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
from storage_service.store.tables import (
    CHECKPOINT_BLOBS,
    CHECKPOINTS,
    CRONS,
    ITEMS,
    LANGGRAPH_TABLES,
    RUNS,
    THREAD_STATES,
    THREADS,
    Table,
)

#: Takes the turn of work that is done once in so many seconds; gives no row where it is not due.
CLAIM = (
    "INSERT INTO langgraph_server.sweeps AS s (name, began_at) VALUES ($1, now()) ON CONFLICT (name) DO UPDATE SET began_at = now()"
    " WHERE s.began_at <= now() - make_interval(secs => $2::float8) RETURNING true"
)


class Retention(Checkpoints):
    """The named operations of retention, and what tells beforehand what they would do."""

    # Threads.

    async def sweep_threads(self, limit: int, thread_id: str = "") -> Swept:
        choose = self.write(_choosing, {"limit": limit, "thread_id": thread_id}, bool(thread_id))
        chosen = await self.run(*choose, slow=True)
        if not chosen:
            return Counter()
        # Where another took all of them, or none is done with yet, there are more all the same.
        swept: Swept = Counter(threads=0)
        pruned = [id for id, strategy in chosen if strategy == "keep_latest"]
        deleted = Texts(id for id, strategy in chosen if strategy != "keep_latest")
        sizes = await self.run(*self.write(_sizing, {"thread_ids": deleted}), again=True, slow=True) if deleted else []
        for thread_ids in _together(sizes):
            swept.update(await self._delete_expired(thread_ids))
        for id in pruned:
            swept.update(await self._prune_expired(id))
        return swept

    async def _delete_expired(self, thread_ids: Sequence[str]) -> Swept:
        """Delete those of threads whose time is still over, each as a whole: who comes back finds all of it or nothing."""

        async def work(transaction: Transaction) -> Swept:
            lock = self.write(_locking_expired, {"thread_ids": Texts(thread_ids)})
            locked = (await transaction.run_all([WITHOUT_TIMEOUT, lock]))[1]
            if not locked:
                return Counter()
            rows = await transaction.run(*self._looking([id for (id,) in locked]))
            deleted = [row[0] for row in rows if _verdict(row) == "threads"]
            renewed = [row for row in rows if _verdict(row) == "renewed"]
            await transaction.run_all([self.deletion(deleted), _renewing(renewed)])
            return Counter(threads=len(deleted), renewed=len(renewed))

        return await self.atomic(work)

    async def _prune_expired(self, thread_id: str) -> Swept:
        """Delete a part of what is not the newest of a thread whose time is still over; says that it is pruned with the last part."""

        async def work(transaction: Transaction) -> Swept:
            # Puts go on meanwhile: what they write follows the newest checkpoint, which stays.
            lock = self.write(_locking_expired, {"thread_ids": Texts([thread_id])}, True)
            _, locked, rows = await transaction.run_all([WITHOUT_TIMEOUT, lock, self._looking([thread_id])])
            if not locked or not rows or _verdict(rows[0]) == "threads":
                return Counter()
            if _verdict(rows[0]) == "renewed":
                await transaction.run(*_renewing(rows))
                return Counter(renewed=1)
            newest = rows[0][4]
            # Text that is greater than the newest id and all others, by any collation.
            given = {"thread_id": thread_id, "limit": MOST_ROWS, "before": f"{newest}z" if newest else ""}
            parts = await transaction.run_all([self.write(pruning, given, True), self.write(_forgetting, given)])
            if any(part[0][0] >= MOST_ROWS for part in parts):
                return Counter()
            await transaction.run(_KEEPING, Values((thread_id, AGAIN_SECONDS)))
            return Counter(pruned=1)

        return await self.atomic(work)

    async def expired_threads(self, thread_ids: Sequence[str]) -> dict[str, str]:
        """What :meth:`sweep_threads` would do with those of these threads whose time is over."""
        rows = await self.run(*self._looking(thread_ids), again=True, slow=True)
        return {row[0]: _verdict(row) for row in rows}

    def _looking(self, thread_ids: Sequence[str]) -> Statement:
        return self.write(_looking, {"thread_ids": Texts(thread_ids)})

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
                swept["checkpoints"] += await self._in_parts(
                    _locking, self.write(pruning, given, True, True), given, dry_run
                )
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


def _together(sizes: Iterable[Row]) -> Iterator[list[str]]:
    """The threads of _sizing, those together that have few enough rows in all, and a large one alone."""
    together: list[str] = []
    rows = 0
    for id, size in sizes:
        if together and rows + size > MOST_ROWS:
            yield together
            together, rows = [], 0
        together.append(id)
        rows += size
    if together:
        yield together


def _renewing(rows: Sequence[Row]) -> Statement:
    """The statement that says of threads that _looking gave until when they are in use."""
    return _RENEWING, Values(([row[0] for row in rows], [_until(row) for row in rows]))


# A thread that somebody is at work on is not swept; nor one with a status that a newer version may have given it.
_LEFT_ALONE = f"threads.status IN ('idle', 'interrupted', 'error') AND NOT {RUN_IN_FLIGHT}"
_OVER = f"threads.expires_at <= now() AND (threads.ttl).strategy IN ('delete', 'keep_latest') AND {_LEFT_ALONE}"


def _choosing(own: str, arg: Arg, is_named: bool) -> str:
    named = f" AND threads.id = {arg('thread_id')}" if is_named else ""
    # The locks end with the statement: they only pass over what others are at work on.
    return (
        f"SELECT threads.id, (threads.ttl).strategy FROM {THREADS.name} WHERE {own} AND {_OVER}{named}"
        f" ORDER BY threads.expires_at LIMIT {arg('limit')} FOR UPDATE SKIP LOCKED"
    )


def _sizing(own: str, arg: Arg) -> str:
    """Gives threads and how many rows go with each."""
    sizes = "".join(f" + (SELECT count(*) FROM {table.name} WHERE thread_id = threads.id)" for table in _GOING)
    return f"SELECT threads.id, 1{sizes} FROM {THREADS.name} WHERE threads.id = ANY ({arg('thread_ids')}::text[]) AND {own}"


_GOING: tuple[Table[Any], ...] = (THREAD_STATES, RUNS, CRONS, *LANGGRAPH_TABLES)


def _locking_expired(own: str, arg: Arg, is_kept: bool = False) -> str:
    strength = "NO KEY UPDATE" if is_kept else "UPDATE"
    return (
        f"SELECT threads.id FROM {THREADS.name} WHERE threads.id = ANY ({arg('thread_ids')}::text[]) AND {own} AND {_OVER}"
        f" FOR {strength} SKIP LOCKED"
    )


def _looking(own: str, arg: Arg) -> str:
    """Gives of threads whose time is over what tells whether they are in use all the same: their newest checkpoint."""
    return (
        f"SELECT threads.id, (threads.ttl).strategy, (threads.ttl).minutes, extract(epoch FROM now())::float8,"
        f" newest.checkpoint_id, (SELECT c.checkpoint ->> 'ts' FROM {CHECKPOINTS.name} AS c WHERE c.thread_id = threads.id"
        " AND c.checkpoint_ns = newest.checkpoint_ns AND c.checkpoint_id = newest.checkpoint_id)"
        f" FROM {THREADS.name} LEFT JOIN LATERAL (SELECT c.checkpoint_ns, c.checkpoint_id"
        # All that the thread has: an index in the order of ids would lead through those of other threads.
        f" FROM (SELECT checkpoint_ns, checkpoint_id FROM {CHECKPOINTS.name} WHERE thread_id = threads.id OFFSET 0) AS c"
        " ORDER BY c.checkpoint_id DESC LIMIT 1) AS newest ON true"
        f" WHERE threads.id = ANY ({arg('thread_ids')}::text[]) AND {own} AND {_OVER}"
    )


def _forgetting(own: str, arg: Arg) -> str:
    """Deletes states of a thread that are not the newest, so many at most."""
    thread = f"(SELECT threads.id FROM {THREADS.name} WHERE threads.id = {arg('thread_id')} AND {own})"
    return (
        f"WITH gone AS (DELETE FROM {THREAD_STATES.name} WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM {THREAD_STATES.name} AS s"
        f" WHERE s.thread_id = {thread} AND s.id < (SELECT max(n.id) FROM {THREAD_STATES.name} AS n WHERE n.thread_id = {thread})"
        f" LIMIT {arg('limit')})) RETURNING 1) SELECT count(*) FROM gone"
    )


_KEEPING = f"UPDATE {THREADS.name} SET expires_at = now() + make_interval(secs => greatest((ttl).minutes * 60, $2::float8)) WHERE id = $1"
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
